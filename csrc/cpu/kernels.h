// The CPU's kernels: one table an instruction set, all of them compiled from the same sources.
#pragma once

#include "../rnr.h"

namespace rnr::cpu {

// Every kernel works on rows [begin, end), so that the caller may cut a batch over threads.
struct Kernels {
  const char* name;
  void (*apply_rules)(const ApplyRulesParams&, int64_t begin, int64_t end);
  void (*rule_log_softmax)(const LogSoftmaxParams&, int64_t begin, int64_t end);
  // Chooses tokens; `commit_samples` then advances the state, once, for all rows.
  void (*sample)(const SampleParams&, int64_t begin, int64_t end);
  void (*token_stats)(const TokenStatsParams&, int64_t begin, int64_t end);
  void (*shift_stats)(const ShiftStatsParams&, int64_t begin, int64_t end);
  // The logits of tokens [begin, end) of all rows.
  void (*head_logits)(const HeadParams&, int64_t begin, int64_t end);
  void (*head_targets)(const HeadParams&, int64_t begin, int64_t end);
};

// The tables of the instruction sets that this build holds and this processor runs, best first.
// The last one runs on every processor of its family.
const Kernels* const* supported(int* count);

// These take no time worth a thread.
void commit_samples(const SampleParams&);
void update_state(const UpdateStateParams&);

}  // namespace rnr::cpu
