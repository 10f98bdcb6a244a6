// UTF-8 by Unicode 15.1, table 3-7 (well-formed byte sequences): surrogates, overlong forms and values above U+10FFFF
// are invalid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lutra {

// Bytes of the well-formed sequence that `text` starts with, 0 if it starts with none (or is empty).
size_t Utf8SequenceLength(std::string_view text);

// Length of the longest prefix of `text` that does not end inside a sequence which more bytes could complete. Invalid
// bytes count as complete: they will never become valid.
size_t Utf8CompletePrefix(std::string_view text);

// True if all of `text` is well formed.
bool Utf8IsValid(std::string_view text);

// Appends the encoding of code point `c` (any value up to 0x10FFFF, surrogates as they are).
void Utf8Append(uint32_t c, std::string* out);

// `text` with every invalid byte replaced by U+FFFD.
std::string Utf8Sanitize(std::string_view text);

}  // namespace lutra
