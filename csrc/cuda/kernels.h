// The GPU's kernels: each launches once, on the stream it is given.
#pragma once

#include <string>

#include "../rnr.h"

namespace rnr::cuda {

// Where kernels run.
struct Device {
  int index = 0;
  int num_multiprocessors = 0;
  bool has_clusters = false;
  void* stream = nullptr;  // torch's current one
};

// A device, which becomes the current one of the library's own CUDA runtime.
Device use_device(int index);
// Why kernels of this library cannot run on a device; empty if they can.
std::string problem_of(int index);
// The error of loading a kernel on the current device, or null.
const char* loading_error();

// Tables of a row's tiles lie in shared memory.
constexpr int64_t kMaxVocabSize = int64_t{1} << 20;

void apply_rules(const ApplyRulesParams& params, const Device& device);
void rule_log_softmax(const LogSoftmaxParams& params, const Device& device);
// `cluster` blocks a row; 0 leaves the choice to the number of rows, on which no result depends.
void sample(const SampleParams& params, int cluster, const Device& device);
void update_state(const UpdateStateParams& params, const Device& device);
void token_stats(const TokenStatsParams& params, const Device& device);
void shift_stats(const ShiftStatsParams& params, const Device& device);

}  // namespace rnr::cuda
