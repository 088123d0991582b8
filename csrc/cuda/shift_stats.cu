// Statistics of rows of logits under two models, and how far apart the two are, in one read of
// both.
#include "launch.h"
#include "row_stats.h"

namespace rnr::cuda {
namespace {

// Sums of e_p (d_p - d_q) and of e_q (d_p - d_q) with e = exp(d), d = x - top of either model: the
// differences of the two models' logits cancel before they are summed.
struct CrossSums {
  double p = 0.0, q = 0.0;

  // The tops of both sums rise; called before they do.
  RNR_DEVICE void raise(const OnlineSum& sum_p, const OnlineSum& sum_q, float to_p, float to_q) {
    if (!(to_p > sum_p.top) && !(to_q > sum_q.top)) return;
    const double gap_p = gap(sum_p, to_p), gap_q = gap(sum_q, to_q), shift = gap_p - gap_q;
    p = (p + sum_p.total * shift) * exp_of_difference(static_cast<float>(gap_p), 0.0f);
    q = (q + sum_q.total * shift) * exp_of_difference(static_cast<float>(gap_q), 0.0f);
  }

 private:
  static RNR_DEVICE double gap(const OnlineSum& sum, float to) {
    return sum.top == -INFINITY || !(to > sum.top) ? 0.0 : static_cast<double>(sum.top) - to;
  }
};

struct WarpPair {
  WarpStats p, q;
  CrossSums cross;
  uint32_t first_p, first_q;        // columns of the largest logits
  uint32_t excluded_p, excluded_q;  // whether one has a token that the other excludes
};

struct ShiftShared {
  WarpPair warps[kMaxCluster * kWarps];  // in the first block
  LargestShared largest[2];              // last: there only where largest tokens are asked for
};
static_assert(sizeof(ShiftShared) <= kMaxShared, "two blocks must fit a multiprocessor");

// One thread's part of a row under both models.
struct ThreadPair {
  OnlineSum p, q;
  Counts counts_p, counts_q;
  CrossSums cross;
  int tile_p = 0, tile_q = 0;  // first columns of the tiles with the largest logits
  bool excluded_p = false, excluded_q = false;

  RNR_DEVICE void add(int first, const float (&x_p)[kColumns], const float (&x_q)[kColumns],
                      float target_p, float target_q) {
    const float top_p = largest_of(x_p), top_q = largest_of(x_q);
    if (top_p > p.top) tile_p = first;
    if (top_q > q.top) tile_q = first;
    cross.raise(p, q, top_p, top_q);
    p.raise(top_p);
    q.raise(top_q);
    const float shift_p = p.shift(), shift_q = q.shift();
    TileTerms terms_p, terms_q;
    float cross_p = 0.0f, cross_q = 0.0f;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const float d_p = x_p[i] - shift_p, d_q = x_q[i] - shift_q, gap = d_p - d_q;
      cross_p = fmaf(terms_p.add(d_p), gap, cross_p);
      cross_q = fmaf(terms_q.add(d_q), gap, cross_q);
    }
    terms_p.add_to(&p, x_p);
    terms_q.add_to(&q, x_q);
    // Neither is where a model excludes a token, or float32 does not hold a gap.
    if (fabsf(cross_p) + fabsf(cross_q) < INFINITY) {
      cross.p += cross_p;
      cross.q += cross_q;
    } else {
      add_carefully(x_p, x_q, shift_p, shift_q);
    }
    counts_p.add(x_p, top_p, target_p);
    counts_q.add(x_q, top_q, target_q);
  }

 private:
  RNR_DEVICE void add_carefully(const float (&x_p)[kColumns], const float (&x_q)[kColumns],
                                float shift_p, float shift_q) {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const bool has_p = x_p[i] > -INFINITY, has_q = x_q[i] > -INFINITY;
      excluded_p |= has_p && !has_q;
      excluded_q |= has_q && !has_p;
      if (!has_p || !has_q) continue;
      const double d_p = static_cast<double>(x_p[i]) - shift_p;
      const double d_q = static_cast<double>(x_q[i]) - shift_q;
      cross.p +=
          static_cast<double>(exp_of_difference(static_cast<float>(d_p), 0.0f)) * (d_p - d_q);
      cross.q +=
          static_cast<double>(exp_of_difference(static_cast<float>(d_q), 0.0f)) * (d_p - d_q);
    }
  }
};

// The lowest column of a warp's largest logit, which lies in the tile from column `tile` on.
template <typename L, typename T>
RNR_DEVICE uint32_t first_of_largest(const RowReader<T>& row, float top, int tile) {
  uint32_t first = UINT32_MAX;
  if (top == warp_max(top)) {
    float x[kColumns];
    row.template load<L>(tile, x);
#pragma unroll
    for (int i = kColumns - 1; i >= 0; --i) {
      if (x[i] == top) first = static_cast<uint32_t>(tile + L::column(i));
    }
  }
  return warp_min(first);
}

// KL; rounding may leave a little less than 0.
RNR_DEVICE float divergence(bool is_valid, bool is_excluded, double value) {
  if (!is_valid) return NAN;
  return is_excluded ? INFINITY : value > 0.0 ? static_cast<float>(value) : 0.0f;
}

// By one warp of the first block.
RNR_DEVICE void write_divergences(const ShiftStatsParams& params, int64_t r, const RowStats& p,
                                  const RowStats& q, const WarpPair* warps, int count) {
  double cross_p = 0.0, cross_q = 0.0;
  uint32_t first_p = UINT32_MAX, first_q = UINT32_MAX;
  bool excluded_p = false, excluded_q = false;
  for (int i = lane_index(); i < count; i += kWarpSize) {
    const WarpPair& warp = warps[i];
    CrossSums cross = warp.cross;
    cross.raise(warp.p.sum, warp.q.sum, p.top, q.top);
    cross_p += cross.p;
    cross_q += cross.q;
    if (warp.p.sum.top == p.top && warp.first_p < first_p) first_p = warp.first_p;
    if (warp.q.sum.top == q.top && warp.first_q < first_q) first_q = warp.first_q;
    excluded_p |= warp.excluded_p != 0;
    excluded_q |= warp.excluded_q != 0;
  }
  cross_p = warp_total(cross_p);
  cross_q = warp_total(cross_q);
  first_p = warp_min(first_p);
  first_q = warp_min(first_q);
  excluded_p = ballot(excluded_p) != 0;
  excluded_q = ballot(excluded_q) != 0;
  if (lane_index() != 0) return;
  const bool is_valid = p.is_valid && q.is_valid;
  const double log_gap = p.log_total - q.log_total;
  params.kl[r] = divergence(is_valid, excluded_p, cross_p / p.total - log_gap);
  params.base_kl[r] = divergence(is_valid, excluded_q, log_gap - cross_q / q.total);
  params.same_argmax[r] = is_valid && first_p == first_q;
}

template <typename T, typename U>
RNR_KERNEL shift_stats_kernel(RNR_PARAMS(ShiftStatsParams) params) {
  const int64_t r = block_index() / cluster_size();
  ShiftShared* shared = reinterpret_cast<ShiftShared*>(shared_memory());
  const RowReader<T> row_p(params.logits, r);
  const RowReader<U> row_q(params.base_logits, r);
  announce_block();
  const int64_t token = params.token_ids[r];
  const float target_p = row_p.at(token), target_q = row_q.at(token);
  ThreadPair thread;
  row_p.for_each_tile_with(
      row_q, [&](int first, const float (&x_p)[kColumns], const float (&x_q)[kColumns]) {
        thread.add(first, x_p, x_q, target_p, target_q);
      });
  WarpPair found;
  found.first_p = first_of_largest<Layout<T>>(row_p, thread.p.top, thread.tile_p);
  found.first_q = first_of_largest<Layout<T>>(row_q, thread.q.top, thread.tile_q);
  thread.cross.raise(thread.p, thread.q, warp_max(thread.p.top), warp_max(thread.q.top));
  found.cross = {warp_total(thread.cross.p), warp_total(thread.cross.q)};
  found.p = WarpStats(thread.p, thread.counts_p);
  found.q = WarpStats(thread.q, thread.counts_q);
  found.excluded_p = ballot(thread.excluded_p);
  found.excluded_q = ballot(thread.excluded_q);
  wait_cluster();  // the first block is there to write to
  if (lane_index() == 0) {
    *remote(&shared->warps[cluster_rank() * kWarps + warp_index()], 0) = found;
  }
  const int top_k = static_cast<int>(params.top_k);
  if (top_k > 0) {
    push_largest<T>(top_k, row_p.vocab_size(), thread.p.top, &shared->largest[0],
                    [&](auto f) { row_p.for_each_tile(f); });
    push_largest<U>(top_k, row_q.vocab_size(), thread.q.top, &shared->largest[1],
                    [&](auto f) { row_q.for_each_tile(f); });
  }
  sync_cluster();
  if (cluster_rank() != 0) return;
  const int count = cluster_size() * kWarps;
  const WarpPair* warps = shared->warps;
  const RowStats p(count, [&](int i) -> const WarpStats& { return warps[i].p; });
  const RowStats q(count, [&](int i) -> const WarpStats& { return warps[i].q; });
  if (thread_index() == 0) {
    p.write(params.stats, r, target_p, row_p.padding());
    q.write(params.base_stats, r, target_q, row_q.padding());
  }
  if (warp_index() == 0) write_divergences(params, r, p, q, warps, count);
  if (top_k > 0) {
    p.write_largest(params.stats, r, top_k, &shared->largest[0]);
    q.write_largest(params.base_stats, r, top_k, &shared->largest[1]);
  }
}

}  // namespace

void shift_stats(const ShiftStatsParams& params, const Device& device) {
  const int cluster = cluster_of(num_tiles(params.logits), device);
  const int64_t largest = sizeof(ShiftShared::largest);
  const int64_t shared = sizeof(ShiftShared) - (params.top_k > 0 ? 0 : largest);
  const auto launch_for = [&](auto type, auto base_type) {
    launch(shift_stats_kernel<decltype(type), decltype(base_type)>, params, params.logits.num_rows,
           cluster, shared, device);
  };
  with_dtype<Float32, BFloat16, Float16>(params.logits.dtype, [&](auto type) {
    with_dtype<Float32, BFloat16, Float16>(params.base_logits.dtype,
                                           [&](auto base_type) { launch_for(type, base_type); });
  });
}

}  // namespace rnr::cuda
