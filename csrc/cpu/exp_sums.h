// Sums of exponentials over a row, whose bits depend on nothing but the row.
#pragma once

#include "adjusted_row.h"

namespace rnr::cpu::RNR_ISA {

// How far the largest term of a sum may be from its shift: an exponential's relative error grows by
// 1.3e-8 with each nat.
constexpr float kFar = 8.0f;
// And how far the logits' largest may lie below that of the adjusted ones for one shift to serve
// both: a ramp on EOS lifts the latter by 18 within 300 tokens.
constexpr float kFarBelow = 32.0f;

// exp(x - shift), 0 where that is negligible.
RNR_INLINE Quad exp_terms(const Quad& x, Floats shift) {
  const Quad d = each([&](Floats a) RNR_INLINE_LAMBDA { return a - shift; }, x);
  const auto counts = [](Floats a) RNR_INLINE_LAMBDA { return a > splat(kNegligible); };
  return exp_where(each(counts, d), d);
}

// Lane sums of exp(x - shift) over runs of `count` blocks, in the order of the columns.
struct ExpSum {
  Quad lanes = splat_quad(0.0f);

  RNR_INLINE void add(const Quad& terms) {
    lanes = each([](Floats a, Floats b) RNR_INLINE_LAMBDA { return a + b; }, lanes, terms);
  }

  template <typename Run>
  RNR_INLINE void add(const Run& run, int count, float shift) {
    // In a copy, or each addition would be stored. Unrolled, GCC runs out of registers.
    ExpSum part = *this;
    const Floats shifts = splat(shift);
#pragma GCC unroll 1
    for (int q = 0; q < count * kBlockQuads; ++q) part.add(exp_terms(run.quad(q), shifts));
    *this = part;
  }

  // Looks at the values too, which may exceed the shift by kFar.
  template <typename Run>
  RNR_INLINE void add(const Run& run, int count, float shift, LaneScan* scan) {
    LaneScan seen = *scan;
    ExpSum part = *this;
    const Floats shifts = splat(shift);
#pragma GCC unroll 1
    for (int q = 0; q < count * kBlockQuads; ++q) {
      const Quad x = run.quad(q);
      seen.add(x);
      part.add(exp_terms(x, shifts));
    }
    *this = part;
    *scan = seen;
  }

  // And adds the logits' terms to `base`: the same ones, save for the few that differ.
  template <typename Run>
  RNR_INLINE void add(const Run& run, int count, float shift, LaneScan* scan, ExpSum* base,
                      LaneScan* base_scan) {
    LaneScan seen = *scan, base_seen = *base_scan;
    ExpSum part = *this, base_part = *base;
    const Floats shifts = splat(shift);
#pragma GCC unroll 1
    for (int q = 0; q < count * kBlockQuads; ++q) {
      const Quad x = run.quad(q);
      Quad before = x, terms = exp_terms(x, shifts);
      seen.add(x);
      part.add(terms);
      if (run.differs(q)) {
        before = run.logits(q);
        terms = exp_terms(before, shifts);
      }
      base_seen.add(before);
      base_part.add(terms);
    }
    *this = part;
    *base = base_part;
    *scan = seen;
    *base_scan = base_seen;
  }

  RNR_INLINE double total() const { return sum((lanes.a + lanes.b) + (lanes.c + lanes.d)); }
};

RNR_INLINE double exp_sum(const float* values, float shift) {
  ExpSum sum;
  sum.add(PlainRun{values}, 1, shift);
  return sum.total();
}

// What a pass over a row finds: of the adjusted logits, and for log Z of the logits and the scores.
struct RowSums {
  LogSum adjusted, base, rules;
  Scan scan, base_scan;

  // lse(adjusted) = scan.top + log_total().
  RNR_INLINE double log_total() const { return adjusted.log_total() + (adjusted.top - scan.top); }
};

// Sums of exp(x - shift) over a tile: of its adjusted logits, and for log Z of its logits.
template <bool kWantsLogZ>
struct TileSums {
  double adjusted, base;
  Scan scan, base_scan;

  TileSums(const AdjustedRow& row, int64_t t, float shift) {
    BlockBuffer buffer;
    ExpSum sum, base_sum;
    LaneScan lanes, base_lanes;
    row.for_each_run(t, &buffer, [&](const auto& run, int64_t, int count) RNR_INLINE_LAMBDA {
      if constexpr (kWantsLogZ) {
        sum.add(run, count, shift, &lanes, &base_sum, &base_lanes);
      } else {
        sum.add(run, count, shift, &lanes);
      }
    });
    adjusted = sum.total();
    scan = lanes.reduced();
    base = base_sum.total();
    base_scan = base_lanes.reduced();
  }
};

static float tile_maximum(const AdjustedRow& row, int64_t t) {
  BlockBuffer buffer;
  Scan scan;
  row.for_each_run(t, &buffer, [&](const auto& run, int64_t, int count) {
    for (int k = 0; k < count; ++k) scan_block(run, k, &scan);
  });
  return scan.top;
}

// Sum of exp(logit - shift) over a tile.
static double base_sum(const AdjustedRow& row, int64_t t, float shift) {
  alignas(64) float buffer[kBlock];
  ExpSum sum;
  const int64_t num_blocks = row.logits.num_blocks();
  for (int64_t b = t * kTileBlocks; b < (t + 1) * kTileBlocks && b < num_blocks; ++b) {
    sum.add(PlainRun{row.logits.block(b, buffer)}, 1, shift);
  }
  return sum.total();
}

// Adds a tile's part of lse(logits): the sum taken along, unless rules have moved the largest value
// so far that its terms lie at the edge of what the shift allows.
[[maybe_unused]] static void add_base(const AdjustedRow& row, int64_t t, float shift,
                                      const TileSums<true>& tile, RowSums* sums) {
  const float top = tile.base_scan.top;
  sums->base_scan.add(tile.base_scan);
  if (top == -INFINITY) return;
  if (top <= shift + kFar && top >= shift - kFarBelow) {
    sums->base.add(shift, tile.base);
  } else if (top < INFINITY) {
    sums->base.add(top, base_sum(row, t, top));
  }
}

// lse(r): scores of 0 and of used tokens alone are counted, few blocks have others.
static LogSum sum_scores(const AdjustedRow& row) {
  LogSum sum;
  int64_t num_used = 0, num_counted = 0;
  for (int64_t b = 0; b < row.logits.num_blocks(); ++b) {
    const int64_t rest = row.logits.vocab_size - b * kBlock;
    const int64_t count = rest < kBlock ? rest : kBlock;
    if (row.touches_only_used(b)) {
      num_counted += count;
      if (row.rules.used != nullptr) num_used += row.count_used(b);
      continue;
    }
    BlockBuffer buffer;
    alignas(64) float scores[kBlock];
    row.adjust(b, row.logits.block(b, buffer.logits), buffer.adjusted, scores);
    for (int64_t v = count; v < kBlock; ++v) scores[v] = -INFINITY;
    Scan unused;
    const float top = scan_block(PlainRun{scores}, 0, &unused);
    if (top > -INFINITY) sum.add(top, exp_sum(scores, top));
  }
  sum.add(0.0, static_cast<double>(num_counted - num_used));
  sum.add(-row.rules.penalty, static_cast<double>(num_used));
  return sum;
}

// A tile is summed against the largest value so far, so that one look suffices; against its own
// largest only where that is far above. Where rules change nothing the terms serve both
// distributions, so log Z costs further exponentials only where they do.
template <bool kWantsLogZ>
static void sum_row(const AdjustedRow& row, RowSums* sums) {
  for (int64_t t = 0; t < row.logits.num_tiles(); ++t) {
    float shift = sums->scan.top;
    if (shift == -INFINITY) shift = tile_maximum(row, t);
    TileSums<kWantsLogZ> tile(row, t, shift);
    if (tile.scan.top > shift + kFar) {
      shift = tile.scan.top;
      tile = TileSums<kWantsLogZ>(row, t, shift);
    }
    sums->adjusted.add(shift, tile.adjusted);
    sums->scan.add(tile.scan);
    if constexpr (kWantsLogZ) add_base(row, t, shift, tile, sums);
  }
  if (kWantsLogZ) sums->rules = sum_scores(row);
}

}  // namespace rnr::cpu::RNR_ISA
