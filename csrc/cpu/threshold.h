// The smallest value that a filter keeps, without sorting the row.
//
// top_k and top_p have one form: keep x while what lies above it counts less than a limit, tokens
// counting 1 for top_k and their weight for top_p. Few tokens matter: a bound on the threshold
// comes from the blocks' maxima, the tokens above it are collected and searched by partitioning.
// Where they are too many for the buffer (a flat distribution, thousands of ties), halving the
// range by measuring passes comes first. No memory grows with the vocabulary but the maxima.
#pragma once

#include "weights.h"

namespace rnr::cpu::RNR_ISA {

struct Candidate {
  float value;
  int64_t weight;
};

constexpr int kMaxCandidates = 4096;

// A row that has been scanned once.
struct ScannedRow {
  const AdjustedRow& row;
  const float* tops;      // [blocks]: each block's maximum
  const float* ceilings;  // [tiles]: each tile's ceiling, -inf in an empty tile
  float ceiling;
  float scale;

  RNR_INLINE WeightScale weights(int64_t block) const {
    const float tile_ceiling = ceilings[block / kTileBlocks];
    return {scale, tile_ceiling, tile_shift(ceiling, tile_ceiling)};
  }
};

// Partitions so that c[k] stands where it would in descending order, larger ones before it.
static inline void place_kth_largest(Candidate* c, int64_t count, int64_t k) {
  int64_t low = 0, high = count - 1;
  while (low < high) {
    const float pivot = c[low + (high - low) / 2].value;
    int64_t i = low, j = high;
    while (i <= j) {
      while (c[i].value > pivot) ++i;
      while (c[j].value < pivot) --j;
      if (i <= j) {
        const Candidate swapped = c[i];
        c[i++] = c[j];
        c[j--] = swapped;
      }
    }
    if (k <= j) {
      high = j;
    } else if (k >= i) {
      low = i;
    } else {
      return;
    }
  }
}

// Ints in the order of their floats.
RNR_INLINE int32_t order_of(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits ^ (bits >> 31 & INT32_MAX);
}

RNR_INLINE float at_order(int32_t order) {
  const int32_t bits = order ^ (order >> 31 & INT32_MAX);
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

// kWeighs: tokens count with their weights against the row's ceiling, else 1.
template <bool kWeighs>
class ThresholdSearch {
 public:
  ThresholdSearch(const ScannedRow& scanned, Candidate* candidates)
      : scanned_(scanned), candidates_(candidates) {}

  // What the tokens with low <= x < high count together.
  int64_t measure(float low, float high) const {
    int64_t total = 0;
    for_each_block(low, [&](int64_t b, const float* values) {
      WeightSum weights;
      Ints counts = splat_int(0);
      const WeightScale scale = scanned_.weights(b);
      for (int i = 0; i < kBlock / kLanes; ++i) {
        const Floats x = load(values + kLanes * i);
        const Mask inside = (x >= splat(low)) & (x < splat(high));
        if (kWeighs) {
          const WeightLanes all = scale.of(x);
          weights.add({keep(inside, all.high), keep(inside, all.low)});
        } else {
          counts = count(counts, inside);
        }
      }
      total += kWeighs ? weights.total() : sum_unsigned(counts);
    });
    return total;
  }

  // The smallest x >= least for which {u : x(u) > x} counts less than `limit`; the tokens from
  // `least` up count at least that. `first_blocks`: how many blocks to look into first.
  float find(float least, int64_t limit, int64_t first_blocks) {
    float high = INFINITY;
    int64_t above = 0;
    for (int64_t num_blocks = first_blocks;; num_blocks *= 4) {
      float low = block_bound(num_blocks);
      low = low > least ? low : least;
      if (!(low < high)) continue;
      const int64_t count = collect(low, high);
      const bool fits = count <= kMaxCandidates;
      const int64_t inside = fits ? weight_of_candidates(0, count) : measure(low, high);
      if (above + inside >= limit || low == least) {
        return fits ? partition(count, above, limit) : halve(low, high, above, limit);
      }
      above += inside;
      high = low;
    }
  }

 private:
  template <typename F>
  RNR_INLINE void for_each_block(float low, F f) const {
    alignas(64) float buffer[kBlock];
    for (int64_t b = 0; b < scanned_.row.logits.num_blocks(); ++b) {
      if (scanned_.tops[b] >= low) f(b, scanned_.row.block(b, buffer));
    }
  }

  // The maximum of the n-th block in descending order, -inf if there are fewer.
  float block_bound(int64_t n) const {
    const int64_t num_blocks = scanned_.row.logits.num_blocks();
    if (n >= num_blocks || num_blocks > kMaxCandidates) return -INFINITY;
    for (int64_t b = 0; b < num_blocks; ++b) candidates_[b] = {scanned_.tops[b], 0};
    place_kth_largest(candidates_, num_blocks, n - 1);
    return candidates_[n - 1].value;
  }

  // Gathers the tokens with low <= x < high; more than kMaxCandidates if they do not fit.
  int64_t collect(float low, float high) {
    int64_t size = 0;
    for_each_block(low, [&](int64_t b, const float* values) {
      const WeightScale scale = scanned_.weights(b);
      for (int i = 0; i < kBlock / kLanes && size <= kMaxCandidates; ++i) {
        const Floats x = load(values + kLanes * i);
        uint32_t inside = bits_of((x >= splat(low)) & (x < splat(high)));
        if (inside == 0) continue;
        int32_t high_part[kLanes] = {}, low_part[kLanes] = {};
        if (kWeighs) {
          const WeightLanes weights = scale.of(x);
          store_ints(high_part, weights.high);
          store_ints(low_part, weights.low);
        }
        for (; inside != 0; inside &= inside - 1) {
          const int lane = __builtin_ctz(inside);
          if (size == kMaxCandidates) {
            size = kMaxCandidates + 1;
            return;
          }
          candidates_[size++] = {values[kLanes * i + lane],
                                 kWeighs ? weight_of(high_part[lane], low_part[lane]) : 1};
        }
      }
    });
    return size;
  }

  int64_t weight_of_candidates(int64_t begin, int64_t end) const {
    int64_t total = 0;
    for (int64_t i = begin; i < end; ++i) total += candidates_[i].weight;
    return total;
  }

  // Of the collected tokens, the last one in descending order before which less than `limit` lies.
  float partition(int64_t count, int64_t above, int64_t limit) {
    int64_t low = 0, high = count;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      place_kth_largest(candidates_ + low, high - low, middle - low);
      const int64_t before = weight_of_candidates(low, middle);
      if (above + before < limit) {
        above += before;
        low = middle;
      } else {
        high = middle;
      }
    }
    return count > 0 ? candidates_[low].value : -INFINITY;
  }

  // The same for a range [low, high) with too many tokens to collect.
  float halve(float low, float high, int64_t above, int64_t limit) {
    int32_t least = order_of(low), end = order_of(high);
    while (static_cast<int64_t>(end) - least > 1) {
      const int32_t middle = static_cast<int32_t>(least + (static_cast<int64_t>(end) - least) / 2);
      const int64_t upper = measure(at_order(middle), at_order(end));
      if (above + upper < limit) {
        above += upper;
        end = middle;
      } else {
        least = middle;
      }
      const int64_t count = collect(at_order(least), at_order(end));
      if (count <= kMaxCandidates) return partition(count, above, limit);
    }
    return at_order(least);
  }

  const ScannedRow& scanned_;
  Candidate* candidates_;
};

}  // namespace rnr::cpu::RNR_ISA
