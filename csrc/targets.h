// Where ops run: each target reads arguments in its place and runs kernels there.
//
// `variant` chooses among kernels with equal results: an instruction set of the CPU, counted from
// the best that this processor runs; on a GPU the blocks that share a row, 0 being for it to say.
#pragma once

#include "binding.h"
#include "cpu/kernels.h"
#include "cuda/kernels.h"

namespace rnr {

// Logits that a thread must have to read before it is worth starting.
constexpr int64_t kElementsPerThread = int64_t{1} << 18;

#if !defined(RNR_EMULATED)

class Cpu : public Arguments {
 public:
  Cpu(const Tensor&, int64_t variant) : Arguments(Place()), kernels_(kernels_of(variant)) {}

  void apply_rules(const ApplyRulesParams& params) const {
    // A call in place touches what rules touch: a fraction of a row.
    constexpr int64_t kColumnsPerTouched = 16;
    over_rows(kernels_.apply_rules, params, params.rows.logits.num_rows,
              params.rows.logits.vocab_size / kColumnsPerTouched + 1);
  }
  void rule_log_softmax(const LogSoftmaxParams& params) const {
    over_rows(kernels_.rule_log_softmax, params, params.rows.logits.num_rows,
              params.rows.logits.row_width);
  }
  void sample(const SampleParams& params) const {
    const LogitsRows& logits = params.rows.logits;
    over_rows(kernels_.sample, params, logits.num_rows, logits.vocab_size);
    if (params.rows.commits()) cpu::commit_samples(params);
  }
  void update_state(const UpdateStateParams& params) const { cpu::update_state(params); }
  void token_stats(const TokenStatsParams& params) const {
    over_rows(kernels_.token_stats, params, params.logits.num_rows, params.logits.vocab_size);
  }
  void shift_stats(const ShiftStatsParams& params) const {
    over_rows(kernels_.shift_stats, params, params.logits.num_rows, 2 * params.logits.vocab_size);
  }
  void head_logits(const HeadParams& params) const {
    // A product of two numbers, to the statistics of one.
    constexpr int64_t kProductsPerElement = 4;
    if (params.num_rows == 0) return;
    over_rows(kernels_.head_logits, params, params.weight.num_rows,
              params.num_rows * params.hidden_width / kProductsPerElement + 1);
  }
  void head_targets(const HeadParams& params) const {
    over_rows(kernels_.head_targets, params, params.num_rows, params.hidden_width);
  }

 private:
  static const cpu::Kernels& kernels_of(int64_t instruction_set) {
    int count;
    const cpu::Kernels* const* tables = cpu::supported(&count);
    RNR_CHECK(instruction_set >= 0 && instruction_set < count, "variant must be 0 to ", count - 1,
              ", got ", instruction_set);
    return *tables[instruction_set];
  }

  // Calls kernel(params, begin, end) over all rows, by several threads where that pays.
  template <typename Params>
  static void over_rows(void (*kernel)(const Params&, int64_t, int64_t), const Params& params,
                        int64_t num_rows, int64_t elements_per_row) {
    const int64_t rows_per_thread = kElementsPerThread / elements_per_row + 1;
    if (num_rows <= rows_per_thread) {
      kernel(params, 0, num_rows);
      return;
    }
    torch::stable::parallel_for(0, num_rows, rows_per_thread,
                                [&](int64_t begin, int64_t end) { kernel(params, begin, end); });
  }

  const cpu::Kernels& kernels_;
};

#endif

#if defined(RNR_CUDA) || defined(RNR_EMULATED)

class Gpu : public Arguments {
 public:
  Gpu(const Tensor& like, int64_t variant)
      : Arguments(Place(like)),
        guard_(place().index),
        device_(cuda::use_device(place().index)),
        cluster_(static_cast<int>(variant)) {
    RNR_CHECK(variant == 0 || variant == 1 || variant == 2 || variant == 4 || variant == 8,
              "variant must be 0, 1, 2, 4 or 8, got ", variant);
  }

  void apply_rules(const ApplyRulesParams& params) const {
    if (has_rows(params.rows.logits)) cuda::apply_rules(params, device_);
  }
  void rule_log_softmax(const LogSoftmaxParams& params) const {
    if (has_rows(params.rows.logits)) cuda::rule_log_softmax(params, device_);
  }
  void sample(const SampleParams& params) const {
    if (has_rows(params.rows.logits)) cuda::sample(params, cluster_, device_);
  }
  void update_state(const UpdateStateParams& params) const {
    if (params.num_rows > 0) cuda::update_state(params, device_);
  }
  void token_stats(const TokenStatsParams& params) const {
    if (has_rows(params.logits)) cuda::token_stats(params, device_);
  }
  void shift_stats(const ShiftStatsParams& params) const {
    if (has_rows(params.logits)) cuda::shift_stats(params, device_);
  }

 private:
  static bool has_rows(const LogitsRows& logits) {
    RNR_CHECK(logits.vocab_size <= cuda::kMaxVocabSize, "vocab_size must be at most ",
              cuda::kMaxVocabSize, " on a GPU, got ", logits.vocab_size);
    RNR_CHECK(logits.num_rows <= INT32_MAX / (cuda::kMaxVocabSize / kTile),
              "too many rows for one call: ", logits.num_rows);
    return logits.num_rows > 0;
  }

  // The current device until the call returns.
#if defined(RNR_EMULATED)
  struct DeviceGuard {
    explicit DeviceGuard(int) {}
  };
  DeviceGuard guard_;
#else
  torch::stable::accelerator::DeviceGuard guard_;
#endif
  cuda::Device device_;
  int cluster_;
};

#endif

}  // namespace rnr

// The library's name, and where f<Target>(library) implements its ops: an emulated GPU has a
// library of its own.
#if defined(RNR_EMULATED)
#define RNR_LIBRARY rnr_emulated
#define RNR_GPU_TARGETS emulated
#define RNR_IMPLEMENT(f) \
  STABLE_TORCH_LIBRARY_IMPL(RNR_LIBRARY, CPU, m) { f<Gpu>(m); }
#elif defined(RNR_CUDA)
#define RNR_LIBRARY rnr_C
#define RNR_IMPLEMENT(f)                                        \
  STABLE_TORCH_LIBRARY_IMPL(RNR_LIBRARY, CPU, m) { f<Cpu>(m); } \
  STABLE_TORCH_LIBRARY_IMPL(RNR_LIBRARY, CUDA, m) { f<Gpu>(m); }
#else
#define RNR_LIBRARY rnr_C
#define RNR_GPU_TARGETS
#define RNR_IMPLEMENT(f) \
  STABLE_TORCH_LIBRARY_IMPL(RNR_LIBRARY, CPU, m) { f<Cpu>(m); }
#endif
