// Which of the compiled instruction sets this processor runs.
#include "kernels.h"

namespace rnr::cpu {

#if defined(__x86_64__)
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#endif
#if defined(__aarch64__)
namespace neon {
extern const Kernels kernels;
}
#else
namespace portable {
extern const Kernels kernels;
}
#endif

namespace {

struct Supported {
  const Kernels* tables[3];
  int count = 0;

  Supported() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    // What the flags of setup.py allow the compiler to use, set by set.
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                          __builtin_cpu_supports("f16c") && __builtin_cpu_supports("popcnt") &&
                          __builtin_cpu_supports("bmi2");
    const bool has_avx512 =
        has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (has_avx512) tables[count++] = &avx512::kernels;
    if (has_avx2) tables[count++] = &avx2::kernels;
#endif
#if defined(__aarch64__)
    tables[count++] = &neon::kernels;
#else
    tables[count++] = &portable::kernels;
#endif
  }
};

}  // namespace

const Kernels* const* supported(int* count) {
  static const Supported found;
  *count = found.count;
  return found.tables;
}

}  // namespace rnr::cpu
