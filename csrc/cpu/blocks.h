// Rows of logits as float32 values in blocks of 256 columns, whatever their dtype.
//
// A kernel asks for one block after the other and sees float32 values, -inf past the vocabulary. A
// full block of float32 is the logits themselves; any other is written to a buffer of the caller's.
#pragma once

#include <cstdlib>

#include "../rnr.h"
#include "simd.h"

namespace rnr::cpu::RNR_ISA {

constexpr int kBlock = 256;
constexpr int kTileBlocks = kTile / kBlock;
constexpr int kBlockWords = kBlock / kBits;
constexpr int kBlockQuads = kBlock / kQuad;

// Memory for a part of a vocabulary at most; no C++ container, see simd.h.
template <typename T>
struct Scratch {
  T* data;

  explicit Scratch(int64_t size) : data(static_cast<T*>(malloc((size + 1) * sizeof(T)))) {
    if (data == nullptr) abort();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { free(data); }
};

RNR_INLINE int64_t element_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

// Values as they stand in memory.
struct PlainRun {
  const float* values;

  RNR_INLINE Quad quad(int q) const { return load_quad(values + kQuad * q); }
};

// One row of logits as float32 blocks.
struct LogitsRow {
  const char* data;
  DType dtype;
  int64_t vocab_size;

  RNR_INLINE LogitsRow(const LogitsRows& rows, int64_t r)
      : data(static_cast<const char*>(rows.data) + r * rows.row_stride * element_size(rows.dtype)),
        dtype(rows.dtype),
        vocab_size(rows.vocab_size) {}

  RNR_INLINE int64_t num_blocks() const { return (vocab_size + kBlock - 1) / kBlock; }
  RNR_INLINE int64_t num_tiles() const { return (vocab_size + kTile - 1) / kTile; }

  RNR_INLINE const char* address(int64_t v) const { return data + v * element_size(dtype); }

  RNR_INLINE float at(int64_t v) const {
    if (dtype == DType::kFloat32) {
      float x;
      memcpy(&x, address(v), 4);
      return x;
    }
    uint16_t half[kLanes] = {};
    memcpy(half, address(v), 2);
    float lanes[kLanes];
    store(lanes, dtype == DType::kBFloat16 ? load_bfloat16(half) : load_float16(half));
    return lanes[0];
  }

  RNR_INLINE Floats lanes(const char* p, int i) const {
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(p) + kLanes * i;
    return dtype == DType::kBFloat16 ? load_bfloat16(halves) : load_float16(halves);
  }

  // The block's values: the logits themselves, or `buffer` [kBlock].
  RNR_INLINE const float* block(int64_t b, float* buffer) const {
    const int64_t start = b * kBlock, count = vocab_size - start;
    const char* source = address(start);
    if (count >= kBlock) {
      if (dtype == DType::kFloat32) return reinterpret_cast<const float*>(source);
      for (int i = 0; i < kBlock / kLanes; ++i) store(buffer + kLanes * i, lanes(source, i));
      return buffer;
    }
    return partial_block(source, static_cast<int>(count), buffer);
  }

  __attribute__((noinline)) const float* partial_block(const char* source, int count,
                                                       float* buffer) const {
    if (dtype == DType::kFloat32) {
      memcpy(buffer, source, 4 * count);
    } else {
      char copy[2 * kBlock] = {};
      memcpy(copy, source, 2 * count);
      for (int i = 0; i < kBlock / kLanes; ++i) store(buffer + kLanes * i, lanes(copy, i));
    }
    for (int i = count; i < kBlock; ++i) buffer[i] = -INFINITY;
    return buffer;
  }
};

// Finds NaN by the order of bits: those of NaN lie above those of inf, or above those of -inf among
// the negative ones. (Comparing floats makes masks, which cost more.)
struct NanCheck {
  Ints largest = splat_int(INT32_MIN), largest_unsigned = splat_int(0);

  RNR_INLINE void add(Floats x) {
    largest = max(largest, bits_of(x));
    largest_unsigned = max_unsigned(largest_unsigned, bits_of(x));
  }
  RNR_INLINE void add(const Quad& x) {
    add(x.a);
    add(x.b);
    add(x.c);
    add(x.d);
  }
  RNR_INLINE void add(const NanCheck& other) {
    largest = max(largest, other.largest);
    largest_unsigned = max_unsigned(largest_unsigned, other.largest_unsigned);
  }

  RNR_INLINE bool passed() const {
    constexpr int32_t kInfinity = 0x7F800000;
    constexpr uint32_t kMinusInfinity = 0xFF800000;
    int32_t lanes[2][kLanes];
    store_ints(lanes[0], largest);
    store_ints(lanes[1], largest_unsigned);
    for (int i = 0; i < kLanes; ++i) {
      if (lanes[0][i] > kInfinity || static_cast<uint32_t>(lanes[1][i]) > kMinusInfinity) {
        return false;
      }
    }
    return true;
  }
};

// What a pass over blocks sees: the largest value, NaN left out, and whether there was NaN.
struct Scan {
  float top = -INFINITY;
  NanCheck check;

  RNR_INLINE void add(float block_top) { top = block_top > top ? block_top : top; }
  RNR_INLINE void add(const Scan& other) {
    add(other.top);
    check.add(other.check);
  }
  // Neither NaN nor +inf, and something above -inf.
  RNR_INLINE bool is_valid() const { return top > -INFINITY && top < INFINITY && check.passed(); }
};

// The same before the lanes are reduced, which takes as long as some loads do.
struct LaneScan {
  Floats even = splat(-INFINITY), odd = even;
  NanCheck check;

  RNR_INLINE void add(const Quad& x) {
    check.add(x);
    even = max(x.c, max(x.a, even));
    odd = max(x.d, max(x.b, odd));
  }
  RNR_INLINE Scan reduced() const { return {maximum(max(even, odd)), check}; }
};

// Scans the k-th block of a run and returns its largest value.
template <typename Run>
RNR_INLINE float scan_block(const Run& run, int k, Scan* scan) {
  Quad tops = splat_quad(-INFINITY);
  NanCheck check = scan->check;
  for (int q = kBlockQuads * k; q < kBlockQuads * (k + 1); ++q) {
    const Quad x = run.quad(q);
    check.add(x);
    tops = each([](Floats a, Floats b) RNR_INLINE_LAMBDA { return max(a, b); }, x, tops);
  }
  const float top = maximum(max(max(tops.a, tops.b), max(tops.c, tops.d)));
  scan->check = check;
  scan->add(top);
  return top;
}

}  // namespace rnr::cpu::RNR_ISA
