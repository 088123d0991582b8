// What statistics know of one row under one model.
//
// A row is read once, block by block. Sums are taken against the largest value so far: a block is
// summed as if it held none larger, and once more in the few cases where it does. Lane sums go to
// float64 at the end of every tile. The first tile's largest value is looked up beforehand: there
// most blocks would be summed twice.
#pragma once

#include "arithmetic.h"
#include "blocks.h"

namespace rnr::cpu::RNR_ISA {

// The lanes' sum in float64: the logarithms of two sums nearly cancel in a divergence.
RNR_INLINE double wide_sum(Floats x) {
  float lanes[kLanes];
  store(lanes, x);
  double sums[kLanes / 2];
  for (int i = 0; i < kLanes / 2; ++i) {
    sums[i] = static_cast<double>(lanes[i]) + static_cast<double>(lanes[i + kLanes / 2]);
  }
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// The top of a row that has shown nothing above -inf: finite, for -inf minus itself is NaN.
constexpr float kLowest = -0x1.fffffep127f;

// Sums over e = exp(x - top): of e, and of e (x - top).
struct ExpSums {
  double top = kLowest;
  double total = 0.0;
  double weighted = 0.0;

  // Takes them against another top, at least the present one; returns the factor.
  RNR_INLINE double rebase(double new_top) {
    const double shift = top - new_top;
    top = new_top;
    if (shift == 0.0 || !(total > 0.0)) return 1.0;
    const double factor = exp64(shift);
    weighted = (weighted + total * shift) * factor;
    total *= factor;
    return factor;
  }

  RNR_INLINE void add(double part_total, double part_weighted) {
    total += part_total;
    weighted += part_weighted;
  }

  // Neither empty nor with NaN or +inf, which have made the weighted sum NaN.
  RNR_INLINE bool is_valid() const { return total > 0.0 && weighted == weighted; }
};

// The largest values, lowest id first on ties. Ids come in ascending order.
struct TopList {
  int32_t size = 0;
  int32_t count = 0;
  float values[kMaxTopK];
  int64_t ids[kMaxTopK];

  RNR_INLINE void add_block(const float* block, int64_t start, Floats block_top) {
    if (size == 0 || (count == size && !any(block_top > splat(values[size - 1])))) return;
    scan(block, start);
  }

 private:
  __attribute__((noinline)) void scan(const float* block, int64_t start) {
    int first = 0;
    for (; count < size; ++first) insert(block[first], start + first);
    for (int i = first / kLanes; i < kBlock / kLanes; ++i) {
      const float* lanes = block + kLanes * i;
      uint32_t above = bits_of(load(lanes) > splat(values[size - 1]));
      if (first > kLanes * i) above &= ~0u << (first - kLanes * i);
      for (; above != 0; above &= above - 1) {
        const int lane = __builtin_ctz(above);
        if (lanes[lane] > values[size - 1]) insert(lanes[lane], start + kLanes * i + lane);
      }
    }
  }

  void insert(float value, int64_t id) {
    int at = count < size ? count++ : size - 1;
    for (; at > 0 && value > values[at - 1]; --at) {
      values[at] = values[at - 1];
      ids[at] = ids[at - 1];
    }
    values[at] = value;
    ids[at] = id;
  }
};

// Lane results of one block: sums of e = exp(x - top), range and counts.
struct BlockPass {
  Floats shift, level;
  Floats total = splat(0.0f), weighted = splat(0.0f);
  Floats top = splat(-INFINITY), least = splat(INFINITY);  // NaN left out
  Ints greater = splat_int(0);
  Mask differs = all_lanes();

  struct Term {
    Floats d, e;
  };

  RNR_INLINE BlockPass(float top, float target) : shift(splat(top)), level(splat(target)) {}

  // The sums are of use if no x is above the top, and either kCareful or none is negligible. Counts
  // want a target above -inf: then x is larger just where target - x has its sign bit set.
  template <bool kCounts, bool kCareful>
  RNR_INLINE Term add(Floats x) {
    Floats d = x - shift;
    Mask terms = all_lanes();
    if (kCareful) {
      // NaN stays, to show in the sums.
      terms = ~(splat(kNegligible) >= d);
      d = keep(terms, d);
    }
    const Floats e = exp_where(terms, d);
    total = total + e;
    weighted = fma(e, d, weighted);
    top = max(x, top);
    least = min(x, least);
    if (kCounts) {
      greater = greater + shift_right<31>(bits_of(level - x));
      differs = unequal(differs, x, level);
    }
    return {d, e};
  }

  RNR_INLINE bool is_above() const { return any(top > shift); }
  RNR_INLINE bool has_negligible() const { return !all(least - shift > splat(kNegligible)); }
};

struct RowStats {
  int64_t token_id;  // -1: outside the vocabulary
  float target = INFINITY;
  float own = INFINITY;  // the target's own column, which a product may round in another way
  float top = kLowest;
  bool is_reached = true;           // the target, by the last block
  Ints num_greater = splat_int(0);  // with the target's own column
  int64_t num_equal = 0;
  Floats total = splat(0.0f), weighted = splat(0.0f);  // of the present tile
  ExpSums sums;
  TopList largest;

  RNR_INLINE RowStats(int64_t id, int64_t vocab_size, int64_t list_size)
      : token_id(id >= 0 && id < vocab_size ? id : -1) {
    largest.size = static_cast<int32_t>(list_size);
  }

  // Before anything is added. Sums start against the largest value of the first tile.
  void start(const LogitsRow& logits, int64_t vocab_size, const float* target_logit) {
    if (token_id >= 0) {
      const float value = target_logit != nullptr ? *target_logit : logits.at(token_id);
      target = own = value + 0.0f;  // zero without its sign
      // What the last block is filled up with is no tie.
      if (target == -INFINITY) num_equal = -(-vocab_size & (kBlock - 1));
    }
    alignas(64) float buffer[kBlock];
    Floats lanes = splat(kLowest);
    const int64_t num_blocks = logits.num_blocks();
    for (int64_t b = 0; b < (num_blocks < kTileBlocks ? num_blocks : kTileBlocks); ++b) {
      const float* block = logits.block(b, buffer);
      for (const float* at = block; at < block + kBlock; at += 2 * kLanes) {
        lanes = max(max(load(at), load(at + kLanes)), lanes);
      }
    }
    raise(maximum(lanes));
  }

  // Before the columns of `logits` are added.
  RNR_INLINE void find_own(const LogitsRow& logits, int64_t first_column) {
    const int64_t column = token_id - first_column;
    if (column >= 0 && column < logits.vocab_size) own = logits.at(column);
  }

  RNR_INLINE bool wants_counts() const { return is_reached && target > -INFINITY; }

  RNR_INLINE void add(const BlockPass& pass) {
    total = total + pass.total;
    weighted = weighted + pass.weighted;
  }

  // Takes the counts of a pass, or makes up for a pass without, and keeps the largest.
  RNR_INLINE void look_at(const BlockPass& pass, bool has_counts, const float* block,
                          int64_t start) {
    is_reached = any(pass.top >= pass.level);
    if (has_counts) {
      num_greater = num_greater + pass.greater;
      if (!all(pass.differs)) num_equal += equal_in(block);
    } else if (is_reached) {
      count_block(block);
    }
    largest.add_block(block, start, pass.top);
  }

  RNR_INLINE void end_tile() {
    sums.add(wide_sum(total), wide_sum(weighted));
    total = weighted = splat(0.0f);
  }

  // Returns the factor of the sums so far.
  RNR_INLINE double raise(float new_top) {
    if (!(new_top > top)) return 1.0;
    end_tile();
    top = new_top;
    return sums.rebase(new_top);
  }

  // The results of a whole row.
  void write(const StatsColumns& out, int64_t r, int64_t top_k) const {
    const bool valid = sums.is_valid(), is_known = valid && token_id >= 0;
    const double log_total = valid ? log64(sums.total) : 0.0;
    const int64_t greater = sum_unsigned(num_greater);
    out.rank[r] = is_known ? static_cast<int32_t>(1 + greater - (own > target)) : 0;
    out.num_ties[r] = is_known ? static_cast<int32_t>(num_equal - (own == target)) : 0;
    out.logprob[r] = is_known ? static_cast<float>((own - sums.top) - log_total) : NAN;
    out.entropy[r] = valid ? static_cast<float>(log_total - sums.weighted / sums.total) : NAN;
    for (int64_t k = 0; k < top_k; ++k) {
      out.top_token_ids[r * top_k + k] = valid ? largest.ids[k] : -1;
      out.top_logprobs[r * top_k + k] =
          valid ? static_cast<float>((largest.values[k] - sums.top) - log_total) : NAN;
    }
  }

 private:
  __attribute__((noinline)) void count_block(const float* block) {
    for (const float* at = block; at < block + kBlock; at += kLanes) {
      num_greater = count(num_greater, load(at) > splat(target));
    }
    num_equal += equal_in(block);
  }

  __attribute__((noinline)) int64_t equal_in(const float* block) const {
    Ints equal = splat_int(0);
    for (const float* at = block; at < block + kBlock; at += kLanes) {
      equal = count(equal, load(at) == splat(target));
    }
    return sum_unsigned(equal);
  }
};

RNR_INLINE const float* at_row(const float* column, int64_t r) {
  return column != nullptr ? column + r : nullptr;
}

// Which columns of its row a call has.
struct Columns {
  int64_t first, vocab_size;
  bool are_first, are_last;
  char* running;

  RNR_INLINE Columns(const StatsChunk& chunk, const LogitsRows& logits, int64_t r) {
    const bool is_chunk = chunk.running != nullptr;
    first = is_chunk ? chunk.first_column : 0;
    vocab_size = is_chunk ? chunk.vocab_size : logits.vocab_size;
    are_first = first == 0;
    are_last = first + logits.vocab_size == vocab_size;
    running = is_chunk ? static_cast<char*>(chunk.running) + r * kRunningBytes : nullptr;
  }

  template <typename Row>
  RNR_INLINE void resume(Row* row) const {
    static_assert(sizeof(Row) <= kRunningBytes, "rows must fit");
    if (!are_first) memcpy(static_cast<void*>(row), running, sizeof(Row));
  }
  template <typename Row>
  RNR_INLINE void suspend(const Row& row) const {
    memcpy(running, static_cast<const void*>(&row), sizeof(Row));
  }
};

}  // namespace rnr::cpu::RNR_ISA
