// Reductions over a warp or a block, in one order.
#pragma once

#include "device.h"

namespace rnr::cuda {

// Ints in the order of their floats, the larger the greater; 0 is below all of them.
RNR_DEVICE uint32_t key_of(float x) {
  const uint32_t bits = bits_of(x);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

RNR_DEVICE float value_of(uint32_t key) {
  return float_of(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
}

// Of numbers; in all lanes.
RNR_DEVICE float warp_max(float x) { return value_of(warp_max(key_of(x))); }

template <typename T>
RNR_DEVICE T warp_total(T value) {
#pragma unroll
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value = value + shuffle_xor(value, mask);
  return value;
}

// Sums of the lanes up to this one.
template <typename T>
RNR_DEVICE T warp_scan(T value) {
#pragma unroll
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const T before = shuffle_up(value, distance);
    if (lane_index() >= distance) value = value + before;
  }
  return value;
}

constexpr float kLog2E = 1.44269504088896340736f;

// exp(x - y) by one approximation; x <= y.
RNR_DEVICE float exp_of_difference(float x, float y) { return fast_exp2((x - y) * kLog2E); }

// A sum of exp(x - top), and of exp(x - top) (x - top), that rises with the largest x.
struct OnlineSum {
  float top = -INFINITY, total = 0.0f, weighted = 0.0f;

  // Terms are taken from here: any number where there is none yet.
  RNR_DEVICE float shift() const { return top == -INFINITY ? 0.0f : top; }

  RNR_DEVICE void raise(float to) {
    if (!(to > top)) return;
    const float gap = top == -INFINITY ? 0.0f : top - to;
    const float factor = exp_of_difference(gap, 0.0f);
    // A huge gap times 0 might be no number.
    weighted = factor > 0.0f ? (weighted + total * gap) * factor : 0.0f;
    total = total * factor;
    top = to;
  }
};

// Brings a warp's sums to its largest top and adds them up; in all lanes.
RNR_DEVICE OnlineSum warp_sum(OnlineSum sum) {
  sum.raise(warp_max(sum.top));
  sum.total = warp_total(sum.total);
  sum.weighted = warp_total(sum.weighted);
  return sum;
}

}  // namespace rnr::cuda
