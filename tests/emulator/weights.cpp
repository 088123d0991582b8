// Compares the GPU's sums of sampling weights with the definition, number by number; prints the
// first difference.
#include "../../csrc/cuda/weights.h"

#include <cstdio>
#include <random>

using namespace rnr;
using namespace rnr::cuda;

namespace {

// What a single weight is by rnr.h.
int64_t definition(float x, float scale, float ceiling) {
  if (!(x > -INFINITY)) return 0;
  return fixed_point_exp2(weight_exponent(x, scale) - ceiling, 0);
}

bool agrees(const float (&x)[kColumns], float scale) {
  float top = -INFINITY;
  for (float value : x) top = fmaxf(top, value);
  const float ceiling = top > -INFINITY ? ceilf(weight_exponent(top, scale)) : -INFINITY;
  int64_t expected = 0;
  for (float value : x) expected += definition(value, scale, ceiling);
  const int64_t got = WeightScale(scale, ceiling).total_of(x);
  if (got == expected) return true;
  printf("scale %a, ceiling %a: %lld, not %lld\n", scale, ceiling, static_cast<long long>(got),
         static_cast<long long>(expected));
  for (float value : x) printf(" %a", value);
  printf("\n");
  return false;
}

}  // namespace

int main() {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
  float x[kColumns];
  // One number each, others banned: every distance that counts, in steps of 2^-12, from ceilings
  // that are exact and ones that are not.
  for (float top : {0.0f, 0.3f, 17.0f, -5.75f, 1000.25f}) {
    for (float distance = 0.0f; distance < 130.0f; distance += 0x1p-12f) {
      for (float& value : x) value = -INFINITY;
      x[0] = top;
      x[1] = top - distance;
      if (!agrees(x, 1.0f)) return 1;
    }
  }
  // Sixteen at random, on all scales; clamped ones too.
  for (int i = 0; i < 2'000'000; ++i) {
    const float spread = exp2f(40.0f * uniform(random) - 8.0f);
    const float offset = (uniform(random) - 0.5f) * exp2f(60.0f * uniform(random) - 20.0f);
    for (float& value : x) {
      value = uniform(random) < 0.1f ? -INFINITY : offset + spread * (uniform(random) - 0.5f);
    }
    if (!agrees(x, exp2f(6.0f * uniform(random) - 3.0f))) return 1;
  }
  return 0;
}
