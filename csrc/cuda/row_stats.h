// What statistics of tokens find in a row of logits: by a thread in its columns, by a warp, and by
// the first block in all of them.
#pragma once

#include "largest.h"
#include "row_reader.h"

namespace rnr::cuda {

// exp(x - top) below this exponent is 0, and times the exponent still.
constexpr float kNegligible = -100.0f;

// How many logits are above the target, and how many equal to it.
struct Counts {
  uint32_t greater = 0, equal = 0;

  // `top` is the largest of them; a target that is NaN counts nothing.
  RNR_DEVICE void add(const float (&x)[kColumns], float top, float target) {
    if (!(top >= target)) return;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      greater += x[i] > target;
      equal += x[i] == target;
    }
  }
};

// A thread's terms exp(d) and exp(d) d of one tile, d = x - shift with the shift of their sum.
struct TileTerms {
  float total = 0.0f, weighted = 0.0f;

  // exp(distance).
  RNR_DEVICE float add(float distance) {
    const float term = fast_exp2(distance * kLog2E);
    total = total + term;
    weighted = fmaf(term, distance, weighted);
    return term;
  }

  RNR_DEVICE void add_to(OnlineSum* sum, const float (&x)[kColumns]) {
    if (!(fabsf(weighted) < INFINITY)) {
      // A banned token's term is 0, and shall be 0 too times its distance; a NaN is to stay.
      const float shift = sum->shift();
      weighted = 0.0f;
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const float distance = max_with_nan(x[i] - shift, kNegligible);
        weighted = fmaf(fast_exp2(distance * kLog2E), distance, weighted);
      }
    }
    sum->total = sum->total + total;
    sum->weighted = sum->weighted + weighted;
  }
};

// What a warp has found, the same in all lanes.
struct WarpStats {
  OnlineSum sum;
  Counts counts;

  WarpStats() = default;
  RNR_DEVICE WarpStats(const OnlineSum& thread, const Counts& counts)
      : sum(warp_sum(thread)), counts{warp_add(counts.greater), warp_add(counts.equal)} {}
};

// Sums and counts of a row, from its warps' in a fixed order; the same in all lanes.
struct RowStats {
  float top = -INFINITY;
  double total = 0.0, weighted = 0.0, log_total = 0.0;
  uint32_t greater = 0, equal = 0;
  bool is_valid = false;

  // warp(i) gives what the i-th of `count` warps has found.
  template <typename F>
  RNR_DEVICE RowStats(int count, F warp) {
    for (int i = lane_index(); i < count; i += kWarpSize) {
      const WarpStats& found = warp(i);
      top = fmaxf(top, found.sum.top);
      greater += found.counts.greater;
      equal += found.counts.equal;
    }
    top = warp_max(top);
    greater = warp_add(greater);
    equal = warp_add(equal);
    for (int i = lane_index(); i < count; i += kWarpSize) {
      const OnlineSum& sum = warp(i).sum;
      if (sum.total == 0.0f) continue;
      const double factor = exp_of_difference(sum.top, top);
      const double gap = static_cast<double>(sum.top) - top;
      total += sum.total * factor;
      weighted += (sum.weighted + sum.total * gap) * factor;
    }
    total = warp_total(total);
    weighted = warp_total(weighted);
    is_valid = total > 0.0;
    if (is_valid) log_total = log(total);
  }

  // By one thread. `padding`: columns that were read past the vocabulary, as -inf.
  RNR_DEVICE void write(const StatsColumns& out, int64_t r, float target, int padding) const {
    const bool is_known = is_valid && target == target;
    // The target equals itself, and a banned one what lies past the vocabulary.
    const int others = static_cast<int>(equal) - 1 - (target == -INFINITY ? padding : 0);
    const double distance = static_cast<double>(target) - top;
    out.rank[r] = is_known ? 1 + static_cast<int>(greater) : 0;
    out.num_ties[r] = is_known ? others : 0;
    out.logprob[r] = is_known ? static_cast<float>(distance - log_total) : NAN;
    out.entropy[r] = is_valid ? static_cast<float>(log_total - weighted / total) : NAN;
  }

  // By all threads of the first block.
  RNR_DEVICE void write_largest(const StatsColumns& out, int64_t r, int top_k,
                                LargestShared* largest) const {
    int64_t* ids = out.top_token_ids + r * top_k;
    float* logprobs = out.top_logprobs + r * top_k;
    if (!is_valid) {
      for (int place = thread_index(); place < top_k; place += kThreads) {
        ids[place] = -1;
        logprobs[place] = NAN;
      }
      return;
    }
    for_each_largest(top_k, largest, [&](int place, const Entry& entry) {
      ids[place] = entry.column;
      logprobs[place] = static_cast<float>((entry.value - top) - log_total);
    });
  }
};

}  // namespace rnr::cuda
