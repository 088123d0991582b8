// Sixteen columns of a tile for each thread, as float32, from rows of any of the three dtypes.
//
// A thread's columns come in vectors of 16 bytes; the threads' first vectors lie one behind the
// other, then the second ones. That layout holds for every row, whether its vectors can be loaded
// at once or not, so that sums have one order.
#pragma once

#include "device.h"

namespace rnr::cuda {

constexpr int kColumns = kTile / kThreads;

struct Float32 {
  using Bits = uint32_t;
  static constexpr Bits kNegativeInfinity = 0xff800000u;
  static RNR_DEVICE float load(Bits bits) { return float_of(bits); }
  static RNR_DEVICE Bits round(float x) { return bits_of(x); }
};

struct BFloat16 {
  using Bits = uint16_t;
  static constexpr Bits kNegativeInfinity = 0xff80u;
  static RNR_DEVICE float load(Bits bits) { return float_of(uint32_t{bits} << 16); }
  // To nearest even; x is not NaN.
  static RNR_DEVICE Bits round(float x) {
    const uint32_t bits = bits_of(x);
    return static_cast<Bits>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  }
};

struct Float16 {
  using Bits = uint16_t;
  static constexpr Bits kNegativeInfinity = 0xfc00u;
  static RNR_DEVICE float load(Bits bits) { return half_to_float(bits); }
  static RNR_DEVICE Bits round(float x) { return float_to_half(x); }
};

// How a dtype's elements lie in a thread's vectors.
template <typename T>
struct Layout {
  using Bits = typename T::Bits;
  static constexpr int kVector = sizeof(Words) / sizeof(Bits);
  static constexpr int kVectors = kColumns / kVector;
  static constexpr int kPerWord = sizeof(uint32_t) / sizeof(Bits);
  // The first column in the tile of this thread's v-th vector.
  static RNR_DEVICE int start(int v) { return kVector * (v * kThreads + thread_index()); }

  // The column in the tile of this thread's i-th element.
  static RNR_DEVICE int column(int i) { return start(i / kVector) + i % kVector; }

  static RNR_DEVICE Bits element(const Words& words, int j) {
    return static_cast<Bits>(words.at[j / kPerWord] >> 8 * sizeof(Bits) * (j % kPerWord));
  }
  static RNR_DEVICE void set_element(Words* words, int j, Bits bits) {
    const int shift = 8 * sizeof(Bits) * (j % kPerWord);
    uint32_t& word = words->at[j / kPerWord];
    word = (word & ~(static_cast<uint32_t>(static_cast<Bits>(~Bits{0})) << shift)) |
           static_cast<uint32_t>(bits) << shift;
  }
};

template <typename T>
RNR_DEVICE const typename T::Bits* row_of(const LogitsRows& logits, int64_t r) {
  return static_cast<const typename T::Bits*>(logits.data) + r * logits.row_stride;
}

RNR_DEVICE bool is_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(Words) == 0;
}

// This thread's logits of a tile as they stand in memory, -inf past the vocabulary.
template <typename T>
struct RawTile {
  using L = Layout<T>;
  Words vectors[L::kVectors];

  RNR_DEVICE void load(const typename T::Bits* row, int first, int vocab_size, bool aligned) {
#pragma unroll
    for (int v = 0; v < L::kVectors; ++v) {
      const int column = first + L::start(v);
      if (aligned && column + L::kVector <= vocab_size) {
        vectors[v] = *reinterpret_cast<const Words*>(row + column);
      } else {
        vectors[v] = {};
#pragma unroll
        for (int j = 0; j < L::kVector; ++j) {
          const bool inside = column + j < vocab_size;
          L::set_element(&vectors[v], j, inside ? row[column + j] : T::kNegativeInfinity);
        }
      }
    }
  }

  RNR_DEVICE float at(int v, int j) const { return T::load(L::element(vectors[v], j)); }
  RNR_DEVICE void unpack(float (&x)[kColumns]) const {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) x[i] = at(i / L::kVector, i % L::kVector);
  }
};

RNR_DEVICE float largest_of(const float (&x)[kColumns]) {
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) top = fmaxf(top, x[i]);
  return top;
}

}  // namespace rnr::cuda
