// log_softmax of adjusted logits: one pass that sums tile by tile, one over the hot row that
// writes.
#include "exp_sums.h"
#include "kernels.h"

namespace rnr::cpu::RNR_ISA {
namespace {

void fill(float* out, int64_t begin, int64_t end, float value) {
  for (int64_t v = begin; v < end; ++v) out[v] = value;
}

void write_row(const AdjustedRow& row, const RowSums& sums, float* out) {
  alignas(64) float buffer[kBlock];
  const Floats shift = splat(sums.scan.top);
  const Floats log_sum = splat(static_cast<float>(sums.log_total()));
  for (int64_t b = 0; b < row.logits.num_blocks(); ++b) {
    const int64_t rest = row.logits.vocab_size - b * kBlock;
    float* target = rest < kBlock ? buffer : out + b * kBlock;
    row.visit(b, buffer, [&](const auto& block, bool) RNR_INLINE_LAMBDA {
      for (int i = 0; i < kBlock / kLanes; ++i) {
        store(target + kLanes * i, (block.lanes(i) - shift) - log_sum);
      }
    });
    if (rest < kBlock) memcpy(out + b * kBlock, buffer, rest * sizeof(float));
  }
}

// log Z = lse(adjusted) - lse(logits) - lse(r); the differences of large parts come first.
float log_z_of(const RowSums& sums) {
  if (!sums.base_scan.is_valid()) return NAN;
  const double tops = (sums.scan.top - sums.base.top) - sums.rules.top;
  return static_cast<float>(tops +
                            (sums.log_total() - sums.base.log_total() - sums.rules.log_total()));
}

}  // namespace

void rule_log_softmax(const LogSoftmaxParams& params, int64_t begin, int64_t end) {
  const RuleRows& rows = params.rows;
  const int64_t vocab_size = rows.logits.vocab_size, width = rows.logits.row_width;
  Scratch<int32_t> drafts(rows.draft_token_ids ? rows.state.bitmask_stride : 0);
  int error_bits = 0;
  for (int64_t r = begin; r < end; ++r) {
    float* out = params.out + r * params.out_stride;
    const Row found = find_row(rows, r, &error_bits);
    RowSums sums;
    float log_z = NAN;
    if (found.is_live) {
      const AdjustedRow row(rows, r, found, drafts.data, &error_bits);
      if (params.log_z == nullptr) {
        sum_row<false>(row, &sums);
      } else {
        sum_row<true>(row, &sums);
      }
      if (sums.scan.is_valid()) {
        if (params.log_z != nullptr) log_z = log_z_of(sums);
        write_row(row, sums, out);
      }
    }
    const bool is_valid = found.is_live && sums.scan.is_valid();
    fill(out, is_valid ? vocab_size : 0, width, is_valid ? -INFINITY : NAN);
    if (params.log_z != nullptr) params.log_z[r * params.log_z_stride] = log_z;
  }
  set_error(rows.error, error_bits);
}

}  // namespace rnr::cpu::RNR_ISA
