// Grammars over bytes, read from GBNF, the notation of llama.cpp:
//   root ::= "yes" | "no" ws answer      rules are NAME ::= ALTERNATIVES; generation begins with `root`
//   ws   ::= [ \t\n]*                    literals, classes (ranges, ^ negates), . for any character, ( ), * + ? {m} {m,} {m,n}
//   # comments; escapes \n \t \r \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH
// Characters are Unicode; classes are compiled to the bytes of their UTF-8 forms.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lutra {

// Limits: a grammar comes from a client. A rule of a large schema has a few elements.
inline constexpr size_t kMaxGrammarElements = 1 << 18;
inline constexpr int kMaxGrammarDepth = 256;    // of groups
inline constexpr int kMaxGrammarRepeat = 4096;  // in {m,n}

using ByteSet = std::array<uint64_t, 4>;

// Immutable; shared by threads.
class Grammar {
 public:
  // Throws Error(kInvalidArgument) naming the byte offset or the rule: syntax, rules that are not defined, no `root`, left
  // recursion; kResourceExhausted for the limits above.
  explicit Grammar(std::string_view gbnf);

  enum class Kind : uint8_t { kSet, kCall, kEnd };
  struct Element {
    Kind kind;
    uint32_t value;  // of kSet: index of the set; of kCall: the rule
  };
  // All alternatives of all rules, each followed by kEnd.
  const std::vector<Element>& elements() const { return elements_; }
  // Where the alternatives of a rule begin.
  const std::vector<uint32_t>& alternatives(uint32_t rule) const { return rules_[rule]; }
  uint32_t root() const { return root_; }
  bool Contains(uint32_t set, uint8_t byte) const {
    return (sets_[set][byte / 64] >> (byte % 64) & 1) != 0;
  }

 private:
  friend class GbnfParser;
  std::vector<Element> elements_;
  std::vector<std::vector<uint32_t>> rules_;
  std::vector<ByteSet> sets_;
  uint32_t root_ = 0;
};

}  // namespace lutra
