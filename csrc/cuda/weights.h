// Integer sampling weights: rnr.h's fixed_point_exp2, bit for bit, in 32-bit instructions.
#pragma once

#include "elements.h"

namespace rnr::cuda {

// A sum of a thread's weights, as high * 2^kLowBits + low.
struct WeightParts {
  uint32_t high = 0, low = 0;
};

constexpr int kLowBits = 17;

// How a tile's logits become weights: exp2(x * scale - ceiling) in units of 2^-kFixedPointBits.
struct WeightScale {
  float scale;
  float ceiling;

  // `ceiling` of a tile without tokens is -inf, and its tokens weigh nothing.
  RNR_DEVICE WeightScale(float scale, float ceiling)
      : scale(scale), ceiling(ceiling == -INFINITY ? 0.0f : ceiling) {}

  RNR_DEVICE int64_t of(float x) const { return fixed_point_exp2(exponent_of(x), 0); }

  RNR_DEVICE int64_t total_of(const float (&x)[kColumns]) const {
    if (!(fabsf(ceiling) < kExponentClamp / 2)) {
      int64_t total = 0;
#pragma unroll
      for (int i = 0; i < kColumns; ++i) total += of(x[i]);
      return total;
    }
    // Far from the clamp: what lies below it weighs nothing either way.
    WeightParts sums;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) add(x[i], &sums);
    constexpr uint32_t kWholes = 0x4b000000u * static_cast<uint32_t>(kColumns);  // bits of kWhole
    return (static_cast<int64_t>(sums.high - kWholes) << kLowBits) + (sums.low - kWholes);
  }

 private:
  RNR_DEVICE float exponent_of(float x) const {
    return x > -INFINITY ? weight_exponent(x, scale) - ceiling : -INFINITY;
  }

  // Both sums take kWhole's bits along.
  RNR_DEVICE void add(float x, WeightParts* sums) const {
    // Below the last bit of a weight; a NaN too.
    const float exponent = fmaxf(x * scale - ceiling, -100.0f);
    const float shifted = add_down(exponent + 0.5f, kRounder);
    const float fraction = exponent - (shifted - kRounder);
    // The last bits of `shifted` are the integer, plus kFixedPointBits: added to the exponent.
    const float weight = float_of(bits_of(exp2_series(fraction)) + (bits_of(shifted) << 23));
    const float high = fma_down(weight, 1.0f / (1 << kLowBits), kWhole);
    const float rest = fmaf(high - kWhole, -static_cast<float>(1 << kLowBits), weight);
    sums->high += bits_of(high);
    sums->low += bits_of(add_down(rest, kWhole));
  }

  // 1.5 * 2^23: adding it rounds to integers, which stand in the last bits.
  static constexpr float kRounder = 12582912.0f + kFixedPointBits;
  static constexpr float kWhole = 8388608.0f;  // 2^23: adding it leaves integers in the low bits
};

// The sum over a warp of totals below 2^44, in all lanes.
RNR_DEVICE int64_t warp_sum(int64_t total) {
  const uint32_t high = static_cast<uint32_t>(total >> 22), low = total & 0x3fffff;
  return (static_cast<int64_t>(warp_add(high)) << 22) + warp_add(low);
}

}  // namespace rnr::cuda
