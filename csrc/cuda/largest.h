// The largest logits of a row, lowest id first on ties: each block's own, then those of all.
#pragma once

#include "tables.h"

namespace rnr::cuda {

constexpr int kMaxLargest = kMaxCluster * kMaxTopK;

struct Entry {
  float value;
  int32_t column;

  // Whether it comes before another one.
  RNR_DEVICE bool precedes(const Entry& other) const {
    return value > other.value || (value == other.value && column < other.column);
  }
};

constexpr Entry kNoEntry = {-INFINITY, INT32_MAX};

struct LargestShared {
  float tops[kThreads];
  uint32_t count;
  uint64_t best[kWarps];
  Entry candidates[kMaxLargest];
  Entry lists[kMaxCluster][kMaxTopK];  // in the first block
};

// Calls f(place, entry) for the `top_k` first of `count` entries; by all threads of a block.
template <typename F>
RNR_DEVICE void for_each_first(const Entry* entries, int count, int top_k, F f) {
  for (int i = thread_index(); i < count; i += kThreads) {
    int before = 0;
    for (int other = 0; other < count; ++other) before += entries[other].precedes(entries[i]);
    if (before < top_k) f(before, entries[i]);
  }
}

// A block's list goes to the first block. `thread_top` is the largest of this thread's logits;
// for_each_tile(f) calls f(first_column, x) for the block's tiles.
template <typename T, typename Tiles>
RNR_DEVICE void push_largest(int top_k, int vocab_size, float thread_top, LargestShared* shared,
                             Tiles for_each_tile) {
  using L = Layout<T>;
  Entry* list = remote(&shared->lists[cluster_rank()][0], 0);
  for (int i = thread_index(); i < top_k; i += kThreads) list[i] = kNoEntry;
  if (thread_index() == 0) shared->count = 0;
  shared->tops[thread_index()] = thread_top;
  sync_block();
  // The largest logit of the thread with the top_k-th largest: as many are not below it.
  int before = 0;
  for (int other = 0; other < kThreads; ++other) {
    const float top = shared->tops[other];
    before += top > thread_top || (top == thread_top && other < thread_index());
  }
  sync_block();
  if (before == top_k - 1) shared->tops[0] = thread_top;
  sync_block();
  const float least = shared->tops[0];
  if (least > -INFINITY) {
    for_each_tile([&](int first, const float (&x)[kColumns]) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        if (!(x[i] >= least)) continue;
        const uint32_t at = atomic_add(&shared->count, 1u);
        const int column = first + L::column(i);
        if (at < kMaxLargest) shared->candidates[at] = {x[i], column};
      }
    });
    sync_block();
    if (shared->count <= kMaxLargest) {
      return for_each_first(shared->candidates, static_cast<int>(shared->count), top_k,
                            [&](int place, const Entry& entry) { list[place] = entry; });
    }
  }
  // Too many ties: one pass for each place.
  uint64_t last = ~uint64_t{0};
  for (int place = 0; place < top_k; ++place) {
    uint64_t best = 0;  // no key of a token
    for_each_tile([&](int first, const float (&x)[kColumns]) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const int column = first + L::column(i);
        // Zeros have one key, and of equal logits the first column the larger.
        const uint64_t key =
            uint64_t{key_of(x[i] + 0.0f)} << 32 | static_cast<uint32_t>(INT32_MAX - column);
        if (column < vocab_size && key < last && key > best) best = key;
      }
    });
#pragma unroll
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
      const uint64_t other = shuffle_xor(best, mask);
      best = other > best ? other : best;
    }
    if (lane_index() == 0) shared->best[warp_index()] = best;
    sync_block();
    for (int w = 0; w < kWarps; ++w) best = shared->best[w] > best ? shared->best[w] : best;
    sync_block();
    if (best == 0) return;
    last = best;
    if (thread_index() == 0) {
      list[place] = {value_of(static_cast<uint32_t>(last >> 32)),
                     INT32_MAX - static_cast<int32_t>(last & 0xffffffffu)};
    }
  }
}

// Calls f(place, entry) for the first of all blocks' lists; by all threads of the first block.
template <typename F>
RNR_DEVICE void for_each_largest(int top_k, LargestShared* shared, F f) {
  const int count = cluster_size() * top_k;
  for (int i = thread_index(); i < count; i += kThreads) {
    shared->candidates[i] = shared->lists[i / top_k][i % top_k];
  }
  sync_block();
  for_each_first(shared->candidates, count, top_k, f);
}

}  // namespace rnr::cuda
