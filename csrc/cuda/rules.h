// A row's rules, and its tiles' adjusted logits.
#pragma once

#include "../rows.h"
#include "elements.h"

namespace rnr::cuda {

constexpr int kTileWords = kTile / kBits;

// What the rules say of a row.
struct RowRules {
  const uint8_t* codes = nullptr;  // null: no class scores anything now
  const int32_t* flags = nullptr;
  const float* vector = nullptr;
  const uint32_t* used = nullptr;  // null: no penalty
  const uint32_t* allowed = nullptr;
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
  int num_bias = 0;
  float penalty = 0.0f;
  bool has_drafts = false;
};

// What a block keeps of a row in shared memory: registers are short.
struct RowShared {
  RowRules rules;
  float scores[kMaxClasses + 1];
  uint32_t used[kTileWords];  // of one tile, where draft tokens join the slot's
};

// The part of it that concerns one tile.
struct TileRules {
  int first = 0;
  uint32_t flags = 0;  // a bit for each block of kFlagBlock columns, where a class scores
  bool everywhere = false;
  const uint32_t* used = nullptr;
  const uint32_t* allowed = nullptr;
  const float* bias = nullptr;  // a value for each column
};

static_assert(kTile / kFlagBlock == 32, "a tile's flags are one word");

RNR_DEVICE void set_error(int32_t* error, int bits) {
  if (bits != 0) atomic_or(error, bits);
}

// Whether no earlier row has this one's slot; called by all threads of the block.
RNR_DEVICE bool is_first_of_slot(const IndexColumn& state_indices, int64_t r) {
  if (!state_indices) return true;
  bool found = false;
  for (int64_t earlier = thread_index(); earlier < r; earlier += kThreads) {
    found |= state_indices[earlier] == state_indices[r];
  }
  return !sync_block_or(found);
}

RNR_DEVICE void set_used(const StateTables& state, int64_t slot, int64_t token) {
  atomic_or(state.used_bitmask + slot * state.bitmask_stride + token / kBits,
            static_cast<int32_t>(1u << token % kBits));
}

// Sets the row's error bits, by one thread of its blocks.
RNR_DEVICE void report(const RuleRows& rows, int64_t r, const Row& row, int error_bits) {
  if (cluster_rank() != 0 || thread_index() != 0) return;
  const bool has_draft = row.is_live && rows.draft_token_ids;
  if (has_draft && rows.draft_token_ids[r] >= rows.logits.vocab_size) error_bits |= kErrorToken;
  set_error(rows.error, error_bits);
}

// Called by all threads of a block; row is live.
RNR_DEVICE void load_rules(const RuleRows& rows, int64_t r, const Row& row, RowShared* shared) {
  const ProgramTables& tables = rows.program;
  const StateTables& state = rows.state;
  const int c = thread_index();
  float score = 0.0f;
  if (row.has_rules && c > 0 && c < tables.num_classes) {
    score = class_score(tables, row.schedule, c, row.step);
  }
  shared->scores[c] = score;
  const bool any_score = sync_block_or(score != 0.0f);
  if (thread_index() == 0) {
    RowRules rules;
    if (rows.allowed_bitmask != nullptr) {
      rules.allowed =
          reinterpret_cast<const uint32_t*>(rows.allowed_bitmask) + r * rows.allowed_stride;
    }
    if (any_score) {
      rules.codes = tables.token_class + row.map * tables.codes_stride;
      rules.flags = tables.block_flags + row.map * tables.flags_stride;
    }
    if (row.has_rules) {
      if (row.vector >= 0) rules.vector = tables.score_vectors + row.vector * tables.vector_stride;
      const int64_t num_bias = state.slot_params[4 * row.slot + 3];
      rules.num_bias = num_bias < 0                ? 0
                       : num_bias < state.max_bias ? static_cast<int>(num_bias)
                                                   : static_cast<int>(state.max_bias);
      rules.bias_ids = state.bias_token_ids + row.slot * state.max_bias;
      rules.bias_values = state.bias_values + row.slot * state.max_bias;
      rules.penalty = tables.penalties[row.program];
      if (rules.penalty != 0.0f) {
        rules.used =
            reinterpret_cast<const uint32_t*>(state.used_bitmask) + row.slot * state.bitmask_stride;
        rules.has_drafts = static_cast<bool>(rows.draft_token_ids);
      }
    }
    shared->rules = rules;
  }
  sync_block();
}

static_assert(kThreads == kMaxClasses + 1, "a thread for each class");

// Calls f(token) for the draft tokens in [first, end) before row r of its slot's rows so far; the
// block's threads share them.
template <typename F>
RNR_DEVICE void for_each_draft(const RuleRows& rows, int64_t r, const Row& row, int64_t first,
                               int64_t end, F f) {
  for (int64_t earlier = thread_index(); earlier <= r; earlier += kThreads) {
    const int64_t slot = rows.state_indices ? rows.state_indices[earlier] : earlier;
    const int64_t token = rows.draft_token_ids[earlier];
    if (slot == row.slot && token >= first && token < end) f(static_cast<int>(token));
  }
}

RNR_DEVICE int last_column(int first, int vocab_size) {
  return vocab_size - first < kTile ? vocab_size : first + kTile;
}

// Called by all threads of a block. `bias` [kTile] is shared memory, there where slots have biases.
RNR_DEVICE TileRules tile_rules(const RuleRows& rows, int64_t r, const Row& row, int tile,
                                RowShared* shared, float* bias) {
  const RowRules& rules = shared->rules;
  const int vocab_size = static_cast<int>(rows.logits.vocab_size);
  TileRules here;
  here.first = tile * kTile;
  const int end = last_column(here.first, vocab_size);
  if (rules.codes != nullptr) here.flags = static_cast<uint32_t>(rules.flags[tile]);
  if (rules.allowed != nullptr) here.allowed = rules.allowed + tile * kTileWords;
  if (rules.used != nullptr) here.used = rules.used + tile * kTileWords;
  if (rules.has_drafts) {
    sync_block();  // the tile before is done with
    const int word = thread_index();
    if (word < kTileWords) {
      shared->used[word] = here.first + word * kBits < vocab_size ? here.used[word] : 0;
    }
    sync_block();
    for_each_draft(rows, r, row, here.first, end, [&](int token) {
      atomic_or(&shared->used[token / kBits - tile * kTileWords], 1u << token % kBits);
    });
    sync_block();
    here.used = shared->used;
  }
  if (rules.num_bias > 0) {
    const auto is_here = [&](int i) {
      return rules.bias_ids[i] >= here.first && rules.bias_ids[i] < end;
    };
    bool found = false;
    for (int i = thread_index(); i < rules.num_bias; i += kThreads) found |= is_here(i);
    if (sync_block_or(found)) {
      for (int c = thread_index(); c < kTile; c += kThreads) bias[c] = 0.0f;
      sync_block();
      for (int i = thread_index(); i < rules.num_bias; i += kThreads) {
        if (is_here(i)) bias[rules.bias_ids[i] - here.first] = rules.bias_values[i];
      }
      sync_block();
      here.bias = bias;
    }
  }
  here.everywhere = rules.vector != nullptr || here.allowed != nullptr || here.bias != nullptr;
  return here;
}

// Four or eight consecutive bits or codes of a tile, from a thread's vector on.
template <typename T>
RNR_DEVICE uint32_t bits_at(const uint32_t* words, int start) {
  constexpr uint32_t kMask = (1u << Layout<T>::kVector) - 1;
  return words[start / kBits] >> start % kBits & kMask;
}

// x [kColumns]: the tile's adjusted logits, -inf past the vocabulary. Calls touched(v, scores) for
// vectors that rules may touch, with r of their columns, 0 past the vocabulary.
template <typename T, typename Touched>
RNR_DEVICE void adjust(const RawTile<T>& raw, const RowShared& shared, const TileRules& here,
                       int vocab_size, float (&x)[kColumns], Touched touched) {
  using L = Layout<T>;
  const RowRules& rules = shared.rules;
  raw.unpack(x);
#pragma unroll
  for (int v = 0; v < L::kVectors; ++v) {
    const int start = L::start(v), column = here.first + start;
    const bool inside = column < vocab_size;
    const bool flagged = here.flags >> start / kFlagBlock & 1;
    uint32_t used = 0;
    if (here.used != nullptr && inside) used = bits_at<T>(here.used, start);
    if (!inside || !(used != 0 || flagged || here.everywhere)) continue;
    uint32_t codes[L::kVector / 4] = {};
    if (flagged) {
      const uint32_t* at = reinterpret_cast<const uint32_t*>(rules.codes + column);
#pragma unroll
      for (int i = 0; i < L::kVector / 4; ++i) codes[i] = at[i];
    }
    const uint32_t allowed = here.allowed != nullptr ? bits_at<T>(here.allowed, start) : ~0u;
    float scores[L::kVector];
#pragma unroll
    for (int j = 0; j < L::kVector; ++j) {
      const bool counts = column + j < vocab_size;
      float r = flagged ? shared.scores[codes[j / 4] >> 8 * (j % 4) & 255] : 0.0f;
      if (rules.vector != nullptr && counts) r = r + rules.vector[column + j];
      if (here.bias != nullptr) r = r + here.bias[start + j];
      if (used >> j & 1) r = r - rules.penalty;
      if (!(allowed >> j & 1)) r = -INFINITY;
      scores[j] = counts ? r : 0.0f;
      float& value = x[v * L::kVector + j];
      value = add_score(value, scores[j]);
    }
    touched(v, scores);
  }
}

template <typename T>
RNR_DEVICE void adjust(const RawTile<T>& raw, const RowShared& shared, const TileRules& here,
                       int vocab_size, float (&x)[kColumns]) {
  adjust(raw, shared, here, vocab_size, x, [](int, const float*) {});
}

}  // namespace rnr::cuda
