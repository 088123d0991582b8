// One token a row in one launch: a scan of its tiles by the blocks of a cluster, a search for the
// smallest token that filters keep where there are any, and a walk through the chosen tile.
#include <cfloat>

#include "launch.h"
#include "threshold.h"

namespace rnr::cuda {
namespace {

template <typename T, bool kSums>
class RowSampler {
 public:
  RNR_DEVICE RowSampler(const ScannedRow<T>& row, const SampleParams& params, SampleShared* shared)
      : row_(row), params_(params), shared_(shared), sampling_(shared->sampling) {}

  // The whole row; `raw` holds the block's first tile.
  RNR_DEVICE void run(RawTile<T> raw) {
    scan(raw);
    sync_cluster();
    found_ = row_.summary();
    if (!found_.is_valid) return write_nothing();
    kept_.top = found_.top;
    if (!sampling_.is_greedy && sampling_.filters) filter();
    if (warp_index() == 0) choose_tile();
    sync_block();
    const int tile = shared_->choice.tile;
    const bool is_owner = tile % cluster_size() == cluster_rank();
    if (is_owner) walk(tile, shared_->choice.rest);
    const int num_greater = params_.rank != nullptr ? count_greater(is_owner) : 0;
    sync_cluster();  // nobody reads the state or other blocks' memory any more
    if (is_owner && warp_index() == 0) write(num_greater);
  }

 private:
  // Finds the tiles' maxima, and the weights and sums that are needed of all tokens.
  RNR_DEVICE void scan(RawTile<T> raw) {
    const bool weighs = !sampling_.is_greedy && sampling_.top_k == 0;
    for (int tile = cluster_rank(); tile < row_.tiles; tile += cluster_size()) {
      float x[kColumns];
      row_.adjust(tile, raw, x);
      raw = row_.load(tile + cluster_size());  // while this one is looked at
      float top = -INFINITY;
#pragma unroll
      for (int i = 0; i < kColumns; ++i) top = max_with_nan(top, x[i]);
      top = ballot(!(top < INFINITY)) != 0 ? NAN : warp_max(top);
      const int entry = row_.entry_of(tile);
      if (lane_index() == 0) row_.tables.tops()[entry] = top;
      if (!weighs && !kSums) continue;
      sync_block();
      const float tile_top = row_.top_of(tile);
      if (weighs) {
        const int64_t weight = row_.warp_weight(tile_top, x);
        if (lane_index() == 0) row_.tables.sums()[entry] = weight;
      }
      if (kSums) add_sums(entry, tile_top, x);
    }
    sync_block();
    push_tiles(row_.tables.tops(), row_.tiles);
    if (weighs) push_tiles(row_.tables.sums(), row_.tiles);
    if (kSums) push_tiles(row_.tables.adjusted(), row_.tiles);
    if (kSums) push_tiles(row_.tables.final(), row_.tiles);
  }

  // Sums of exp(x - tile_top), and of the same over the temperature.
  RNR_DEVICE void add_sums(int entry, float tile_top, const float (&x)[kColumns]) {
    const float shift = tile_top == -INFINITY ? 0.0f : tile_top;
    const float adjusted = exp_total(x, shift, kLog2E);
    const float final = exp_total(x, shift, sampling_.scale);
    if (lane_index() != 0) return;
    row_.tables.adjusted()[entry] = adjusted;
    row_.tables.final()[entry] = final;
  }

  // A warp's sum of exp2((x - shift) * scale).
  static RNR_DEVICE float exp_total(const float (&x)[kColumns], float shift, float scale) {
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) total = total + fast_exp2((x[i] - shift) * scale);
    return warp_total(total);
  }

  // Finds what is kept, and weighs it.
  RNR_DEVICE void filter() {
    kept_.threshold = ThresholdSearch<T>(row_, found_, shared_).find();
    kept_.min_p_threshold = sampling_.min_p_threshold;
    for (int tile = cluster_rank(); tile < row_.tiles; tile += cluster_size()) {
      const float tile_top = row_.top_of(tile);
      const int entry = row_.entry_of(tile);
      int64_t weight = 0;
      float final = 0.0f;
      if (kept_.holds(tile_top)) {
        float x[kColumns];
        row_.adjust(tile, row_.load(tile), x);
#pragma unroll
        for (int i = 0; i < kColumns; ++i) x[i] = kept_.holds(x[i]) ? x[i] : -INFINITY;
        weight = row_.warp_weight(tile_top, x);
        if (kSums) final = exp_total(x, tile_top, sampling_.scale);
      }
      if (lane_index() == 0) {
        row_.tables.sums()[entry] = weight;
        if (kSums) row_.tables.final()[entry] = final;
      }
    }
    sync_block();
    push_tiles(row_.tables.sums(), row_.tiles);
    if (kSums) push_tiles(row_.tables.final(), row_.tiles);
    sync_cluster();
  }

  // Where the first largest token is, or where the cumulative weight exceeds the uniform's share of
  // the total; by one warp.
  RNR_DEVICE void choose_tile() {
    int tile;
    int64_t rest = 0;
    if (sampling_.is_greedy) {
      tile = first_tile_at_top();
    } else {
      tile = draw_tile(&rest);
    }
    if (lane_index() != 0) return;
    shared_->choice.tile = tile;
    shared_->choice.rest = rest;
  }

  RNR_DEVICE int first_tile_at_top() const {
    for (int first = 0;; first += kWarpSize) {
      const int tile = first + lane_index();
      const uint32_t hits = ballot(tile < row_.tiles && row_.top_of(tile) == found_.top);
      if (hits != 0) return first + count_trailing_zeros(hits);
    }
  }

  // `rest`: the share less what lies in the tiles before.
  RNR_DEVICE int draw_tile(int64_t* rest) const {
    int64_t total = 0;
    for (int first = 0; first < row_.tiles; first += kWarpSize) {
      total += warp_total(row_.mass_of(first + lane_index(), found_.ceiling));
    }
    const StateTables& state = params_.rows.state;
    const int64_t* rng = state.rng + 2 * row_.row.slot;
    const IndexColumn& offsets = params_.rows.row_offsets;
    const int64_t position = wrapping_add(rng[1], offsets ? offsets[row_.r] : 0);
    const int64_t target = multiply_shift_53(
        uniform_bits(static_cast<uint64_t>(rng[0]), static_cast<uint64_t>(position)), total);
    int64_t before = 0;
    for (int first = 0; first < row_.tiles; first += kWarpSize) {
      const int64_t mass = row_.mass_of(first + lane_index(), found_.ceiling);
      const int64_t end = before + warp_scan(mass);
      const uint32_t hits = ballot(end > target);
      if (hits != 0) {
        const int lane = count_trailing_zeros(hits);
        *rest = target - (shuffle_from(end, lane) - shuffle_from(mass, lane));
        const int tile = first + lane;
        return tile < row_.tiles ? tile : row_.tiles - 1;
      }
      before = shuffle_from(end, kWarpSize - 1);
    }
    return row_.tiles - 1;
  }

  // Finds the token of the tile: the first at the top, or where the weight of those up to it
  // exceeds `rest`.
  RNR_DEVICE void walk(int tile, int64_t rest) {
    using L = Layout<T>;
    float x[kColumns];
    row_.adjust(tile, row_.load(tile), x);
    const float tile_top = row_.top_of(tile);
    const WeightScale weights = row_.weights(tile_top);
    const int shift = tile_shift(found_.ceiling, row_.ceiling_of(tile_top));
    const int last = last_column(tile * kTile, row_.vocab_size) - 1;
    Choice& choice = shared_->choice;
    // Without one, for weights that hold no numbers, it is the last.
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      if (tile * kTile + L::column(i) == last) {
        choice.column = last;
        choice.value = x[i];
      }
    }
    sync_block();
    if (sampling_.is_greedy) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const int column = tile * kTile + L::column(i);
        if (x[i] == found_.top) atomic_min(&choice.column, column);
      }
      choice.value = found_.top;
      return sync_block();
    }
#pragma unroll
    for (int i = 0; i < kColumns; ++i) x[i] = kept_.holds(x[i]) ? x[i] : -INFINITY;
    int64_t vector_weights[L::kVectors];
#pragma unroll
    for (int v = 0; v < L::kVectors; ++v) {
      vector_weights[v] = 0;
#pragma unroll
      for (int j = 0; j < L::kVector; ++j) vector_weights[v] += weights.of(x[v * L::kVector + j]);
      const int64_t end = warp_scan(vector_weights[v]);
      if (lane_index() == kWarpSize - 1) shared_->slices[v * kWarps + warp_index()] = end;
      vector_weights[v] = end - vector_weights[v];  // of the lanes before
    }
    sync_block();
#pragma unroll
    for (int v = 0; v < L::kVectors; ++v) {
      int64_t running = vector_weights[v];
      for (int s = 0; s < v * kWarps + warp_index(); ++s) running += shared_->slices[s];
#pragma unroll
      for (int j = 0; j < L::kVector; ++j) {
        const float value = x[v * L::kVector + j];
        const int64_t before = running;
        running += weights.of(value);
        if (before >> shift <= rest && running >> shift > rest) {
          choice.column = tile * kTile + L::start(v) + j;
          choice.value = value;
        }
      }
    }
    sync_block();
  }

  // Tokens above the chosen one.
  RNR_DEVICE int count_greater(bool is_owner) {
    if (thread_index() == 0) shared_->num_greater = 0;
    if (is_owner && warp_index() == 0) push(&shared_->value, shared_->choice.value);
    sync_cluster();
    const float value = shared_->value;
    uint32_t count = 0;
    for (int tile = cluster_rank(); tile < row_.tiles; tile += cluster_size()) {
      if (!(row_.top_of(tile) > value)) continue;
      float x[kColumns];
      row_.adjust(tile, row_.load(tile), x);
#pragma unroll
      for (int i = 0; i < kColumns; ++i) count += x[i] > value;
    }
    count = warp_add(count);
    if (lane_index() == 0) atomic_add(remote(&shared_->num_greater, 0), count);
    sync_cluster();
    return static_cast<int>(*remote(&shared_->num_greater, 0));
  }

  RNR_DEVICE void write_nothing() {
    sync_cluster();
    if (cluster_rank() == 0 && thread_index() == 0) write_padding(params_, row_.r);
  }

  // By one warp.
  RNR_DEVICE void write(int num_greater) const {
    const int64_t r = row_.r, slot = row_.row.slot;
    const int token = shared_->choice.column;
    const float value = shared_->choice.value;
    double log_total = 0.0, adjusted_log_total = 0.0;
    if (kSums) {
      log_total = log_of(row_.tables.final(), sampling_.scale);
      adjusted_log_total = log_of(row_.tables.adjusted(), kLog2E);
    }
    if (lane_index() != 0) return;
    params_.token_ids[r] = token;
    if (kSums && params_.logprob != nullptr) {
      const float distance = (value - found_.top) / sampling_.temperature;
      params_.logprob[r] = sampling_.is_greedy ? 0.0f : static_cast<float>(distance - log_total);
    }
    if (kSums && params_.adjusted_logprob != nullptr) {
      const double distance = static_cast<double>(value) - found_.top;
      params_.adjusted_logprob[r] = static_cast<float>(distance - adjusted_log_total);
    }
    if (params_.rank != nullptr) params_.rank[r] = num_greater + 1;
    if (params_.rows.commits()) {
      set_used(params_.rows.state, slot, token);
      advance(params_.rows.state, slot, 1);
    }
  }

  // The logarithm of the sum over the row, in a fixed order of its tiles; in all lanes.
  RNR_DEVICE double log_of(const float* sums, float scale) const {
    double total = 0.0;
    for (int tile = lane_index(); tile < row_.tiles; tile += kWarpSize) {
      const float top = row_.top_of(tile);
      if (top == -INFINITY) continue;
      double of_tile = 0.0;
      for (int w = 0; w < kWarps; ++w) of_tile += sums[w * row_.tiles + tile];
      total += of_tile * fast_exp2((top - found_.top) * scale);
    }
    return log(warp_total(total));
  }

  const ScannedRow<T>& row_;
  const SampleParams& params_;
  SampleShared* shared_;
  const SlotSampling& sampling_;
  RowSummary found_;
  Kept kept_;
};

template <typename T, bool kSums>
RNR_KERNEL sample_kernel(RNR_PARAMS(SampleParams) params) {
  const RuleRows& rows = params.rows;
  const int64_t r = block_index() / cluster_size();
  SampleShared* shared = reinterpret_cast<SampleShared*>(shared_memory());
  ScannedRow<T> row(rows, r, shared);
  // Under way while the rules are looked up.
  const RawTile<T> raw = row.load(cluster_rank() < row.tiles ? cluster_rank() : 0);
  int error_bits = 0;
  row.row = find_row(rows, r, &error_bits);
  if (rows.commits() && !is_first_of_slot(rows.state_indices, r) && row.row.is_live) {
    error_bits |= kErrorSlot;
    row.row.is_live = false;
  }
  report(rows, r, row.row, error_bits);
  if (!row.row.is_live) {
    if (cluster_rank() == 0 && thread_index() == 0) write_padding(params, r);
    return;
  }
  announce_block();
  if (thread_index() == 0) {
    shared->sampling = SlotSampling(rows.state, row.row.slot, row.vocab_size);
    shared->num_candidates = 0;
  }
  load_rules(rows, r, row.row, &shared->row);
  wait_cluster();  // all blocks are there to write to
  RowSampler<T, kSums>(row, params, shared).run(raw);
}

// A few blocks a row where the rows alone do not fill the GPU: results do not depend on it.
int cluster_for(int64_t num_rows, int64_t tiles, const Device& device) {
  constexpr int kBlocksPerMultiprocessor = 4;
  int cluster = cluster_of(tiles, device);
  while (cluster > 1 &&
         num_rows * cluster > kBlocksPerMultiprocessor * device.num_multiprocessors) {
    cluster /= 2;
  }
  return cluster;
}

}  // namespace

void sample(const SampleParams& params, int cluster, const Device& device) {
  const LogitsRows& logits = params.rows.logits;
  if (cluster == 0) cluster = cluster_for(logits.num_rows, num_tiles(logits), device);
  const bool sums = params.logprob != nullptr || params.adjusted_logprob != nullptr;
  with_dtype<Float32, BFloat16, Float16>(logits.dtype, [&](auto type) {
    using T = decltype(type);
    launch(sums ? sample_kernel<T, true> : sample_kernel<T, false>, params, logits.num_rows,
           cluster, ScanTables::size(params.rows), device);
  });
}

}  // namespace rnr::cuda
