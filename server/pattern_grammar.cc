// Grammars of the texts that match regular expressions; see pattern.h.
#include <algorithm>
#include <map>
#include <set>

#include "kernels/base/error.h"
#include "server/limits.h"
#include "server/pattern.h"

namespace lutra::server {
namespace {

using Kind = PatternNode::Kind;
using Ranges = std::vector<CharRange>;

// As a JSON string spells them: what must be escaped is, by its short form; other control
// characters and halves of surrogate pairs are left out. "" if nothing is left.
std::string Spelled(const Ranges& ranges) {
  static constexpr std::pair<uint32_t, const char*> kEscapes[] = {
      {'"', "\"\\\\\\\"\""}, {'\\', "\"\\\\\\\\\""}, {'\n', "\"\\\\n\""}, {'\t', "\"\\\\t\""},
      {'\r', "\"\\\\r\""},   {'\b', "\"\\\\b\""},    {'\f', "\"\\\\f\""}};
  static constexpr CharRange kPlain[] = {
      {0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x7E}, {0x80, 0xD7FF}, {0xE000, kMaxCodePoint}};
  std::string set, out;
  const auto code = [](uint32_t c) { return Format("\\U%08X", c); };
  for (const auto& [from, to] : ranges) {
    for (const auto& [c, text] : kEscapes) {
      if (c >= from && c <= to) out += (out.empty() ? "" : " | ") + std::string(text);
    }
    for (const auto& [low, high] : kPlain) {
      if (from > high || to < low) continue;
      set += code(std::max(from, low)) + "-" + code(std::min(to, high));
    }
  }
  if (!set.empty()) out = "[" + set + "]" + (out.empty() ? "" : " | " + out);
  return out;
}

// What can come next as classes of characters that no pattern tells apart.
class Alphabet {
 public:
  // Number of a set of characters; all sets must be known before Divide().
  uint32_t Set(const Ranges& ranges) {
    const auto [it, added] = index_.try_emplace(ranges, static_cast<uint32_t>(sets_.size()));
    if (added) sets_.push_back(ranges);
    return it->second;
  }
  void Divide() {
    std::set<uint32_t> cuts = {0};
    for (const Ranges& set : sets_) {
      for (const auto& [from, to] : set) cuts.insert({from, to + 1});
    }
    std::map<std::vector<bool>, Ranges> classes;
    for (auto it = cuts.begin(); it != cuts.end() && *it <= kMaxCodePoint; ++it) {
      const auto next = std::next(it);
      std::vector<bool> in(sets_.size());
      for (size_t s = 0; s < sets_.size(); ++s) {
        in[s] = std::any_of(sets_[s].begin(), sets_[s].end(),
                            [&](const CharRange& r) { return r.first <= *it && *it <= r.second; });
      }
      if (std::find(in.begin(), in.end(), true) == in.end()) continue;
      classes[in].emplace_back(*it, next == cuts.end() ? kMaxCodePoint : *next - 1);
    }
    for (auto& [in, ranges] : classes) {
      if (Spelled(ranges).empty()) continue;
      classes_.push_back(std::move(ranges));
      members_.push_back(in);
    }
  }
  size_t size() const { return classes_.size(); }
  const Ranges& ranges(size_t c) const { return classes_[c]; }
  bool Contains(uint32_t set, size_t c) const { return members_[c][set]; }

 private:
  std::map<Ranges, uint32_t> index_;
  std::vector<Ranges> sets_, classes_;
  std::vector<std::vector<bool>> members_;
};

// One pattern: places in it (Thompson's construction), and sets of places as the states of a
// deterministic automaton, made when they are come to.
class Automaton {
 public:
  Automaton(const PatternNode& pattern, Alphabet* alphabet) : alphabet_(*alphabet) {
    end_ = Add({});
    begin_ = Compile(pattern, end_, alphabet);
  }

  int Start() { return Closure({begin_}); }
  bool CanEnd(int state) const {
    return std::binary_search(states_[static_cast<size_t>(state)].begin(),
                              states_[static_cast<size_t>(state)].end(), end_);
  }
  // -1 if no text goes on so.
  int Step(int state, size_t c) {
    const auto [it, added] = steps_.try_emplace({state, c}, -1);
    if (!added) return it->second;
    std::vector<uint32_t> next;
    for (const uint32_t p : states_[static_cast<size_t>(state)]) {
      if (places_[p].takes && alphabet_.Contains(places_[p].set, c))
        next.push_back(places_[p].next[0]);
    }
    const int target = next.empty() ? -1 : Closure(std::move(next));
    steps_[{state, c}] = target;
    return target;
  }

 private:
  struct Place {
    bool takes = false;  // a character of `set`; otherwise nothing
    uint32_t set = 0;
    std::vector<uint32_t> next = {};
  };

  uint32_t Add(Place place) {
    if (places_.size() >= kMaxPatternPlaces) {
      Fail(ErrorCode::kResourceExhausted,
           "the pattern is too large: more than %zu places with its repetitions written out",
           kMaxPatternPlaces);
    }
    places_.push_back(std::move(place));
    return static_cast<uint32_t>(places_.size() - 1);
  }

  // Where texts of `node` begin behind which the text goes on at `next`.
  uint32_t Compile(const PatternNode& node, uint32_t next, Alphabet* alphabet) {
    switch (node.kind) {
      case Kind::kChars:
        return Add({true, alphabet->Set(node.chars), {next}});
      case Kind::kSequence:
        for (size_t i = node.parts.size(); i-- > 0;) next = Compile(node.parts[i], next, alphabet);
        return next;
      case Kind::kChoice: {
        Place choice;
        for (const PatternNode& part : node.parts)
          choice.next.push_back(Compile(part, next, alphabet));
        return Add(std::move(choice));
      }
      case Kind::kRepeat:
        break;
    }
    const PatternNode& part = node.parts[0];
    const uint32_t behind = next;
    if (node.max < 0) {
      next = Add({});
      const uint32_t again = Compile(part, next, alphabet);
      places_[next].next = {again, behind};
    }
    for (int i = node.min; i < node.max; ++i) {
      const uint32_t one = Compile(part, next, alphabet);
      next = Add({false, 0, {one, behind}});
    }
    for (int i = 0; i < node.min; ++i) next = Compile(part, next, alphabet);
    return next;
  }

  // The state of all places that are reached without a character.
  int Closure(std::vector<uint32_t> todo) {
    std::set<uint32_t> seen(todo.begin(), todo.end());
    while (!todo.empty()) {
      const uint32_t p = todo.back();
      todo.pop_back();
      if (++work_ > kMaxPatternWork)
        Fail(ErrorCode::kResourceExhausted, "the pattern is too ambiguous");
      if (places_[p].takes) continue;
      for (const uint32_t q : places_[p].next) {
        if (seen.insert(q).second) todo.push_back(q);
      }
    }
    std::vector<uint32_t> state;
    for (const uint32_t p : seen) {
      if (places_[p].takes || p == end_) state.push_back(p);
    }
    const auto [it, added] = index_.try_emplace(std::move(state), static_cast<int>(states_.size()));
    if (added) states_.push_back(it->first);
    return it->second;
  }

  const Alphabet& alphabet_;
  std::vector<Place> places_;
  uint32_t begin_ = 0, end_ = 0;
  size_t work_ = 0;
  std::vector<std::vector<uint32_t>> states_;
  std::map<std::vector<uint32_t>, int> index_;
  std::map<std::pair<int, size_t>, int> steps_;
};

}  // namespace

std::string PatternRule(const PatternNode& node) {
  std::string out;
  switch (node.kind) {
    case Kind::kChars:
      out = Spelled(node.chars);
      if (out.empty())
        Fail(ErrorCode::kUnsupported,
             "a class of the pattern holds nothing that a JSON string can");
      return "(" + out + ")";
    case Kind::kSequence:
      for (const PatternNode& part : node.parts)
        out += (out.empty() ? "" : " ") + PatternRule(part);
      return out.empty() ? "\"\"" : out;
    case Kind::kChoice:
      for (const PatternNode& part : node.parts)
        out += (out.empty() ? "" : " | ") + PatternRule(part);
      return "(" + out + ")";
    case Kind::kRepeat:
      break;
  }
  const std::string times =
      node.max < 0 ? (node.min == 0 ? "*" : "{" + std::to_string(node.min) + ",}")
                   : "{" + std::to_string(node.min) + "," + std::to_string(node.max) + "}";
  return "(" + PatternRule(node.parts[0]) + ")" + times;
}

std::string PatternRules(std::span<const PatternNode> patterns, int min, int max,
                         const RuleSink& sink) {
  Alphabet alphabet;
  std::vector<Automaton> automata;
  for (const PatternNode& p : patterns) automata.emplace_back(p, &alphabet);
  alphabet.Divide();

  // States of all automata and the number of characters so far, which counts no further than it
  // matters.
  struct State {
    std::vector<int> of;
    int n = 0;
    bool can_end = false, live = false;
    std::map<uint32_t, std::vector<size_t>> next = {};  // classes by the state they lead to
    std::vector<uint32_t> from = {};
  };
  const int most = max >= 0 ? max : min;
  std::vector<State> states;
  std::map<std::pair<std::vector<int>, int>, uint32_t> index;
  const auto intern = [&](std::vector<int> of, int n) {
    n = std::min(n, most);
    const auto [it, added] = index.try_emplace({of, n}, static_cast<uint32_t>(states.size()));
    if (added) {
      if (states.size() >= kMaxPatternStates) {
        Fail(ErrorCode::kResourceExhausted,
             "the pattern with this length needs more than %zu states; lower maxLength or simplify "
             "the pattern",
             kMaxPatternStates);
      }
      State s{of, n};
      s.can_end = n >= min;
      for (size_t a = 0; a < automata.size(); ++a)
        s.can_end = s.can_end && automata[a].CanEnd(of[a]);
      states.push_back(std::move(s));
    }
    return it->second;
  };
  std::vector<int> start;
  for (Automaton& a : automata) start.push_back(a.Start());
  intern(start, 0);
  for (uint32_t i = 0; i < states.size(); ++i) {
    if (max >= 0 && states[i].n == max) continue;
    for (size_t c = 0; c < alphabet.size(); ++c) {
      std::vector<int> of;
      for (size_t a = 0; a < automata.size() && of.size() == a; ++a) {
        const int next = automata[a].Step(states[i].of[a], c);
        if (next >= 0) of.push_back(next);
      }
      if (of.size() < automata.size()) continue;
      const uint32_t to = intern(std::move(of), states[i].n + 1);  // may move states
      std::vector<size_t>& classes = states[i].next[to];
      if (classes.empty()) states[to].from.push_back(i);
      classes.push_back(c);
    }
  }

  // Only what can still end is written.
  std::vector<uint32_t> todo;
  for (uint32_t i = 0; i < states.size(); ++i) {
    if (states[i].can_end) todo.push_back(i);
  }
  for (const uint32_t i : todo) states[i].live = true;
  while (!todo.empty()) {
    const uint32_t i = todo.back();
    todo.pop_back();
    for (const uint32_t from : states[i].from) {
      if (states[from].live) continue;
      states[from].live = true;
      todo.push_back(from);
    }
  }
  if (!states[0].live) return "";
  std::vector<std::string> names(states.size());
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i].live) names[i] = sink.name();
  }
  std::map<std::vector<size_t>, std::string> class_rules;
  for (size_t i = 0; i < states.size(); ++i) {
    if (!states[i].live) continue;
    std::string body;
    for (const auto& [to, classes] : states[i].next) {
      if (!states[to].live) continue;
      std::string& name = class_rules[classes];
      if (name.empty()) {
        Ranges ranges;
        for (const size_t c : classes)
          ranges.insert(ranges.end(), alphabet.ranges(c).begin(), alphabet.ranges(c).end());
        std::sort(ranges.begin(), ranges.end());
        name = sink.name();
        sink.define(name, Spelled(ranges));
      }
      body += (body.empty() ? "" : " | ") + name + " " + names[to];
    }
    if (states[i].can_end) body += body.empty() ? "\"\"" : " | \"\"";
    sink.define(names[i], body);
  }
  return names[0];
}

}  // namespace lutra::server
