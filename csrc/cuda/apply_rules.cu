// logits += r in place: a block looks at kBlockTiles tiles and touches what the rules touch.
#include "launch.h"
#include "tables.h"

namespace rnr::cuda {
namespace {

constexpr int kBlockTiles = 8;
constexpr int kBlockColumns = kBlockTiles * kTile;
constexpr int kBlockWords = kBlockColumns / kBits;
static_assert(kBlockWords == kThreads * 4, "a thread has four words");

struct ApplyShared {
  RowShared row;
  uint32_t used[kBlockWords];  // where draft tokens join the slot's
  float bias[kTile];           // last: there only where slots have biases
};
static_assert(sizeof(ApplyShared) <= kMaxShared, "two blocks must fit a multiprocessor");

template <typename T>
class RowRewriter {
 public:
  RNR_DEVICE RowRewriter(const RuleRows& rows, int64_t r, const Row& row, ApplyShared* shared,
                         int first)
      : rows_(rows),
        r_(r),
        row_(row),
        rules_(shared->row.rules),
        shared_(shared),
        logits_(const_cast<Bits*>(row_of<T>(rows.logits, r))),
        vocab_size_(static_cast<int>(rows.logits.vocab_size)),
        first_(first),
        end_(first + kBlockColumns < vocab_size_ ? first + kBlockColumns : vocab_size_) {}

  // Whether something scores whole stretches of the vocabulary at this step.
  RNR_DEVICE bool is_dense() const {
    if (rules_.vector != nullptr || rules_.allowed != nullptr) return true;
    if (rules_.codes == nullptr) return false;
    const ProgramTables& tables = rows_.program;
    const int c = thread_index();
    bool is_mine = false;
    if (c > 0 && c < tables.num_classes && shared_->row.scores[c] != 0.0f) {
      const int32_t* offsets = offsets_of_classes();
      is_mine =
          tables.class_counts[row_.map * tables.num_classes + c] > offsets[c + 1] - offsets[c];
    }
    return sync_block_or(is_mine);
  }

  RNR_DEVICE void rewrite_all() const {
    using L = Layout<T>;
    const bool aligned = is_aligned(logits_);
    for (int tile = first_ / kTile; tile * kTile < end_; ++tile) {
      RawTile<T> raw;
      raw.load(logits_, tile * kTile, vocab_size_, aligned);
      const TileRules here = tile_rules(rows_, r_, row_, tile, &shared_->row, shared_->bias);
      float x[kColumns];
      adjust(raw, shared_->row, here, vocab_size_, x, [&](int v, const float* scores) {
        const int column = here.first + L::start(v);
        Words words = raw.vectors[v];
#pragma unroll
        for (int j = 0; j < L::kVector; ++j) {
          // A NaN that no rule bans keeps its bits.
          const float value = x[v * L::kVector + j];
          const bool is_written = scores[j] != 0.0f && value == value;
          if (is_written) L::set_element(&words, j, T::round(value));
          if (is_written && !(aligned && column + L::kVector <= vocab_size_)) {
            logits_[column + j] = T::round(value);
          }
        }
        if (aligned && column + L::kVector <= vocab_size_) {
          *reinterpret_cast<Words*>(logits_ + column) = words;
        }
      });
    }
  }

  // Every token by one thread: a used one by that of its word, else one with a bias by the bias's,
  // else by that of its place in the list of a class.
  RNR_DEVICE void rewrite_touched() const {
    const uint32_t* used = used_words();
    if (used != nullptr) {
      const int word = first_ / kBits + 4 * thread_index();
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if ((word + i) * kBits >= end_) break;
        for (uint32_t bits = used[word + i]; bits != 0; bits &= bits - 1) {
          const int v = (word + i) * kBits + count_trailing_zeros(bits);
          if (v < end_) rewrite(v, true);
        }
      }
    }
    const auto is_free = [&](int v) {
      return v >= first_ && v < end_ &&
             (used == nullptr || (used[v / kBits] >> v % kBits & 1) == 0);
    };
    for (int i = thread_index(); i < rules_.num_bias; i += kThreads) {
      const int v = rules_.bias_ids[i];
      if (is_free(v)) rewrite(v, false);
    }
    if (rules_.codes == nullptr) return;
    const ProgramTables& tables = rows_.program;
    const int32_t* offsets = offsets_of_classes();
    const int32_t* tokens = tables.class_tokens + row_.map * tables.tokens_stride;
    const int64_t listed = offsets[tables.num_classes];
    const int64_t end = listed < tables.tokens_stride ? listed : tables.tokens_stride;
    for (int64_t i = thread_index(); i < end; i += kThreads) {
      const int v = tokens[i];
      if (is_free(v) && find_bias(v) < 0 && shared_->row.scores[rules_.codes[v]] != 0.0f) {
        rewrite(v, false);
      }
    }
  }

 private:
  using Bits = typename T::Bits;

  RNR_DEVICE const int32_t* offsets_of_classes() const {
    return rows_.program.class_offsets + row_.map * (rows_.program.num_classes + 1);
  }

  // By the number of the word in the row; null without a penalty.
  RNR_DEVICE const uint32_t* used_words() const {
    if (!rules_.has_drafts) return rules_.used;
    const int first_word = first_ / kBits;
    for (int i = thread_index(); i < kBlockWords; i += kThreads) {
      const bool inside = (first_word + i) * kBits < end_;
      shared_->used[i] = inside ? rules_.used[first_word + i] : 0;
    }
    sync_block();
    for_each_draft(rows_, r_, row_, first_, end_, [&](int token) {
      atomic_or(&shared_->used[token / kBits - first_word], 1u << token % kBits);
    });
    sync_block();
    return shared_->used - first_word;
  }

  // The index of a token's bias, or -1.
  RNR_DEVICE int find_bias(int v) const {
    const int at = static_cast<int>(first_not_below(rules_.bias_ids, rules_.num_bias, v));
    return at < rules_.num_bias && rules_.bias_ids[at] == v ? at : -1;
  }

  RNR_DEVICE void rewrite(int v, bool is_used) const {
    const float logit = T::load(logits_[v]);
    float r = 0.0f;
    if (rules_.codes != nullptr) r = shared_->row.scores[rules_.codes[v]];
    const int bias = find_bias(v);
    if (bias >= 0) r = r + rules_.bias_values[bias];
    if (is_used) r = r - rules_.penalty;
    const float value = add_score(logit, r);
    if (r != 0.0f && value == value) logits_[v] = T::round(value);
  }

  const RuleRows& rows_;
  const int64_t r_;
  const Row& row_;
  const RowRules& rules_;
  ApplyShared* shared_;
  Bits* logits_;
  const int vocab_size_, first_, end_;
};

template <typename T>
RNR_KERNEL apply_rules_kernel(RNR_PARAMS(ApplyRulesParams) params) {
  const RuleRows& rows = params.rows;
  const int64_t blocks = (num_tiles(rows.logits) + kBlockTiles - 1) / kBlockTiles;
  const int64_t r = block_index() / blocks;
  const int first = static_cast<int>(block_index() % blocks) * kBlockColumns;
  ApplyShared* shared = reinterpret_cast<ApplyShared*>(shared_memory());
  int error_bits = 0;
  const Row row = find_row(rows, r, &error_bits);
  if (first == 0) report(rows, r, row, error_bits);
  if (!row.is_live) return;
  load_rules(rows, r, row, &shared->row);
  const RowRewriter<T> rewriter(rows, r, row, shared, first);
  if (rewriter.is_dense()) {
    rewriter.rewrite_all();
  } else if (row.has_rules) {
    rewriter.rewrite_touched();
  }
}

}  // namespace

void apply_rules(const ApplyRulesParams& params, const Device& device) {
  const LogitsRows& logits = params.rows.logits;
  const int64_t blocks = (num_tiles(logits) + kBlockTiles - 1) / kBlockTiles;
  const int64_t bias = sizeof(ApplyShared::bias);
  const int64_t shared = sizeof(ApplyShared) - (params.rows.state.max_bias > 0 ? 0 : bias);
  with_dtype<Float32, BFloat16, Float16>(logits.dtype, [&](auto type) {
    launch(apply_rules_kernel<decltype(type)>, params, logits.num_rows * blocks, 1, shared, device);
  });
}

}  // namespace rnr::cuda
