// A GPU on the CPU, for tests: what csrc/cuda/device.h asks for, thread by thread.
//
// Threads of a cluster are coroutines of one thread of the host. One runs until it waits for
// others, at a barrier or in an exchange within its warp; then the next one does, in one launch
// forwards, in the next one backwards: what lacks a barrier goes wrong in one of the two. Shared
// memory begins as garbage, and is garbage again when its block's threads have returned.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define RNR_KERNEL static void
#define RNR_PARAMS(type) const type
#define RNR_DEVICE inline

namespace rnr::cuda {
namespace emulator {

// The thread that runs now.
struct Thread {
  int index, rank, cluster;
  int64_t block;
  unsigned char* shared;
};

const Thread& current();
// Wait for all threads of the block, the cluster (in two steps) or the warp that have not returned.
void sync_block();
void sync_warp();
void arrive_cluster();
void wait_cluster();
// 8 bytes for each lane of the warp, kept until the next call; all lanes must give the same
// `place`.
uint64_t* exchange(uint64_t value, const void* place);
bool any_in_block(bool value);
// The same place in the shared memory of another block of the cluster.
void* remote(void* address, int rank);
void run(const std::function<void()>& kernel, int64_t blocks, int cluster, int64_t shared);

}  // namespace emulator

inline int thread_index() { return emulator::current().index; }
inline int lane_index() { return thread_index() % kWarpSize; }
inline int warp_index() { return thread_index() / kWarpSize; }
inline int64_t block_index() { return emulator::current().block; }
inline int cluster_size() { return emulator::current().cluster; }
inline int cluster_rank() { return emulator::current().rank; }
inline unsigned char* shared_memory() { return emulator::current().shared; }

inline void sync_block() { emulator::sync_block(); }
inline bool sync_block_or(bool value) { return emulator::any_in_block(value); }
inline void arrive_cluster() { emulator::arrive_cluster(); }
inline void announce_block() { emulator::arrive_cluster(); }
inline void wait_cluster() { emulator::wait_cluster(); }
inline void sync_cluster() {
  arrive_cluster();
  wait_cluster();
}
template <typename T>
T* remote(T* variable, int rank) {
  return static_cast<T*>(emulator::remote(const_cast<std::remove_const_t<T>*>(variable), rank));
}

// A value of each lane, handed to f(values) in every lane.
template <typename T, typename F>
auto over_warp(T value, F f) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t word = 0;
  memcpy(&word, &value, sizeof(T));
  static const char place = 0;  // one for each kind of exchange
  const uint64_t* words = emulator::exchange(word, &place);
  T values[kWarpSize];
  for (int lane = 0; lane < kWarpSize; ++lane) memcpy(&values[lane], &words[lane], sizeof(T));
  return f(values);
}
template <typename T>
T shuffle_xor(T value, int mask) {
  return over_warp(value, [=](const T* all) { return all[lane_index() ^ mask]; });
}
template <typename T>
T shuffle_up(T value, int distance) {
  const int lane = lane_index();
  return over_warp(value,
                   [=](const T* all) { return all[lane < distance ? lane : lane - distance]; });
}
template <typename T>
T shuffle_from(T value, int lane) {
  return over_warp(value, [=](const T* all) { return all[lane]; });
}
inline uint32_t ballot(bool value) {
  return over_warp(value, [](const bool* all) {
    uint32_t bits = 0;
    for (int lane = 0; lane < kWarpSize; ++lane) bits |= uint32_t{all[lane]} << lane;
    return bits;
  });
}
template <typename F>
uint32_t fold_warp(uint32_t value, F f) {
  return over_warp(value, [&](const uint32_t* all) {
    uint32_t result = all[0];
    for (int lane = 1; lane < kWarpSize; ++lane) result = f(result, all[lane]);
    return result;
  });
}
inline uint32_t warp_add(uint32_t value) {
  return fold_warp(value, [](uint32_t a, uint32_t b) { return a + b; });
}
inline uint32_t warp_max(uint32_t value) {
  return fold_warp(value, [](uint32_t a, uint32_t b) { return a > b ? a : b; });
}
inline uint32_t warp_min(uint32_t value) {
  return fold_warp(value, [](uint32_t a, uint32_t b) { return a < b ? a : b; });
}

// Coroutines take turns nowhere in between.
inline void atomic_or(int32_t* address, int32_t bits) { *address |= bits; }
inline void atomic_or(uint32_t* address, uint32_t bits) { *address |= bits; }
inline void atomic_min(int32_t* address, int32_t value) {
  if (value < *address) *address = value;
}
inline void atomic_min(uint32_t* address, uint32_t value) {
  if (value < *address) *address = value;
}
inline uint32_t atomic_add(uint32_t* address, uint32_t value) {
  const uint32_t before = *address;
  *address = before + value;
  return before;
}

inline void store_streaming(Words* address, const Words& words) { *address = words; }
inline void store_streaming(float* address, float value) { *address = value; }

inline float fast_exp2(float x) {
  const float result = exp2f(x);
  return result < 0x1p-126f ? 0.0f : result;
}
inline float max_with_nan(float a, float b) { return a != a || b != b ? NAN : fmaxf(a, b); }
inline float rounded_down(double x) {
  const float nearest = static_cast<float>(x);
  return nearest > x ? nextafterf(nearest, -INFINITY) : nearest;
}
// Exact in double where kernels use them.
inline float add_down(float a, float b) { return rounded_down(static_cast<double>(a) + b); }
inline float fma_down(float a, float b, float c) {
  return rounded_down(static_cast<double>(a) * b + c);
}
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
inline float half_to_float(uint16_t bits) {
  _Float16 half;
  memcpy(&half, &bits, sizeof(half));
  return static_cast<float>(half);
}
inline uint16_t float_to_half(float x) {
  const _Float16 half = static_cast<_Float16>(x);
  uint16_t bits;
  memcpy(&bits, &half, sizeof(bits));
  return bits;
}
inline int count_trailing_zeros(uint32_t bits) { return __builtin_ctz(bits); }

}  // namespace rnr::cuda
