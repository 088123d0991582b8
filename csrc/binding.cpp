// torch.ops.rnr_C: the ops over rules, and what Python asks about the library.
//
// `program` and `state` are the address tensors of rnr_kernels/layout.py. `variant` is
// explained in targets.h.
#include <string>
#include <tuple>
#include <vector>

#include "targets.h"

namespace rnr {
namespace {

template <typename T>
T* data_if(const MaybeTensor& tensor) {
  return tensor ? data_of<T>(*tensor) : nullptr;
}

template <typename Target>
void apply_rules_(const Tensor& logits, int64_t vocab_size, const Tensor& program,
                  const Tensor& state, const Tensor& error, const MaybeTensor& state_indices,
                  const MaybeTensor& allowed_bitmask, const MaybeTensor& row_offsets,
                  const MaybeTensor& draft_token_ids, int64_t variant) {
  const Target target(logits, variant);
  target.apply_rules({target.rule_rows(logits, vocab_size, program, state, error, state_indices,
                                       allowed_bitmask, row_offsets, draft_token_ids)});
}

template <typename Target>
void rule_log_softmax_out(const Tensor& logits, int64_t vocab_size, const Tensor& program,
                          const Tensor& state, const Tensor& error, const Tensor& out,
                          const MaybeTensor& log_z, const MaybeTensor& state_indices,
                          const MaybeTensor& allowed_bitmask, const MaybeTensor& row_offsets,
                          const MaybeTensor& draft_token_ids, int64_t variant) {
  const Target target(logits, variant);
  LogSoftmaxParams params;
  params.rows = target.rule_rows(logits, vocab_size, program, state, error, state_indices,
                                 allowed_bitmask, row_offsets, draft_token_ids);
  const LogitsRows& rows = params.rows.logits;
  target.check_rows("out", out);
  RNR_CHECK(dtype_of(out) == dtype_as<float>() && out.size(0) == rows.num_rows &&
                out.size(1) == rows.row_width,
            "out must be float32 of the logits' shape");
  params.out = data_of<float>(out);
  params.out_stride = out.stride(0);
  params.log_z = nullptr;
  params.log_z_stride = 0;
  if (log_z) {
    target.check_place("log_z", *log_z);
    RNR_CHECK(dtype_of(*log_z) == dtype_as<float>() && log_z->dim() == 1 &&
                  log_z->size(0) == rows.num_rows,
              "log_z must be float32 [", rows.num_rows, "]");
    params.log_z = data_of<float>(*log_z);
    params.log_z_stride = log_z->stride(0);
  }
  target.rule_log_softmax(params);
}

template <typename Target>
std::tuple<Tensor, Tensor> rule_log_softmax(const Tensor& logits, int64_t vocab_size,
                                            const Tensor& program, const Tensor& state,
                                            const Tensor& error, const MaybeTensor& state_indices,
                                            const MaybeTensor& allowed_bitmask,
                                            const MaybeTensor& row_offsets,
                                            const MaybeTensor& draft_token_ids, bool return_log_z,
                                            int64_t variant) {
  const Target target(logits, variant);
  target.check_rows("logits", logits);
  const Tensor out = target.template empty<float>(logits.size(0), logits.size(1));
  const Tensor log_z = target.template empty<float>(return_log_z ? logits.size(0) : 0);
  rule_log_softmax_out<Target>(logits, vocab_size, program, state, error, out,
                               return_log_z ? MaybeTensor(log_z) : std::nullopt, state_indices,
                               allowed_bitmask, row_offsets, draft_token_ids, variant);
  return {out, log_z};
}

template <typename Target>
std::tuple<Tensor, MaybeTensor, MaybeTensor, MaybeTensor> sample_(
    const Tensor& logits, int64_t vocab_size, const Tensor& program, const Tensor& state,
    const Tensor& error, const MaybeTensor& state_indices, const MaybeTensor& allowed_bitmask,
    const MaybeTensor& row_offsets, const MaybeTensor& draft_token_ids, bool return_logprob,
    bool return_adjusted_logprob, bool return_rank, int64_t variant) {
  const Target target(logits, variant);
  SampleParams params;
  params.rows = target.rule_rows(logits, vocab_size, program, state, error, state_indices,
                                 allowed_bitmask, row_offsets, draft_token_ids);
  const int64_t num_rows = params.rows.logits.num_rows;
  const Tensor token_ids = target.template empty<int64_t>(num_rows);
  const auto logprob = target.template empty_if<float>(return_logprob, num_rows);
  const auto adjusted_logprob = target.template empty_if<float>(return_adjusted_logprob, num_rows);
  const auto rank = target.template empty_if<int32_t>(return_rank, num_rows);
  params.token_ids = data_of<int64_t>(token_ids);
  params.logprob = data_if<float>(logprob);
  params.adjusted_logprob = data_if<float>(adjusted_logprob);
  params.rank = data_if<int32_t>(rank);
  target.sample(params);
  return {token_ids, logprob, adjusted_logprob, rank};
}

template <typename Target>
void update_state_(int64_t vocab_size, const Tensor& state, const Tensor& error,
                   const Tensor& token_ids, const MaybeTensor& counts,
                   const MaybeTensor& state_indices) {
  const Target target(token_ids, 0);
  target.check_place("token_ids", token_ids);
  const int32_t dtype = dtype_of(token_ids);
  UpdateStateParams params;
  params.is_int64 = dtype == dtype_as<int64_t>();
  RNR_CHECK((params.is_int64 || dtype == dtype_as<int32_t>()) && token_ids.dim() == 2,
            "token_ids must be int32 or int64 [num_rows, length]");
  params.state = target.state_tables(state, vocab_size);
  params.vocab_size = vocab_size;
  params.num_rows = token_ids.size(0);
  params.length = token_ids.size(1);
  params.token_ids = token_ids.data_ptr();
  params.row_stride = token_ids.stride(0);
  params.column_stride = token_ids.stride(1);
  params.counts = target.index_column("counts", counts, params.num_rows);
  params.state_indices = target.index_column("state_indices", state_indices, params.num_rows);
  params.error = target.error_bits(error);
  target.update_state(params);
}

// Names of the instruction sets that this processor runs, best first, with commas between.
std::string instruction_sets() {
  std::string names;
#if !defined(RNR_EMULATED)
  int count;
  const cpu::Kernels* const* tables = cpu::supported(&count);
  for (int i = 0; i < count; ++i) names += (i > 0 ? "," : "") + std::string(tables[i]->name);
#endif
  return names;
}

#define RNR_TEXT(...) #__VA_ARGS__
#define RNR_TEXT_OF(macro) RNR_TEXT(macro)

// Names of the GPUs that kernels were compiled for, with commas between; empty without CUDA.
std::string gpu_targets() { return RNR_TEXT_OF(RNR_GPU_TARGETS); }

// Why the kernels for GPUs cannot run on one; empty if they can.
std::string gpu_problem([[maybe_unused]] int64_t index) {
#if defined(RNR_CUDA)
  return cuda::problem_of(static_cast<int>(index));
#else
  return "";
#endif
}

// What rnr.h and rnr_kernels/layout.py both state, in the order of layout.SHARED_CONSTANTS.
std::vector<int64_t> constants() {
  return {kTile, kFlagBlock, kBits, kMaxClasses, kErrorSlot, kErrorProgram, kErrorToken, kMaxTopK};
}

#define RNR_RULE_ROWS                                                     \
  "Tensor? state_indices, Tensor? allowed_bitmask, Tensor? row_offsets, " \
  "Tensor? draft_token_ids, "

STABLE_TORCH_LIBRARY_FRAGMENT(RNR_LIBRARY, m) {
  m.def(
      "apply_rules_(Tensor(a!) logits, int vocab_size, Tensor program, Tensor state, "
      "Tensor(b!) error, " RNR_RULE_ROWS "int variant) -> ()");
  m.def(
      "rule_log_softmax(Tensor logits, int vocab_size, Tensor program, Tensor state, "
      "Tensor(a!) error, " RNR_RULE_ROWS "bool return_log_z, int variant) -> (Tensor, Tensor)");
  m.def(
      "rule_log_softmax_out(Tensor logits, int vocab_size, Tensor program, Tensor state, "
      "Tensor(a!) error, Tensor(b!) out, Tensor(c!)? log_z, " RNR_RULE_ROWS "int variant) -> ()");
  m.def(
      "sample_(Tensor logits, int vocab_size, Tensor program, Tensor state, Tensor(a!) "
      "error, " RNR_RULE_ROWS
      "bool return_logprob, bool return_adjusted_logprob, bool return_rank, "
      "int variant) -> (Tensor, Tensor?, Tensor?, Tensor?)");
  m.def(
      "update_state_(int vocab_size, Tensor state, Tensor(a!) error, Tensor token_ids, "
      "Tensor? counts, Tensor? state_indices) -> ()");
  m.def("instruction_sets() -> str");
  m.def("gpu_targets() -> str");
  m.def("gpu_problem(int index) -> str");
  m.def("constants() -> int[]");
}

template <typename Target, typename Library>
void implement(Library& m) {
  m.impl("apply_rules_", TORCH_BOX(&apply_rules_<Target>));
  m.impl("rule_log_softmax", TORCH_BOX(&rule_log_softmax<Target>));
  m.impl("rule_log_softmax_out", TORCH_BOX(&rule_log_softmax_out<Target>));
  m.impl("sample_", TORCH_BOX(&sample_<Target>));
  m.impl("update_state_", TORCH_BOX(&update_state_<Target>));
}

RNR_IMPLEMENT(implement)

// Without tensors among the arguments, no device says which kernel is meant.
STABLE_TORCH_LIBRARY_IMPL(RNR_LIBRARY, CompositeExplicitAutograd, m) {
  m.impl("instruction_sets", TORCH_BOX(&instruction_sets));
  m.impl("gpu_targets", TORCH_BOX(&gpu_targets));
  m.impl("gpu_problem", TORCH_BOX(&gpu_problem));
  m.impl("constants", TORCH_BOX(&constants));
}

}  // namespace
}  // namespace rnr
