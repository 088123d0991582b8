// Logits of an LM head whose bits depend on nothing but a row's hidden state and a token's weights.
//
// A logit is a dot product over sixteen lanes, from the first dimension to the last, whatever
// stands beside it. Weights are taken a few at a time, as float32, for all rows.
#include "blocks.h"
#include "kernels.h"

namespace rnr::cpu::RNR_ISA {
namespace {

constexpr int64_t kWeightsAtATime = 64;

// A token's weights as float32, filled up with zeros to whole lanes: those in memory, or `out`.
const float* weights_of(const HeadParams& params, int64_t token, float* out) {
  const LogitsRow row(params.weight, token);
  const int64_t width = params.hidden_width;
  if (row.dtype == DType::kFloat32 && row.vocab_size == width) {
    return reinterpret_cast<const float*>(row.data);
  }
  const int64_t size = element_size(row.dtype), rest = row.vocab_size % kLanes;
  const int64_t whole = row.vocab_size - rest;
  for (int64_t d = 0; d < width; d += kLanes) {
    alignas(64) char lanes[kLanes * sizeof(float)] = {};
    memcpy(lanes, row.data + d * size, (d < whole ? kLanes : rest) * size);
    store(out + d, row.dtype == DType::kFloat32 ? load(reinterpret_cast<const float*>(lanes))
                                                : row.lanes(lanes, 0));
  }
  return out;
}

float dot(const float* hidden, const float* weights, int64_t width) {
  Floats lanes = splat(0.0f);
  for (int64_t d = 0; d < width; d += kLanes) {
    lanes = fma(load(hidden + d), load(weights + d), lanes);
  }
  return sum(lanes);
}

// The same of four hidden states and two tokens at once.
struct DotBlock {
  struct TwoTokens {
    Floats a = splat(0.0f), b = splat(0.0f);

    RNR_INLINE void add(Floats hidden, Floats weights_a, Floats weights_b) {
      a = fma(hidden, weights_a, a);
      b = fma(hidden, weights_b, b);
    }
    RNR_INLINE void store_to(float* out_a, float* out_b) const {
      *out_a = sum(a);
      *out_b = sum(b);
    }
  };

  const float* hidden[4];
  const float* weights[2];
  float* out[4][2];

  RNR_INLINE void run(int64_t width) const {
    TwoTokens first, second, third, fourth;
    for (int64_t d = 0; d < width; d += kLanes) {
      const Floats a = load(weights[0] + d), b = load(weights[1] + d);
      first.add(load(hidden[0] + d), a, b);
      second.add(load(hidden[1] + d), a, b);
      third.add(load(hidden[2] + d), a, b);
      fourth.add(load(hidden[3] + d), a, b);
    }
    first.store_to(out[0][0], out[0][1]);
    second.store_to(out[1][0], out[1][1]);
    third.store_to(out[2][0], out[2][1]);
    fourth.store_to(out[3][0], out[3][1]);
  }
};

}  // namespace

void head_logits(const HeadParams& params, int64_t begin, int64_t end) {
  const int64_t width = params.hidden_width, num_rows = params.num_rows;
  Scratch<float> scratch(kWeightsAtATime * width);
  for (int64_t start = begin; start < end; start += kWeightsAtATime) {
    const int64_t stop = start + kWeightsAtATime < end ? start + kWeightsAtATime : end;
    const float* weights[kWeightsAtATime];
    for (int64_t v = start; v < stop; ++v) {
      weights[v - start] = weights_of(params, v, scratch.data + (v - start) * width);
    }
    // The last row and token may stand in several places of a block, with the same results.
    for (int64_t r = 0; r < num_rows; r += 4) {
      for (int64_t v = start; v < stop; v += 2) {
        DotBlock block;
        for (int j = 0; j < 2; ++j) {
          const int64_t token = v + j < stop ? v + j : stop - 1;
          block.weights[j] = weights[token - start];
          for (int i = 0; i < 4; ++i) {
            const int64_t row = r + i < num_rows ? r + i : num_rows - 1;
            block.hidden[i] = params.hidden + row * width;
            block.out[i][j] = params.out + row * params.out_stride + token;
          }
        }
        block.run(width);
      }
    }
  }
}

void head_targets(const HeadParams& params, int64_t begin, int64_t end) {
  const int64_t width = params.hidden_width;
  Scratch<float> scratch(width);
  for (int64_t r = begin; r < end; ++r) {
    const int64_t token = params.token_ids[r];
    if (token < 0 || token >= params.weight.num_rows) {
      params.out[r] = NAN;
      continue;
    }
    const float* weights = weights_of(params, token, scratch.data);
    params.out[r] = dot(params.hidden + r * width, weights, width);
  }
}

}  // namespace rnr::cpu::RNR_ISA
