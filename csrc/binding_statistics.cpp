// torch.ops.rnr_C: the ops of token statistics of logits.
#include "statistics_results.h"
#include "targets.h"

namespace rnr {
namespace {

template <typename Target>
TokenStats token_stats(const Tensor& logits, const Tensor& token_ids, int64_t vocab_size,
                       int64_t top_k, int64_t variant) {
  const Target target(logits, variant);
  TokenStatsParams params;
  params.logits = target.logits_rows("logits", logits, vocab_size);
  const int64_t num_rows = params.logits.num_rows;
  params.token_ids = target.index_column("token_ids", token_ids, num_rows);
  check_top_k(top_k, vocab_size);
  params.top_k = top_k;
  const Stats stats(target, num_rows, top_k);
  params.stats = stats.columns();
  target.token_stats(params);
  return stats.results();
}

template <typename Target>
ShiftStats shift_stats(const Tensor& logits, const Tensor& base_logits, const Tensor& token_ids,
                       int64_t vocab_size, int64_t top_k, int64_t variant) {
  const Target target(logits, variant);
  ShiftStatsParams params;
  params.logits = target.logits_rows("logits", logits, vocab_size);
  params.base_logits = target.logits_rows("base_logits", base_logits, vocab_size);
  const int64_t num_rows = params.logits.num_rows;
  RNR_CHECK(params.base_logits.num_rows == num_rows, "base_logits must have ", num_rows, " rows");
  params.token_ids = target.index_column("token_ids", token_ids, num_rows);
  check_top_k(top_k, vocab_size);
  params.top_k = top_k;
  const ShiftResults results(target, num_rows, top_k);
  results.fill(&params);
  target.shift_stats(params);
  return results.all();
}

#define RNR_STATS "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor"

STABLE_TORCH_LIBRARY_FRAGMENT(RNR_LIBRARY, m) {
  m.def(
      "token_stats(Tensor logits, Tensor token_ids, int vocab_size, int top_k, "
      "int variant) -> (" RNR_STATS ")");
  m.def(
      "shift_stats(Tensor logits, Tensor base_logits, Tensor token_ids, int vocab_size, "
      "int top_k, int variant) -> (" RNR_STATS ", " RNR_STATS ", Tensor, Tensor, Tensor)");
}

template <typename Target, typename Library>
void implement(Library& m) {
  m.impl("token_stats", TORCH_BOX(&token_stats<Target>));
  m.impl("shift_stats", TORCH_BOX(&shift_stats<Target>));
}

RNR_IMPLEMENT(implement)

}  // namespace
}  // namespace rnr
