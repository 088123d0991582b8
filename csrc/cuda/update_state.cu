// The advance of the state: a block a row.
#include "launch.h"
#include "rules.h"

namespace rnr::cuda {
namespace {

RNR_KERNEL update_state_kernel(RNR_PARAMS(UpdateStateParams) params) {
  const StateTables& state = params.state;
  const int64_t r = block_index();
  const int64_t slot = params.state_indices ? params.state_indices[r] : r;
  const bool is_first = is_first_of_slot(params.state_indices, r);
  int error_bits = slot >= state.num_slots ? kErrorSlot : 0;
  if (slot >= 0 && slot < state.num_slots && is_first) {
    int64_t count = params.counts ? params.counts[r] : params.length;
    count = count < 0 ? 0 : count < params.length ? count : params.length;
    for (int64_t i = thread_index(); i < count; i += kThreads) {
      const int64_t at = r * params.row_stride + i * params.column_stride;
      const int64_t token = params.is_int64 ? static_cast<const int64_t*>(params.token_ids)[at]
                                            : static_cast<const int32_t*>(params.token_ids)[at];
      if (token >= params.vocab_size) error_bits |= kErrorToken;
      if (token >= 0 && token < params.vocab_size) set_used(state, slot, token);
    }
    if (thread_index() == 0) advance(state, slot, count);
  }
  set_error(params.error, error_bits);
}

}  // namespace

const char* loading_error() {
#if defined(RNR_EMULATED)
  return nullptr;
#else
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, update_state_kernel);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#endif
}

void update_state(const UpdateStateParams& params, const Device& device) {
  launch(update_state_kernel, params, params.num_rows, 1, 0, device);
}

}  // namespace rnr::cuda
