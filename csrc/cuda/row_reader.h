// A row of logits, read tile by tile.
#pragma once

#include "elements.h"

namespace rnr::cuda {

template <typename T>
class RowReader {
 public:
  RNR_DEVICE RowReader(const LogitsRows& logits, int64_t r)
      : row_(row_of<T>(logits, r)),
        vocab_size_(static_cast<int>(logits.vocab_size)),
        tiles_(static_cast<int>(num_tiles(logits))),
        aligned_(is_aligned(row_)) {}

  // Calls f(first_column, x) for the tiles of this block, each loaded while the one before is
  // looked at.
  template <typename F>
  RNR_DEVICE void for_each_tile(F f) const {
    RawTile<T> next = raw(cluster_rank());
    for (int tile = cluster_rank(); tile < tiles_; tile += cluster_size()) {
      float x[kColumns];
      next.unpack(x);
      next = raw(tile + cluster_size());
      f(tile * kTile, x);
    }
  }

  // Calls f(first_column, x, y) for the tiles of this block, with another model's logits, in the
  // columns of this one's layout.
  template <typename U, typename F>
  RNR_DEVICE void for_each_tile_with(const RowReader<U>& other, F f) const {
    if constexpr (Layout<U>::kVector == Layout<T>::kVector) {
      // There are no registers for a second tile of both.
      for (int tile = cluster_rank(); tile < tiles_; tile += cluster_size()) {
        const RawTile<T> here = raw(tile);
        const RawTile<U> there = other.raw(tile);
        float x[kColumns], y[kColumns];
        here.unpack(x);
        there.unpack(y);
        f(tile * kTile, x, y);
      }
    } else {
      for_each_tile([&](int first, const float (&x)[kColumns]) {
        float y[kColumns];
        other.template load<Layout<T>>(first, y);
        f(first, x, y);
      });
    }
  }

  // The tile from a column on, in the columns of a layout.
  template <typename L>
  RNR_DEVICE void load(int first, float (&x)[kColumns]) const {
    if constexpr (L::kVector == Layout<T>::kVector) {
      raw(first / kTile).unpack(x);
    } else {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const int column = first + L::column(i);
        x[i] = column < vocab_size_ ? T::load(row_[column]) : -INFINITY;
      }
    }
  }

  RNR_DEVICE RawTile<T> raw(int tile) const {
    RawTile<T> raw;
    raw.load(row_, tile * kTile, vocab_size_, aligned_);
    return raw;
  }

  // A token's logit, NaN where it is none.
  RNR_DEVICE float at(int64_t token) const {
    return token >= 0 && token < vocab_size_ ? T::load(row_[token]) : NAN;
  }

  // Columns of the last tile past the vocabulary: -inf when loaded.
  RNR_DEVICE int padding() const { return tiles_ * kTile - vocab_size_; }
  RNR_DEVICE int vocab_size() const { return vocab_size_; }
  RNR_DEVICE int tiles() const { return tiles_; }

 private:
  const typename T::Bits* row_;
  const int vocab_size_, tiles_;
  const bool aligned_;
};

}  // namespace rnr::cuda
