// The lanes in one AVX-512 register. Included by simd.h alone.
#pragma once

namespace rnr::cpu::RNR_ISA {

struct Floats {
  __m512 v;
};
struct Ints {
  __m512i v;
};
struct Mask {
  __mmask16 v;
};

RNR_INLINE Floats splat(float x) { return {_mm512_set1_ps(x)}; }
RNR_INLINE Ints splat_int(int32_t x) { return {_mm512_set1_epi32(x)}; }
RNR_INLINE Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
RNR_INLINE void store(float* p, Floats x) { _mm512_storeu_ps(p, x.v); }
RNR_INLINE Ints load_ints(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
RNR_INLINE void store_ints(int32_t* p, Ints x) { _mm512_storeu_si512(p, x.v); }
// Sixteen unsigned 16-bit integers, widened and narrowed.
RNR_INLINE Ints load_halves(const uint16_t* p) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
RNR_INLINE void store_halves(uint16_t* p, Ints x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x.v));
}
RNR_INLINE Floats half_to_float(Ints h) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(h.v))}; }
RNR_INLINE Ints float_to_half(Floats x) {
  return {
      _mm512_cvtepu16_epi32(_mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))};
}

RNR_INLINE Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
RNR_INLINE Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
RNR_INLINE Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
// a * b + c and a * b - c, rounded once.
RNR_INLINE Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
RNR_INLINE Floats fms(Floats a, Floats b, Floats c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }
// a > b ? a : b, so a NaN in either gives b.
RNR_INLINE Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
RNR_INLINE Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
RNR_INLINE Floats floor(Floats a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}

RNR_INLINE Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
RNR_INLINE Ints operator&(Ints a, Ints b) { return {_mm512_and_si512(a.v, b.v)}; }
RNR_INLINE Ints max(Ints a, Ints b) { return {_mm512_max_epi32(a.v, b.v)}; }
RNR_INLINE Ints max_unsigned(Ints a, Ints b) { return {_mm512_max_epu32(a.v, b.v)}; }
template <int N>
RNR_INLINE Ints shift_left(Ints a) {
  return {_mm512_slli_epi32(a.v, N)};
}
template <int N>
RNR_INLINE Ints shift_right(Ints a) {
  return {_mm512_srli_epi32(a.v, N)};
}
RNR_INLINE Ints bits_of(Floats a) { return {_mm512_castps_si512(a.v)}; }
RNR_INLINE Floats from_bits(Ints a) { return {_mm512_castsi512_ps(a.v)}; }
RNR_INLINE Ints truncate(Floats a) { return {_mm512_cvttps_epi32(a.v)}; }
RNR_INLINE Floats to_float(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }

RNR_INLINE Mask operator>(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
RNR_INLINE Mask operator>=(Floats a, Floats b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)};
}
RNR_INLINE Mask operator<(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
RNR_INLINE Mask operator==(Floats a, Floats b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)};
}
RNR_INLINE Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.v & b.v)}; }
RNR_INLINE Mask operator|(Mask a, Mask b) { return {static_cast<__mmask16>(a.v | b.v)}; }
RNR_INLINE Mask operator~(Mask a) { return {static_cast<__mmask16>(~a.v)}; }
RNR_INLINE Mask no_lanes() { return {0}; }
RNR_INLINE Mask all_lanes() { return {0xFFFF}; }
RNR_INLINE Mask lanes_of(uint32_t bits) { return {static_cast<__mmask16>(bits)}; }
RNR_INLINE uint32_t bits_of(Mask a) { return a.v; }
RNR_INLINE Floats select(Mask m, Floats a, Floats b) {
  return {_mm512_mask_blend_ps(m.v, b.v, a.v)};
}
RNR_INLINE Ints select(Mask m, Ints a, Ints b) { return {_mm512_mask_blend_epi32(m.v, b.v, a.v)}; }
// x, or a + b, where the mask is set, 0 elsewhere.
RNR_INLINE Floats keep(Mask m, Floats x) { return {_mm512_maskz_mov_ps(m.v, x.v)}; }
RNR_INLINE Ints keep(Mask m, Ints x) { return {_mm512_maskz_mov_epi32(m.v, x.v)}; }
RNR_INLINE Ints keep_sum(Mask m, Ints a, Ints b) { return {_mm512_maskz_add_epi32(m.v, a.v, b.v)}; }
// x - y where the mask is set, else x.
RNR_INLINE Floats subtract(Mask m, Floats x, Floats y) {
  return {_mm512_mask_sub_ps(x.v, m.v, x.v, y.v)};
}
// counts + 1 where the mask is set.
RNR_INLINE Ints count(Ints counts, Mask m) {
  return {_mm512_mask_add_epi32(counts.v, m.v, counts.v, _mm512_set1_epi32(1))};
}
// m where a and b are not equal; NaN equals nothing.
RNR_INLINE Mask unequal(Mask m, Floats a, Floats b) {
  return {_mm512_mask_cmp_ps_mask(m.v, a.v, b.v, _CMP_NEQ_UQ)};
}
// Writes the numbers, from `first` on, of those of sixteen ints that are not 0, and says how many;
// `found` has room for sixteen.
RNR_INLINE int find_nonzero(Ints x, int32_t first, int32_t* found) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i number = _mm512_add_epi32(lane, _mm512_set1_epi32(first));
  const __mmask16 nonzero = _mm512_test_epi32_mask(x.v, x.v);
  _mm512_storeu_si512(found, _mm512_maskz_compress_epi32(nonzero, number));
  return __builtin_popcount(nonzero);
}
// Sixteen entries of a table of floats.
RNR_INLINE Floats look_up(const float* table, const uint8_t* codes) {
  const __m512i index =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  return {_mm512_i32gather_ps(index, table, 4)};
}

}  // namespace rnr::cpu::RNR_ISA
