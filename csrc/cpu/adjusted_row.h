// Rows of logits with their rules, in blocks: what blocks.h gives, adjusted.
//
// Where no rule touches a block it is handed on as it is.
#pragma once

#include "arithmetic.h"
#include "blocks.h"
#include "rows.h"

namespace rnr::cpu::RNR_ISA {

// Runs of blocks as `for_each_run` hands them on: the q-th 64 of the adjusted values and of the
// logits, and whether these two may differ.
struct UntouchedRun : PlainRun {
  RNR_INLINE Quad logits(int q) const { return quad(q); }
  RNR_INLINE bool differs(int) const { return false; }
};

// Rules touch nothing but used tokens, if any: adjusted on the way. Few of 64 tokens in a row are
// used, and a branch on that costs less than masks that are mostly empty.
struct UsedRun {
  const float* values;
  const uint32_t* used;
  Floats penalty;

  RNR_INLINE Quad quad(int q) const {
    Quad x = logits(q);
    if (__builtin_expect(differs(q), 0)) {
      const uint32_t* words = used + kQuad / kBits * q;
      x.a = subtract(lanes_of(words, 0), x.a, penalty);
      x.b = subtract(lanes_of(words, 1), x.b, penalty);
      x.c = subtract(lanes_of(words, 2), x.c, penalty);
      x.d = subtract(lanes_of(words, 3), x.d, penalty);
    }
    return x;
  }
  RNR_INLINE Quad logits(int q) const { return load_quad(values + kQuad * q); }
  RNR_INLINE bool differs(int q) const {
    uint64_t bits;
    memcpy(&bits, used + kQuad / kBits * q, sizeof(bits));
    return bits != 0;
  }
};

struct TouchedRun : PlainRun {
  const float* before;

  RNR_INLINE Quad logits(int q) const { return load_quad(before + kQuad * q); }
  RNR_INLINE bool differs(int) const { return true; }
};

// Room for a block that is not the logits themselves.
struct BlockBuffer {
  alignas(64) float logits[kBlock];
  alignas(64) float adjusted[kBlock];
};

RNR_INLINE bool has_bit(const int32_t* words, int64_t v) {
  return (static_cast<uint32_t>(words[v / kBits]) >> v % kBits & 1) != 0;
}

// What the rules say of one row, reduced to what a block needs.
struct RowRules {
  const uint8_t* codes = nullptr;  // null: no class scores anything now
  const int32_t* flags = nullptr;
  const float* vector = nullptr;
  const int32_t* used = nullptr;  // null: no penalty
  const int32_t* allowed = nullptr;
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
  int64_t num_bias = 0;
  float penalty = 0.0f;
  int64_t words = 0;  // of `used` and `allowed` that stand for tokens
  alignas(64) float scores[kMaxClasses + 1];
};

// A row's logits with its rules.
class AdjustedRow {
 public:
  LogitsRow logits;
  RowRules rules;

  // `drafts` [bitmask_stride] holds the row's used tokens where earlier draft tokens join them.
  AdjustedRow(const RuleRows& rows, int64_t r, const Row& row, int32_t* drafts, int* error_bits)
      : logits(rows.logits, r) {
    rules.words = (logits.vocab_size + kBits - 1) / kBits;
    if (rows.allowed_bitmask != nullptr) {
      rules.allowed = rows.allowed_bitmask + r * rows.allowed_stride;
    }
    if (rows.draft_token_ids) {
      check_drafts(rows, r, row, error_bits);
    }
    if (!row.has_rules) return;
    const ProgramTables& tables = rows.program;
    memset(rules.scores, 0, sizeof(rules.scores));
    bool any_score = false;
    for (int64_t c = 1; c < tables.num_classes; ++c) {
      rules.scores[c] = class_score(tables, row.schedule, c, row.step);
      any_score |= rules.scores[c] != 0.0f;
    }
    if (any_score) {
      rules.codes = tables.token_class + row.map * tables.codes_stride;
      rules.flags = tables.block_flags + row.map * tables.flags_stride;
    }
    if (row.vector >= 0) rules.vector = tables.score_vectors + row.vector * tables.vector_stride;
    const StateTables& state = rows.state;
    int64_t num_bias = state.slot_params[4 * row.slot + 3];
    num_bias = num_bias < 0 ? 0 : num_bias < state.max_bias ? num_bias : state.max_bias;
    if (num_bias > 0) {
      rules.num_bias = num_bias;
      rules.bias_ids = state.bias_token_ids + row.slot * state.max_bias;
      rules.bias_values = state.bias_values + row.slot * state.max_bias;
    }
    rules.penalty = tables.penalties[row.program];
    if (rules.penalty != 0.0f) {
      rules.used = state.used_bitmask + row.slot * state.bitmask_stride;
      if (rows.draft_token_ids) rules.used = with_drafts(rows, r, row, drafts);
    }
  }

  RNR_INLINE bool is_touched(int64_t b) const {
    return !touches_only_used(b) || (rules.used != nullptr && has_used(b));
  }

  // Whether rules touch no other tokens of the block than used ones.
  RNR_INLINE bool touches_only_used(int64_t b) const {
    return rules.vector == nullptr && rules.allowed == nullptr && !has_classes(b) &&
           !(rules.num_bias > 0 && has_bias(b));
  }

  RNR_INLINE int64_t count_used(int64_t b) const {
    const int64_t rest = logits.vocab_size - b * kBlock;
    int64_t total = 0;
    if (rest >= kBlock) {
      uint64_t used[kBlockWords / 2];
      memcpy(used, rules.used + b * kBlockWords, sizeof(used));
      for (uint64_t bits : used) total += __builtin_popcountll(bits);
      return total;
    }
    for (int64_t v = logits.vocab_size - rest; v < logits.vocab_size; ++v) {
      total += has_bit(rules.used, v);
    }
    return total;
  }

  // Calls f(run, first, count) for a tile's runs of blocks: an UntouchedRun, UsedRun or TouchedRun,
  // and the numbers of its first block and of its blocks. Only float32 has runs of several blocks.
  template <typename F>
  RNR_INLINE void for_each_run(int64_t tile, BlockBuffer* buffer, F f) const {
    const int64_t num_blocks = logits.num_blocks();
    const int64_t end =
        (tile + 1) * kTileBlocks < num_blocks ? (tile + 1) * kTileBlocks : num_blocks;
    const int64_t whole = logits.dtype == DType::kFloat32 ? logits.vocab_size / kBlock : 0;
    for (int64_t b = tile * kTileBlocks, next; b < end; b = next) {
      next = b + 1;
      const float* values = logits.block(b, buffer->logits);
      if (!touches_only_used(b)) {
        adjust(b, values, buffer->adjusted, nullptr);
        f(TouchedRun{{buffer->adjusted}, values}, b, 1);
        continue;
      }
      while (next < end && next < whole && touches_only_used(next)) ++next;
      const int count = static_cast<int>(next - b);
      if (rules.used != nullptr) {
        uint32_t words[kBlockWords];
        f(UsedRun{values, block_words(rules.used, b, words, 0), splat(rules.penalty)}, b, count);
      } else {
        f(UntouchedRun{{values}}, b, count);
      }
    }
  }

  // The block's adjusted values: the logits themselves, or `buffer` [kBlock].
  RNR_INLINE const float* block(int64_t b, float* buffer) const {
    const float* values = logits.block(b, buffer);
    if (!is_touched(b)) return values;
    adjust(b, values, buffer, nullptr);
    return buffer;
  }

  // adjusted = values + r; `out` may be `values`; `scores`, where given, takes r.
  __attribute__((noinline)) void adjust(int64_t b, const float* values, float* out,
                                        float* scores) const {
    uint32_t words[2][kBlockWords];
    const uint32_t* used = block_words(rules.used, b, words[0], 0);
    const uint32_t* allowed = block_words(rules.allowed, b, words[1], ~0u);
    float vector[kBlock], bias[kBlock];
    const bool classed = has_classes(b), biased = rules.num_bias > 0 && has_bias(b);
    const bool has_vector = rules.vector != nullptr;
    if (has_vector) copy_floats(rules.vector, b, vector);
    if (biased) spread_bias(b, bias);
    const Floats penalty = splat(rules.penalty), banned = splat(-INFINITY), zero = splat(0.0f);
    for (int i = 0; i < kBlock / kLanes; ++i) {
      Floats r = zero;
      if (classed) {
        // A gather takes as long as twenty loads, and mostly there is nothing to look up.
        const uint8_t* codes = rules.codes + b * kBlock + kLanes * i;
        if (is_nonzero(codes)) r = look_up(rules.scores, codes);
      }
      if (has_vector) r = r + load(vector + kLanes * i);
      if (biased) r = r + load(bias + kLanes * i);
      r = subtract(lanes_of(used, i), r, penalty);
      r = select(lanes_of(allowed, i), r, banned);
      const Floats x = load(values + kLanes * i);
      const Floats sum = select(r == zero, x, x + r);
      store(out + kLanes * i, select(r == banned, banned, sum));
      if (scores != nullptr) store(scores + kLanes * i, r);
    }
  }

  // r of one token.
  float score_of(int64_t v) const {
    float r = rules.codes != nullptr ? rules.scores[rules.codes[v]] : 0.0f;
    if (rules.vector != nullptr) r = r + rules.vector[v];
    if (rules.num_bias > 0) {
      const int64_t at = first_bias(v);
      if (at < rules.num_bias && rules.bias_ids[at] == v) r = r + rules.bias_values[at];
    }
    if (rules.used != nullptr && has_bit(rules.used, v)) r = r - rules.penalty;
    return rules.allowed == nullptr || has_bit(rules.allowed, v) ? r : -INFINITY;
  }

  // Index of the first bias for a token >= v.
  int64_t first_bias(int64_t v) const { return first_not_below(rules.bias_ids, rules.num_bias, v); }

 private:
  RNR_INLINE bool has_used(int64_t b) const {
    const int64_t first = b * kBlockWords;
    if (first + kBlockWords <= rules.words) {
      uint64_t used[kBlockWords / 2];
      memcpy(used, rules.used + first, sizeof(used));
      return ((used[0] | used[1]) | (used[2] | used[3])) != 0;
    }
    for (int64_t w = first; w < rules.words; ++w) {
      if (rules.used[w] != 0) return true;
    }
    return false;
  }

  static RNR_INLINE bool is_nonzero(const uint8_t* codes) {
    uint64_t eight[2];
    memcpy(eight, codes, sizeof(eight));
    return (eight[0] | eight[1]) != 0;
  }

  RNR_INLINE bool has_classes(int64_t b) const {
    if (rules.codes == nullptr) return false;
    constexpr int kFlags = kBlock / kFlagBlock;
    const uint32_t word = static_cast<uint32_t>(rules.flags[b * kFlags / kBits]);
    return (word >> b * kFlags % kBits & ((1u << kFlags) - 1)) != 0;
  }

  bool has_bias(int64_t b) const {
    const int64_t at = first_bias(b * kBlock);
    return at < rules.num_bias && rules.bias_ids[at] < (b + 1) * kBlock;
  }

  // The block's words of a bitmask, copied where it has fewer or there is none.
  RNR_INLINE const uint32_t* block_words(const int32_t* bitmask, int64_t b, uint32_t* copy,
                                         uint32_t absent) const {
    const int64_t first = b * kBlockWords;
    if (bitmask != nullptr && first + kBlockWords <= rules.words) {
      return reinterpret_cast<const uint32_t*>(bitmask + first);
    }
    for (int w = 0; w < kBlockWords; ++w) {
      const bool is_there = bitmask != nullptr && first + w < rules.words;
      copy[w] = is_there ? static_cast<uint32_t>(bitmask[first + w]) : absent;
    }
    return copy;
  }

  RNR_INLINE void copy_floats(const float* values, int64_t b, float* copy) const {
    const int64_t start = b * kBlock, rest = logits.vocab_size - start;
    const int64_t count = rest < kBlock ? rest : kBlock;
    memcpy(copy, values + start, count * sizeof(float));
    memset(copy + count, 0, (kBlock - count) * sizeof(float));
  }

  void spread_bias(int64_t b, float* bias) const {
    memset(bias, 0, kBlock * sizeof(float));
    const int64_t start = b * kBlock;
    for (int64_t at = first_bias(start); at < rules.num_bias; ++at) {
      const int64_t offset = rules.bias_ids[at] - start;
      if (offset >= kBlock) return;
      if (offset >= 0) bias[offset] = rules.bias_values[at];
    }
  }

  void check_drafts(const RuleRows& rows, int64_t r, const Row& row, int* error_bits) const {
    if (row.is_live && rows.draft_token_ids[r] >= logits.vocab_size) *error_bits |= kErrorToken;
  }

  // The slot's used tokens, and the draft tokens before this row of its slot's rows so far.
  const int32_t* with_drafts(const RuleRows& rows, int64_t r, const Row& row,
                             int32_t* drafts) const {
    memcpy(drafts, rules.used, rules.words * sizeof(int32_t));
    for (int64_t earlier = 0; earlier <= r; ++earlier) {
      const int64_t slot = rows.state_indices ? rows.state_indices[earlier] : earlier;
      const int64_t token = rows.draft_token_ids[earlier];
      if (slot == row.slot && token >= 0 && token < logits.vocab_size) {
        drafts[token / kBits] |= static_cast<int32_t>(1u << token % kBits);
      }
    }
    return drafts;
  }
};

}  // namespace rnr::cpu::RNR_ISA
