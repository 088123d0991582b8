// Walks of an automaton over the bytes of all tokens of a vocabulary.
//
// What the tables hold stands in rnr_kernels/automata/walk.py.
#pragma once

#include <cstdint>

namespace rnr::cpu {

constexpr int32_t kDead = 0, kRoot = 0;
constexpr int32_t kImpossible = 1 << 30;
constexpr int kMostSteps = 256;  // walk.py's MOST_STEPS

// A set of classes of characters, of which those that are equal modulo 63 share a bit. The last bit
// stands for bytes that are no whole character.
using ClassSet = uint64_t;
constexpr int32_t kClassBits = 63;

// A node of the tree of tokens, in the order of a walk.
struct TokenNode {
  int32_t mark;  // depth * 256 + byte
  int32_t end;   // the first node that is no descendant
  int32_t first_token;
};

struct AutomatonTables {
  const TokenNode* nodes;  // the last one ends the others' tokens
  int64_t num_nodes;       // without it
  const int32_t* token_ids;
  const int32_t* next;  // [num_byte_nodes, 256]
  const int32_t* rest;
  const int32_t* offsets;
  const int32_t* classes;
  int32_t num_byte_nodes;
  const int32_t* table;  // [num_states, num_classes]
  const int32_t* marks;
  int64_t num_states, num_classes;
  int32_t* costs;  // [num_layers, num_states]
  int64_t num_layers;
};

struct Place {
  int32_t state, node, layer;
};

// Where a walk may take all tokens below a node at once, as none of them leaves the node's state.
struct Shortcuts {
  const ClassSet* below;  // [num_nodes] what the bytes below a node are, if it ends a character
  const ClassSet* stay;   // [num_states] the classes that change neither a state nor a count
  const int32_t* every;   // [num_words] the mask of all tokens in the tree
};

void find_shortcuts(const AutomatonTables& tables, ClassSet* below, ClassSet* stay);

// Writes the `num_words` words of a mask; returns the highest cost after a token that is allowed.
int64_t token_mask(const AutomatonTables& tables, const Shortcuts& shortcuts, const Place& place,
                   int64_t limit, int32_t* mask, int64_t num_words);

void lower_costs(const AutomatonTables& tables, const int64_t* order, int64_t count,
                 const int32_t* limits);

}  // namespace rnr::cpu
