// What the blocks of a cluster tell each other: tables of which each block has a copy, filled by
// all of them.
#pragma once

#include "reduce.h"
#include "rules.h"

namespace rnr::cuda {

// Writes a value of this warp into every block's copy of a table.
template <typename T>
RNR_DEVICE void push(T* entry, T value) {
  const int lane = lane_index();
  if (lane == cluster_rank()) {
    *entry = value;
  } else if (lane < cluster_size()) {
    *remote(entry, lane) = value;
  }
}

// Copies this block's entries of a table with one for each warp and tile to the other blocks;
// called by all threads of the block.
template <typename T>
RNR_DEVICE void push_tiles(T* table, int tiles) {
  const int size = cluster_size(), rank = cluster_rank();
  const int own = (tiles - rank + size - 1) / size;
  for (int i = thread_index(); i < own * kWarps * (size - 1); i += kThreads) {
    const int entry = i / own % kWarps * tiles + i % own * size + rank;
    const int other = i / (own * kWarps);
    *remote(&table[entry], other < rank ? other : other + 1) = table[entry];
  }
}

}  // namespace rnr::cuda
