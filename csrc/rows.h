// Which slot, program and step a row of logits belongs to: the same on host and device.
#pragma once

#include "rnr.h"

namespace rnr {

struct Row {
  bool is_live = false;  // not a padding row
  bool has_rules = false;
  int64_t slot = 0;
  int64_t step = 0;
  // Of a row with rules:
  int64_t program = 0, map = 0, schedule = 0, vector = -1;
};

// Slots and programs out of range make a padding row; those past a table set error bits.
RNR_HOST_DEVICE Row find_row(const RuleRows& rows, int64_t r, int* error_bits) {
  Row row;
  const ProgramTables& tables = rows.program;
  const int64_t slot = rows.state_indices ? rows.state_indices[r] : r;
  if (slot < 0 || slot >= rows.state.num_slots) {
    if (slot >= 0) *error_bits |= kErrorSlot;
    return row;
  }
  row.slot = slot;
  const int32_t* params = rows.state.slot_params + 4 * slot;
  row.step = wrapping_add(params[1], rows.row_offsets ? rows.row_offsets[r] : 0);
  row.is_live = true;
  if (params[0] < 0) return row;
  row.has_rules = true;
  row.program = params[0];
  const bool in_table = row.program < tables.num_programs;
  const int32_t* entry = tables.program_table + 4 * (in_table ? row.program : 0);
  row.map = entry[0];
  row.schedule = entry[1];
  row.vector = entry[2];
  const bool is_known = in_table && entry[3] != 0 && row.map >= 0 && row.map < tables.num_maps &&
                        row.schedule >= 0 && row.schedule < tables.num_schedules &&
                        row.vector < tables.num_vectors;
  if (!is_known) {
    *error_bits |= kErrorProgram;
    row.is_live = false;
  }
  return row;
}

// Index of the first of `count` ascending ids that is not below v.
RNR_HOST_DEVICE int64_t first_not_below(const int32_t* ids, int64_t count, int64_t v) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (ids[middle] < v) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace rnr
