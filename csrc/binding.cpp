// torch.ops.rnr_C: the ops over rules, and what Python asks about the library.
//
// `program` and `state` are the address tensors of rnr_kernels/layout.py. `instruction_set` counts
// from the best that this processor runs, 0.
#include "binding.h"

#include <string>
#include <tuple>
#include <vector>

namespace rnr {
namespace {

// An in-place call touches what rules touch: a fraction of a row.
constexpr int64_t kColumnsPerTouched = 16;

// A column of results that may not be asked for.
template <typename T>
MaybeTensor empty_if(bool asked, int64_t num_rows) {
  return asked ? MaybeTensor(empty<T>(num_rows)) : std::nullopt;
}

template <typename T>
T* data_if(const MaybeTensor& tensor) {
  return tensor ? data_of<T>(*tensor) : nullptr;
}

void apply_rules_(const Tensor& logits, int64_t vocab_size, const Tensor& program,
                  const Tensor& state, const Tensor& error, const MaybeTensor& state_indices,
                  const MaybeTensor& allowed_bitmask, const MaybeTensor& row_offsets,
                  const MaybeTensor& draft_token_ids, int64_t instruction_set) {
  const ApplyRulesParams params = {rule_rows(logits, vocab_size, program, state, error,
                                             state_indices, allowed_bitmask, row_offsets,
                                             draft_token_ids)};
  over_rows(kernels_of(instruction_set).apply_rules, params, params.rows.logits.num_rows,
            vocab_size / kColumnsPerTouched + 1);
}

void rule_log_softmax_out(const Tensor& logits, int64_t vocab_size, const Tensor& program,
                          const Tensor& state, const Tensor& error, const Tensor& out,
                          const MaybeTensor& log_z, const MaybeTensor& state_indices,
                          const MaybeTensor& allowed_bitmask, const MaybeTensor& row_offsets,
                          const MaybeTensor& draft_token_ids, int64_t instruction_set) {
  LogSoftmaxParams params;
  params.rows = rule_rows(logits, vocab_size, program, state, error, state_indices, allowed_bitmask,
                          row_offsets, draft_token_ids);
  const LogitsRows& rows = params.rows.logits;
  check_rows("out", out);
  RNR_CHECK(dtype_of(out) == dtype_as<float>() && out.size(0) == rows.num_rows &&
                out.size(1) == rows.row_width,
            "out must be float32 of the logits' shape");
  params.out = data_of<float>(out);
  params.out_stride = out.stride(0);
  params.log_z = nullptr;
  params.log_z_stride = 0;
  if (log_z) {
    check_cpu("log_z", *log_z);
    RNR_CHECK(dtype_of(*log_z) == dtype_as<float>() && log_z->dim() == 1 &&
                  log_z->size(0) == rows.num_rows,
              "log_z must be float32 [", rows.num_rows, "]");
    params.log_z = data_of<float>(*log_z);
    params.log_z_stride = log_z->stride(0);
  }
  over_rows(kernels_of(instruction_set).rule_log_softmax, params, rows.num_rows, rows.row_width);
}

std::tuple<Tensor, Tensor> rule_log_softmax(const Tensor& logits, int64_t vocab_size,
                                            const Tensor& program, const Tensor& state,
                                            const Tensor& error, const MaybeTensor& state_indices,
                                            const MaybeTensor& allowed_bitmask,
                                            const MaybeTensor& row_offsets,
                                            const MaybeTensor& draft_token_ids, bool return_log_z,
                                            int64_t instruction_set) {
  check_rows("logits", logits);
  const Tensor out = empty<float>(logits.size(0), logits.size(1));
  const Tensor log_z = empty<float>(return_log_z ? logits.size(0) : 0);
  rule_log_softmax_out(logits, vocab_size, program, state, error, out,
                       return_log_z ? MaybeTensor(log_z) : std::nullopt, state_indices,
                       allowed_bitmask, row_offsets, draft_token_ids, instruction_set);
  return {out, log_z};
}

std::tuple<Tensor, MaybeTensor, MaybeTensor, MaybeTensor> sample_(
    const Tensor& logits, int64_t vocab_size, const Tensor& program, const Tensor& state,
    const Tensor& error, const MaybeTensor& state_indices, const MaybeTensor& allowed_bitmask,
    const MaybeTensor& row_offsets, const MaybeTensor& draft_token_ids, bool return_logprob,
    bool return_adjusted_logprob, bool return_rank, int64_t instruction_set) {
  SampleParams params;
  params.rows = rule_rows(logits, vocab_size, program, state, error, state_indices, allowed_bitmask,
                          row_offsets, draft_token_ids);
  const int64_t num_rows = params.rows.logits.num_rows;
  const Tensor token_ids = empty<int64_t>(num_rows);
  const MaybeTensor logprob = empty_if<float>(return_logprob, num_rows);
  const MaybeTensor adjusted_logprob = empty_if<float>(return_adjusted_logprob, num_rows);
  const MaybeTensor rank = empty_if<int32_t>(return_rank, num_rows);
  params.token_ids = data_of<int64_t>(token_ids);
  params.logprob = data_if<float>(logprob);
  params.adjusted_logprob = data_if<float>(adjusted_logprob);
  params.rank = data_if<int32_t>(rank);
  over_rows(kernels_of(instruction_set).sample, params, num_rows, vocab_size);
  if (!row_offsets && !draft_token_ids) cpu::commit_samples(params);
  return {token_ids, logprob, adjusted_logprob, rank};
}

void update_state_(int64_t vocab_size, const Tensor& state, const Tensor& error,
                   const Tensor& token_ids, const MaybeTensor& counts,
                   const MaybeTensor& state_indices) {
  check_cpu("token_ids", token_ids);
  const int32_t dtype = dtype_of(token_ids);
  UpdateStateParams params;
  params.is_int64 = dtype == dtype_as<int64_t>();
  RNR_CHECK((params.is_int64 || dtype == dtype_as<int32_t>()) && token_ids.dim() == 2,
            "token_ids must be int32 or int64 [num_rows, length]");
  params.state = state_tables(state, vocab_size);
  params.vocab_size = vocab_size;
  params.num_rows = token_ids.size(0);
  params.length = token_ids.size(1);
  params.token_ids = token_ids.data_ptr();
  params.row_stride = token_ids.stride(0);
  params.column_stride = token_ids.stride(1);
  params.counts = index_column("counts", counts, params.num_rows);
  params.state_indices = index_column("state_indices", state_indices, params.num_rows);
  params.error = error_bits(error);
  cpu::update_state(params);
}

// Names of the instruction sets that this processor runs, best first, with commas between.
std::string instruction_sets() {
  int count;
  const cpu::Kernels* const* tables = cpu::supported(&count);
  std::string names = tables[0]->name;
  for (int i = 1; i < count; ++i) names += std::string(",") + tables[i]->name;
  return names;
}

// What rnr.h and rnr_kernels/layout.py both state, in the order of layout.SHARED_CONSTANTS.
std::vector<int64_t> constants() {
  return {kTile, kFlagBlock, kBits, kMaxClasses, kErrorSlot, kErrorProgram, kErrorToken, kMaxTopK};
}

#define RNR_RULE_ROWS                                                     \
  "Tensor? state_indices, Tensor? allowed_bitmask, Tensor? row_offsets, " \
  "Tensor? draft_token_ids, "

STABLE_TORCH_LIBRARY_FRAGMENT(rnr_C, m) {
  m.def(
      "apply_rules_(Tensor(a!) logits, int vocab_size, Tensor program, Tensor state, "
      "Tensor(b!) error, " RNR_RULE_ROWS "int instruction_set) -> ()");
  m.def(
      "rule_log_softmax(Tensor logits, int vocab_size, Tensor program, Tensor state, "
      "Tensor(a!) error, " RNR_RULE_ROWS
      "bool return_log_z, int instruction_set) -> (Tensor, Tensor)");
  m.def(
      "rule_log_softmax_out(Tensor logits, int vocab_size, Tensor program, Tensor state, "
      "Tensor(a!) error, Tensor(b!) out, Tensor(c!)? log_z, " RNR_RULE_ROWS
      "int instruction_set) -> ()");
  m.def(
      "sample_(Tensor logits, int vocab_size, Tensor program, Tensor state, Tensor(a!) "
      "error, " RNR_RULE_ROWS
      "bool return_logprob, bool return_adjusted_logprob, bool return_rank, "
      "int instruction_set) -> (Tensor, Tensor?, Tensor?, Tensor?)");
  m.def(
      "update_state_(int vocab_size, Tensor state, Tensor(a!) error, Tensor token_ids, "
      "Tensor? counts, Tensor? state_indices) -> ()");
  m.def("instruction_sets() -> str");
  m.def("constants() -> int[]");
}

STABLE_TORCH_LIBRARY_IMPL(rnr_C, CPU, m) {
  m.impl("apply_rules_", TORCH_BOX(&apply_rules_));
  m.impl("rule_log_softmax", TORCH_BOX(&rule_log_softmax));
  m.impl("rule_log_softmax_out", TORCH_BOX(&rule_log_softmax_out));
  m.impl("sample_", TORCH_BOX(&sample_));
  m.impl("update_state_", TORCH_BOX(&update_state_));
}

// Without tensors among the arguments, no device says which kernel is meant.
STABLE_TORCH_LIBRARY_IMPL(rnr_C, CompositeExplicitAutograd, m) {
  m.impl("instruction_sets", TORCH_BOX(&instruction_sets));
  m.impl("constants", TORCH_BOX(&constants));
}

}  // namespace
}  // namespace rnr
