// Finds special tokens (control, unknown, user-defined) in a text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/tokenizer/vocab.h"

namespace lutra {

// Most places in one text where special texts may be found, nested ones included: 16 bytes of
// memory each. Published vocabularies have none that nest, so that only a text of more than 100 MB
// comes near.
inline constexpr size_t kMaxSpecialMatches = size_t{1} << 24;

// A part of a text: one special token, or (token == kNoToken) text that has none.
struct TextFragment {
  int32_t token;
  std::string_view text;
};

// An Aho-Corasick automaton over the special texts: finding them all is linear in the text and does
// not depend on how many there are. Immutable after construction.
class SpecialFinder {
 public:
  // Keeps a reference to `vocab`.
  explicit SpecialFinder(const Vocab& vocab);

  // Cuts `text` at special tokens, without empty fragments. Longer special texts are cut out first,
  // even if they start later; equal ones from left to right. Control and unknown tokens are found
  // only if `parse_special`, user-defined ones always. Throws Error(kResourceExhausted) at
  // kMaxSpecialMatches.
  std::vector<TextFragment> Split(std::string_view text, bool parse_special) const;

 private:
  struct Node {
    uint32_t fail = 0;  // the longest proper suffix that is a node
    uint32_t next_match =
        0;  // the nearest node on the way of `fail` that ends a special text; 0: none
    int32_t any = kNoToken;   // first token with this text
    int32_t user = kNoToken;  // first user-defined one
    uint32_t depth = 0;
  };
  struct Match {
    uint32_t length;
    int32_t token;
    size_t begin;
  };

  uint32_t Child(uint32_t node, uint8_t byte) const;
  std::vector<Match> FindAll(std::string_view text, bool parse_special) const;

  const Vocab& vocab_;
  std::vector<Node> nodes_;
  std::array<uint32_t, 256> root_{};                 // children of the root, 0: none
  std::unordered_map<uint64_t, uint32_t> children_;  // node << 8 | byte, for the others
};

}  // namespace lutra
