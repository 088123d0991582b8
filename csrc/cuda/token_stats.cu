// Rank, ties, log-probability, entropy and largest tokens of rows of logits, in one read.
#include "launch.h"
#include "row_stats.h"

namespace rnr::cuda {
namespace {

struct TokenShared {
  WarpStats warps[kMaxCluster * kWarps];  // in the first block
  LargestShared largest;                  // last: there only where largest tokens are asked for
};
static_assert(sizeof(TokenShared) <= kMaxShared, "two blocks must fit a multiprocessor");

template <typename T>
RNR_KERNEL token_stats_kernel(RNR_PARAMS(TokenStatsParams) params) {
  const int64_t r = block_index() / cluster_size();
  TokenShared* shared = reinterpret_cast<TokenShared*>(shared_memory());
  const RowReader<T> row(params.logits, r);
  announce_block();
  const float target = row.at(params.token_ids[r]);
  OnlineSum sum;
  Counts counts;
  row.for_each_tile([&](int, const float (&x)[kColumns]) {
    const float top = largest_of(x);
    sum.raise(top);
    const float shift = sum.shift();
    TileTerms terms;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) terms.add(x[i] - shift);
    terms.add_to(&sum, x);
    counts.add(x, top, target);
  });
  const WarpStats found(sum, counts);
  wait_cluster();  // the first block is there to write to
  if (lane_index() == 0) {
    *remote(&shared->warps[cluster_rank() * kWarps + warp_index()], 0) = found;
  }
  const int top_k = static_cast<int>(params.top_k);
  if (top_k > 0) {
    push_largest<T>(top_k, row.vocab_size(), sum.top, &shared->largest,
                    [&](auto f) { row.for_each_tile(f); });
  }
  sync_cluster();
  if (cluster_rank() != 0) return;
  const RowStats stats(cluster_size() * kWarps,
                       [&](int i) -> const WarpStats& { return shared->warps[i]; });
  if (thread_index() == 0) stats.write(params.stats, r, target, row.padding());
  if (top_k > 0) stats.write_largest(params.stats, r, top_k, &shared->largest);
}

}  // namespace

void token_stats(const TokenStatsParams& params, const Device& device) {
  const int cluster = cluster_of(num_tiles(params.logits), device);
  const int64_t largest = sizeof(TokenShared::largest);
  const int64_t shared = sizeof(TokenShared) - (params.top_k > 0 ? 0 : largest);
  with_dtype<Float32, BFloat16, Float16>(params.logits.dtype, [&](auto type) {
    launch(token_stats_kernel<decltype(type)>, params, params.logits.num_rows, cluster, shared,
           device);
  });
}

}  // namespace rnr::cuda
