// Reading the arguments of torch's ops, and allocating their results.
//
// The files called binding are the only ones that know torch, by its stable interface alone.
// Checked here is what memory safety needs; what users see is checked, and said better, in
// rnr_kernels/checks.py. Trusted are addresses of tables and running statistics: the package's own.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <type_traits>

#include "cpu/kernels.h"
#include "rnr.h"

namespace rnr {

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

#define RNR_CHECK(condition, ...) STD_TORCH_CHECK(condition, __VA_ARGS__)

// Logits that a thread must have to read before it is worth starting.
constexpr int64_t kElementsPerThread = int64_t{1} << 18;

inline int32_t dtype_of(const Tensor& tensor) {
  int32_t dtype;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &dtype));
  return dtype;
}

template <typename T>
int32_t dtype_as() {
  if constexpr (std::is_same_v<T, float>) return aoti_torch_dtype_float32();
  if constexpr (std::is_same_v<T, int32_t>) return aoti_torch_dtype_int32();
  if constexpr (std::is_same_v<T, int64_t>) return aoti_torch_dtype_int64();
  if constexpr (std::is_same_v<T, bool>) return aoti_torch_dtype_bool();
}

// A new contiguous tensor.
template <typename T>
Tensor empty(int64_t rows, int64_t columns = -1) {
  const int64_t sizes[2] = {rows, columns}, strides[2] = {columns < 0 ? 1 : columns, 1};
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(columns < 0 ? 1 : 2, sizes, strides,
                                                         dtype_as<T>(),
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

template <typename T>
T* data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

inline void check_cpu(const char* name, const Tensor& tensor) {
  RNR_CHECK(tensor.is_cpu(), name, " must be on the CPU");
}

// [rows, columns] with stride 1 within a row.
inline void check_rows(const char* name, const Tensor& tensor) {
  check_cpu(name, tensor);
  RNR_CHECK(tensor.dim() == 2, name, " must have two dimensions");
  RNR_CHECK(tensor.size(1) <= 1 || tensor.stride(1) == 1, name, " must have stride 1 within a row");
}

// ---- Addresses ---------------------------------------------------------------------------------

// Reads an address tensor: the tables' device, then for each its data pointer and its sizes.
class Addresses {
 public:
  Addresses(const char* name, const Tensor& tensor, int64_t length) : name_(name) {
    check_cpu(name, tensor);
    RNR_CHECK(dtype_of(tensor) == dtype_as<int64_t>() && tensor.is_contiguous() &&
                  tensor.numel() == length,
              name, " must be ", length, " addresses and sizes");
    next_ = data_of<int64_t>(tensor);
    RNR_CHECK(size() == -1, "the ", name, "'s tables must be on the CPU");
  }

  template <typename T>
  T* pointer() {
    return reinterpret_cast<T*>(*next_++);
  }
  int64_t size() { return *next_++; }
  void size_is(int64_t expected) {
    const int64_t got = size();
    RNR_CHECK(got == expected, "a table of the ", name_, " has size ", got, " instead of ",
              expected);
  }

 private:
  const char* name_;
  const int64_t* next_;
};

inline ProgramTables program_tables(const Tensor& addresses, int64_t vocab_size) {
  Addresses at("program", addresses, 33);
  ProgramTables tables;
  tables.token_class = at.pointer<uint8_t>();
  tables.num_maps = at.size();
  tables.codes_stride = at.size();
  tables.class_counts = at.pointer<int32_t>();
  at.size_is(tables.num_maps);
  tables.num_classes = at.size();
  tables.class_offsets = at.pointer<int32_t>();
  at.size_is(tables.num_maps);
  at.size_is(tables.num_classes + 1);
  tables.class_tokens = at.pointer<int32_t>();
  at.size_is(tables.num_maps);
  tables.tokens_stride = at.size();
  tables.block_flags = at.pointer<int32_t>();
  at.size_is(tables.num_maps);
  tables.flags_stride = at.size();
  tables.knot_starts = at.pointer<int32_t>();
  tables.num_schedules = at.size();
  tables.num_knots = at.size();
  at.size_is(tables.num_classes);
  tables.knot_lines = at.pointer<double>();
  at.size_is(tables.num_schedules);
  at.size_is(tables.num_knots);
  at.size_is(tables.num_classes);
  at.size_is(2);
  tables.program_table = at.pointer<int32_t>();
  tables.num_programs = at.size();
  at.size_is(4);
  tables.penalties = at.pointer<float>();
  at.size_is(tables.num_programs);
  tables.score_vectors = at.pointer<float>();
  tables.num_vectors = at.size();
  tables.vector_stride = at.size();
  const int64_t tiles = (vocab_size + kTile - 1) / kTile;
  RNR_CHECK(tables.codes_stride >= tiles * kTile &&
                tables.flags_stride * kFlagBlock * kBits >= vocab_size &&
                (tables.num_vectors == 0 || tables.vector_stride >= vocab_size),
            "the program's tables are too narrow for a vocabulary of ", vocab_size);
  RNR_CHECK(
      tables.num_programs >= 1 && tables.num_classes >= 1 && tables.num_classes <= kMaxClasses + 1,
      "the program must have a row, and 1 to ", kMaxClasses + 1, " classes");
  return tables;
}

inline StateTables state_tables(const Tensor& addresses, int64_t vocab_size) {
  Addresses at("state", addresses, 19);
  StateTables tables;
  tables.slot_params = at.pointer<int32_t>();
  tables.num_slots = at.size();
  at.size_is(4);
  tables.used_bitmask = at.pointer<int32_t>();
  at.size_is(tables.num_slots);
  tables.bitmask_stride = at.size();
  tables.bias_token_ids = at.pointer<int32_t>();
  at.size_is(tables.num_slots);
  tables.max_bias = at.size();
  tables.bias_values = at.pointer<float>();
  at.size_is(tables.num_slots);
  at.size_is(tables.max_bias);
  tables.sampling = at.pointer<float>();
  at.size_is(tables.num_slots);
  at.size_is(4);
  tables.rng = at.pointer<int64_t>();
  at.size_is(tables.num_slots);
  at.size_is(2);
  RNR_CHECK(tables.bitmask_stride * kBits >= vocab_size,
            "the state's bitmask is too narrow for a vocabulary of ", vocab_size);
  return tables;
}

// ---- Arguments ---------------------------------------------------------------------------------

inline const cpu::Kernels& kernels_of(int64_t instruction_set) {
  int count;
  const cpu::Kernels* const* tables = cpu::supported(&count);
  RNR_CHECK(instruction_set >= 0 && instruction_set < count, "instruction_set must be 0 to ",
            count - 1, ", got ", instruction_set);
  return *tables[instruction_set];
}

inline int32_t* error_bits(const Tensor& error) {
  check_cpu("error", error);
  RNR_CHECK(dtype_of(error) == dtype_as<int32_t>() && error.numel() == 1,
            "error must be int32 [1]");
  return data_of<int32_t>(error);
}

inline IndexColumn index_column(const char* name, const Tensor& column, int64_t num_rows) {
  check_cpu(name, column);
  const int32_t dtype = dtype_of(column);
  const bool is_int64 = dtype == dtype_as<int64_t>();
  RNR_CHECK(
      (is_int64 || dtype == dtype_as<int32_t>()) && column.dim() == 1 && column.size(0) == num_rows,
      name, " must be int32 or int64 [", num_rows, "]");
  return {column.data_ptr(), column.stride(0), is_int64};
}

inline IndexColumn index_column(const char* name, const MaybeTensor& column, int64_t num_rows) {
  return column ? index_column(name, *column, num_rows) : IndexColumn{};
}

inline LogitsRows logits_rows(const char* name, const Tensor& logits, int64_t vocab_size) {
  check_rows(name, logits);
  const int32_t dtype = dtype_of(logits);
  LogitsRows rows;
  if (dtype == aoti_torch_dtype_float32()) {
    rows.dtype = DType::kFloat32;
  } else if (dtype == aoti_torch_dtype_bfloat16()) {
    rows.dtype = DType::kBFloat16;
  } else {
    RNR_CHECK(dtype == aoti_torch_dtype_float16(), name, " must be float32, bfloat16 or float16");
    rows.dtype = DType::kFloat16;
  }
  rows.data = logits.data_ptr();
  rows.num_rows = logits.size(0);
  rows.row_stride = logits.stride(0);
  rows.row_width = logits.size(1);
  rows.vocab_size = vocab_size;
  RNR_CHECK(vocab_size >= 1 && vocab_size <= rows.row_width && vocab_size <= INT32_MAX,
            "vocab_size must be 1 to ", rows.row_width, ", got ", vocab_size);
  return rows;
}

inline RuleRows rule_rows(const Tensor& logits, int64_t vocab_size, const Tensor& program,
                          const Tensor& state, const Tensor& error,
                          const MaybeTensor& state_indices, const MaybeTensor& allowed_bitmask,
                          const MaybeTensor& row_offsets, const MaybeTensor& draft_token_ids) {
  RuleRows rows;
  rows.logits = logits_rows("logits", logits, vocab_size);
  rows.program = program_tables(program, vocab_size);
  rows.state = state_tables(state, vocab_size);
  rows.error = error_bits(error);
  const int64_t num_rows = rows.logits.num_rows;
  rows.state_indices = index_column("state_indices", state_indices, num_rows);
  rows.row_offsets = index_column("row_offsets", row_offsets, num_rows);
  rows.draft_token_ids = index_column("draft_token_ids", draft_token_ids, num_rows);
  rows.allowed_bitmask = nullptr;
  rows.allowed_stride = 0;
  if (allowed_bitmask) {
    check_rows("allowed_bitmask", *allowed_bitmask);
    RNR_CHECK(dtype_of(*allowed_bitmask) == dtype_as<int32_t>() &&
                  allowed_bitmask->size(0) == num_rows &&
                  allowed_bitmask->size(1) * kBits >= vocab_size,
              "allowed_bitmask must be int32 [", num_rows, ", a bit for each token]");
    rows.allowed_bitmask = data_of<int32_t>(*allowed_bitmask);
    rows.allowed_stride = allowed_bitmask->stride(0);
  }
  return rows;
}

// Calls kernel(params, begin, end) over all rows, by several threads where that pays.
template <typename Params>
void over_rows(void (*kernel)(const Params&, int64_t, int64_t), const Params& params,
               int64_t num_rows, int64_t elements_per_row) {
  const int64_t rows_per_thread = kElementsPerThread / elements_per_row + 1;
  if (num_rows <= rows_per_thread) {
    kernel(params, 0, num_rows);
    return;
  }
  torch::stable::parallel_for(0, num_rows, rows_per_thread,
                              [&](int64_t begin, int64_t end) { kernel(params, begin, end); });
}

}  // namespace rnr
