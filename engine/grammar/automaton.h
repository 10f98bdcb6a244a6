// A grammar as an automaton over bytes, made while it runs: a state is the set of stacks the grammar can be in, stacks and states
// are shared and remembered, and so is every step. No recursion: neither deep grammars nor long texts can exhaust anything.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/grammar/grammar.h"

namespace lutra {

// One thread at a time.
class GrammarAutomaton {
 public:
  using State = int32_t;
  static constexpr State kDead = -1;

  explicit GrammarAutomaton(std::shared_ptr<const Grammar> grammar);

  State start() const { return start_; }
  // kDead if the byte cannot follow. Throws Error(kResourceExhausted) if the grammar is too ambiguous or the automaton too large.
  State Step(State state, uint8_t byte);
  bool can_end(State state) const { return states_[static_cast<size_t>(state)].can_end; }
  // True if nothing can follow.
  bool only_end(State state) const { return states_[static_cast<size_t>(state)].stacks.empty(); }
  // The only byte that can follow, or -1 if there are several or the text may end here.
  int OnlyByte(State state);
  size_t n_states() const { return states_.size(); }

 private:
  struct StackNode {
    uint32_t pos;    // the element that comes next
    int32_t parent;  // where the grammar goes on behind the rule's end; -1: the whole text's end
  };
  struct StateData {
    std::vector<int32_t> stacks;  // ascending; each stands before a set of bytes
    bool can_end = false;
    std::unique_ptr<int32_t[]> next;  // [256], kUnknown where not computed
  };
  int32_t Node(uint32_t pos, int32_t parent);
  State Intern(bool can_end);
  void Expand();

  std::shared_ptr<const Grammar> grammar_;
  std::vector<StackNode> nodes_;
  std::unordered_map<uint64_t, int32_t> node_index_;
  std::vector<StateData> states_;
  std::unordered_multimap<uint64_t, State> state_index_;
  State start_ = 0;
  // While a state is built.
  std::vector<std::pair<uint32_t, int32_t>> todo_;  // (element, parent) to expand
  std::vector<int32_t> building_;
  bool building_end_ = false;
};

}  // namespace lutra
