// A row whose tiles have been looked at once: its maxima and weights, in shared memory.
#pragma once

#include "../sampling.h"
#include "kernels.h"
#include "row_reader.h"
#include "tables.h"
#include "weights.h"

namespace rnr::cuda {

constexpr int kMaxCandidates = 1024;
// Of a histogram; counts and masses stand in parts of kPartBits, whose sums over a vocabulary fit
// 32 bits: atomic additions of 64 bits in shared memory are loops.
constexpr int kBins = 256;
constexpr int kPartBits = 11, kParts = 4;
static_assert(kMaxVocabSize << kPartBits <= int64_t{1} << 31 &&
              kPartBits * kParts > kFixedPointBits);

struct Choice {
  int32_t tile;
  int64_t rest;  // of the weight up to the token, less what lies in the tiles before
  int32_t column;
  float value;
};

struct alignas(16) SampleShared {
  RowShared row;
  SlotSampling sampling;
  Choice choice;
  float value;
  uint32_t num_greater;
  int64_t slices[kWarps * kColumns / 4];
  // The search for a threshold; candidates lie in the cluster's first block.
  uint32_t num_candidates, needs_passes, digit;
  float threshold;
  uint64_t above;
  uint32_t histogram[2][kParts][kBins];
  float candidates[kMaxCandidates];
  int64_t candidate_weights[kMaxCandidates];
};

// What tables hold for each warp and tile, warp by warp; behind SampleShared. By addresses worked
// out from its own, so that a compiler sees that they are in shared memory.
class ScanTables {
 public:
  RNR_MEMBER ScanTables(unsigned char* memory, const LogitsRows& logits)
      : memory_(memory + sizeof(SampleShared)), entries_(num_tiles(logits) * kWarps) {}

  // Weights against the tile's ceiling.
  RNR_MEMBER int64_t* sums() const { return reinterpret_cast<int64_t*>(memory_); }
  // Largest adjusted logits, NaN if there is NaN or +inf.
  RNR_MEMBER float* tops() const { return reinterpret_cast<float*>(sums() + entries_); }
  // Sums of exp(x - tile_top).
  RNR_MEMBER float* adjusted() const { return tops() + entries_; }
  // Sums of exp((x - tile_top) / temperature).
  RNR_MEMBER float* final() const { return adjusted() + entries_; }
  // One tile's biases, there only where slots have any.
  RNR_MEMBER float* bias() const { return final() + entries_; }

  static constexpr int64_t kEntryBytes = sizeof(int64_t) + 3 * sizeof(float);

  // Bytes of shared memory.
  static int64_t size(const RuleRows& rows) {
    const int64_t entries = num_tiles(rows.logits) * kWarps;
    const int64_t bias = rows.state.max_bias > 0 ? kTile : 0;
    return static_cast<int64_t>(sizeof(SampleShared)) + entries * kEntryBytes +
           bias * static_cast<int64_t>(sizeof(float));
  }

 private:
  unsigned char* memory_;
  int64_t entries_;
};

static_assert(sizeof(SampleShared) + kMaxVocabSize / kTile * kWarps * ScanTables::kEntryBytes +
                      kTile * sizeof(float) <=
                  kMaxShared,
              "two blocks must fit a multiprocessor");
static_assert(sizeof(SampleShared) % sizeof(Words) == 0, "tables must be aligned");

// What is left of a row's tokens: x >= threshold and x - top >= min_p_threshold.
struct Kept {
  float threshold = -INFINITY;
  float top = 0.0f;
  float min_p_threshold = -INFINITY;

  RNR_DEVICE bool holds(float x) const { return x >= threshold && x - top >= min_p_threshold; }
};

struct RowSummary {
  float top = -INFINITY;
  float ceiling = 0.0f;  // of the weights
  bool is_valid = false;
};

template <typename T>
struct ScannedRow {
  const RuleRows& rows;
  int64_t r;
  SampleShared* shared;
  ScanTables tables;
  RowReader<T> logits;
  int vocab_size, tiles;
  Row row;

  RNR_DEVICE ScannedRow(const RuleRows& rows, int64_t r, SampleShared* shared)
      : rows(rows),
        r(r),
        shared(shared),
        tables(shared_memory(), rows.logits),
        logits(rows.logits, r),
        vocab_size(logits.vocab_size()),
        tiles(logits.tiles()) {}

  RNR_DEVICE RawTile<T> load(int tile) const { return logits.raw(tile); }

  // This warp's place in the tables.
  RNR_DEVICE int entry_of(int tile) const { return warp_index() * tiles + tile; }

  // Called by all threads of the block.
  RNR_DEVICE void adjust(int tile, const RawTile<T>& raw, float (&x)[kColumns]) const {
    const TileRules here = tile_rules(rows, r, row, tile, &shared->row, tables.bias());
    cuda::adjust(raw, shared->row, here, vocab_size, x);
  }

  // The largest value of a tile; the tables must be there.
  RNR_DEVICE float top_of(int tile) const {
    float top = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, tables.tops()[w * tiles + tile]);
    return top;
  }

  RNR_DEVICE float ceiling_of(float tile_top) const {
    return tile_top > -INFINITY ? ceilf(weight_exponent(tile_top, shared->sampling.scale))
                                : -INFINITY;
  }

  RNR_DEVICE WeightScale weights(float tile_top) const {
    return WeightScale(shared->sampling.scale, ceiling_of(tile_top));
  }

  // What a warp's columns weigh together, in all lanes.
  RNR_DEVICE int64_t warp_weight(float tile_top, const float (&x)[kColumns]) const {
    return warp_sum(weights(tile_top).total_of(x));
  }

  // A tile's weight against the row's ceiling, 0 past the last one.
  RNR_DEVICE int64_t mass_of(int tile, float row_ceiling) const {
    if (tile >= tiles) return 0;
    int64_t mass = 0;
    for (int w = 0; w < kWarps; ++w) mass += tables.sums()[w * tiles + tile];
    return mass >> tile_shift(row_ceiling, ceiling_of(top_of(tile)));
  }

  // The same in all warps of all blocks, once the tables are complete.
  RNR_DEVICE RowSummary summary() const {
    bool is_broken = false;
    float top = -INFINITY;
    for (int i = lane_index(); i < kWarps * tiles; i += kWarpSize) {
      const float value = tables.tops()[i];
      is_broken |= value != value;
      top = fmaxf(top, value);
    }
    RowSummary summary;
    summary.top = warp_max(top);
    summary.ceiling = ceiling_of(summary.top);
    summary.is_valid = ballot(is_broken) == 0 && summary.top > -INFINITY;
    return summary;
  }
};

}  // namespace rnr::cuda
