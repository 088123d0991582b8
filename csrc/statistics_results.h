// Results of the ops of token statistics, allocated.
#pragma once

#include <tuple>

#include "binding.h"

namespace rnr {

using TokenStats = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

using ShiftStats = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,  //
                              Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,  //
                              Tensor, Tensor, Tensor>;

// Results of one model's statistics and where the kernel writes them.
struct Stats {
  Tensor rank, num_ties, logprob, entropy, top_token_ids, top_logprobs;

  Stats(const Arguments& at, int64_t num_rows, int64_t top_k)
      : rank(at.empty<int32_t>(num_rows)),
        num_ties(at.empty<int32_t>(num_rows)),
        logprob(at.empty<float>(num_rows)),
        entropy(at.empty<float>(num_rows)),
        top_token_ids(at.empty<int64_t>(num_rows, top_k)),
        top_logprobs(at.empty<float>(num_rows, top_k)) {}

  StatsColumns columns() const {
    return {data_of<int32_t>(rank),  data_of<int32_t>(num_ties),      data_of<float>(logprob),
            data_of<float>(entropy), data_of<int64_t>(top_token_ids), data_of<float>(top_logprobs)};
  }
  TokenStats results() const {
    return {rank, num_ties, logprob, entropy, top_token_ids, top_logprobs};
  }
};

// Results of both models' statistics and where the kernel writes them.
struct ShiftResults {
  Stats stats, base_stats;
  Tensor kl, base_kl, same_argmax;

  ShiftResults(const Arguments& at, int64_t num_rows, int64_t top_k)
      : stats(at, num_rows, top_k),
        base_stats(at, num_rows, top_k),
        kl(at.empty<float>(num_rows)),
        base_kl(at.empty<float>(num_rows)),
        same_argmax(at.empty<bool>(num_rows)) {}

  void fill(ShiftStatsParams* params) const {
    params->stats = stats.columns();
    params->base_stats = base_stats.columns();
    params->kl = data_of<float>(kl);
    params->base_kl = data_of<float>(base_kl);
    params->same_argmax = data_of<bool>(same_argmax);
  }
  ShiftStats all() const {
    return std::tuple_cat(stats.results(), base_stats.results(),
                          std::make_tuple(kl, base_kl, same_argmax));
  }
};

inline void check_top_k(int64_t top_k, int64_t vocab_size) {
  RNR_CHECK(top_k >= 0 && top_k <= kMaxTopK && top_k <= vocab_size, "top_k must be 0 to ", kMaxTopK,
            " and at most vocab_size, got ", top_k);
}

}  // namespace rnr
