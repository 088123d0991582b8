// The advance of the state: lengths, used tokens, positions.
//
// Counters wrap around as torch's integers do.
#include <vector>

#include "kernels.h"
#include "rows.h"

namespace rnr::cpu {
namespace {

// Slots that an earlier row had.
class SeenSlots {
 public:
  explicit SeenSlots(int64_t num_slots) : words_((num_slots + 63) / 64) {}

  // Whether this row is its slot's first.
  bool add(int64_t slot) {
    uint64_t& word = words_[slot / 64];
    const uint64_t bit = uint64_t{1} << slot % 64;
    const bool is_first = (word & bit) == 0;
    word |= bit;
    return is_first;
  }

 private:
  std::vector<uint64_t> words_;
};

void set_used(const StateTables& state, int64_t slot, int64_t token) {
  int32_t& word = state.used_bitmask[slot * state.bitmask_stride + token / kBits];
  word = static_cast<int32_t>(static_cast<uint32_t>(word) | uint32_t{1} << token % kBits);
}

}  // namespace

void commit_samples(const SampleParams& params) {
  const RuleRows& rows = params.rows;
  SeenSlots seen(rows.state.num_slots);
  int known_errors = 0, error_bits = 0;  // the kernel has set the former
  for (int64_t r = 0; r < rows.logits.num_rows; ++r) {
    const Row row = find_row(rows, r, &known_errors);
    if (!row.is_live) continue;
    if (!seen.add(row.slot)) {
      error_bits |= kErrorSlot;
      write_padding(params, r);
    }
    const int64_t token = params.token_ids[r];
    if (token < 0) continue;
    set_used(rows.state, row.slot, token);
    advance(rows.state, row.slot, 1);
  }
  set_error(rows.error, error_bits);
}

void update_state(const UpdateStateParams& params) {
  const StateTables& state = params.state;
  SeenSlots seen(state.num_slots);
  int error_bits = 0;
  for (int64_t r = 0; r < params.num_rows; ++r) {
    const int64_t slot = params.state_indices ? params.state_indices[r] : r;
    if (slot >= state.num_slots) error_bits |= kErrorSlot;
    if (slot < 0 || slot >= state.num_slots || !seen.add(slot)) continue;
    int64_t count = params.counts ? params.counts[r] : params.length;
    count = count < 0 ? 0 : count < params.length ? count : params.length;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = r * params.row_stride + i * params.column_stride;
      const int64_t token = params.is_int64 ? static_cast<const int64_t*>(params.token_ids)[at]
                                            : static_cast<const int32_t*>(params.token_ids)[at];
      if (token >= params.vocab_size) error_bits |= kErrorToken;
      if (token >= 0 && token < params.vocab_size) set_used(state, slot, token);
    }
    advance(state, slot, count);
  }
  set_error(params.error, error_bits);
}

}  // namespace rnr::cpu
