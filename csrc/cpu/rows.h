// What the CPU's kernels do with a row's errors.
#pragma once

#include "../rows.h"

namespace rnr::cpu {

static inline void set_error(int32_t* error, int bits) {
  if (bits != 0) __atomic_fetch_or(error, bits, __ATOMIC_RELAXED);
}

}  // namespace rnr::cpu
