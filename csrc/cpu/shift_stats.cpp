// Statistics of rows of logits under two models, and how far apart the two are, in one read of
// both.
#include "kernels.h"
#include "statistics.h"

namespace rnr::cpu::RNR_ISA {
namespace {

constexpr float kHugeGap = 1e30f;

// The passes over one block of both, with sums of e_p (d_p - d_q) and of e_q (d_p - d_q), where
// d = x - top: differences of the two models' logits cancel before they are summed.
struct PairPass {
  BlockPass p, q;
  Floats cross_p = splat(0.0f), cross_q = splat(0.0f);
  // Lanes where p has a token that q excludes, q one that p excludes, and where both have one but
  // the gap was left out, because sums of float32 may not hold it.
  Mask excluded_p = no_lanes(), excluded_q = no_lanes(), huge = no_lanes();

  template <bool kCounts, bool kCareful>
  RNR_INLINE void add(Floats x_p, Floats x_q) {
    const BlockPass::Term term_p = p.add<kCounts, kCareful>(x_p);
    const BlockPass::Term term_q = q.add<kCounts, kCareful>(x_q);
    Floats gap = term_p.d - term_q.d;
    if (kCareful) {
      // Terms that count see the whole gap, from tokens that do not count as well.
      gap = (x_p - p.shift) - (x_q - q.shift);
      const Mask is_small = (gap < splat(kHugeGap)) & (gap > splat(-kHugeGap));
      gap = keep(is_small, gap);
      const Mask has_p = x_p > splat(-INFINITY), has_q = x_q > splat(-INFINITY);
      excluded_p = excluded_p | (has_p & ~has_q);
      excluded_q = excluded_q | (has_q & ~has_p);
      huge = huge | (has_p & has_q & ~is_small);
    }
    cross_p = fma(term_p.e, gap, cross_p);
    cross_q = fma(term_q.e, gap, cross_q);
  }
};

struct PairRow {
  RowStats p, q;
  Floats cross_lanes_p = splat(0.0f), cross_lanes_q = splat(0.0f);
  Mask excluded_p = no_lanes(), excluded_q = no_lanes();
  double cross_p = 0.0, cross_q = 0.0;
  bool is_careful = false;  // the last blocks had negligible terms

  RNR_INLINE PairRow(int64_t id, int64_t vocab_size, int64_t list_size)
      : p(id, vocab_size, list_size), q(id, vocab_size, list_size) {}

  RNR_INLINE void add_block(const float* block_p, const float* block_q, int64_t start) {
    const bool counts = p.wants_counts() && q.wants_counts(), was_careful = is_careful;
    const PairPass pass =
        is_careful ? counts ? run<true, true>(block_p, block_q) : run<false, true>(block_p, block_q)
        : counts   ? run<true, false>(block_p, block_q)
                   : run<false, false>(block_p, block_q);
    is_careful = pass.p.has_negligible() || pass.q.has_negligible();
    if (pass.p.is_above() || pass.q.is_above() || (is_careful && !was_careful)) {
      add_again(block_p, block_q, maximum(pass.p.top), maximum(pass.q.top));
    } else {
      add(pass, block_p, block_q);
    }
    p.look_at(pass.p, counts, block_p, start);
    q.look_at(pass.q, counts, block_q, start);
  }

  RNR_INLINE void end_tile() {
    p.end_tile();
    q.end_tile();
    end_cross();
  }

  void write(const ShiftStatsParams& params, int64_t r) const {
    p.write(params.stats, r, params.top_k);
    q.write(params.base_stats, r, params.top_k);
    const bool valid = p.sums.is_valid() && q.sums.is_valid();
    const double total_gap = valid ? log64(p.sums.total) - log64(q.sums.total) : 0.0;
    params.kl[r] = divergence(valid, any(excluded_p), cross_p / p.sums.total - total_gap);
    params.base_kl[r] = divergence(valid, any(excluded_q), total_gap - cross_q / q.sums.total);
    params.same_argmax[r] = valid && p.largest.ids[0] == q.largest.ids[0];
  }

 private:
  template <bool kCounts, bool kCareful>
  RNR_INLINE PairPass run(const float* block_p, const float* block_q) const {
    PairPass pass{{p.top, p.target}, {q.top, q.target}};
#pragma GCC unroll 4
    for (int i = 0; i < kBlock; i += kLanes) {
      pass.add<kCounts, kCareful>(load(block_p + i), load(block_q + i));
    }
    return pass;
  }

  RNR_INLINE void add(const PairPass& pass, const float* block_p, const float* block_q) {
    p.add(pass.p);
    q.add(pass.q);
    cross_lanes_p = cross_lanes_p + pass.cross_p;
    cross_lanes_q = cross_lanes_q + pass.cross_q;
    excluded_p = excluded_p | pass.excluded_p;
    excluded_q = excluded_q | pass.excluded_q;
    if (any(pass.huge)) add_huge(block_p, block_q);
  }

  // The cross terms that were left out, by the same float32 gap.
  __attribute__((noinline)) void add_huge(const float* block_p, const float* block_q) {
    const float shift_p = static_cast<float>(p.sums.top), shift_q = static_cast<float>(q.sums.top);
    for (int i = 0; i < kBlock; ++i) {
      const float rounded = (block_p[i] - shift_p) - (block_q[i] - shift_q);
      const double d_p = block_p[i] - p.sums.top, d_q = block_q[i] - q.sums.top, gap = d_p - d_q;
      const bool is_small = rounded < kHugeGap && rounded > -kHugeGap;
      if (!(d_p > -INFINITY && d_q > -INFINITY) || is_small) continue;
      cross_p += exp64(d_p) * gap;
      cross_q += exp64(d_q) * gap;
    }
  }

  RNR_INLINE void end_cross() {
    cross_p += wide_sum(cross_lanes_p);
    cross_q += wide_sum(cross_lanes_q);
    cross_lanes_p = cross_lanes_q = splat(0.0f);
  }

  // Only the side that rises ends its lanes, so that either side's sums are those of token_stats.
  __attribute__((noinline)) void add_again(const float* block_p, const float* block_q, float top_p,
                                           float top_q) {
    const double total_p = p.sums.total + wide_sum(p.total);
    const double total_q = q.sums.total + wide_sum(q.total);
    const double before_p = p.sums.top, before_q = q.sums.top;
    const double factor_p = p.raise(top_p), factor_q = q.raise(top_q);
    const double shift = (before_p - p.sums.top) - (before_q - q.sums.top);
    end_cross();
    cross_p = (cross_p + total_p * shift) * factor_p;
    cross_q = (cross_q + total_q * shift) * factor_q;
    add(run<false, true>(block_p, block_q), block_p, block_q);
  }

  // Rounding may leave a little less than 0.
  static float divergence(bool valid, bool excluded, double value) {
    if (!valid) return NAN;
    return excluded ? INFINITY : value > 0.0 ? static_cast<float>(value) : 0.0f;
  }
};

}  // namespace

void shift_stats(const ShiftStatsParams& params, int64_t begin, int64_t end) {
  alignas(64) float buffer_p[kBlock], buffer_q[kBlock];
  const int64_t list_size = params.top_k > 0 ? params.top_k : 1;
  for (int64_t r = begin; r < end; ++r) {
    const LogitsRow logits_p(params.logits, r), logits_q(params.base_logits, r);
    const Columns columns(params.chunk, params.logits, r);
    PairRow row(params.token_ids[r], columns.vocab_size, list_size);
    if (columns.are_first) {
      row.p.start(logits_p, columns.vocab_size, at_row(params.chunk.targets, r));
      row.q.start(logits_q, columns.vocab_size, at_row(params.chunk.base_targets, r));
    }
    columns.resume(&row);
    row.p.find_own(logits_p, columns.first);
    row.q.find_own(logits_q, columns.first);
    for (int64_t b = 0; b < logits_p.num_blocks(); ++b) {
      row.add_block(logits_p.block(b, buffer_p), logits_q.block(b, buffer_q),
                    columns.first + b * kBlock);
      if ((b + 1) % kTileBlocks == 0) row.end_tile();
    }
    row.end_tile();
    if (columns.are_last) {
      row.write(params, r);
    } else {
      columns.suspend(row);
    }
  }
}

}  // namespace rnr::cpu::RNR_ISA
