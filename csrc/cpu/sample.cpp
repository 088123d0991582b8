// One token a row: a scan for maxima (and without filters for weights), then hot blocks alone.
#include <cfloat>

#include "../sampling.h"
#include "exp_sums.h"
#include "kernels.h"
#include "threshold.h"

namespace rnr::cpu::RNR_ISA {
namespace {

// Room for what a scan finds; grows with V / 256.
struct ScanBuffers {
  Scratch<float> tops, ceilings;
  Scratch<int64_t> sums;

  explicit ScanBuffers(const LogitsRow& row)
      : tops(row.num_blocks()), ceilings(row.num_tiles()), sums(row.num_tiles()) {}
};

// What is left of a row's tokens: x >= threshold and x - top >= min_p_threshold.
struct Kept {
  float threshold = -INFINITY;
  float top;
  float min_p_threshold = -INFINITY;

  RNR_INLINE Mask of(Floats x) const {
    return (x >= splat(threshold)) & (x - splat(top) >= splat(min_p_threshold));
  }
  RNR_INLINE bool any(float block_top) const {
    return block_top >= threshold && block_top - top >= min_p_threshold;
  }
};

class RowSampler {
 public:
  RowSampler(const AdjustedRow& row, const SlotSampling& sampling, ScanBuffers& buffers)
      : row_(row), sampling_(sampling), buffers_(buffers) {}

  // Finds the maxima, and without filters the tiles' weights; false if the row is invalid.
  bool scan() {
    BlockBuffer buffer;
    Scan scan;
    for (int64_t t = 0; t < row_.logits.num_tiles(); ++t) {
      float tile_top = -INFINITY;
      row_.for_each_run(t, &buffer, [&](const auto& run, int64_t first, int count) {
        for (int k = 0; k < count; ++k) {
          const float block_top = scan_block(run, k, &scan);
          buffers_.tops.data[first + k] = block_top;
          tile_top = block_top > tile_top ? block_top : tile_top;
        }
      });
      if (!sampling_.is_greedy) weigh(t, tile_top);
    }
    kept_.top = top_ = scan.top;
    return scan.is_valid();
  }

  // A tile's ceiling, and without filters its weight while its logits are hot.
  RNR_INLINE void weigh(int64_t t, float tile_top) {
    const bool is_empty = tile_top == -INFINITY;
    const float ceiling = is_empty ? -INFINITY : ceilf(weight_exponent(tile_top, sampling_.scale));
    buffers_.ceilings.data[t] = ceiling;
    if (sampling_.filters) return;
    WeightSum sum;
    if (!is_empty) {
      BlockBuffer buffer;
      const WeightScale scale{sampling_.scale, ceiling, 0};
      row_.for_each_run(t, &buffer, [&](const auto& run, int64_t, int count) {
        for (int q = 0; q < count * kBlockQuads; ++q) {
          const Quad x = run.quad(q);
          sum.add(scale.of(x.a));
          sum.add(scale.of(x.b));
          sum.add(scale.of(x.c));
          sum.add(scale.of(x.d));
        }
      });
    }
    buffers_.sums.data[t] = sum.total();
  }

  // The first token with the largest value.
  int64_t greedy() const {
    const int64_t num_blocks = row_.logits.num_blocks();
    int64_t b = 0;
    while (b + 1 < num_blocks && !(buffers_.tops.data[b] == top_)) ++b;
    alignas(64) float buffer[kBlock];
    const float* values = row_.block(b, buffer);
    int i = 0;
    while (i + 1 < kBlock && !(values[i] == top_)) ++i;
    return inside(b * kBlock + i);
  }

  int64_t draw(uint64_t uniform) {
    row_ceiling_ = ceilf(weight_exponent(top_, sampling_.scale));
    if (sampling_.filters) {
      filter();
      sum_kept();
    }
    const int64_t num_tiles = row_.logits.num_tiles();
    int64_t total = 0;
    for (int64_t t = 0; t < num_tiles; ++t) total += tile_mass(t);
    const int64_t target = multiply_shift_53(uniform, total);
    int64_t tile = 0, before = 0;
    while (tile + 1 < num_tiles && before + tile_mass(tile) <= target) before += tile_mass(tile++);
    return walk(tile, target - before);
  }

  // Log-probability of a token under the final distribution.
  float logprob(float value) const {
    alignas(64) float buffer[kBlock];
    const Floats top = splat(top_), inverse = splat(1.0f / sampling_.temperature);
    double total = 0.0;
    for_each_kept_block(buffer, [&](int64_t, const float* values) {
      Floats part = splat(0.0f);
      for (int i = 0; i < kBlock / kLanes; ++i) {
        const Floats x = load(values + kLanes * i), d = (x - top) * inverse;
        part = part + exp_where(kept_.of(x) & (d > splat(kNegligible)), d);
      }
      total += sum(part);
    });
    const double distance = (static_cast<double>(value) - top_) / sampling_.temperature;
    return static_cast<float>(distance - log64(total));
  }

  int32_t rank(float value) const {
    alignas(64) float buffer[kBlock];
    Ints above = splat_int(0);
    for (int64_t b = 0; b < row_.logits.num_blocks(); ++b) {
      if (!(buffers_.tops.data[b] > value)) continue;
      const float* values = row_.block(b, buffer);
      for (int i = 0; i < kBlock / kLanes; ++i) {
        above = count(above, load(values + kLanes * i) > splat(value));
      }
    }
    return static_cast<int32_t>(1 + sum_unsigned(above));
  }

  float value_of(int64_t token) const {
    alignas(64) float buffer[kBlock];
    return row_.block(token / kBlock, buffer)[token % kBlock];
  }

 private:
  int64_t inside(int64_t token) const {
    return token < row_.logits.vocab_size ? token : row_.logits.vocab_size - 1;
  }

  RNR_INLINE int64_t tile_mass(int64_t t) const {
    return buffers_.sums.data[t] >> tile_shift(row_ceiling_, buffers_.ceilings.data[t]);
  }

  template <typename F>
  RNR_INLINE void for_each_kept_block(float* buffer, F f) const {
    for (int64_t b = 0; b < row_.logits.num_blocks(); ++b) {
      if (kept_.any(buffers_.tops.data[b])) f(b, row_.block(b, buffer));
    }
  }

  void filter() {
    kept_.min_p_threshold = sampling_.min_p_threshold;
    const ScannedRow scanned{row_, buffers_.tops.data, buffers_.ceilings.data, row_ceiling_,
                             sampling_.scale};
    const Scratch<Candidate> candidates(kMaxCandidates);
    float least = -FLT_MAX;
    if (sampling_.top_k > 0) {
      ThresholdSearch<false> search(scanned, candidates.data);
      least = kept_.threshold = search.find(least, sampling_.top_k, sampling_.top_k);
    }
    if (sampling_.top_p < 1.0f) {
      // About as many blocks as a sharp distribution has likely tokens.
      constexpr int64_t kFirstBlocks = 64;
      ThresholdSearch<true> search(scanned, candidates.data);
      const double mass = static_cast<double>(search.measure(least, INFINITY));
      const double limit = ceil(static_cast<double>(sampling_.top_p) * mass);
      kept_.threshold = search.find(least, static_cast<int64_t>(limit), kFirstBlocks);
    }
  }

  // The tiles' weights once more, of kept tokens alone.
  void sum_kept() {
    alignas(64) float buffer[kBlock];
    for (int64_t t = 0; t < row_.logits.num_tiles(); ++t) buffers_.sums.data[t] = 0;
    for_each_kept_block(buffer, [&](int64_t b, const float* values) {
      buffers_.sums.data[b / kTileBlocks] += block_sum(b, values);
    });
  }

  int64_t block_sum(int64_t b, const float* values) const {
    const WeightScale scale{sampling_.scale, buffers_.ceilings.data[b / kTileBlocks], 0};
    WeightSum sum;
    for (int i = 0; i < kBlock / kLanes; ++i) sum.add(kept_weights(scale, values + kLanes * i));
    return sum.total();
  }

  RNR_INLINE WeightLanes kept_weights(const WeightScale& scale, const float* values) const {
    const Floats x = load(values);
    const WeightLanes weights = scale.of(x);
    const Mask kept = kept_.of(x);
    return {keep(kept, weights.high), keep(kept, weights.low)};
  }

  // The first token of a tile whose cumulative weight, shifted, exceeds `rest`.
  int64_t walk(int64_t tile, int64_t rest) const {
    alignas(64) float buffer[kBlock];
    const float ceiling = buffers_.ceilings.data[tile];
    const int64_t needed = (rest + 1) << tile_shift(row_ceiling_, ceiling);
    const int64_t end = (tile + 1) * kTileBlocks, num_blocks = row_.logits.num_blocks();
    int64_t running = 0;
    for (int64_t b = tile * kTileBlocks; b < end && b < num_blocks; ++b) {
      if (!kept_.any(buffers_.tops.data[b])) continue;
      const float* values = row_.block(b, buffer);
      const int64_t sum = block_sum(b, values);
      if (running + sum < needed) {
        running += sum;
        continue;
      }
      const WeightScale scale{sampling_.scale, ceiling, 0};
      int32_t high[kLanes], low[kLanes];
      for (int i = 0; i < kBlock / kLanes; ++i) {
        const WeightLanes weights = kept_weights(scale, values + kLanes * i);
        store_ints(high, weights.high);
        store_ints(low, weights.low);
        for (int lane = 0; lane < kLanes; ++lane) {
          running += weight_of(high[lane], low[lane]);
          if (running >= needed) return inside(b * kBlock + kLanes * i + lane);
        }
      }
    }
    return inside(end * kBlock - 1);
  }

  const AdjustedRow& row_;
  const SlotSampling& sampling_;
  ScanBuffers& buffers_;
  Kept kept_;
  float top_ = -INFINITY;
  float row_ceiling_ = 0.0f;
};

struct Chosen {
  int64_t token = -1;
  float logprob = NAN, adjusted_logprob = NAN;
  int32_t rank = 0;
};

Chosen sample_row(const SampleParams& params, int64_t r, const Row& found, const AdjustedRow& row,
                  ScanBuffers& buffers) {
  const RuleRows& rows = params.rows;
  const SlotSampling sampling(rows.state, found.slot, row.logits.vocab_size);
  RowSampler sampler(row, sampling, buffers);
  Chosen chosen;
  if (!sampler.scan()) return chosen;
  if (sampling.is_greedy) {
    chosen.token = sampler.greedy();
  } else {
    const int64_t* rng = rows.state.rng + 2 * found.slot;
    const int64_t position = wrapping_add(rng[1], rows.row_offsets ? rows.row_offsets[r] : 0);
    chosen.token =
        sampler.draw(uniform_bits(static_cast<uint64_t>(rng[0]), static_cast<uint64_t>(position)));
  }
  const float value = sampler.value_of(chosen.token);
  if (params.logprob != nullptr) {
    chosen.logprob = sampling.is_greedy ? 0.0f : sampler.logprob(value);
  }
  if (params.adjusted_logprob != nullptr) {
    RowSums sums;
    sum_row<false>(row, &sums);
    const double distance = static_cast<double>(value) - sums.scan.top;
    chosen.adjusted_logprob = static_cast<float>(distance - sums.log_total());
  }
  if (params.rank != nullptr) chosen.rank = sampler.rank(value);
  return chosen;
}

}  // namespace

void sample(const SampleParams& params, int64_t begin, int64_t end) {
  const RuleRows& rows = params.rows;
  if (begin >= end) return;
  Scratch<int32_t> drafts(rows.draft_token_ids ? rows.state.bitmask_stride : 0);
  ScanBuffers buffers(LogitsRow(rows.logits, begin));
  int error_bits = 0;
  for (int64_t r = begin; r < end; ++r) {
    const Row found = find_row(rows, r, &error_bits);
    Chosen chosen;
    if (found.is_live) {
      const AdjustedRow row(rows, r, found, drafts.data, &error_bits);
      chosen = sample_row(params, r, found, row, buffers);
    }
    params.token_ids[r] = chosen.token;
    if (params.logprob != nullptr) params.logprob[r] = chosen.logprob;
    if (params.adjusted_logprob != nullptr) params.adjusted_logprob[r] = chosen.adjusted_logprob;
    if (params.rank != nullptr) params.rank[r] = chosen.rank;
  }
  set_error(rows.error, error_bits);
}

}  // namespace rnr::cpu::RNR_ISA
