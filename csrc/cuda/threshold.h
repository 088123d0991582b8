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

  // The same over the whole row, for tokens from `least` up, by the bits of their keys.
  template <bool kWeighs>
  RNR_DEVICE float in_passes(float least) {
    constexpr int kDigitBits = 8;
    const uint32_t least_key = key_of(least + 0.0f);
    uint32_t prefix = 0, decided = 0;
    uint64_t above = 0, limit = kWeighs ? 0 : static_cast<uint64_t>(sampling_.top_k);
    shared_->histogram[0][thread_index()] = 0;
    sync_block();
    for (int pass = 0; pass < 4; ++pass) {
      const int shift = 24 - kDigitBits * pass;
      uint64_t* histogram = shared_->histogram[pass % 2];
      for_each_tile(least, [&](int tile, const float (&x)[kColumns]) {
        const float tile_top = row_.top_of(tile);
        const WeightScale weights = row_.weights(tile_top);
        const int down = tile_shift(found_.ceiling, row_.ceiling_of(tile_top));
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
          const uint32_t key = key_of(x[i] + 0.0f);  // zeros have one key
          if (key < least_key || (key & decided) != prefix) continue;
          const int64_t counted = kWeighs ? weights.of(x[i]) >> down : 1;
          atomic_add(&histogram[key >> shift & (kBins - 1)], static_cast<uint64_t>(counted));
        }
      });
      sync_cluster();
      const int bin = thread_index();
      uint64_t mine = 0;
      for (int rank = 0; rank < cluster_size(); ++rank) mine += *remote(&histogram[bin], rank);
      // Other blocks are done with the other one.
      shared_->histogram[(pass + 1) % 2][bin] = 0;
      const uint64_t from_here = suffix_sum(mine);
      if (kWeighs && pass == 0) {
        if (bin == 0) shared_->above = from_here;
        sync_block();
        limit = static_cast<uint64_t>(limit_of(static_cast<int64_t>(shared_->above)));
        sync_block();
      }
      if (bin == 0) shared_->digit = kBins;
      sync_block();
      if (above + from_here >= limit && above + from_here - mine < limit) {
        shared_->digit = static_cast<uint32_t>(bin);
        shared_->above = above + from_here - mine;
      }
      sync_block();
      if (shared_->digit == kBins) break;  // all of them count less: all are kept
      prefix |= shared_->digit << shift;
      decided |= (kBins - 1u) << shift;
      above = shared_->above;
      sync_block();
    }
    const bool found = decided == 0xffffffffu;
    sync_cluster();  // the next search begins with the first histogram
    return found ? value_of(prefix) : least;
  }

  // Of one value a thread: the sum of those from this thread on.
  RNR_DEVICE uint64_t suffix_sum(uint64_t value) {
    const uint64_t up_to = warp_scan(value);
    if (lane_index() == kWarpSize - 1) shared_->slices[warp_index()] = static_cast<int64_t>(up_to);
    sync_block();
    uint64_t before = 0, total = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp_index()) before += static_cast<uint64_t>(shared_->slices[w]);
      total += static_cast<uint64_t>(shared_->slices[w]);
    }
    sync_block();
    return total - (before + up_to) + value;
  }

  const ScannedRow<T>& row_;
  const RowSummary& found_;
  SampleShared* shared_;
  const SlotSampling& sampling_;
};

}  // namespace rnr::cuda
