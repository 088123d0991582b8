// Exponentials and logarithms, the same bits on every instruction set.
#pragma once

#include "../rnr.h"
#include "simd.h"

namespace rnr::cpu::RNR_ISA {

constexpr float kLog2E = 1.44269504088896341f;
// Terms this far below the largest are below 2^-124 of it and count as 0.
constexpr float kNegligible = -86.0f;
// Adding it to |x| < 2^22 rounds x to an integer, which then stands in the low bits.
constexpr float kRounder = 12582912.0f;

// 2^f * 2^n where the mask is set, else 0; f in [-1/2, 1/2], n in the low bits of `rounded`, and
// the result is a normal number.
RNR_INLINE Floats scaled_exp2(Mask mask, Floats f, Ints rounded) {
  Floats series = splat(kExp2Coefficients[0]);
  for (int i = 1; i < 5; ++i) series = fma(series, f, splat(kExp2Coefficients[i]));
  series = fma(series, f, splat(1.0f));
  return from_bits(keep_sum(mask, bits_of(series), shift_left<23>(rounded)));
}

// exp(d) for d in [kNegligible, 86] where the mask is set, else 0; relative error 2e-7 near 0,
// and 1.3e-8 more with each nat.
RNR_INLINE Floats exp_where(Mask mask, Floats d) {
  const Floats rounded = fma(d, splat(kLog2E), splat(kRounder));
  const Floats whole = rounded - splat(kRounder);
  return scaled_exp2(mask, fms(d, splat(kLog2E), whole), bits_of(rounded));
}

// The same for four.
RNR_INLINE Quad exp_where(const Four<Mask>& masks, const Quad& d) {
#if defined(RNR_PARTS)
  // There are too few registers to take turns.
  return each([](Mask m, Floats x) RNR_INLINE_LAMBDA { return exp_where(m, x); }, masks, d);
#else
  const Quad rounded =
      each([](Floats x) RNR_INLINE_LAMBDA { return fma(x, splat(kLog2E), splat(kRounder)); }, d);
  const Quad f = each([](Floats x, Floats r)
                          RNR_INLINE_LAMBDA { return fms(x, splat(kLog2E), r - splat(kRounder)); },
                      d, rounded);
  Quad series = splat_quad(kExp2Coefficients[0]);
#pragma GCC unroll 5
  for (int i = 1; i < 6; ++i) {
    const Floats next = splat(i < 5 ? kExp2Coefficients[i] : 1.0f);
    series = each([&](Floats s, Floats x) RNR_INLINE_LAMBDA { return fma(s, x, next); }, series, f);
  }
  return each(
      [](Mask m, Floats s, Floats r) RNR_INLINE_LAMBDA {
        return from_bits(keep_sum(m, bits_of(s), shift_left<23>(bits_of(r))));
      },
      masks, series, rounded);
#endif
}

constexpr double kInverse[] = {0.0,     1.0,     1.0 / 2, 1.0 / 3, 1.0 / 4,  1.0 / 5,
                               1.0 / 6, 1.0 / 7, 1.0 / 8, 1.0 / 9, 1.0 / 10, 1.0 / 11};

// In float64, for x <= 0: n ln 2 taken off in two parts, then the series of exp.
static inline double exp64(double x) {
  if (x == 0.0) return 1.0;  // as the series has it, and what most sums ask for
  if (!(x > -700.0)) return x != x ? x : 0.0;
  const double n = static_cast<double>(static_cast<int64_t>(x * 1.4426950408889634 - 0.5));
  const double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
  double series = 1.0;
  for (int i = 11; i > 0; --i) series = 1.0 + series * (r * kInverse[i]);
  const uint64_t bits = static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof(power));
  return series * power;
}

// In float64, for finite x > 0, subnormal ones left out: the series of atanh.
static inline double log64(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof(bits));
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  bits = (bits & 0xFFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
  double m;
  memcpy(&m, &bits, sizeof(m));
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0), square = s * s;
  double series = 0.0;
  for (int i = 23; i > 0; i -= 2) series = series * square + 1.0 / i;
  const double e = static_cast<double>(exponent);
  return e * 0x1.62e42feep-1 + (2.0 * s * series + e * 0x1.a39ef35793c76p-33);
}

// A sum of exponentials, sum exp(x) = exp(top) * total, to which parts are added in order.
struct LogSum {
  double top = -INFINITY;
  double total = 0.0;

  RNR_INLINE void add(double part_top, double part_total) {
    if (!(part_total > 0.0)) return;
    if (part_top > top) {
      total = total * exp64(top - part_top) + part_total;
      top = part_top;
    } else {
      total += part_total * exp64(part_top - top);
    }
  }
  RNR_INLINE double log_total() const { return log64(total); }
};

}  // namespace rnr::cpu::RNR_ISA
