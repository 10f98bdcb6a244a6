// Pieces of GBNF (engine/grammar/grammar.h), as text.
#pragma once

#include <cstdint>
#include <string>

namespace lutra::server {

// The decimal integers from low to high, -10^16 < low <= high < 10^16; a bound that is null is none.
std::string IntegerRange(const int64_t* low, const int64_t* high);

// A literal: quoted, control characters, quotes and backslashes escaped.
std::string GbnfLiteral(const std::string& text);

}  // namespace lutra::server
