// logits += r in place, touching only what the rules touch.
#include "adjusted_row.h"
#include "kernels.h"

namespace rnr::cpu::RNR_ISA {
namespace {

// Writes float32 values to logits of any dtype, rounded once.
struct LogitsWriter {
  char* data;
  DType dtype;

  LogitsWriter(const LogitsRow& row) : data(const_cast<char*>(row.data)), dtype(row.dtype) {}

  RNR_INLINE Ints narrowed(Floats x) const {
    return dtype == DType::kBFloat16 ? float_to_bfloat16(x) : float_to_half(x);
  }

  // A NaN keeps its bits: processors differ in what they make of it.
  RNR_INLINE void put(int64_t v, float x) const {
    if (x != x) return;
    if (dtype == DType::kFloat32) {
      memcpy(data + 4 * v, &x, 4);
      return;
    }
    uint16_t halves[kLanes];
    store_halves(halves, narrowed(splat(x)));
    memcpy(data + 2 * v, halves, 2);
  }

  // The same as putting what stands there less y, of float32.
  RNR_INLINE void subtract(int64_t v, float y) const {
    float x;
    memcpy(&x, data + 4 * v, 4);
    const float difference = x - y;
    if (__builtin_expect(x == x, 1)) memcpy(data + 4 * v, &difference, 4);
  }

  // Columns [start, start + count) whose score is not 0.
  void put_block(int64_t start, int64_t count, const float* values, const float* scores) const {
    const int64_t size = element_size(dtype);
    alignas(64) char copy[kBlock * sizeof(float)] = {};
    memcpy(copy, data + start * size, count * size);
    for (int i = 0; i < kBlock / kLanes; ++i) {
      const Floats x = load(values + kLanes * i);
      const Mask written = ~(load(scores + kLanes * i) == splat(0.0f)) & (x == x);
      if (dtype == DType::kFloat32) {
        float* target = reinterpret_cast<float*>(copy) + kLanes * i;
        store(target, select(written, x, load(target)));
      } else {
        uint16_t* target = reinterpret_cast<uint16_t*>(copy) + kLanes * i;
        store_halves(target, select(written, narrowed(x), load_halves(target)));
      }
    }
    memcpy(data + start * size, copy, count * size);
  }
};

// Whether something scores whole stretches of the vocabulary at this step.
bool is_dense(const ProgramTables& tables, const Row& found, const RowRules& rules) {
  if (rules.vector != nullptr || rules.allowed != nullptr) return true;
  if (rules.codes == nullptr) return false;
  const int64_t width = tables.num_classes;
  const int32_t* counts = tables.class_counts + found.map * width;
  const int32_t* offsets = tables.class_offsets + found.map * (width + 1);
  for (int64_t c = 1; c < width; ++c) {
    if (rules.scores[c] != 0.0f && counts[c] > offsets[c + 1] - offsets[c]) return true;
  }
  return false;
}

void apply_dense(const AdjustedRow& row) {
  alignas(64) float buffer[kBlock], scores[kBlock];
  const LogitsWriter writer(row.logits);
  for (int64_t b = 0; b < row.logits.num_blocks(); ++b) {
    if (!row.is_touched(b)) continue;
    row.adjust(b, row.logits.block(b, buffer), buffer, scores);
    const int64_t start = b * kBlock, rest = row.logits.vocab_size - start;
    writer.put_block(start, rest < kBlock ? rest : kBlock, buffer, scores);
  }
}

// Calls f(v) for the set bits below vocab_size, and prefetch(v) some time before for most of them.
// Words that are not 0 are found first, without a branch each: where the bits lie is chance.
template <typename Prefetch, typename F>
RNR_INLINE void for_each_bit(const int32_t* words, int64_t vocab_size, Prefetch prefetch, F f) {
  constexpr int64_t kChunk = 1024;
  const int64_t num_words = (vocab_size + kBits - 1) / kBits;
  const uint32_t last = ~0u >> (-vocab_size & (kBits - 1));
  int32_t found[kChunk + kLanes];
  for (int64_t first = 0; first < num_words; first += kChunk) {
    const int64_t end = first + kChunk < num_words ? first + kChunk : num_words;
    int size = 0;
    int64_t w = first;
    for (; w + kLanes <= end; w += kLanes) {
      size += find_nonzero(load_ints(words + w), static_cast<int32_t>(w), found + size);
    }
    for (; w < end; ++w) {
      if (words[w] != 0) found[size++] = static_cast<int32_t>(w);
    }
    for (int i = 0; i < size; ++i) {
      prefetch(int64_t{found[i]} * kBits + __builtin_ctz(static_cast<uint32_t>(words[found[i]])));
    }
    for (int i = 0; i < size; ++i) {
      const int64_t word = found[i];
      uint32_t bits = static_cast<uint32_t>(words[word]);
      if (word + 1 == num_words) bits &= last;
      for (; bits != 0; bits &= bits - 1) f(word * kBits + __builtin_ctz(bits));
    }
  }
}

// A token with a bias or a class, and its adjusted logit.
struct Decided {
  int64_t token;
  float value;
};

// Tokens with a bias or a class are decided first and written last, so that in between the penalty
// can be taken off all used tokens alike. `decided` has room for all of them.
void apply_sparse(const ProgramTables& tables, const Row& found, const AdjustedRow& row,
                  Decided* decided) {
  const RowRules& rules = row.rules;
  const int64_t vocab_size = row.logits.vocab_size;
  const LogitsWriter writer(row.logits);
  int64_t num_decided = 0;
  const auto decide = [&](int64_t v) {
    const float logit = row.logits.at(v), value = add_score(logit, row.score_of(v));
    decided[num_decided++] = {v, value == value ? value : logit};
  };
  for (int64_t i = 0; i < rules.num_bias; ++i) {
    const int64_t v = rules.bias_ids[i];
    if (v >= 0 && v < vocab_size) decide(v);
  }
  if (rules.codes != nullptr) {
    const int32_t* offsets = tables.class_offsets + found.map * (tables.num_classes + 1);
    const int32_t* tokens = tables.class_tokens + found.map * tables.tokens_stride;
    for (int64_t c = 1; c < tables.num_classes; ++c) {
      if (rules.scores[c] == 0.0f) continue;
      for (int64_t i = offsets[c]; i < offsets[c + 1]; ++i) decide(tokens[i]);
    }
  }
  if (rules.used != nullptr) {
    const float penalty = rules.penalty;
    const auto prefetch = [&](int64_t v)
                              RNR_INLINE_LAMBDA { __builtin_prefetch(row.logits.address(v), 1); };
    if (writer.dtype == DType::kFloat32) {
      for_each_bit(rules.used, vocab_size, prefetch,
                   [&](int64_t v) RNR_INLINE_LAMBDA { writer.subtract(v, penalty); });
    } else {
      for_each_bit(rules.used, vocab_size, prefetch,
                   [&](int64_t v) { writer.put(v, row.logits.at(v) - penalty); });
    }
  }
  for (int64_t i = 0; i < num_decided; ++i) writer.put(decided[i].token, decided[i].value);
}

}  // namespace

void apply_rules(const ApplyRulesParams& params, int64_t begin, int64_t end) {
  const RuleRows& rows = params.rows;
  Scratch<int32_t> drafts(rows.draft_token_ids ? rows.state.bitmask_stride : 0);
  const Scratch<Decided> decided(rows.state.max_bias + rows.program.tokens_stride);
  int error_bits = 0;
  for (int64_t r = begin; r < end; ++r) {
    const Row found = find_row(rows, r, &error_bits);
    if (!found.is_live) continue;
    const AdjustedRow row(rows, r, found, drafts.data, &error_bits);
    if (is_dense(rows.program, found, row.rules)) {
      apply_dense(row);
    } else if (found.has_rules) {
      apply_sparse(rows.program, found, row, decided.data);
    }
  }
  set_error(rows.error, error_bits);
}

}  // namespace rnr::cpu::RNR_ISA
