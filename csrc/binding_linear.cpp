// torch.ops.rnr_C: what statistics from hidden states are made of, on the CPU.
#include "statistics_results.h"
#include "targets.h"

namespace rnr {
namespace {

const float* float_column(const Arguments& at, const char* name, const Tensor& column,
                          int64_t num_rows) {
  at.check_place(name, column);
  RNR_CHECK(dtype_of(column) == dtype_as<float>() && column.dim() == 1 && column.is_contiguous() &&
                column.size(0) == num_rows,
            name, " must be float32 [", num_rows, "], contiguous");
  return data_of<float>(column);
}

// The next columns of rows of `vocab_size`.
StatsChunk stats_chunk(const Arguments& at, const Tensor& running, const LogitsRows& logits,
                       int64_t first_column, int64_t vocab_size) {
  at.check_place("running", running);
  RNR_CHECK(running.dim() == 2 && running.is_contiguous() && running.size(0) >= logits.num_rows &&
                running.element_size() == 1 && running.size(1) == kRunningBytes,
            "running must be uint8 [", logits.num_rows, ", ", kRunningBytes, "]");
  const int64_t last = first_column + logits.vocab_size;
  RNR_CHECK(first_column >= 0 && first_column % kTile == 0 && vocab_size <= INT32_MAX &&
                (last == vocab_size || (last < vocab_size && last % kTile == 0)),
            "columns must be whole tiles of ", kTile, ", but for the last");
  StatsChunk chunk;
  chunk.running = running.data_ptr();
  chunk.first_column = first_column;
  chunk.vocab_size = vocab_size;
  return chunk;
}

// The results have no rows before the last columns.
int64_t rows_of_results(const StatsChunk& chunk, const LogitsRows& logits) {
  return chunk.first_column + logits.vocab_size == chunk.vocab_size ? logits.num_rows : 0;
}

TokenStats token_stats_chunk(const Tensor& logits, const Tensor& token_ids, const Tensor& targets,
                             int64_t first_column, int64_t vocab_size, int64_t top_k,
                             const Tensor& running, int64_t variant) {
  const Cpu target(logits, variant);
  TokenStatsParams params;
  params.logits = target.logits_rows("logits", logits, logits.size(1));
  const int64_t num_rows = params.logits.num_rows;
  params.token_ids = target.index_column("token_ids", token_ids, num_rows);
  check_top_k(top_k, vocab_size);
  params.top_k = top_k;
  params.chunk = stats_chunk(target, running, params.logits, first_column, vocab_size);
  params.chunk.targets = float_column(target, "targets", targets, num_rows);
  const Stats stats(target, rows_of_results(params.chunk, params.logits), top_k);
  params.stats = stats.columns();
  target.token_stats(params);
  return stats.results();
}

ShiftStats shift_stats_chunk(const Tensor& logits, const Tensor& base_logits,
                             const Tensor& token_ids, const Tensor& targets,
                             const Tensor& base_targets, int64_t first_column, int64_t vocab_size,
                             int64_t top_k, const Tensor& running, int64_t variant) {
  const Cpu target(logits, variant);
  ShiftStatsParams params;
  params.logits = target.logits_rows("logits", logits, logits.size(1));
  params.base_logits = target.logits_rows("base_logits", base_logits, logits.size(1));
  const int64_t num_rows = params.logits.num_rows;
  RNR_CHECK(params.base_logits.num_rows == num_rows, "base_logits must have ", num_rows, " rows");
  params.token_ids = target.index_column("token_ids", token_ids, num_rows);
  check_top_k(top_k, vocab_size);
  params.top_k = top_k;
  params.chunk = stats_chunk(target, running, params.logits, first_column, vocab_size);
  params.chunk.targets = float_column(target, "targets", targets, num_rows);
  params.chunk.base_targets = float_column(target, "base_targets", base_targets, num_rows);
  const ShiftResults results(target, rows_of_results(params.chunk, params.logits), top_k);
  results.fill(&params);
  target.shift_stats(params);
  return results.all();
}

HeadParams head_params(const Arguments& at, const Tensor& hidden, const Tensor& weight,
                       const Tensor& out) {
  HeadParams params;
  params.weight = at.logits_rows("weight", weight, weight.size(1));
  params.num_rows = hidden.size(0);
  params.hidden_width = (weight.size(1) + kDotLanes - 1) / kDotLanes * kDotLanes;
  at.check_place("hidden", hidden);
  RNR_CHECK(dtype_of(hidden) == dtype_as<float>() && hidden.dim() == 2 && hidden.is_contiguous() &&
                hidden.size(1) == params.hidden_width,
            "hidden must be float32 [rows, ", params.hidden_width, "], contiguous");
  params.hidden = data_of<float>(hidden);
  at.check_place("out", out);
  RNR_CHECK(dtype_of(out) == dtype_as<float>() && out.is_contiguous(),
            "out must be float32, contiguous");
  params.out = data_of<float>(out);
  return params;
}

// out [rows, tokens] = hidden @ weight.T, each by itself.
void head_logits(const Tensor& hidden, const Tensor& weight, const Tensor& out, int64_t variant) {
  const Cpu target(hidden, variant);
  HeadParams params = head_params(target, hidden, weight, out);
  RNR_CHECK(
      out.dim() == 2 && out.size(0) == params.num_rows && out.size(1) == params.weight.num_rows,
      "out must be [", params.num_rows, ", ", params.weight.num_rows, "]");
  params.out_stride = out.size(1);
  target.head_logits(params);
}

// out [rows]: of each row the one logit of its token.
void head_targets(const Tensor& hidden, const Tensor& weight, const Tensor& token_ids,
                  const Tensor& out, int64_t variant) {
  const Cpu target(hidden, variant);
  HeadParams params = head_params(target, hidden, weight, out);
  RNR_CHECK(out.dim() == 1 && out.size(0) == params.num_rows, "out must be [", params.num_rows,
            "]");
  params.token_ids = target.index_column("token_ids", token_ids, params.num_rows);
  params.out_stride = 1;
  target.head_targets(params);
}

int64_t running_bytes() { return kRunningBytes; }

#define RNR_STATS "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor"

STABLE_TORCH_LIBRARY_FRAGMENT(rnr_C, m) {
  m.def(
      "token_stats_chunk(Tensor logits, Tensor token_ids, Tensor targets, int first_column, "
      "int vocab_size, int top_k, Tensor(a!) running, int variant) -> (" RNR_STATS ")");
  m.def(
      "shift_stats_chunk(Tensor logits, Tensor base_logits, Tensor token_ids, Tensor targets, "
      "Tensor base_targets, int first_column, int vocab_size, int top_k, Tensor(a!) running, "
      "int variant) -> (" RNR_STATS ", " RNR_STATS ", Tensor, Tensor, Tensor)");
  m.def("head_logits(Tensor hidden, Tensor weight, Tensor(a!) out, int variant) -> ()");
  m.def(
      "head_targets(Tensor hidden, Tensor weight, Tensor token_ids, Tensor(a!) out, "
      "int variant) -> ()");
  m.def("running_bytes() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(rnr_C, CPU, m) {
  m.impl("token_stats_chunk", TORCH_BOX(&token_stats_chunk));
  m.impl("shift_stats_chunk", TORCH_BOX(&shift_stats_chunk));
  m.impl("head_logits", TORCH_BOX(&head_logits));
  m.impl("head_targets", TORCH_BOX(&head_targets));
}

// Without tensors among the arguments, no device says which kernel is meant.
STABLE_TORCH_LIBRARY_IMPL(rnr_C, CompositeExplicitAutograd, m) {
  m.impl("running_bytes", TORCH_BOX(&running_bytes));
}

}  // namespace
}  // namespace rnr
