// Launching kernels.
#pragma once

#include "device.h"
#include "kernels.h"

namespace rnr::cuda {

// The blocks of `num_rows` clusters of `cluster` blocks run kernel(params), with `shared` bytes of
// dynamic shared memory each. An error is thrown.
template <typename Params>
void launch(void (*kernel)(Params), const Params& params, int64_t num_rows, int cluster,
            int64_t shared, const Device& device);

// How many blocks serve a row of `tiles`: as many as it has fours of tiles, at most kMaxCluster.
// Set by the vocabulary alone where the order of sums depends on it.
inline int cluster_of(int64_t tiles, const Device& device) {
  int cluster = 1;
  while (device.has_clusters && cluster < kMaxCluster && 4 * cluster < tiles) cluster *= 2;
  return cluster;
}

// Calls f(T()) with the element type of a dtype.
template <typename Float32, typename BFloat16, typename Float16, typename F>
void with_dtype(DType dtype, F f) {
  if (dtype == DType::kFloat32) return f(Float32());
  if (dtype == DType::kBFloat16) return f(BFloat16());
  f(Float16());
}

}  // namespace rnr::cuda

#if defined(RNR_EMULATED)

namespace rnr::cuda {

template <typename Params>
void launch(void (*kernel)(Params), const Params& params, int64_t num_rows, int cluster,
            int64_t shared, const Device&) {
  emulator::run([&] { kernel(params); }, num_rows * cluster, cluster, shared);
}

}  // namespace rnr::cuda

#else

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace rnr::cuda {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

template <typename Params>
void launch(void (*kernel)(Params), const Params& params, int64_t num_rows, int cluster,
            int64_t shared, const Device& device) {
  constexpr int64_t kWithoutAsking = 48 * 1024;
  if (shared > kWithoutAsking) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared)));
  }
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = static_cast<unsigned>(num_rows * cluster);
  config.blockDim = kThreads;
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = static_cast<cudaStream_t>(device.stream);
  config.attrs = &attribute;
  config.numAttrs = cluster > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, params));
}

}  // namespace rnr::cuda

#endif
