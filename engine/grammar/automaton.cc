#include "engine/grammar/automaton.h"

#include <algorithm>
#include <unordered_set>

#include "kernels/base/error.h"

namespace lutra {
namespace {

constexpr int32_t kUnknown = -2;
constexpr size_t kMaxStacks = 1 << 16;      // of one state: an enumeration has one a value
constexpr size_t kMaxExpansions = 1 << 19;  // while building one
constexpr size_t kMaxStates = 1 << 17;      // 1 KiB each with all steps known
constexpr size_t kMaxNodes = 1 << 21;

}  // namespace

GrammarAutomaton::GrammarAutomaton(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)) {
  for (const uint32_t pos : grammar_->alternatives(grammar_->root())) todo_.emplace_back(pos, -1);
  Expand();
  start_ = Intern(building_end_);
}

int32_t GrammarAutomaton::Node(uint32_t pos, int32_t parent) {
  const uint64_t key = static_cast<uint64_t>(pos) << 32 | static_cast<uint32_t>(parent);
  const auto [it, added] = node_index_.try_emplace(key, static_cast<int32_t>(nodes_.size()));
  if (added) {
    if (nodes_.size() >= kMaxNodes)
      Fail(ErrorCode::kResourceExhausted, "the grammar needs more than %zu stack entries",
           kMaxNodes);
    nodes_.push_back({pos, parent});
  }
  return it->second;
}

// Everything that todo_ can come to before the next byte, into building_ and building_end_.
void GrammarAutomaton::Expand() {
  building_.clear();
  building_end_ = false;
  std::unordered_set<int32_t> seen;
  size_t n = 0;
  while (!todo_.empty()) {
    auto [pos, parent] = todo_.back();
    todo_.pop_back();
    const Grammar::Element& e = grammar_->elements()[pos];
    if (e.kind == Grammar::Kind::kEnd) {
      if (parent < 0) {
        building_end_ = true;
      } else {
        const StackNode up = nodes_[static_cast<size_t>(parent)];
        todo_.emplace_back(up.pos, up.parent);
      }
    } else {
      const int32_t node = Node(pos, parent);
      if (!seen.insert(node).second) continue;
      if (e.kind == Grammar::Kind::kSet) {
        building_.push_back(node);
      } else {
        // A call with nothing behind it needs no entry of its own: repetitions do not grow the stack.
        const bool tail = grammar_->elements()[pos + 1].kind == Grammar::Kind::kEnd;
        const int32_t behind = tail ? parent : Node(pos + 1, parent);
        for (const uint32_t alternative : grammar_->alternatives(e.value))
          todo_.emplace_back(alternative, behind);
      }
    }
    if (++n > kMaxExpansions || building_.size() > kMaxStacks) {
      todo_.clear();
      Fail(ErrorCode::kResourceExhausted,
           "the grammar is too ambiguous: more than %zu readings at one place", kMaxStacks);
    }
  }
  std::sort(building_.begin(), building_.end());
}

GrammarAutomaton::State GrammarAutomaton::Intern(bool can_end) {
  uint64_t hash = can_end ? 0x9E3779B97F4A7C15u : 0;
  for (const int32_t node : building_) {
    hash ^= static_cast<uint32_t>(node) + 0x9E3779B97F4A7C15u + (hash << 6) + (hash >> 2);
  }
  const auto [begin, end] = state_index_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    const StateData& s = states_[static_cast<size_t>(it->second)];
    if (s.can_end == can_end && s.stacks == building_) return it->second;
  }
  if (states_.size() >= kMaxStates)
    Fail(ErrorCode::kResourceExhausted, "the grammar needs more than %zu states", kMaxStates);
  StateData s;
  s.stacks = building_;
  s.can_end = can_end;
  states_.push_back(std::move(s));
  const State id = static_cast<State>(states_.size() - 1);
  state_index_.emplace(hash, id);
  return id;
}

GrammarAutomaton::State GrammarAutomaton::Step(State state, uint8_t byte) {
  StateData* s = &states_[static_cast<size_t>(state)];
  if (s->next == nullptr) {
    s->next = std::make_unique<int32_t[]>(256);
    std::fill_n(s->next.get(), 256, kUnknown);
  }
  if (s->next[byte] != kUnknown) return s->next[byte];
  todo_.clear();
  for (const int32_t node : s->stacks) {
    const StackNode& n = nodes_[static_cast<size_t>(node)];
    if (grammar_->Contains(grammar_->elements()[n.pos].value, byte))
      todo_.emplace_back(n.pos + 1, n.parent);
  }
  State result = kDead;
  if (!todo_.empty()) {
    Expand();
    result = Intern(building_end_);  // may move states_
  }
  states_[static_cast<size_t>(state)].next[byte] = result;
  return result;
}

int GrammarAutomaton::OnlyByte(State state) {
  if (can_end(state)) return -1;
  ByteSet all{};
  for (const int32_t node : states_[static_cast<size_t>(state)].stacks) {
    const uint32_t set = grammar_->elements()[nodes_[static_cast<size_t>(node)].pos].value;
    for (unsigned b = 0; b < 256; ++b) {
      if (grammar_->Contains(set, static_cast<uint8_t>(b))) all[b / 64] |= uint64_t{1} << (b % 64);
    }
  }
  int only = -1;
  for (unsigned w = 0; w < 4; ++w) {
    if (all[w] == 0) continue;
    if (only >= 0 || (all[w] & (all[w] - 1)) != 0) return -1;
    only = static_cast<int>(64 * w) + __builtin_ctzll(all[w]);
  }
  return only;
}

}  // namespace lutra
