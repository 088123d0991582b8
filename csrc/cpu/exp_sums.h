// Sums of exponentials over a row, whose bits depend on nothing but the row.
#pragma once

#include "adjusted_row.h"

namespace rnr::cpu::RNR_ISA {

// How far the largest term of a sum may be from its shift: an exponential's relative error grows by
// 1.3e-8 with each nat.
constexpr float kFar = 8.0f;

// Lane sums of exp(x - shift) over blocks, in the order of the columns. Four accumulators, because
// one addition takes as long as four begin; by name, because compilers keep arrays in memory.
struct ExpSum {
  Floats a = splat(0.0f), b = splat(0.0f), c = splat(0.0f), d = splat(0.0f);

  // Looks at the values, which may exceed the shift by kFar, and adds their terms.
  template <typename Block>
  RNR_INLINE void add(const Block& block, float shift, LaneScan* scan) {
    LaneScan seen = *scan;
#if defined(RNR_PARTS)
    // Too few registers to do both at once.
    for (int i = 0; i < kBlock / kLanes; i += 2) {
      seen.add(block.lanes(i), true);
      seen.add(block.lanes(i + 1), false);
    }
    add(block, shift);
#else
    add_terms(block, shift, [&](Floats x, bool is_even) { seen.add(x, is_even); });
#endif
    *scan = seen;
  }

  template <typename Block>
  RNR_INLINE void add(const Block& block, float shift) {
    add_terms(block, shift, [](Floats, bool) {});
  }

  RNR_INLINE double total() const { return sum((a + b) + (c + d)); }

 private:
  template <typename Block, typename F>
  RNR_INLINE void add_terms(const Block& block, float shift, F look) {
    const Floats shifts = splat(shift), least = splat(kNegligible);
    const auto term = [&](int i, bool even) RNR_INLINE_LAMBDA {
      const Floats x = block.lanes(i);
      look(x, even);
      const Floats d = x - shifts;
      return exp_where(d > least, d);
    };
    // In a copy, or each addition would be stored. Unrolled further, GCC runs out of registers.
    ExpSum part = *this;
#pragma GCC unroll 1
    for (int i = 0; i < kBlock / kLanes; i += 4) {
      part.a = part.a + term(i, true);
      part.b = part.b + term(i + 1, false);
      part.c = part.c + term(i + 2, true);
      part.d = part.d + term(i + 3, false);
    }
    *this = part;
  }
};

RNR_INLINE double exp_sum(const float* values, float shift) {
  ExpSum sum;
  sum.add(PlainBlock{values}, shift);
  return sum.total();
}

// What a pass over a row finds: of the adjusted logits, and for log Z of the logits and the scores.
struct RowSums {
  LogSum adjusted, base, rules;
  Scan scan, base_scan;

  // lse(adjusted) = scan.top + log_total().
  RNR_INLINE double log_total() const { return adjusted.log_total() + (adjusted.top - scan.top); }
};

// Sums of exp(x - shift) over a tile, the blocks that rules touch apart from the others.
struct TileSums {
  double touched, untouched;
  Scan touched_scan, untouched_scan;

  TileSums(const AdjustedRow& row, int64_t t, float shift) {
    alignas(64) float buffer[kBlock];
    ExpSum touched_sum, untouched_sum;
    LaneScan touched_lanes, untouched_lanes;
    row.for_each_block(t, [&](int64_t b) {
      row.visit(b, buffer, [&](const auto& block, bool is_touched) RNR_INLINE_LAMBDA {
        if (is_touched) {
          touched_sum.add(block, shift, &touched_lanes);
        } else {
          untouched_sum.add(block, shift, &untouched_lanes);
        }
      });
    });
    touched = touched_sum.total();
    untouched = untouched_sum.total();
    touched_scan = touched_lanes.reduced();
    untouched_scan = untouched_lanes.reduced();
  }

  RNR_INLINE float top() const {
    return touched_scan.top > untouched_scan.top ? touched_scan.top : untouched_scan.top;
  }
};

// Sums of exp(logit - shift) over a tile's touched blocks.
struct BaseSum {
  double total;
  Scan scan;

  BaseSum(const AdjustedRow& row, int64_t t, float shift) {
    alignas(64) float buffer[kBlock];
    ExpSum sum;
    LaneScan lanes;
    row.for_each_block(t, [&](int64_t b) {
      if (row.is_touched(b)) sum.add(PlainBlock{row.logits.block(b, buffer)}, shift, &lanes);
    });
    total = sum.total();
    scan = lanes.reduced();
  }
};

// Adds a tile's part of lse(r). Few blocks have scores other than 0 and the penalty.
static void add_scores_of_tile(const AdjustedRow& row, int64_t t, LogSum* sum) {
  int64_t num_zero = 0, num_used = 0;
  row.for_each_block(t, [&](int64_t b) {
    const int64_t rest = row.logits.vocab_size - b * kBlock;
    const int64_t count = rest < kBlock ? rest : kBlock;
    if (!row.is_touched(b) || row.touches_only_used(b)) {
      const int64_t used = row.is_touched(b) ? row.count_used(b) : 0;
      num_used += used;
      num_zero += count - used;
      return;
    }
    alignas(64) float logits[kBlock], scores[kBlock];
    row.adjust(b, row.logits.block(b, logits), logits, scores);
    for (int64_t v = count; v < kBlock; ++v) scores[v] = -INFINITY;
    Scan unused;
    const float top = scan_block(PlainBlock{scores}, &unused);
    if (top > -INFINITY) sum->add(top, exp_sum(scores, top));
  });
  sum->add(0.0, static_cast<double>(num_zero));
  sum->add(-row.rules.penalty, static_cast<double>(num_used));
}

static float tile_maximum(const AdjustedRow& row, int64_t t) {
  alignas(64) float buffer[kBlock];
  Scan scan;
  row.for_each_block(t, [&](int64_t b) {
    row.visit(b, buffer,
              [&](const auto& block, bool) RNR_INLINE_LAMBDA { scan_block(block, &scan); });
  });
  return scan.top;
}

// Adds a tile's part of lse(logits) and lse(r).
static void add_tile_to_log_z(const AdjustedRow& row, int64_t t, float shift, const TileSums& tile,
                              RowSums* sums) {
  const float untouched_top = tile.untouched_scan.top;
  if (shift - untouched_top < kFar) {
    sums->base.add(shift, tile.untouched);
  } else if (untouched_top > -INFINITY) {
    sums->base.add(untouched_top, TileSums(row, t, untouched_top).untouched);
  }
  BaseSum touched(row, t, shift);
  if (touched.scan.top > shift + kFar || touched.scan.top < shift - kFar) {
    shift = touched.scan.top;
    touched = BaseSum(row, t, shift);
  }
  sums->base.add(shift, touched.total);
  sums->base_scan.add(tile.untouched_scan);
  sums->base_scan.add(touched.scan);
  add_scores_of_tile(row, t, &sums->rules);
}

// A tile is summed against the largest value so far, so that one look suffices; against its own
// largest only where that is far above. Blocks that no rule touches have equal terms in both
// distributions and a score of 0, so log Z costs further exponentials in touched blocks only.
template <bool kWantsLogZ>
static void sum_row(const AdjustedRow& row, RowSums* sums) {
  for (int64_t t = 0; t < row.logits.num_tiles(); ++t) {
    float shift = sums->scan.top;
    if (shift == -INFINITY) shift = tile_maximum(row, t);
    TileSums tile(row, t, shift);
    if (tile.top() > shift + kFar) {
      shift = tile.top();
      tile = TileSums(row, t, shift);
    }
    sums->adjusted.add(shift, tile.untouched + tile.touched);
    sums->scan.add(tile.touched_scan);
    sums->scan.add(tile.untouched_scan);
    if (kWantsLogZ) add_tile_to_log_z(row, t, shift, tile, sums);
  }
}

}  // namespace rnr::cpu::RNR_ISA
