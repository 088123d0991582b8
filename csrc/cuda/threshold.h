// The smallest value that top_k and top_p keep, without sorting the row.
//
// Both have one form: keep x while what lies above it counts less than a limit, tokens counting 1
// for top_k and their weight for top_p. Few tokens matter, mostly: those from a bound up, which the
// warps' maxima give, are collected in one block's shared memory and compared with each other.
// Where they are too many, or the bound too high, passes over the row find the threshold's bits,
// eight at a time, from what tokens with each value of these bits count together.
#pragma once

#include <cfloat>

#include "scanned_row.h"

namespace rnr::cuda {

template <typename T>
class ThresholdSearch {
 public:
  RNR_DEVICE ThresholdSearch(const ScannedRow<T>& row, const RowSummary& found,
                             SampleShared* shared)
      : row_(row), found_(found), shared_(shared), sampling_(shared->sampling) {}

  // Called by all threads of the cluster; the same in all of them.
  RNR_DEVICE float find() {
    if (sampling_.top_k == 0 && !(sampling_.top_p < 1.0f)) return -FLT_MAX;
    const int entries = kWarps * row_.tiles;
    const int wanted = sampling_.top_k > 0 ? sampling_.top_k : kFirstCandidates;
    if (wanted <= entries && wanted <= kMaxCandidates) {
      collect(bound(wanted, entries));
      sync_cluster();
      const uint32_t count = *remote(&shared_->num_candidates, 0);
      if (count <= kMaxCandidates) {
        if (cluster_rank() == 0) {
          choose(static_cast<int>(count));
          if (warp_index() == 0) {
            push(&shared_->threshold, shared_->threshold);
            push(&shared_->needs_passes, shared_->needs_passes);
          }
        }
        sync_cluster();
        if (shared_->needs_passes == 0) return shared_->threshold;
      }
    }
    float least = -FLT_MAX;
    if (sampling_.top_k > 0) least = in_passes<false>(least);
    if (sampling_.top_p < 1.0f) least = in_passes<true>(least);
    return least;
  }

 private:
  // Without top_k: about as many as a sharp distribution has likely tokens.
  static constexpr int kFirstCandidates = 64;
  // Passes: one by steps, marked by the shift kWidth, then kDigitBits of a key at a time.
  static constexpr int kWidth = 32, kDigitBits = 8;

  // The n-th largest of the warps' maxima: n tokens at least are not below it.
  RNR_DEVICE float bound(int n, int entries) const {
    const float* tops = row_.tables.tops();
    for (int i = thread_index(); i < entries; i += kThreads) {
      int before = 0;
      for (int other = 0; other < entries; ++other) {
        before += tops[other] > tops[i] || (tops[other] == tops[i] && other < i);
      }
      if (before == n - 1) shared_->threshold = fmaxf(tops[i], -FLT_MAX);
    }
    sync_block();
    return shared_->threshold;
  }

  // Calls f(tile, x) for this block's tiles that reach `least`.
  template <typename F>
  RNR_DEVICE void for_each_tile(float least, F f) const {
    for (int tile = cluster_rank(); tile < row_.tiles; tile += cluster_size()) {
      if (!(row_.top_of(tile) >= least)) continue;
      float x[kColumns];
      row_.adjust(tile, row_.load(tile), x);
      f(tile, x);
    }
  }

  // Gathers the tokens from `least` up and their weights against the row's ceiling.
  RNR_DEVICE void collect(float least) {
    for_each_tile(least, [&](int tile, const float (&x)[kColumns]) {
      const float tile_top = row_.top_of(tile);
      const WeightScale weights = row_.weights(tile_top);
      const int shift = tile_shift(found_.ceiling, row_.ceiling_of(tile_top));
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        if (!(x[i] >= least)) continue;
        const uint32_t at = atomic_add(remote(&shared_->num_candidates, 0), 1u);
        if (at >= kMaxCandidates) continue;
        *remote(&shared_->candidates[at], 0) = x[i];
        *remote(&shared_->candidate_weights[at], 0) = weights.of(x[i]) >> shift;
      }
    });
  }

  // Sets the threshold, or says that passes are needed; called by the first block.
  RNR_DEVICE void choose(int count) {
    float least = -FLT_MAX;
    bool suffices = true;
    if (sampling_.top_k > 0) {
      least = smallest_kept(count, least, sampling_.top_k, [](int) { return int64_t{1}; });
    }
    if (sampling_.top_p < 1.0f) {
      const auto weight = [&](int i) { return shared_->candidate_weights[i]; };
      const int64_t there = block_total(count, least, weight);
      int64_t all = there;
      if (sampling_.top_k == 0) {
        all = 0;
        for (int first = 0; first < row_.tiles; first += kWarpSize) {
          all += warp_total(row_.mass_of(first + lane_index(), found_.ceiling));
        }
      }
      const int64_t limit = limit_of(all);
      suffices = there >= limit;
      least = smallest_kept(count, least, limit, weight);
    }
    sync_block();
    if (thread_index() == 0) {
      shared_->threshold = least;
      shared_->needs_passes = suffices ? 0 : 1;
    }
    sync_block();
  }

  // The least mass that must be kept.
  RNR_DEVICE int64_t limit_of(int64_t mass) const {
    const double limit = ceil(static_cast<double>(sampling_.top_p) * static_cast<double>(mass));
    return limit > 1.0 ? static_cast<int64_t>(limit) : 1;
  }

  // Of the candidates from `least` up, the sum of what they count.
  template <typename F>
  RNR_DEVICE int64_t block_total(int count, float least, F counted) const {
    int64_t total = 0;
    for (int i = 0; i < count; ++i) {  // the same in all threads
      if (shared_->candidates[i] >= least) total += counted(i);
    }
    return total;
  }

  // The smallest candidate from `least` up with less than `limit` above it.
  template <typename F>
  RNR_DEVICE float smallest_kept(int count, float least, int64_t limit, F counted) {
    float smallest = found_.top;
    for (int i = thread_index(); i < count; i += kThreads) {
      const float value = shared_->candidates[i];
      if (!(value >= least)) continue;
      int64_t above = 0;
      for (int other = 0; other < count; ++other) {
        if (shared_->candidates[other] > value) above += counted(other);
      }
      if (above < limit) smallest = fminf(smallest, value);
    }
    if (thread_index() == 0) shared_->digit = 0xffffffffu;
    sync_block();
    const uint32_t key = warp_min(key_of(smallest));
    if (lane_index() == 0) atomic_min(&shared_->digit, key);
    sync_block();
    const float result = value_of(shared_->digit);
    sync_block();
    return result;
  }

  // The same over the whole row, for tokens from `least` up: by their distance from the top in
  // kBins steps, then by the bits of the keys in the step that the threshold is in.
  template <bool kWeighs>
  RNR_DEVICE float in_passes(float least) {
    const float from = kWeighs ? fmaxf(least, found_.top - reach()) : least;
    const Steps steps(found_.top, kWeighs ? reach() : spread());
    uint32_t prefix = 0, decided = 0;
    uint64_t above = 0, limit = kWeighs ? 0 : static_cast<uint64_t>(sampling_.top_k);
    int step = -1, parity = 0;
    clear(parity);
    sync_block();
    for (int shift = kWidth; shift >= 0; shift -= kDigitBits, parity ^= 1) {
      const bool is_first = step < 0;
      uint32_t (*histogram)[kBins] = shared_->histogram[parity];
      for_each_tile(from, [&](int tile, const float (&x)[kColumns]) {
        const float tile_top = row_.top_of(tile);
        const WeightScale weights = row_.weights(tile_top);
        const int down = tile_shift(found_.ceiling, row_.ceiling_of(tile_top));
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
          const float value = x[i] + 0.0f;  // zeros have one key
          const uint32_t key = key_of(value);
          const bool is_here = is_first || steps.of(value) == step;
          const bool counts = value >= from && is_here && (key & decided) == prefix;
          // The first bin is that of the largest values.
          const uint32_t bin =
              is_first ? steps.of(value) : kBins - 1 - (key >> shift & (kBins - 1));
          add<kWeighs>(histogram, counts, bin, kWeighs ? weights.of(value) >> down : 1);
        }
      });
      sync_cluster();
      const uint64_t mine = total_of<kWeighs>(histogram);
      clear(parity ^ 1);  // other blocks are done with that one
      const uint64_t up_to = prefix_sum(mine);
      if (kWeighs && is_first) {
        if (thread_index() == kBins - 1) shared_->above = up_to;
        sync_block();
        limit = static_cast<uint64_t>(limit_of(static_cast<int64_t>(shared_->above)));
      }
      if (thread_index() == 0) shared_->digit = kBins;
      sync_block();
      if (above + up_to >= limit && above + up_to - mine < limit) {
        shared_->digit = static_cast<uint32_t>(thread_index());
        shared_->above = above + up_to - mine;
      }
      sync_block();
      const uint32_t digit = shared_->digit;
      if (digit == kBins) break;  // all of them count less: all are kept
      above = shared_->above;
      if (is_first) {
        step = static_cast<int>(digit);
      } else {
        prefix |= (kBins - 1 - digit) << shift;
        decided |= (kBins - 1u) << shift;
      }
      sync_block();
    }
    sync_cluster();  // the next search clears a histogram that others may read
    return decided == 0xffffffffu ? value_of(prefix) : least;
  }

  // Equal steps down from the top; what lies below the last is in the last.
  struct Steps {
    float top, scale;

    RNR_DEVICE Steps(float top, float span) : top(top), scale(kBins / fmaxf(span, FLT_MIN)) {}
    RNR_DEVICE int of(float x) const {
      const float steps = (top - x) * scale;
      return steps < kBins - 1 ? static_cast<int>(steps) : kBins - 1;
    }
  };

  // How far below the top tokens weigh anything.
  RNR_DEVICE float reach() const {
    // Far from the clamp, behind which tokens weigh the same.
    const bool is_far = fabsf(found_.ceiling) < kExponentClamp / 2;
    return is_far ? (kFixedPointBits + 2) / sampling_.scale : FLT_MAX;
  }

  // A few times as far as the smallest of the warps' maxima lies below the top: where most tokens
  // are.
  RNR_DEVICE float spread() const {
    float least = found_.top;
    for (int i = lane_index(); i < kWarps * row_.tiles; i += kWarpSize) {
      least = fminf(least, row_.tables.tops()[i]);
    }
    return 4.0f * (found_.top + warp_max(-least));
  }

  RNR_DEVICE void clear(int parity) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) shared_->histogram[parity][part][thread_index()] = 0;
  }

  // Adds what a lane's token counts, where it does; by all lanes of a warp. Where all tokens fall
  // into one bin, as in flat rows, one lane adds for all.
  template <bool kWeighs>
  static RNR_DEVICE void add(uint32_t (*histogram)[kBins], bool counts, uint32_t bin,
                             int64_t counted) {
    const uint32_t lanes = ballot(counts);
    if (lanes == 0) return;
    const int first = count_trailing_zeros(lanes);
    const uint32_t first_bin = shuffle_from(bin, first);
    if (ballot(counts && bin == first_bin) == lanes) {
      counted = warp_sum(counts ? counted : 0);
      counts = lane_index() == first;
    }
    if (!counts) return;
    // A sum of 32 may need all bits of the last part.
#pragma unroll
    for (int part = 0; part < (kWeighs ? kParts : 1); ++part) {
      const bool is_last = part == (kWeighs ? kParts : 1) - 1;
      const int64_t rest = counted >> kPartBits * part;
      const uint32_t value = static_cast<uint32_t>(is_last ? rest : rest & ((1 << kPartBits) - 1));
      if (value != 0) atomic_add(&histogram[part][bin], value);
    }
  }

  // This thread's bin over all blocks.
  template <bool kWeighs>
  RNR_DEVICE uint64_t total_of(uint32_t (*histogram)[kBins]) const {
    uint64_t total = 0;
    for (int rank = 0; rank < cluster_size(); ++rank) {
      for (int part = 0; part < (kWeighs ? kParts : 1); ++part) {
        const uint64_t value = *remote(&histogram[part][thread_index()], rank);
        total += value << kPartBits * part;
      }
    }
    return total;
  }

  // Of one value a thread: the sum of those up to this thread.
  RNR_DEVICE uint64_t prefix_sum(uint64_t value) {
    const uint64_t up_to = warp_scan(value);
    if (lane_index() == kWarpSize - 1) shared_->slices[warp_index()] = static_cast<int64_t>(up_to);
    sync_block();
    uint64_t before = 0;
    for (int w = 0; w < warp_index(); ++w) before += static_cast<uint64_t>(shared_->slices[w]);
    sync_block();
    return before + up_to;
  }

  const ScannedRow<T>& row_;
  const RowSummary& found_;
  SampleShared* shared_;
  const SlotSampling& sampling_;
};

}  // namespace rnr::cuda
