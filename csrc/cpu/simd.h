// Sixteen virtual lanes on any instruction set: one type each for floats, ints and masks.
//
// AVX-512 holds them in one register, AVX2 in two, NEON and portable C++ in four. Every operation
// is exact or rounds once, and sums over lanes have one order, so all instruction sets give the
// same bits. A source that includes this is compiled once for each set, in the namespace RNR_ISA,
// and must not instantiate anything outside that namespace: the linker would merge it with code for
// other processors.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef RNR_ISA
#error "compile with -DRNR_ISA=<namespace>"
#endif

#define RNR_INLINE inline __attribute__((always_inline))
#define RNR_INLINE_LAMBDA __attribute__((always_inline))

namespace rnr::cpu::RNR_ISA {

constexpr int kLanes = 16;

}  // namespace rnr::cpu::RNR_ISA

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "simd_avx512.h"
#else
#include "simd_parts.h"
#endif

namespace rnr::cpu::RNR_ISA {

// The i-th sixteen bits of a bitmask.
RNR_INLINE Mask lanes_of(const uint32_t* bitmask, int i) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "halves of words are taken in place");
  uint16_t bits;
  memcpy(&bits, reinterpret_cast<const char*>(bitmask) + 2 * i, sizeof(bits));
  return lanes_of(bits);
}

RNR_INLINE bool any(Mask m) { return bits_of(m) != 0; }
RNR_INLINE bool all(Mask m) { return bits_of(m) == 0xFFFF; }

RNR_INLINE Floats load_bfloat16(const uint16_t* p) {
  return from_bits(shift_left<16>(load_halves(p)));
}
RNR_INLINE Floats load_float16(const uint16_t* p) { return half_to_float(load_halves(p)); }
// To nearest even; NaN as torch has it.
RNR_INLINE Ints float_to_bfloat16(Floats x) {
  const Ints bits = bits_of(x);
  const Ints even = shift_right<16>(bits) & splat_int(1);
  const Ints rounded = shift_right<16>(bits + even + splat_int(0x7FFF));
  return select(x == x, rounded, splat_int(0x7FC0));
}

// Over lanes in one order: lane i with i + 8, then i + 4, i + 2, i + 1.
template <typename F>
RNR_INLINE float reduce(Floats x, F two) {
#if !defined(RNR_PARTS) || RNR_PARTS == 2
#if defined(RNR_PARTS)
  const __m256 low = (__m256)x.v[0], high = (__m256)x.v[1];
#else
  const __m256 low = _mm512_castps512_ps256(x.v), high = _mm512_extractf32x8_ps(x.v, 1);
#endif
  const __m256 eight = two(low, high);
  const __m128 four = two(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 pair = two(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(two(pair, _mm_movehdup_ps(pair)));
#else
  const FloatPart eight[2] = {two(x.v[0], x.v[2]), two(x.v[1], x.v[3])};
  const FloatPart four = two(eight[0], eight[1]);
  return two(two(four[0], four[2]), two(four[1], four[3]));
#endif
}
RNR_INLINE float sum(Floats x) {
  return reduce(x, [](auto a, auto b) { return a + b; });
}
RNR_INLINE float maximum(Floats x) {
  return reduce(x, [](auto a, auto b) { return a > b ? a : b; });
}
// Of lanes that hold unsigned numbers.
RNR_INLINE int64_t sum_unsigned(Ints x) {
  int32_t lane[kLanes];
  store_ints(lane, x);
  int64_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += static_cast<uint32_t>(lane[i]);
  return total;
}

// Four of a kind, which operations take in turn: a chain of dependent ones is longer than
// processors look ahead. By name, because compilers keep arrays in memory.
template <typename T>
struct Four {
  T a, b, c, d;
};
using Quad = Four<Floats>;
constexpr int kQuad = 4 * kLanes;

template <typename F, typename... T>
RNR_INLINE auto each(F f, const Four<T>&... x) -> Four<decltype(f(x.a...))> {
  return {f(x.a...), f(x.b...), f(x.c...), f(x.d...)};
}

RNR_INLINE Quad splat_quad(float x) { return {splat(x), splat(x), splat(x), splat(x)}; }
RNR_INLINE Quad load_quad(const float* p) {
  return {load(p), load(p + kLanes), load(p + 2 * kLanes), load(p + 3 * kLanes)};
}
RNR_INLINE void store_quad(float* p, const Quad& x) {
  store(p, x.a);
  store(p + kLanes, x.b);
  store(p + 2 * kLanes, x.c);
  store(p + 3 * kLanes, x.d);
}

}  // namespace rnr::cpu::RNR_ISA
