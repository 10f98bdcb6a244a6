// Regular expressions of JSON schemas (ECMA-262, the part without look-around) as trees, and texts
// of JSON strings that match them as grammars.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/code_points.h"

namespace lutra::server {

// Code points, both ends included.
using CharRange = CodePointRange;

struct PatternNode {
  enum class Kind { kChars, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kSequence;
  std::vector<CharRange> chars = {};    // of kChars
  std::vector<PatternNode> parts = {};  // of kRepeat: one
  int min = 0, max = -1;                // of kRepeat; -1: no limit
};

// The texts that match `pattern` in full or, at ends without an anchor, in part. Throws
// ApiError(400) naming `where` in the schema of the request's field `field`, and what is not
// supported (look-around, back-references, anchors inside groups).
PatternNode ParsePattern(const std::string& pattern, const std::string& where,
                         const std::string& field);

// GBNF of these texts as a JSON string spells them, without the quotes. Characters that a JSON
// string cannot hold are left out.
std::string PatternRule(const PatternNode& pattern);

// How rules are made: a new name, and what the name stands for.
struct RuleSink {
  std::function<std::string()> name;
  std::function<void(const std::string& name, const std::string& body)> define;
};

// The same for the texts that match all patterns and have `min` to `max` characters (max -1: no
// limit): the patterns' automata and a counter side by side. Returns the name of a rule, or "" if
// there is no such text. Throws Error(kResourceExhausted) beyond kMaxPatternStates places at which
// a text can be.
std::string PatternRules(std::span<const PatternNode> patterns, int min, int max,
                         const RuleSink& sink);

}  // namespace lutra::server
