// torch.ops.rnr_C: the masks and costs of automata, which are kept on the CPU.
//
// Checked are the shapes of tables and where a walk begins. Trusted is what the tables hold:
// states, nodes, classes and tokens in range, as rnr_kernels/automata makes them.
#include "binding.h"
#include "cpu/automata.h"

namespace rnr {
namespace {

template <typename Number = int32_t>
Number* table_of(const char* name, const Tensor& tensor, int64_t rows, int64_t columns = -1) {
  RNR_CHECK(Place(tensor) == Place() && dtype_of(tensor) == dtype_as<Number>() &&
                tensor.is_contiguous() && tensor.dim() == (columns < 0 ? 1 : 2) &&
                tensor.size(0) == rows && (columns < 0 || tensor.size(1) == columns),
            name, " must be int", 8 * sizeof(Number),
            " on the CPU, contiguous, of the size that the others ask for");
  return data_of<Number>(tensor);
}

// Sets of classes, which torch knows as int64.
cpu::ClassSet* sets_of(const char* name, const Tensor& tensor, int64_t rows) {
  return reinterpret_cast<cpu::ClassSet*>(table_of<int64_t>(name, tensor, rows));
}

cpu::AutomatonTables tables_of(const Tensor& nodes, const Tensor& token_ids, const Tensor& next,
                               const Tensor& rest, const Tensor& offsets, const Tensor& classes,
                               const Tensor& table, const Tensor& marks, const Tensor& costs) {
  RNR_CHECK(nodes.dim() == 2 && nodes.size(0) >= 2 && next.dim() == 2 && next.size(0) >= 1 &&
                table.dim() == 2 && table.size(0) >= 1 && table.size(1) >= 1 && costs.dim() == 2 &&
                costs.size(0) >= 1,
            "nodes, next, table and costs must be tables with a row");
  static_assert(sizeof(cpu::TokenNode) == 3 * sizeof(int32_t), "nodes are rows of three");
  cpu::AutomatonTables tables;
  const int32_t* rows = table_of("nodes", nodes, nodes.size(0), 3);
  tables.nodes = reinterpret_cast<const cpu::TokenNode*>(rows);
  tables.num_nodes = nodes.size(0) - 1;
  tables.token_ids = table_of("token_ids", token_ids, token_ids.size(0));
  RNR_CHECK(tables.nodes[tables.num_nodes].first_token == token_ids.size(0),
            "token_ids must be as many as the nodes have");
  const int64_t num_byte_nodes = next.size(0);
  tables.next = table_of("next", next, num_byte_nodes, 256);
  tables.rest = table_of("rest", rest, num_byte_nodes);
  tables.offsets = table_of("offsets", offsets, num_byte_nodes + 1);
  tables.classes = table_of("classes", classes, tables.offsets[num_byte_nodes]);
  tables.num_byte_nodes = static_cast<int32_t>(num_byte_nodes);
  tables.num_states = table.size(0);
  tables.num_classes = table.size(1);
  tables.table = table_of("table", table, tables.num_states, tables.num_classes);
  tables.marks = table_of("marks", marks, tables.num_states);
  tables.num_layers = costs.size(0);
  tables.costs = table_of("costs", costs, tables.num_layers, tables.num_states);
  return tables;
}

void find_shortcuts_(const Tensor& below, const Tensor& stay, const Tensor& nodes,
                     const Tensor& token_ids, const Tensor& next, const Tensor& rest,
                     const Tensor& offsets, const Tensor& classes, const Tensor& table,
                     const Tensor& marks, const Tensor& costs) {
  const cpu::AutomatonTables tables =
      tables_of(nodes, token_ids, next, rest, offsets, classes, table, marks, costs);
  cpu::find_shortcuts(tables, sets_of("below", below, tables.num_nodes),
                      sets_of("stay", stay, tables.num_states));
}

int64_t token_mask_(const Tensor& mask, const Tensor& nodes, const Tensor& token_ids,
                    const Tensor& next, const Tensor& rest, const Tensor& offsets,
                    const Tensor& classes, const Tensor& table, const Tensor& marks,
                    const Tensor& costs, const Tensor& below, const Tensor& stay,
                    const Tensor& every, int64_t state, int64_t node, int64_t layer,
                    int64_t limit) {
  const cpu::AutomatonTables tables =
      tables_of(nodes, token_ids, next, rest, offsets, classes, table, marks, costs);
  const int64_t num_words = every.size(0);
  int32_t* words = table_of("mask", mask, num_words);
  const cpu::Shortcuts shortcuts = {sets_of("below", below, tables.num_nodes),
                                    sets_of("stay", stay, tables.num_states),
                                    table_of("every", every, num_words)};
  RNR_CHECK(state >= 0 && state < tables.num_states && node >= 0 && node < tables.num_byte_nodes &&
                layer >= 0 && layer < tables.num_layers,
            "a walk must begin at a state, a node and a layer of the tables");
  const cpu::Place place = {static_cast<int32_t>(state), static_cast<int32_t>(node),
                            static_cast<int32_t>(layer)};
  return cpu::token_mask(tables, shortcuts, place, limit, words, num_words);
}

void lower_costs_(const Tensor& nodes, const Tensor& token_ids, const Tensor& next,
                  const Tensor& rest, const Tensor& offsets, const Tensor& classes,
                  const Tensor& table, const Tensor& marks, const Tensor& costs,
                  const Tensor& order, const Tensor& limits) {
  const cpu::AutomatonTables tables =
      tables_of(nodes, token_ids, next, rest, offsets, classes, table, marks, costs);
  const int32_t* before = table_of("limits", limits, tables.num_layers, tables.num_states);
  RNR_CHECK(Place(order) == Place() && dtype_of(order) == dtype_as<int64_t>() && order.dim() == 1 &&
                order.is_contiguous(),
            "order must be int64 on the CPU, contiguous");
  const int64_t* indices = data_of<int64_t>(order);
  for (int64_t i = 0; i < order.size(0); ++i) {
    RNR_CHECK(indices[i] >= 0 && indices[i] < tables.num_layers * tables.num_states,
              "order must hold indices of costs");
  }
  cpu::lower_costs(tables, indices, order.size(0), before);
}

#define RNR_TABLES                                             \
  "Tensor nodes, Tensor token_ids, Tensor next, Tensor rest, " \
  "Tensor offsets, Tensor classes, Tensor table, Tensor marks, "

STABLE_TORCH_LIBRARY_FRAGMENT(rnr_C, m) {
  m.def("find_shortcuts_(Tensor(a!) below, Tensor(b!) stay, " RNR_TABLES "Tensor costs) -> ()");
  m.def("token_mask_(Tensor(a!) mask, " RNR_TABLES
        "Tensor costs, Tensor below, Tensor stay, Tensor every, int state, int node, int layer, "
        "int limit) -> int");
  m.def("lower_costs_(" RNR_TABLES "Tensor(a!) costs, Tensor order, Tensor limits) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(rnr_C, CPU, m) {
  m.impl("find_shortcuts_", TORCH_BOX(&find_shortcuts_));
  m.impl("token_mask_", TORCH_BOX(&token_mask_));
  m.impl("lower_costs_", TORCH_BOX(&lower_costs_));
}

}  // namespace
}  // namespace rnr
