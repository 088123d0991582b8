// The lanes in several registers, by the compiler's vector types: two for AVX2, four for NEON and
// where nothing is known of the processor. Included by simd.h alone.
#pragma once

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define RNR_PARTS 2
#else
#define RNR_PARTS 4
#endif

namespace rnr::cpu::RNR_ISA {

constexpr int kParts = RNR_PARTS;
constexpr int kWidth = kLanes / kParts;
using FloatPart = float __attribute__((vector_size(4 * kWidth)));
using IntPart = int32_t __attribute__((vector_size(4 * kWidth)));
using UintPart = uint32_t __attribute__((vector_size(4 * kWidth)));

struct Floats {
  FloatPart v[kParts];
};
struct Ints {
  IntPart v[kParts];
};
struct Mask {
  IntPart v[kParts];  // -1 or 0
};

// Every part of a result by its number, a constant: in a loop compilers would keep parts in memory.
template <typename T, typename F>
RNR_INLINE T parts(F part) {
#if RNR_PARTS == 2
  return {{part(0), part(1)}};
#else
  return {{part(0), part(1), part(2), part(3)}};
#endif
}

// Returns the value whose i-th part is the expression.
#define RNR_EACH(Type, expression) \
  return parts<Type>([&]([[maybe_unused]] int i) RNR_INLINE_LAMBDA { return (expression); })

// Minus zero is x for every x; plus zero would lose the sign of -0.
RNR_INLINE Floats splat(float x) { RNR_EACH(Floats, x - FloatPart{}); }
RNR_INLINE Ints splat_int(int32_t x) { RNR_EACH(Ints, IntPart{} + x); }
template <typename Part>
RNR_INLINE Part load_part(const void* p, int i) {
  Part part;
  memcpy(&part, static_cast<const char*>(p) + i * sizeof(Part), sizeof(Part));
  return part;
}
template <typename T>
RNR_INLINE void store_parts(void* p, const T& x) {
  memcpy(p, &x.v[0], sizeof(x.v[0]));
  memcpy(static_cast<char*>(p) + sizeof(x.v[0]), &x.v[1], sizeof(x.v[1]));
#if RNR_PARTS == 4
  memcpy(static_cast<char*>(p) + 2 * sizeof(x.v[2]), &x.v[2], sizeof(x.v[2]));
  memcpy(static_cast<char*>(p) + 3 * sizeof(x.v[3]), &x.v[3], sizeof(x.v[3]));
#endif
}
RNR_INLINE Floats load(const float* p) { RNR_EACH(Floats, load_part<FloatPart>(p, i)); }
RNR_INLINE void store(float* p, Floats x) { store_parts(p, x); }
RNR_INLINE Ints load_ints(const int32_t* p) { RNR_EACH(Ints, load_part<IntPart>(p, i)); }
RNR_INLINE void store_ints(int32_t* p, Ints x) { store_parts(p, x); }

RNR_INLINE Floats operator+(Floats a, Floats b) { RNR_EACH(Floats, a.v[i] + b.v[i]); }
RNR_INLINE Floats operator-(Floats a, Floats b) { RNR_EACH(Floats, a.v[i] - b.v[i]); }
RNR_INLINE Floats operator*(Floats a, Floats b) { RNR_EACH(Floats, a.v[i] * b.v[i]); }
// These wrap around.
RNR_INLINE Ints operator+(Ints a, Ints b) {
  RNR_EACH(Ints, (IntPart)((UintPart)a.v[i] + (UintPart)b.v[i]));
}
RNR_INLINE Ints operator&(Ints a, Ints b) { RNR_EACH(Ints, a.v[i] & b.v[i]); }
RNR_INLINE Ints operator|(Ints a, Ints b) { RNR_EACH(Ints, a.v[i] | b.v[i]); }
RNR_INLINE Ints max(Ints a, Ints b) { RNR_EACH(Ints, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
RNR_INLINE Ints max_unsigned(Ints a, Ints b) {
  RNR_EACH(Ints, (UintPart)a.v[i] > (UintPart)b.v[i] ? a.v[i] : b.v[i]);
}
template <int N>
RNR_INLINE Ints shift_left(Ints a) {
  RNR_EACH(Ints, (IntPart)((UintPart)a.v[i] << N));
}
template <int N>
RNR_INLINE Ints shift_right(Ints a) {
  RNR_EACH(Ints, (IntPart)((UintPart)a.v[i] >> N));
}
RNR_INLINE Ints bits_of(Floats a) { RNR_EACH(Ints, (IntPart)a.v[i]); }
RNR_INLINE Floats from_bits(Ints a) { RNR_EACH(Floats, (FloatPart)a.v[i]); }
RNR_INLINE Floats to_float(Ints a) { RNR_EACH(Floats, __builtin_convertvector(a.v[i], FloatPart)); }

RNR_INLINE Mask operator>(Floats a, Floats b) { RNR_EACH(Mask, a.v[i] > b.v[i]); }
RNR_INLINE Mask operator>=(Floats a, Floats b) { RNR_EACH(Mask, a.v[i] >= b.v[i]); }
RNR_INLINE Mask operator<(Floats a, Floats b) { RNR_EACH(Mask, a.v[i] < b.v[i]); }
RNR_INLINE Mask operator==(Floats a, Floats b) { RNR_EACH(Mask, a.v[i] == b.v[i]); }
RNR_INLINE Mask operator&(Mask a, Mask b) { RNR_EACH(Mask, a.v[i] & b.v[i]); }
RNR_INLINE Mask operator|(Mask a, Mask b) { RNR_EACH(Mask, a.v[i] | b.v[i]); }
RNR_INLINE Mask operator~(Mask a) { RNR_EACH(Mask, ~a.v[i]); }
RNR_INLINE Mask no_lanes() { RNR_EACH(Mask, IntPart{}); }
RNR_INLINE Mask all_lanes() { RNR_EACH(Mask, ~IntPart{}); }
RNR_INLINE Ints select(Mask m, Ints a, Ints b) {
  RNR_EACH(Ints, (a.v[i] & m.v[i]) | (b.v[i] & ~m.v[i]));
}
RNR_INLINE Floats select(Mask m, Floats a, Floats b) {
  return from_bits(select(m, bits_of(a), bits_of(b)));
}
RNR_INLINE Ints keep(Mask m, Ints x) { RNR_EACH(Ints, x.v[i] & m.v[i]); }
RNR_INLINE Floats keep(Mask m, Floats x) { return from_bits(keep(m, bits_of(x))); }
RNR_INLINE Ints keep_sum(Mask m, Ints a, Ints b) { return keep(m, a + b); }
RNR_INLINE Floats subtract(Mask m, Floats x, Floats y) { return select(m, x - y, x); }
RNR_INLINE Ints count(Ints counts, Mask m) { RNR_EACH(Ints, counts.v[i] - m.v[i]); }
RNR_INLINE Mask unequal(Mask m, Floats a, Floats b) { RNR_EACH(Mask, m.v[i] & (a.v[i] != b.v[i])); }
RNR_INLINE int find_nonzero(Ints x, int32_t first, int32_t* found) {
  int32_t lanes[kLanes];
  store_ints(lanes, x);
  int size = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    found[size] = first + lane;
    size += lanes[lane] != 0;
  }
  return size;
}
RNR_INLINE Floats look_up(const float* table, const uint8_t* codes) {
  float found[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) found[lane] = table[codes[lane]];
  return load(found);
}
RNR_INLINE Mask lanes_of(uint32_t bits) {
  alignas(64) static constexpr int32_t kBit[kLanes] = {
      1 << 0, 1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
      1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
  const Ints bit = load_ints(kBit), set = splat_int(static_cast<int32_t>(bits)) & bit;
  RNR_EACH(Mask, set.v[i] == bit.v[i]);
}

#if RNR_PARTS == 2

#define RNR_AVX(x) ((__m256)(x))
RNR_INLINE Floats fma(Floats a, Floats b, Floats c) {
  RNR_EACH(Floats, (FloatPart)_mm256_fmadd_ps(RNR_AVX(a.v[i]), RNR_AVX(b.v[i]), RNR_AVX(c.v[i])));
}
RNR_INLINE Floats fms(Floats a, Floats b, Floats c) {
  RNR_EACH(Floats, (FloatPart)_mm256_fmsub_ps(RNR_AVX(a.v[i]), RNR_AVX(b.v[i]), RNR_AVX(c.v[i])));
}
RNR_INLINE Floats max(Floats a, Floats b) {
  RNR_EACH(Floats, (FloatPart)_mm256_max_ps(RNR_AVX(a.v[i]), RNR_AVX(b.v[i])));
}
RNR_INLINE Floats min(Floats a, Floats b) {
  RNR_EACH(Floats, (FloatPart)_mm256_min_ps(RNR_AVX(a.v[i]), RNR_AVX(b.v[i])));
}
RNR_INLINE Floats floor(Floats a) { RNR_EACH(Floats, (FloatPart)_mm256_floor_ps(RNR_AVX(a.v[i]))); }
RNR_INLINE Ints truncate(Floats a) {
  RNR_EACH(Ints, (IntPart)_mm256_cvttps_epi32(RNR_AVX(a.v[i])));
}
RNR_INLINE uint32_t bits_of(Mask m) {
  const int low = _mm256_movemask_ps(RNR_AVX(m.v[0])), high = _mm256_movemask_ps(RNR_AVX(m.v[1]));
  return static_cast<uint32_t>(low | high << 8);
}
RNR_INLINE Ints load_halves(const uint16_t* p) {
  const __m128i* halves = reinterpret_cast<const __m128i*>(p);
  RNR_EACH(Ints, (IntPart)_mm256_cvtepu16_epi32(_mm_loadu_si128(halves + i)));
}
RNR_INLINE __m128i narrow(IntPart x) {
  const __m256i packed = _mm256_packus_epi32((__m256i)x, (__m256i)x);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x88));
}
RNR_INLINE void store_halves(uint16_t* p, Ints x) {
  __m128i* halves = reinterpret_cast<__m128i*>(p);
  for (int i = 0; i < kParts; ++i) _mm_storeu_si128(halves + i, narrow(x.v[i]));
}
RNR_INLINE Floats half_to_float(Ints h) {
  RNR_EACH(Floats, (FloatPart)_mm256_cvtph_ps(narrow(h.v[i])));
}
RNR_INLINE Ints float_to_half(Floats x) {
  RNR_EACH(Ints, (IntPart)_mm256_cvtepu16_epi32(
                     _mm256_cvtps_ph(RNR_AVX(x.v[i]), _MM_FROUND_TO_NEAREST_INT)));
}
#undef RNR_AVX

#else

RNR_INLINE uint32_t bits_of(Mask m) {
  uint32_t bits = 0;
#if defined(__SSE2__)
  for (int i = 0; i < kParts; ++i) bits |= _mm_movemask_ps((__m128)m.v[i]) << 4 * i;
#else
  alignas(16) static constexpr int32_t kBit[4] = {1, 2, 4, 8};
  for (int i = 0; i < kParts; ++i) {
    IntPart bit;
    memcpy(&bit, kBit, sizeof(bit));
    bit &= m.v[i];
    bits |= static_cast<uint32_t>((bit[0] | bit[1]) | (bit[2] | bit[3])) << 4 * i;
  }
#endif
  return bits;
}
RNR_INLINE Floats max(Floats a, Floats b) { return select(a > b, a, b); }
RNR_INLINE Floats min(Floats a, Floats b) { return select(a < b, a, b); }
RNR_INLINE Ints truncate(Floats a) { RNR_EACH(Ints, __builtin_convertvector(a.v[i], IntPart)); }
RNR_INLINE Ints load_halves(const uint16_t* p) {
  Ints result;
  for (int lane = 0; lane < kLanes; ++lane) result.v[lane / 4][lane % 4] = p[lane];
  return result;
}
RNR_INLINE void store_halves(uint16_t* p, Ints x) {
  for (int lane = 0; lane < kLanes; ++lane) {
    p[lane] = static_cast<uint16_t>(x.v[lane / 4][lane % 4]);
  }
}

#if defined(__aarch64__)

RNR_INLINE Floats fma(Floats a, Floats b, Floats c) {
  RNR_EACH(Floats,
           (FloatPart)vfmaq_f32((float32x4_t)c.v[i], (float32x4_t)a.v[i], (float32x4_t)b.v[i]));
}
RNR_INLINE Floats floor(Floats a) { RNR_EACH(Floats, (FloatPart)vrndmq_f32((float32x4_t)a.v[i])); }
RNR_INLINE Floats half_to_float(Ints h) {
  RNR_EACH(Floats, (FloatPart)vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32((uint32x4_t)h.v[i]))));
}
RNR_INLINE Ints float_to_half(Floats x) {
  RNR_EACH(Ints, (IntPart)vmovl_u16(vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)x.v[i]))));
}

#else

// Without the instruction the C library takes twenty times as long: the product is exact in
// float64, and rounding the sum to odd there makes its rounding to float32 exact.
RNR_INLINE Floats fma(Floats a, Floats b, Floats c) {
  float x[kLanes], y[kLanes], z[kLanes];
  store(x, a);
  store(y, b);
  store(z, c);
  for (int i = 0; i < kLanes; ++i) {
    const double product = static_cast<double>(x[i]) * y[i], addend = z[i];
    const double total = product + addend, rest = total - addend;
    const double error = (product - rest) + (addend - (total - rest));
    int64_t bits, error_bits;
    memcpy(&bits, &total, sizeof(bits));
    memcpy(&error_bits, &error, sizeof(error_bits));
    // Of an inexact total with an even last place: the neighbour in the error's direction.
    const int64_t towards = 1 - 2 * ((bits ^ error_bits) >> 63 & 1);
    const bool is_inexact = error != 0.0 && error == error && (bits & 1) == 0;
    bits += is_inexact ? towards : 0;
    double odd;
    memcpy(&odd, &bits, sizeof(odd));
    x[i] = static_cast<float>(odd);
  }
  return load(x);
}
RNR_INLINE Floats floor(Floats a) {
  // Beyond 2^22 in size, which no caller needs, the rounding constant would not do.
  const Floats rounder = splat(12582912.0f);
  const Floats nearest = (a + rounder) - rounder;
  return select(nearest > a, nearest - splat(1.0f), nearest);
}
// 2^112 rebiases a half's exponent as a float's, subnormals included.
RNR_INLINE Floats half_to_float(Ints h) {
  const Ints magnitude = shift_left<13>(h & splat_int(0x7FFF));
  const Ints sign = shift_left<16>(h & splat_int(0x8000));
  const Floats finite = from_bits(magnitude) * splat(0x1p112f);
  const Mask is_finite = splat(65520.0f) > finite;
  const Floats special = from_bits(magnitude | splat_int(0x7F800000));
  // A signalling NaN becomes quiet, as by every conversion instruction.
  const Floats quiet = from_bits(bits_of(special) | splat_int(0x00400000));
  const Floats inf_or_nan = select(special == special, special, quiet);
  return from_bits(bits_of(select(is_finite, finite, inf_or_nan)) | sign);
}
RNR_INLINE Ints float_to_half(Floats x) {
  const Ints bits = bits_of(x), sign = shift_right<16>(bits & splat_int(INT32_MIN));
  const Floats size = from_bits(bits & splat_int(INT32_MAX));
  // Adding a power of two whose last place is the result's rounds to nearest even: 2^-24 for
  // subnormal results, else 2^-10 of the number's own power.
  const Floats bounded = min(size, splat(65536.0f));
  const Floats power = max(from_bits(bits_of(bounded) & splat_int(0x7F800000)), splat(0x1p-14f));
  const Floats bias = power * splat(0x1p13f);
  const Floats rounded = (bounded + bias) - bias;
  const Ints normal = shift_right<13>(bits_of(rounded * splat(0x1p-112f)));
  const Ints finite = select(rounded >= splat(65536.0f), splat_int(0x7C00), normal);
  const Ints payload = shift_right<13>(bits_of(size)) & splat_int(0x03FF);
  const Ints nan = payload | splat_int(0x7E00);
  return select(x == x, finite, nan) | sign;
}

#endif
RNR_INLINE Floats operator-(Floats a) { RNR_EACH(Floats, -a.v[i]); }
RNR_INLINE Floats fms(Floats a, Floats b, Floats c) { return fma(a, b, -c); }
#endif
#undef RNR_EACH

}  // namespace rnr::cpu::RNR_ISA
