// What kernels are called with, and the arithmetic that host and device share.
//
// The structs hold plain pointers, sizes and strides (in elements), filled by the binding, which
// has checked them; kernels read nothing else. What an op means stands in rnr_kernels/reference:
// the functions here are its integer and float32 operations, one for one, so that every target
// computes the same bits. Compile with contraction off.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// On the host nothing here may be merged by the linker: the same header is compiled for several
// instruction sets.
#if defined(__CUDACC__)
#define RNR_MEMBER __host__ __device__ __forceinline__
#define RNR_HOST_DEVICE RNR_MEMBER
#else
#define RNR_MEMBER inline __attribute__((always_inline))
#define RNR_HOST_DEVICE static RNR_MEMBER
#endif

namespace rnr {

// Constants of rnr_kernels/layout.py; a test compares them.
constexpr int kTile = 4096;
constexpr int kFlagBlock = 128;
constexpr int kBits = 32;
constexpr int kMaxClasses = 255;
constexpr int kErrorSlot = 1;
constexpr int kErrorProgram = 2;
constexpr int kErrorToken = 4;
constexpr int kMaxTopK = 64;
constexpr int kDotLanes = 16;  // widths of products are whole numbers of these

enum class DType : int32_t { kFloat32, kBFloat16, kFloat16 };

// One integer a row, int32 or int64; absent where `data` is null.
struct IndexColumn {
  const void* data = nullptr;
  int64_t stride = 0;
  bool is_int64 = false;

  RNR_MEMBER explicit operator bool() const { return data != nullptr; }

  RNR_MEMBER int64_t operator[](int64_t row) const {
    return is_int64 ? static_cast<const int64_t*>(data)[row * stride]
                    : static_cast<const int32_t*>(data)[row * stride];
  }
};

// rnr_kernels.layout.ProgramTensors, each table contiguous.
struct ProgramTables {
  const uint8_t* token_class;
  const int32_t* class_counts;
  const int32_t* class_offsets;
  const int32_t* class_tokens;
  const int32_t* block_flags;
  const int32_t* knot_starts;
  const double* knot_lines;
  const int32_t* program_table;
  const float* penalties;
  const float* score_vectors;
  int64_t num_maps, num_classes, codes_stride, tokens_stride, flags_stride;
  int64_t num_schedules, num_knots, num_programs, num_vectors, vector_stride;
};

// rnr_kernels.layout.StateTensors, each table contiguous.
struct StateTables {
  int32_t* slot_params;
  int32_t* used_bitmask;
  const int32_t* bias_token_ids;
  const float* bias_values;
  const float* sampling;
  int64_t* rng;
  int64_t num_slots, bitmask_stride, max_bias;
};

// Rows of logits.
struct LogitsRows {
  const void* data;
  DType dtype;
  int64_t num_rows, row_stride, row_width, vocab_size;
};

RNR_HOST_DEVICE int64_t num_tiles(const LogitsRows& logits) {
  return (logits.vocab_size + kTile - 1) / kTile;
}

// What every op over rules is called with.
struct RuleRows {
  LogitsRows logits;
  ProgramTables program;
  StateTables state;
  IndexColumn state_indices, row_offsets, draft_token_ids;
  const int32_t* allowed_bitmask;
  int64_t allowed_stride;
  int32_t* error;

  // Whether sampling advances the state: rows of drafts only read it.
  RNR_MEMBER bool commits() const { return !row_offsets && !draft_token_ids; }
};

struct ApplyRulesParams {
  RuleRows rows;  // logits are written
};

struct LogSoftmaxParams {
  RuleRows rows;
  float* out;
  int64_t out_stride;
  float* log_z;  // null: not asked for
  int64_t log_z_stride;
};

struct SampleParams {
  RuleRows rows;
  int64_t* token_ids;
  float* logprob;           // null: not asked for
  float* adjusted_logprob;  // null: not asked for
  int32_t* rank;            // null: not asked for
};

// The results of a padding row.
RNR_HOST_DEVICE void write_padding(const SampleParams& params, int64_t r) {
  params.token_ids[r] = -1;
  if (params.logprob != nullptr) params.logprob[r] = NAN;
  if (params.adjusted_logprob != nullptr) params.adjusted_logprob[r] = NAN;
  if (params.rank != nullptr) params.rank[r] = 0;
}

struct UpdateStateParams {
  StateTables state;
  int64_t vocab_size, num_rows, length;
  const void* token_ids;
  int64_t row_stride, column_stride;
  bool is_int64;
  IndexColumn counts, state_indices;
  int32_t* error;
};

// One model's statistics, one value a row; top tables are [num_rows, top_k].
struct StatsColumns {
  int32_t* rank;
  int32_t* num_ties;
  float* logprob;
  float* entropy;
  int64_t* top_token_ids;
  float* top_logprobs;
};

// Statistics of rows that come in several calls, each with the next columns of all rows: whole
// tiles, but for the last. Results are written by the last call.
struct StatsChunk {
  void* running = nullptr;  // [num_rows, kRunningBytes], kept between the calls; null: whole rows
  int64_t first_column = 0;
  int64_t vocab_size = 0;               // of the whole rows
  const float* targets = nullptr;       // [num_rows], the targets' logits
  const float* base_targets = nullptr;  // the same under the base model
};
constexpr int64_t kRunningBytes = 3072;

struct TokenStatsParams {
  LogitsRows logits;
  IndexColumn token_ids;
  int64_t top_k;
  StatsColumns stats;
  StatsChunk chunk;
};

struct ShiftStatsParams {
  LogitsRows logits, base_logits;
  IndexColumn token_ids;
  int64_t top_k;
  StatsColumns stats, base_stats;
  float* kl;       // KL(p || base)
  float* base_kl;  // KL(base || p)
  bool* same_argmax;
  StatsChunk chunk;
};

// Hidden states and the weights of an LM head.
struct HeadParams {
  const float* hidden;  // [num_rows, hidden_width], zeros behind the weights' width
  int64_t num_rows, hidden_width;
  LogitsRows weight;  // a row a token, the width as vocabulary
  IndexColumn token_ids;
  float* out;  // a row's logits, or its target's
  int64_t out_stride;
};

// Offsets come unchecked, so their sums may wrap.
RNR_HOST_DEVICE int64_t wrapping_add(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// ---- Schedules ---------------------------------------------------------------------------------

// The score of class c of a schedule at step t: on the line of the last knot so far.
RNR_HOST_DEVICE float class_score(const ProgramTables& program, int64_t schedule, int64_t c,
                                  int64_t t) {
  const int64_t first = schedule * program.num_knots * program.num_classes + c;
  int64_t knot = -1;
  for (int64_t k = 0; k < program.num_knots; ++k) {
    knot += program.knot_starts[first + k * program.num_classes] <= t;
  }
  if (knot < 0) return 0.0f;
  const int64_t at = first + knot * program.num_classes;
  const double* line = program.knot_lines + 2 * at;
  const int64_t since = wrapping_add(t, -static_cast<int64_t>(program.knot_starts[at]));
  return static_cast<float>(line[0] + line[1] * static_cast<double>(since));
}

// float32(logit) + r, by selection at the ends.
RNR_HOST_DEVICE float add_score(float logit, float r) {
  return r == -INFINITY ? -INFINITY : r == 0.0f ? logit : logit + r;
}

// ---- State -------------------------------------------------------------------------------------

// A slot has `count` tokens more. Counters wrap around as torch's integers do.
RNR_HOST_DEVICE void advance(const StateTables& state, int64_t slot, int64_t count) {
  int32_t& length = state.slot_params[4 * slot + 1];
  length = static_cast<int32_t>(static_cast<uint32_t>(length) + static_cast<uint32_t>(count));
  int64_t& position = state.rng[2 * slot + 1];
  position = wrapping_add(position, count);
}

// ---- Sampling ----------------------------------------------------------------------------------

constexpr float kExponentClamp = 1073741824.0f;  // 2^30
constexpr int kFixedPointBits = 40;

// a: the exponent of a token's weight, before its tile's ceiling is taken off.
RNR_HOST_DEVICE float weight_exponent(float x, float scale) {
  const float a = x * scale;
  return a > kExponentClamp ? kExponentClamp : a < -kExponentClamp ? -kExponentClamp : a;
}

// 2^f over [-1/2, 1/2], highest power first, constant term 1 left out.
constexpr float kExp2C5 = 0x1.5bfc8ep-10f, kExp2C4 = 0x1.3cee4cp-7f, kExp2C3 = 0x1.c6b62ap-5f,
                kExp2C2 = 0x1.ebf9b2p-3f, kExp2C1 = 0x1.62e42cp-1f;
constexpr float kExp2Coefficients[5] = {kExp2C5, kExp2C4, kExp2C3, kExp2C2, kExp2C1};

RNR_HOST_DEVICE float exp2_series(float f) {
  float series = fmaf(kExp2C5, f, kExp2C4);
  series = fmaf(series, f, kExp2C3);
  series = fmaf(series, f, kExp2C2);
  series = fmaf(series, f, kExp2C1);
  return fmaf(series, f, 1.0f);
}

// floor(2^exponent * 2^(40 - shift)) for exponent <= 0 and shift in [0, 63].
RNR_HOST_DEVICE int64_t fixed_point_exp2(float exponent, int shift) {
  if (!(exponent > -100.0f)) return 0;
  const float whole = floorf(exponent + 0.5f);
  const float fraction = exponent - whole;
  const int64_t mantissa = static_cast<int64_t>(exp2_series(fraction) * 16777216.0f);
  const int left = static_cast<int>(whole) + kFixedPointBits - 24 - shift;
  if (left >= 0) return mantissa << left;
  return left > -63 ? mantissa >> -left : 0;
}

// How far a tile's weights are shifted down to the row's ceiling; an empty tile's ceiling is -inf.
RNR_HOST_DEVICE int tile_shift(float row_ceiling, float tile_ceiling) {
  const float gap = row_ceiling - tile_ceiling;
  return gap > 0.0f ? (gap < 63.0f ? static_cast<int>(gap) : 63) : 0;
}

// Ten rounds of Philox4x32 (Salmon et al. 2011); the first two words as 53 bits: the uniform of a
// seed and a position is this times 2^-53.
RNR_HOST_DEVICE uint64_t uniform_bits(uint64_t seed, uint64_t position) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32);
  uint32_t c2 = 0, c3 = 0;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(c0) * 0xD2511F53u;
    const uint64_t p1 = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c0 = n0;
    c1 = static_cast<uint32_t>(p1);
    c2 = n2;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (static_cast<uint64_t>(c1) << 21) | (c0 >> 11);
}

// floor(bits * total / 2^53) for bits < 2^53 and total < 2^62.
RNR_HOST_DEVICE int64_t multiply_shift_53(uint64_t bits, int64_t total) {
#if defined(__CUDA_ARCH__)
  const uint64_t high = __umul64hi(bits, static_cast<uint64_t>(total));
  return static_cast<int64_t>((high << 11) | ((bits * static_cast<uint64_t>(total)) >> 53));
#else
  return static_cast<int64_t>((static_cast<unsigned __int128>(bits) * total) >> 53);
#endif
}

}  // namespace rnr
