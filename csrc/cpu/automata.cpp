// The walks of automata.h: one pass over the nodes of the tree, which skips what is below a byte
// that leads nowhere.
#include "automata.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace rnr::cpu {
namespace {

// Where each node of the path from the root leads.
class Path {
 public:
  explicit Path(const Place& place) : places_(64) { places_[0] = place; }

  const Place& before(int32_t depth) const { return places_[depth - 1]; }
  void set(int32_t depth, const Place& place) {
    if (static_cast<size_t>(depth) >= places_.size()) places_.resize(depth * 2);
    places_[depth] = place;
  }

 private:
  std::vector<Place> places_;
};

int32_t layer_after(const AutomatonTables& tables, const Place& before, int32_t state) {
  // counts.py's things_begun
  const int32_t mark = tables.marks[state];
  const int32_t begins = (mark & ~tables.marks[before.state] & 1) | mark >> 1;
  return std::min<int32_t>(before.layer + begins, static_cast<int32_t>(tables.num_layers - 1));
}

int32_t cost_of(const AutomatonTables& tables, int32_t layer, int64_t state) {
  return tables.costs[layer * tables.num_states + state];
}

// One byte on; the state is dead if nowhere.
Place after(const AutomatonTables& tables, const Place& before, int32_t byte) {
  const int32_t next = tables.next[int64_t{before.node} * 256 + byte];
  if (next < 0) return {kDead, kRoot, before.layer};
  if (next < tables.num_byte_nodes) return {before.state, next, before.layer};
  const int32_t state =
      tables.table[before.state * tables.num_classes + (next - tables.num_byte_nodes)];
  return {state, kRoot, layer_after(tables, before, state)};
}

int32_t cost_at(const AutomatonTables& tables, const Place& place) {
  if (place.node == kRoot) return cost_of(tables, place.layer, place.state);
  // The cheapest of the characters that the bytes may become.
  int32_t cheapest = kImpossible;
  for (int32_t i = tables.offsets[place.node]; i < tables.offsets[place.node + 1]; ++i) {
    const int32_t state = tables.table[place.state * tables.num_classes + tables.classes[i]];
    cheapest = std::min(cheapest, cost_of(tables, layer_after(tables, place, state), state));
  }
  return std::min(cheapest + tables.rest[place.node], kImpossible);
}

}  // namespace

int64_t token_mask(const AutomatonTables& tables, const Place& place, int64_t limit, int32_t* mask,
                   int64_t num_words) {
  std::fill(mask, mask + num_words, 0);
  int32_t highest = 0;
  Path path(place);
  for (int64_t n = 1; n < tables.num_nodes;) {
    const TokenNode& node = tables.nodes[n];
    const int32_t depth = node.mark >> 8;
    const Place here = after(tables, path.before(depth), node.mark & 255);
    if (here.state == kDead) {
      n = node.end;
      continue;
    }
    path.set(depth, here);
    const int32_t last_token = tables.nodes[++n].first_token;
    if (last_token == node.first_token) continue;
    const int32_t cost = cost_at(tables, here);
    if (cost > limit) continue;
    highest = std::max(highest, cost);
    for (int32_t i = node.first_token; i < last_token; ++i) {
      const int32_t token = tables.token_ids[i];
      mask[token / 32] |= static_cast<int32_t>(uint32_t{1} << token % 32);
    }
  }
  return highest;
}

void lower_costs(const AutomatonTables& tables, const int64_t* order, int64_t count,
                 const int32_t* limits) {
  const auto limit_of = [&](const Place& place) {
    return limits[place.layer * tables.num_states + place.state];
  };
  // Most first bytes lead away from the end: their nodes are not even read.
  std::vector<std::pair<int32_t, int64_t>> first_bytes;
  for (int64_t n = 1; n < tables.num_nodes; n = tables.nodes[n].end) {
    first_bytes.emplace_back(tables.nodes[n].mark & 255, n);
  }
  Path path({});
  for (int64_t i = 0; i < count; ++i) {
    const Place start = {static_cast<int32_t>(order[i] % tables.num_states), kRoot,
                         static_cast<int32_t>(order[i] / tables.num_states)};
    const auto leads_on = [&](const Place& before, const Place& here) {
      return here.state != kDead && (here.node != kRoot || limit_of(here) < limit_of(before));
    };
    int32_t& best = tables.costs[order[i]];
    int steps_left = kMostSteps;
    path.set(0, start);
    for (const auto& [first_byte, first] : first_bytes) {
      if (!leads_on(start, after(tables, start, first_byte))) continue;
      for (int64_t n = first, end = tables.nodes[first].end; n < end && steps_left > 0;) {
        const TokenNode& node = tables.nodes[n];
        const int32_t depth = node.mark >> 8;
        const Place& before = path.before(depth);
        const Place here = after(tables, before, node.mark & 255);
        if (!leads_on(before, here)) {
          n = node.end;
          continue;
        }
        --steps_left;
        path.set(depth, here);
        const bool ends_token = tables.nodes[++n].first_token > node.first_token;
        if (ends_token && here.node == kRoot) {
          best = std::min(best, cost_of(tables, here.layer, here.state) + 1);
        }
      }
    }
  }
}

}  // namespace rnr::cpu
