// What a slot asks of sampling: the same on host and device.
#pragma once

#include "rnr.h"

namespace rnr {

struct SlotSampling {
  float temperature = 0.0f;
  float scale = 0.0f;  // log2(e) / temperature
  float top_p = 1.0f;
  float min_p_threshold = -INFINITY;
  int32_t top_k = 0;  // 0: all
  bool is_greedy = true, filters = false;

  SlotSampling() = default;

  RNR_MEMBER SlotSampling(const StateTables& state, int64_t slot, int64_t vocab_size) {
    const float* sampling = state.sampling + 4 * slot;
    temperature = sampling[0];
    scale = sampling[1];
    top_p = sampling[2] < 0.0f ? 0.0f : sampling[2];
    min_p_threshold = sampling[3];
    top_k = state.slot_params[4 * slot + 2];
    if (top_k < 0 || top_k >= vocab_size) top_k = 0;
    is_greedy = temperature <= 0.0f;
    filters = top_k > 0 || top_p < 1.0f || min_p_threshold > -INFINITY;
  }
};

}  // namespace rnr
