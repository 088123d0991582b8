// Rank, ties, log-probability, entropy and largest tokens of rows of logits, in one read.
#include "kernels.h"
#include "statistics.h"

namespace rnr::cpu::RNR_ISA {
namespace {

struct TokenRow : RowStats {
  bool is_careful = false;  // the last block had negligible terms

  using RowStats::RowStats;

  RNR_INLINE void add_block(const float* block, int64_t start) {
    const bool counts = wants_counts(), was_careful = is_careful;
    const BlockPass pass = is_careful ? counts ? run<true, true>(block) : run<false, true>(block)
                           : counts   ? run<true, false>(block)
                                      : run<false, false>(block);
    is_careful = pass.has_negligible();
    if (pass.is_above() || (is_careful && !was_careful)) {
      add_again(block, maximum(pass.top));
    } else {
      add(pass);
    }
    look_at(pass, counts, block, start);
  }

 private:
  template <bool kCounts, bool kCareful>
  RNR_INLINE BlockPass run(const float* block) const {
    BlockPass pass(top, target);
#pragma GCC unroll 4
    for (const float* at = block; at < block + kBlock; at += kLanes) {
      pass.add<kCounts, kCareful>(load(at));
    }
    return pass;
  }

  __attribute__((noinline)) void add_again(const float* block, float block_top) {
    raise(block_top);
    add(run<false, true>(block));
  }
};

}  // namespace

void token_stats(const TokenStatsParams& params, int64_t begin, int64_t end) {
  alignas(64) float buffer[kBlock];
  for (int64_t r = begin; r < end; ++r) {
    const LogitsRow logits(params.logits, r);
    const Columns columns(params.chunk, params.logits, r);
    TokenRow row(params.token_ids[r], columns.vocab_size, params.top_k);
    if (columns.are_first) {
      row.start(logits, columns.vocab_size, at_row(params.chunk.targets, r));
    }
    columns.resume(&row);
    row.find_own(logits, columns.first);
    for (int64_t b = 0; b < logits.num_blocks(); ++b) {
      row.add_block(logits.block(b, buffer), columns.first + b * kBlock);
      if ((b + 1) % kTileBlocks == 0) row.end_tile();
    }
    row.end_tile();
    if (columns.are_last) {
      row.write(params.stats, r, params.top_k);
    } else {
      columns.suspend(row);
    }
  }
}

}  // namespace rnr::cpu::RNR_ISA
