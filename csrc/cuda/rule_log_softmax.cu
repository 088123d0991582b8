// log_softmax of adjusted logits: each row is read once into the shared memory of a cluster,
// summed, and written from there.
#include "launch.h"
#include "row_reader.h"
#include "tables.h"

namespace rnr::cuda {
namespace {

// Tiles of adjusted logits that a block keeps; those after them are read again.
constexpr int kKeptTiles = 4;

// One warp's sums, the same in all blocks.
struct WarpSums {
  OnlineSum adjusted, base, scores;
};

struct LogSoftmaxShared {
  RowShared row;
  WarpSums sums[kMaxCluster * kWarps];
  Words kept[kKeptTiles][kColumns / 4][kThreads];
  float bias[kTile];  // last: there only where slots have biases
};
static_assert(sizeof(LogSoftmaxShared) <= kMaxShared, "two blocks must fit a multiprocessor");

// The logarithm of a sum: top + rest.
struct LogSum {
  float top = -INFINITY;
  double rest = NAN;
};

template <typename T, bool kLogZ>
class RowNormaliser {
 public:
  RNR_DEVICE RowNormaliser(const LogSoftmaxParams& params, int64_t r, const Row& row,
                           LogSoftmaxShared* shared)
      : params_(params),
        rows_(params.rows),
        r_(r),
        row_(row),
        shared_(shared),
        logits_(rows_.logits, r),
        vocab_size_(logits_.vocab_size()),
        tiles_(logits_.tiles()) {}

  RNR_DEVICE RawTile<T> first_tile() const { return logits_.raw(cluster_rank()); }

  // The whole row; `raw` holds the block's first tile.
  RNR_DEVICE void run(RawTile<T> raw) {
    WarpSums sums;
    int kept = 0;
    for (int tile = cluster_rank(); tile < tiles_; tile += cluster_size(), ++kept) {
      float x[kColumns];
      add_tile(tile, &raw, x, &sums);
      if (kept < kKeptTiles) keep(kept, x);
    }
    WarpSums* mine = &shared_->sums[cluster_rank() * kWarps + warp_index()];
    push(&mine->adjusted, warp_sum(sums.adjusted));
    if (kLogZ) {
      push(&mine->base, warp_sum(sums.base));
      push(&mine->scores, warp_sum(sums.scores));
    }
    sync_cluster();
    const LogSum adjusted = combined([](const WarpSums& s) { return s.adjusted; });
    const bool is_valid = adjusted.rest == adjusted.rest;
    if (kLogZ && cluster_rank() == 0 && warp_index() == 0) write_log_z(adjusted);
    write_row(adjusted, is_valid);
  }

  // A row of NaN.
  RNR_DEVICE void write_nothing() const {
    fill(0, NAN);
    if (params_.log_z != nullptr && cluster_rank() == 0 && thread_index() == 0) {
      params_.log_z[r_ * params_.log_z_stride] = NAN;
    }
  }

 private:
  using L = Layout<T>;

  static RNR_DEVICE void add(const float (&x)[kColumns], OnlineSum* sum) {
    sum->raise(largest_of(x));
    const float shift = sum->shift();
#pragma unroll
    for (int i = 0; i < kColumns; ++i) sum->total = sum->total + exp_of_difference(x[i], shift);
  }

  // Loads the block's next tile into `raw`.
  RNR_DEVICE void add_tile(int tile, RawTile<T>* raw, float (&x)[kColumns], WarpSums* sums) const {
    const TileRules here = tile_rules(rows_, r_, row_, tile, &shared_->row, shared_->bias);
    if constexpr (kLogZ) {
      float scores[kColumns];
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        scores[i] = here.first + L::column(i) < vocab_size_ ? 0.0f : -INFINITY;
      }
      adjust(*raw, shared_->row, here, vocab_size_, x, [&](int v, const float* found) {
#pragma unroll
        for (int j = 0; j < L::kVector; ++j) {
          float& score = scores[v * L::kVector + j];
          if (score == 0.0f) score = found[j];
        }
      });
      add(scores, &sums->scores);
      float base[kColumns];
      raw->unpack(base);
      add(base, &sums->base);
    } else {
      adjust(*raw, shared_->row, here, vocab_size_, x);
    }
    *raw = logits_.raw(tile + cluster_size());
    add(x, &sums->adjusted);
  }

  RNR_DEVICE void keep(int slot, const float (&x)[kColumns]) const {
#pragma unroll
    for (int i = 0; i < kColumns; i += 4) {
      shared_->kept[slot][i / 4][thread_index()] = {
          {bits_of(x[i]), bits_of(x[i + 1]), bits_of(x[i + 2]), bits_of(x[i + 3])}};
    }
  }

  RNR_DEVICE float kept_value(int slot, int i) const {
    return float_of(shared_->kept[slot][i / 4][thread_index()].at[i % 4]);
  }

  // All warps' sums together, in a fixed order; NaN for rows that are not valid.
  template <typename F>
  RNR_DEVICE LogSum combined(F sum_of) const {
    const int entries = cluster_size() * kWarps;
    LogSum result;
    float top = -INFINITY;
    for (int i = lane_index(); i < entries; i += kWarpSize) {
      top = fmaxf(top, sum_of(shared_->sums[i]).top);
    }
    result.top = warp_max(top);
    double total = 0.0;
    for (int i = lane_index(); i < entries; i += kWarpSize) {
      const OnlineSum sum = sum_of(shared_->sums[i]);
      // An empty part has no top.
      if (sum.total == 0.0f) continue;
      total += static_cast<double>(sum.total) * exp_of_difference(sum.top, result.top);
    }
    total = warp_total(total);
    // Neither 0 nor NaN.
    if (total > 0.0) result.rest = log(total);
    return result;
  }

  // log Z = lse(adjusted) - lse(logits) - lse(r); the differences of large parts come first.
  RNR_DEVICE void write_log_z(const LogSum& adjusted) const {
    const LogSum base = combined([](const WarpSums& s) { return s.base; });
    const LogSum scores = combined([](const WarpSums& s) { return s.scores; });
    const double tops = (static_cast<double>(adjusted.top) - base.top) - scores.top;
    if (lane_index() != 0) return;
    params_.log_z[r_ * params_.log_z_stride] =
        static_cast<float>(tops + (adjusted.rest - base.rest - scores.rest));
  }

  RNR_DEVICE void write_row(const LogSum& sum, bool is_valid) const {
    if (!is_valid) return fill(0, NAN);
    float* out = params_.out + r_ * params_.out_stride;
    const bool aligned = is_aligned(out);
    const float log_sum = static_cast<float>(sum.rest);
    int kept = 0;
    for (int tile = cluster_rank(); tile < tiles_; tile += cluster_size(), ++kept) {
      float x[kColumns];
      if (kept < kKeptTiles) {
#pragma unroll
        for (int i = 0; i < kColumns; ++i) x[i] = kept_value(kept, i);
      } else {
        const RawTile<T> raw = logits_.raw(tile);
        adjust(raw, shared_->row, tile_rules(rows_, r_, row_, tile, &shared_->row, shared_->bias),
               vocab_size_, x);
      }
#pragma unroll
      for (int i = 0; i < kColumns; i += 4) {
        const int column = tile * kTile + L::column(i);
        Words words;
#pragma unroll
        for (int j = 0; j < 4; ++j) words.at[j] = bits_of((x[i + j] - sum.top) - log_sum);
        if (aligned && column + 4 <= vocab_size_) {
          Words* target = reinterpret_cast<Words*>(out + column);
          // Half a sector is better left for its other half to come.
          if constexpr (L::kVector == 4) {
            store_streaming(target, words);
          } else {
            *target = words;
          }
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            if (column + j < vocab_size_) store_streaming(out + column + j, float_of(words.at[j]));
          }
        }
      }
    }
    fill(vocab_size_, -INFINITY);
  }

  // Columns from `first` on.
  RNR_DEVICE void fill(int64_t first, float value) const {
    float* out = params_.out + r_ * params_.out_stride;
    const int64_t step = int64_t{cluster_size()} * kThreads;
    for (int64_t c = first + cluster_rank() * kThreads + thread_index(); c < rows_.logits.row_width;
         c += step) {
      out[c] = value;
    }
  }

  const LogSoftmaxParams& params_;
  const RuleRows& rows_;
  const int64_t r_;
  const Row& row_;
  LogSoftmaxShared* shared_;
  const RowReader<T> logits_;
  const int vocab_size_, tiles_;
};

template <typename T, bool kLogZ>
RNR_KERNEL rule_log_softmax_kernel(RNR_PARAMS(LogSoftmaxParams) params) {
  const RuleRows& rows = params.rows;
  const int64_t r = block_index() / cluster_size();
  LogSoftmaxShared* shared = reinterpret_cast<LogSoftmaxShared*>(shared_memory());
  Row row;
  RowNormaliser<T, kLogZ> normaliser(params, r, row, shared);
  // Under way while the rules are looked up.
  const RawTile<T> raw = normaliser.first_tile();
  int error_bits = 0;
  row = find_row(rows, r, &error_bits);
  report(rows, r, row, error_bits);
  if (!row.is_live) return normaliser.write_nothing();
  announce_block();
  load_rules(rows, r, row, &shared->row);
  wait_cluster();  // all blocks are there to write to
  normaliser.run(raw);
}

}  // namespace

void rule_log_softmax(const LogSoftmaxParams& params, const Device& device) {
  const LogitsRows& logits = params.rows.logits;
  const int cluster = cluster_of(num_tiles(logits), device);
  const int64_t bias = sizeof(LogSoftmaxShared::bias);
  const int64_t shared = sizeof(LogSoftmaxShared) - (params.rows.state.max_bias > 0 ? 0 : bias);
  with_dtype<Float32, BFloat16, Float16>(logits.dtype, [&](auto type) {
    using T = decltype(type);
    launch(params.log_z != nullptr ? rule_log_softmax_kernel<T, true>
                                   : rule_log_softmax_kernel<T, false>,
           params, logits.num_rows, cluster, shared, device);
  });
}

}  // namespace rnr::cuda
