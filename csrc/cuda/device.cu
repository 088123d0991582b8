// A device for launches, with torch's current stream on it.
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "launch.h"

namespace rnr::cuda {
namespace {

int attribute(cudaDeviceAttr name, int index) {
  int value;
  check(cudaDeviceGetAttribute(&value, name, index));
  return value;
}

// Torch's function that gives the current stream: in a library that CUDA builds of torch load, and
// that this one, which also serves without, is not linked to.
using CurrentStream = int (*)(int32_t index, void** stream);

CurrentStream current_stream() {
  void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  void* function = library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr;
  if (function == nullptr) throw std::runtime_error("this torch has no CUDA");
  return reinterpret_cast<CurrentStream>(function);
}

// What is asked of a device once.
struct Facts {
  int num_multiprocessors;
  bool has_clusters;

  explicit Facts(int index)
      : num_multiprocessors(attribute(cudaDevAttrMultiProcessorCount, index)),
        has_clusters(attribute(cudaDevAttrComputeCapabilityMajor, index) >= 9) {}
};

const Facts& facts_of(int index) {
  static std::mutex mutex;
  static std::map<int, Facts> known;
  const std::lock_guard<std::mutex> lock(mutex);
  return known.try_emplace(index, index).first->second;
}

}  // namespace

// Torch's guard restores what is current: a runtime that did would create contexts on devices which
// nobody uses.
Device use_device(int index) {
  static const CurrentStream stream_of = current_stream();
  const Facts& facts = facts_of(index);
  Device device = {index, facts.num_multiprocessors, facts.has_clusters, nullptr};
  if (stream_of(index, &device.stream) != 0) {
    throw std::runtime_error("torch has no current stream on device " + std::to_string(index));
  }
  int current;
  check(cudaGetDevice(&current));
  if (current != index) check(cudaSetDevice(index));
  return device;
}

std::string problem_of(int index) {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver / 1000 < CUDART_VERSION / 1000) {
    return "its kernels were built with CUDA " + std::to_string(CUDART_VERSION / 1000) +
           ", and the driver serves up to CUDA " + std::to_string(driver / 1000);
  }
  try {
    use_device(index);
  } catch (const std::exception& error) {
    return error.what();
  }
  const char* error = loading_error();
  return error == nullptr ? "" : std::string("its kernels do not load: ") + error;
}

}  // namespace rnr::cuda
