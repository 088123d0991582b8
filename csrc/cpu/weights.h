// Integer sampling weights, sixteen at a time: rnr.h's fixed_point_exp2, bit for bit.
#pragma once

#include "adjusted_row.h"

namespace rnr::cpu::RNR_ISA {

// Sixteen weights as two unsigned numbers each, high * 2^17 + low; a tile's sums fit 32 bits.
struct WeightLanes {
  Ints high, low;
};

constexpr int kLowBits = 17;

// How logits become weights: exp2(x * scale - ceiling) in units of 2^-(40 - shift).
struct WeightScale {
  float scale;
  float ceiling;
  int shift;

  RNR_INLINE WeightLanes of(Floats x) const {
    Floats exponent = x * splat(scale);
    // Where the ceiling is far from the clamp, what lies below it weighs nothing either way.
    if (__builtin_expect(!(fabsf(ceiling) < kExponentClamp / 2), 0))
      exponent = clamped(exponent, x);
    exponent = exponent - splat(ceiling);
    const Floats whole = floor(exponent + splat(0.5f));
    const Floats power = whole + splat(kRounder + static_cast<float>(kFixedPointBits - shift));
    // Smaller weights are 0, and their powers might not be floats.
    const Floats weight = scaled_exp2(exponent > splat(-42.0f), exponent - whole, bits_of(power));
    const Ints high = truncate(weight * splat(1.0f / (1 << kLowBits)));
    const Floats rest = fma(to_float(high), splat(-static_cast<float>(1 << kLowBits)), weight);
    return {high, truncate(rest)};
  }

 private:
  // A product may be -inf, only a banned token weighs nothing.
  static Floats clamped(Floats exponent, Floats x) {
    const Floats least = splat(-kExponentClamp), most = splat(kExponentClamp);
    return select(x > splat(-INFINITY), min(max(exponent, least), most), x);
  }
};

RNR_INLINE int64_t weight_of(int32_t high, int32_t low) {
  // By multiplication: scales of any bits may have made it negative.
  return static_cast<int64_t>(high) * (1 << kLowBits) + low;
}

struct WeightSum {
  Ints high = splat_int(0), low = splat_int(0);

  RNR_INLINE void add(WeightLanes weights) {
    high = high + weights.high;
    low = low + weights.low;
  }

  RNR_INLINE int64_t total() const { return (sum_unsigned(high) << kLowBits) + sum_unsigned(low); }
};

}  // namespace rnr::cpu::RNR_ISA
