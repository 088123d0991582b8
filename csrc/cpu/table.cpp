// One instruction set's kernels.
#include "kernels.h"

#define RNR_NAME_OF(isa) #isa
#define RNR_NAME(isa) RNR_NAME_OF(isa)

namespace rnr::cpu::RNR_ISA {

void apply_rules(const ApplyRulesParams&, int64_t begin, int64_t end);
void rule_log_softmax(const LogSoftmaxParams&, int64_t begin, int64_t end);
void sample(const SampleParams&, int64_t begin, int64_t end);
void token_stats(const TokenStatsParams&, int64_t begin, int64_t end);
void shift_stats(const ShiftStatsParams&, int64_t begin, int64_t end);
void head_logits(const HeadParams&, int64_t begin, int64_t end);
void head_targets(const HeadParams&, int64_t begin, int64_t end);

extern const Kernels kernels;
const Kernels kernels = {RNR_NAME(RNR_ISA), apply_rules, rule_log_softmax, sample,
                         token_stats,       shift_stats, head_logits,      head_targets};

}  // namespace rnr::cpu::RNR_ISA
