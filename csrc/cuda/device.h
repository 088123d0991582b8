// What kernels ask of a GPU: threads, clusters, warps, and the few instructions that C++ has no
// words for. With RNR_EMULATED a CPU answers instead, thread by thread: for tests.
//
// A block has kThreads threads. Blocks of one cluster work on one row and see each other's shared
// memory; where a GPU has no clusters (before compute capability 9.0) each has one block.
#pragma once

#include "../rnr.h"

namespace rnr::cuda {

constexpr int kThreads = 256;
constexpr int kWarpSize = 32;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kMaxShared = 100 * 1024;  // bytes of shared memory a block
constexpr int kMaxCluster = 8;          // every GPU with clusters runs them up to this size

// Sixteen bytes, loaded and stored at once.
struct alignas(16) Words {
  uint32_t at[4];
};

}  // namespace rnr::cuda

#if defined(RNR_EMULATED)
#include "emulator.h"
#else

#define RNR_KERNEL __global__ void __launch_bounds__(rnr::cuda::kThreads, 2)
#define RNR_PARAMS(type) const __grid_constant__ type
#define RNR_DEVICE __device__ __forceinline__

namespace rnr::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

RNR_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
RNR_DEVICE int lane_index() { return static_cast<int>(threadIdx.x % kWarpSize); }
RNR_DEVICE int warp_index() { return static_cast<int>(threadIdx.x / kWarpSize); }
RNR_DEVICE int64_t block_index() { return blockIdx.x; }

// 16-byte aligned, of the size given at the launch.
RNR_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

RNR_DEVICE void sync_block() { __syncthreads(); }
// Whether any thread of the block says so.
RNR_DEVICE bool sync_block_or(bool value) { return __syncthreads_or(value) != 0; }

#if __CUDA_ARCH__ >= 900
RNR_DEVICE int cluster_size() {
  uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return static_cast<int>(size);
}
RNR_DEVICE int cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
// Every thread of the cluster arrives, then waits for all; what was written before is seen after.
RNR_DEVICE void arrive_cluster() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
RNR_DEVICE void wait_cluster() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
// Arrives too, but hands nothing over: a block says that it is there.
RNR_DEVICE void announce_block() { asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory"); }
// The same variable in the shared memory of another block of the cluster.
template <typename T>
RNR_DEVICE T* remote(T* variable, int rank) {
  uint64_t address;
  asm("mapa.u64 %0, %1, %2;"
      : "=l"(address)
      : "l"(reinterpret_cast<uint64_t>(variable)), "r"(rank));
  return reinterpret_cast<T*>(address);
}
#else
RNR_DEVICE int cluster_size() { return 1; }
RNR_DEVICE int cluster_rank() { return 0; }
RNR_DEVICE void arrive_cluster() {}
RNR_DEVICE void announce_block() {}
RNR_DEVICE void wait_cluster() { __syncthreads(); }
template <typename T>
RNR_DEVICE T* remote(T* variable, int) {
  return variable;
}
#endif
RNR_DEVICE void sync_cluster() {
  arrive_cluster();
  wait_cluster();
}

template <typename T>
RNR_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
template <typename T>
RNR_DEVICE T shuffle_up(T value, int distance) {
  return __shfl_up_sync(kAllLanes, value, distance);
}
template <typename T>
RNR_DEVICE T shuffle_from(T value, int lane) {
  return __shfl_sync(kAllLanes, value, lane);
}
RNR_DEVICE uint32_t ballot(bool value) { return __ballot_sync(kAllLanes, value); }
RNR_DEVICE uint32_t warp_add(uint32_t value) { return __reduce_add_sync(kAllLanes, value); }
RNR_DEVICE uint32_t warp_max(uint32_t value) { return __reduce_max_sync(kAllLanes, value); }
RNR_DEVICE uint32_t warp_min(uint32_t value) { return __reduce_min_sync(kAllLanes, value); }

RNR_DEVICE void atomic_or(int32_t* address, int32_t bits) { atomicOr(address, bits); }
RNR_DEVICE void atomic_or(uint32_t* address, uint32_t bits) { atomicOr(address, bits); }
RNR_DEVICE void atomic_min(int32_t* address, int32_t value) { atomicMin(address, value); }
RNR_DEVICE void atomic_min(uint32_t* address, uint32_t value) { atomicMin(address, value); }
RNR_DEVICE uint32_t atomic_add(uint32_t* address, uint32_t value) {
  return atomicAdd(address, value);
}

// For data that is not read again soon.
RNR_DEVICE void store_streaming(Words* address, const Words& words) {
  __stcs(reinterpret_cast<uint4*>(address),
         make_uint4(words.at[0], words.at[1], words.at[2], words.at[3]));
}
RNR_DEVICE void store_streaming(float* address, float value) { __stcs(address, value); }

// 2^x, 0 below 2^-126: one instruction.
RNR_DEVICE float fast_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
// NaN if either is.
RNR_DEVICE float max_with_nan(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
RNR_DEVICE float add_down(float a, float b) { return __fadd_rd(a, b); }
RNR_DEVICE float fma_down(float a, float b, float c) { return __fmaf_rd(a, b, c); }
RNR_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
RNR_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
RNR_DEVICE float half_to_float(uint16_t bits) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
  return result;
}
RNR_DEVICE uint16_t float_to_half(float x) {
  uint16_t result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(x));
  return result;
}
RNR_DEVICE int count_trailing_zeros(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }

}  // namespace rnr::cuda

#endif
