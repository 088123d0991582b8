// torch.ops.rnr_C: the ops of token statistics.
#include <tuple>

#include "binding.h"

namespace rnr {
namespace {

// A product of two numbers, to the statistics of one.
constexpr int64_t kProductsPerElement = 4;

// Results of one model's statistics and where the kernel writes them.
struct Stats {
  Tensor rank, num_ties, logprob, entropy, top_token_ids, top_logprobs;

  Stats(int64_t num_rows, int64_t top_k)
      : rank(empty<int32_t>(num_rows)),
        num_ties(empty<int32_t>(num_rows)),
        logprob(empty<float>(num_rows)),
        entropy(empty<float>(num_rows)),
        top_token_ids(empty<int64_t>(num_rows, top_k)),
        top_logprobs(empty<float>(num_rows, top_k)) {}

  StatsColumns columns() const {
    return {data_of<int32_t>(rank),  data_of<int32_t>(num_ties),      data_of<float>(logprob),
            data_of<float>(entropy), data_of<int64_t>(top_token_ids), data_of<float>(top_logprobs)};
  }
  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> results() const {
    return {rank, num_ties, logprob, entropy, top_token_ids, top_logprobs};
  }
};

void check_top_k(int64_t top_k, int64_t vocab_size) {
  RNR_CHECK(top_k >= 0 && top_k <= kMaxTopK && top_k <= vocab_size, "top_k must be 0 to ", kMaxTopK,
            " and at most vocab_size, got ", top_k);
}

using TokenStats = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

TokenStats token_stats(const Tensor& logits, const Tensor& token_ids, int64_t vocab_size,
                       int64_t top_k, int64_t instruction_set) {
  TokenStatsParams params;
  params.logits = logits_rows("logits", logits, vocab_size);
  const int64_t num_rows = params.logits.num_rows;
  params.token_ids = index_column("token_ids", token_ids, num_rows);
  check_top_k(top_k, vocab_size);
  params.top_k = top_k;
  const Stats stats(num_rows, top_k);
  params.stats = stats.columns();
  over_rows(kernels_of(instruction_set).token_stats, params, num_rows, vocab_size);
  return stats.results();
}

using ShiftStats = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,  //
                              Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,  //
                              Tensor, Tensor, Tensor>;

// Results of both models' statistics and where the kernel writes them.
struct ShiftResults {
  Stats stats, base_stats;
  Tensor kl, base_kl, same_argmax;

  ShiftResults(int64_t num_rows, int64_t top_k)
      : stats(num_rows, top_k),
        base_stats(num_rows, top_k),
        kl(empty<float>(num_rows)),
        base_kl(empty<float>(num_rows)),
        same_argmax(empty<bool>(num_rows)) {}

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

ShiftStats shift_stats(const Tensor& logits, const Tensor& base_logits, const Tensor& token_ids,
                       int64_t vocab_size, int64_t top_k, int64_t instruction_set) {
  ShiftStatsParams params;
  params.logits = logits_rows("logits", logits, vocab_size);
  params.base_logits = logits_rows("base_logits", base_logits, vocab_size);
  const int64_t num_rows = params.logits.num_rows;
  RNR_CHECK(params.base_logits.num_rows == num_rows, "base_logits must have ", num_rows, " rows");
  params.token_ids = index_column("token_ids", token_ids, num_rows);
  check_top_k(top_k, vocab_size);
  params.top_k = top_k;
  const ShiftResults results(num_rows, top_k);
  results.fill(&params);
  over_rows(kernels_of(instruction_set).shift_stats, params, num_rows, 2 * vocab_size);
  return results.all();
}

const float* float_column(const char* name, const Tensor& column, int64_t num_rows) {
  check_cpu(name, column);
  RNR_CHECK(dtype_of(column) == dtype_as<float>() && column.dim() == 1 && column.is_contiguous() &&
                column.size(0) == num_rows,
            name, " must be float32 [", num_rows, "], contiguous");
  return data_of<float>(column);
}

// The next columns of rows of `vocab_size`.
StatsChunk stats_chunk(const Tensor& running, const LogitsRows& logits, int64_t first_column,
                       int64_t vocab_size) {
  check_cpu("running", running);
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
                             const Tensor& running, int64_t instruction_set) {
  TokenStatsParams params;
  params.logits = logits_rows("logits", logits, logits.size(1));
  const int64_t num_rows = params.logits.num_rows;
  params.token_ids = index_column("token_ids", token_ids, num_rows);
  check_top_k(top_k, vocab_size);
  params.top_k = top_k;
  params.chunk = stats_chunk(running, params.logits, first_column, vocab_size);
  params.chunk.targets = float_column("targets", targets, num_rows);
  const Stats stats(rows_of_results(params.chunk, params.logits), top_k);
  params.stats = stats.columns();
  over_rows(kernels_of(instruction_set).token_stats, params, num_rows, logits.size(1));
  return stats.results();
}

ShiftStats shift_stats_chunk(const Tensor& logits, const Tensor& base_logits,
                             const Tensor& token_ids, const Tensor& targets,
                             const Tensor& base_targets, int64_t first_column, int64_t vocab_size,
                             int64_t top_k, const Tensor& running, int64_t instruction_set) {
  ShiftStatsParams params;
  params.logits = logits_rows("logits", logits, logits.size(1));
  params.base_logits = logits_rows("base_logits", base_logits, logits.size(1));
  const int64_t num_rows = params.logits.num_rows;
  RNR_CHECK(params.base_logits.num_rows == num_rows, "base_logits must have ", num_rows, " rows");
  params.token_ids = index_column("token_ids", token_ids, num_rows);
  check_top_k(top_k, vocab_size);
  params.top_k = top_k;
  params.chunk = stats_chunk(running, params.logits, first_column, vocab_size);
  params.chunk.targets = float_column("targets", targets, num_rows);
  params.chunk.base_targets = float_column("base_targets", base_targets, num_rows);
  const ShiftResults results(rows_of_results(params.chunk, params.logits), top_k);
  results.fill(&params);
  over_rows(kernels_of(instruction_set).shift_stats, params, num_rows, 2 * logits.size(1));
  return results.all();
}

HeadParams head_params(const Tensor& hidden, const Tensor& weight, const Tensor& out) {
  HeadParams params;
  params.weight = logits_rows("weight", weight, weight.size(1));
  params.num_rows = hidden.size(0);
  params.hidden_width = (weight.size(1) + kDotLanes - 1) / kDotLanes * kDotLanes;
  check_cpu("hidden", hidden);
  RNR_CHECK(dtype_of(hidden) == dtype_as<float>() && hidden.dim() == 2 && hidden.is_contiguous() &&
                hidden.size(1) == params.hidden_width,
            "hidden must be float32 [rows, ", params.hidden_width, "], contiguous");
  params.hidden = data_of<float>(hidden);
  check_cpu("out", out);
  RNR_CHECK(dtype_of(out) == dtype_as<float>() && out.is_contiguous(),
            "out must be float32, contiguous");
  params.out = data_of<float>(out);
  return params;
}

// out [rows, tokens] = hidden @ weight.T, each by itself.
void head_logits(const Tensor& hidden, const Tensor& weight, const Tensor& out,
                 int64_t instruction_set) {
  HeadParams params = head_params(hidden, weight, out);
  RNR_CHECK(
      out.dim() == 2 && out.size(0) == params.num_rows && out.size(1) == params.weight.num_rows,
      "out must be [", params.num_rows, ", ", params.weight.num_rows, "]");
  params.out_stride = out.size(1);
  if (params.num_rows == 0) return;
  over_rows(kernels_of(instruction_set).head_logits, params, params.weight.num_rows,
            params.num_rows * params.hidden_width / kProductsPerElement + 1);
}

// out [rows]: of each row the one logit of its token.
void head_targets(const Tensor& hidden, const Tensor& weight, const Tensor& token_ids,
                  const Tensor& out, int64_t instruction_set) {
  HeadParams params = head_params(hidden, weight, out);
  RNR_CHECK(out.dim() == 1 && out.size(0) == params.num_rows, "out must be [", params.num_rows,
            "]");
  params.token_ids = index_column("token_ids", token_ids, params.num_rows);
  params.out_stride = 1;
  over_rows(kernels_of(instruction_set).head_targets, params, params.num_rows, params.hidden_width);
}

int64_t running_bytes() { return kRunningBytes; }

#define RNR_STATS "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor"

STABLE_TORCH_LIBRARY_FRAGMENT(rnr_C, m) {
  m.def(
      "token_stats(Tensor logits, Tensor token_ids, int vocab_size, int top_k, "
      "int instruction_set) -> (" RNR_STATS ")");
  m.def(
      "shift_stats(Tensor logits, Tensor base_logits, Tensor token_ids, int vocab_size, "
      "int top_k, int instruction_set) -> (" RNR_STATS ", " RNR_STATS ", Tensor, Tensor, Tensor)");
  m.def(
      "token_stats_chunk(Tensor logits, Tensor token_ids, Tensor targets, int first_column, "
      "int vocab_size, int top_k, Tensor(a!) running, int instruction_set) -> (" RNR_STATS ")");
  m.def(
      "shift_stats_chunk(Tensor logits, Tensor base_logits, Tensor token_ids, Tensor targets, "
      "Tensor base_targets, int first_column, int vocab_size, int top_k, Tensor(a!) running, "
      "int instruction_set) -> (" RNR_STATS ", " RNR_STATS ", Tensor, Tensor, Tensor)");
  m.def("head_logits(Tensor hidden, Tensor weight, Tensor(a!) out, int instruction_set) -> ()");
  m.def(
      "head_targets(Tensor hidden, Tensor weight, Tensor token_ids, Tensor(a!) out, "
      "int instruction_set) -> ()");
  m.def("running_bytes() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(rnr_C, CPU, m) {
  m.impl("token_stats", TORCH_BOX(&token_stats));
  m.impl("shift_stats", TORCH_BOX(&shift_stats));
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
