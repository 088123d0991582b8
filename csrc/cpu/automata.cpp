// The walks of automata.h: one pass over the nodes of the tree, which skips what is below a byte
// that leads nowhere and takes whole what is below one after which nothing changes.
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
  // In 64 bits: where both are impossible, their sum is beyond int32.
  const int64_t cost = int64_t{cheapest} + tables.rest[place.node];
  return static_cast<int32_t>(std::min<int64_t>(cost, kImpossible));
}

constexpr ClassSet kNoCharacter = ClassSet{1} << kClassBits;

ClassSet bit_of(int64_t character_class) { return ClassSet{1} << character_class % kClassBits; }

bool ends_token(const AutomatonTables& tables, int64_t n) {
  return tables.nodes[n + 1].first_token > tables.nodes[n].first_token;
}

// What stands below a node that is `byte_node` within a character; `below` has its descendants.
ClassSet classes_below(const AutomatonTables& tables, const ClassSet* below, int64_t parent,
                       int32_t byte_node) {
  ClassSet found = 0;
  for (int64_t n = parent + 1; n < tables.nodes[parent].end; n = tables.nodes[n].end) {
    const int32_t next = tables.next[int64_t{byte_node} * 256 + (tables.nodes[n].mark & 255)];
    if (next >= tables.num_byte_nodes) {
      found |= bit_of(next - tables.num_byte_nodes) | below[n];
    } else if (next < 0 || ends_token(tables, n)) {
      found |= kNoCharacter;
    } else {
      found |= classes_below(tables, below, n, next);
    }
  }
  return found;
}

// Tokens in the order of the tree, as runs of those that are allowed.
class Runs {
 public:
  void add(int32_t first, int32_t last) {
    count_ += last - first;
    if (!runs_.empty() && runs_.back().second == first) {
      runs_.back().second = last;
    } else {
      runs_.emplace_back(first, last);
    }
  }

  // Sets the bits of the runs or, where those are most of all, clears the others'.
  void write(const int32_t* token_ids, int32_t num_tokens, const int32_t* every, int32_t* mask,
             int64_t num_words) {
    const bool clears = count_ > num_tokens / 2;
    if (!clears) {
      std::fill_n(mask, num_words, 0);
      for (const auto& [first, last] : runs_) flip(token_ids, first, last, mask);
      return;
    }
    std::copy_n(every, num_words, mask);
    int32_t before = 0;
    for (const auto& [first, last] : runs_) {
      flip(token_ids, before, first, mask);
      before = last;
    }
    flip(token_ids, before, num_tokens, mask);
  }

 private:
  static void flip(const int32_t* token_ids, int32_t first, int32_t last, int32_t* mask) {
    for (int32_t i = first; i < last; ++i) {
      const auto token = static_cast<uint32_t>(token_ids[i]);
      mask[token / 32] ^= static_cast<int32_t>(uint32_t{1} << token % 32);
    }
  }

  std::vector<std::pair<int32_t, int32_t>> runs_;
  int32_t count_ = 0;
};

}  // namespace

void find_shortcuts(const AutomatonTables& tables, ClassSet* below, ClassSet* stay) {
  for (int64_t n = tables.num_nodes - 1; n >= 0; --n) {
    below[n] = classes_below(tables, below, n, kRoot);
  }
  for (int32_t state = 0; state < tables.num_states; ++state) {
    ClassSet leave = kNoCharacter;
    for (int64_t c = 0; c < tables.num_classes; ++c) {
      const bool stays = tables.table[state * tables.num_classes + c] == state;
      if (!stays || tables.marks[state] >> 1) leave |= bit_of(c);
    }
    stay[state] = ~leave;
  }
}

int64_t token_mask(const AutomatonTables& tables, const Shortcuts& shortcuts, const Place& place,
                   int64_t limit, int32_t* mask, int64_t num_words) {
  int32_t highest = 0;
  Path path(place);
  Runs runs;
  for (int64_t n = 1; n < tables.num_nodes;) {
    const TokenNode& node = tables.nodes[n];
    const int32_t depth = node.mark >> 8;
    const Place here = after(tables, path.before(depth), node.mark & 255);
    if (here.state == kDead) {
      n = node.end;
      continue;
    }
    const bool stays = here.node == kRoot && !(shortcuts.below[n] & ~shortcuts.stay[here.state]);
    path.set(depth, here);
    n = stays ? node.end : n + 1;
    const int32_t last_token = tables.nodes[n].first_token;
    if (last_token == node.first_token) continue;
    const int32_t cost = cost_at(tables, here);
    if (cost > limit) continue;
    highest = std::max(highest, cost);
    runs.add(node.first_token, last_token);
  }
  runs.write(tables.token_ids, tables.nodes[tables.num_nodes].first_token, shortcuts.every, mask,
             num_words);
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
        if (ends_token(tables, n++) && here.node == kRoot) {
          best = std::min(best, cost_of(tables, here.layer, here.state) + 1);
        }
      }
    }
  }
}

}  // namespace rnr::cpu
