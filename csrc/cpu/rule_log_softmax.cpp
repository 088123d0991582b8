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
  BlockBuffer buffer;
  alignas(64) float last[kBlock];
  const Floats shift = splat(sums.scan.top);
  const Floats log_sum = splat(static_cast<float>(sums.log_total()));
  const int64_t vocab_size = row.logits.vocab_size;
  for (int64_t t = 0; t < row.logits.num_tiles(); ++t) {
    row.for_each_run(t, &buffer, [&](const auto& run, int64_t first, int count) {
      const int64_t start = first * kBlock, rest = vocab_size - start;
      float* target = rest < kBlock ? last : out + start;
      for (int q = 0; q < count * kBlockQuads; ++q) {
        const auto log_softmax = [&](Floats x) { return (x - shift) - log_sum; };
        store_quad(target + kQuad * q, each(log_softmax, run.quad(q)));
      }
      if (rest < kBlock) memcpy(out + start, last, rest * sizeof(float));
    });
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
