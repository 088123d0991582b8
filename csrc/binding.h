// Reading the arguments of torch's ops, and allocating their results.
//
// The files called binding are the only ones that know torch, by its stable interface alone.
// Checked here is what memory safety needs; what users see is checked, and said better, in
// rnr_kernels/checks.py. Trusted are addresses of tables and running statistics: the package's own.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <type_traits>

#include "rnr.h"

namespace rnr {

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

#define RNR_CHECK(condition, ...) STD_TORCH_CHECK(condition, __VA_ARGS__)

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

template <typename T>
T* data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// A device, by torch's numbers; the CPU has no index.
struct Place {
  int32_t type = aoti_torch_device_type_cpu();
  int32_t index = -1;

  Place() = default;
  explicit Place(const Tensor& tensor) {
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &type));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor.get(), &index));
    if (type == aoti_torch_device_type_cpu()) index = -1;
  }
  bool operator==(const Place& other) const { return type == other.type && index == other.index; }
};

// ---- Addresses ---------------------------------------------------------------------------------

// Reads an address tensor: the tables' device, then for each its data pointer and its sizes.
class Addresses {
 public:
  Addresses(const char* name, const Tensor& tensor, int64_t length, const Place& place)
      : name_(name) {
    RNR_CHECK(Place(tensor) == Place() && dtype_of(tensor) == dtype_as<int64_t>() &&
                  tensor.is_contiguous() && tensor.numel() == length,
              name, " must be ", length, " addresses and sizes");
    next_ = data_of<int64_t>(tensor);
    RNR_CHECK(size() == place.index, "the ", name, "'s tables must be on the logits' device");
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

inline ProgramTables program_tables(const Tensor& addresses, int64_t vocab_size,
                                    const Place& place) {
  Addresses at("program", addresses, 33, place);
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

inline StateTables state_tables(const Tensor& addresses, int64_t vocab_size, const Place& place) {
  Addresses at("state", addresses, 19, place);
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

// Reads the arguments of a call whose tensors are all in one place, and makes its results there.
class Arguments {
 public:
  explicit Arguments(const Place& place) : place_(place) {}

  const Place& place() const { return place_; }

  // A new contiguous tensor.
  template <typename T>
  Tensor empty(int64_t rows, int64_t columns = -1) const {
    const int64_t sizes[2] = {rows, columns}, strides[2] = {columns < 0 ? 1 : columns, 1};
    AtenTensorHandle handle;
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_empty_strided(columns < 0 ? 1 : 2, sizes, strides, dtype_as<T>(), place_.type,
                                 place_.index < 0 ? 0 : place_.index, &handle));
    return Tensor(handle);
  }

  // A column of results that may not be asked for.
  template <typename T>
  MaybeTensor empty_if(bool asked, int64_t num_rows) const {
    return asked ? MaybeTensor(empty<T>(num_rows)) : std::nullopt;
  }

  void check_place(const char* name, const Tensor& tensor) const {
    const bool is_on_cpu = place_ == Place();
    RNR_CHECK(Place(tensor) == place_, name,
              is_on_cpu ? " must be on the CPU" : " must be on the logits' device");
  }

  // [rows, columns] with stride 1 within a row.
  void check_rows(const char* name, const Tensor& tensor) const {
    check_place(name, tensor);
    RNR_CHECK(tensor.dim() == 2, name, " must have two dimensions");
    RNR_CHECK(tensor.size(1) <= 1 || tensor.stride(1) == 1, name,
              " must have stride 1 within a row");
  }

  int32_t* error_bits(const Tensor& error) const {
    check_place("error", error);
    RNR_CHECK(dtype_of(error) == dtype_as<int32_t>() && error.numel() == 1,
              "error must be int32 [1]");
    return data_of<int32_t>(error);
  }

  IndexColumn index_column(const char* name, const Tensor& column, int64_t num_rows) const {
    check_place(name, column);
    const int32_t dtype = dtype_of(column);
    const bool is_int64 = dtype == dtype_as<int64_t>();
    RNR_CHECK((is_int64 || dtype == dtype_as<int32_t>()) && column.dim() == 1 &&
                  column.size(0) == num_rows,
              name, " must be int32 or int64 [", num_rows, "]");
    return {column.data_ptr(), column.stride(0), is_int64};
  }

  IndexColumn index_column(const char* name, const MaybeTensor& column, int64_t num_rows) const {
    return column ? index_column(name, *column, num_rows) : IndexColumn{};
  }

  LogitsRows logits_rows(const char* name, const Tensor& logits, int64_t vocab_size) const {
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

  StateTables state_tables(const Tensor& addresses, int64_t vocab_size) const {
    return rnr::state_tables(addresses, vocab_size, place_);
  }

  RuleRows rule_rows(const Tensor& logits, int64_t vocab_size, const Tensor& program,
                     const Tensor& state, const Tensor& error, const MaybeTensor& state_indices,
                     const MaybeTensor& allowed_bitmask, const MaybeTensor& row_offsets,
                     const MaybeTensor& draft_token_ids) const {
    RuleRows rows;
    rows.logits = logits_rows("logits", logits, vocab_size);
    rows.program = program_tables(program, vocab_size, place_);
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

 private:
  Place place_;
};

}  // namespace rnr
