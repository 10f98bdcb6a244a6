// What Python's str knows about characters, for UTF-8 text. A character that is not well-formed
// UTF-8 reads as its first byte + 0x110000 and is left as it is by every mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lutra::jinja {

// Length in bytes of the character at text[pos]: a byte and the continuation bytes after it.
size_t CharLength(std::string_view text, size_t pos);
// Start of the character that ends before `end` (end > 0).
size_t CharBefore(std::string_view text, size_t end);
size_t CountChars(std::string_view text);
// Code point of one character.
uint32_t CodePoint(std::string_view character);

bool IsSpace(uint32_t c);      // str.isspace
bool IsPrintable(uint32_t c);  // str.isprintable; unassigned code points count as printable
// Letters and digits. Exact for ASCII; beyond, everything but spaces, controls and general
// punctuation counts as a letter.
bool IsAlpha(uint32_t c);
bool IsDigit(uint32_t c);  // ASCII
uint32_t ToUpper(uint32_t c);
uint32_t ToLower(uint32_t c);
bool IsCased(uint32_t c);

std::string Upper(std::string_view text);
std::string Lower(std::string_view text);
// First character upper, the rest lower.
std::string Capitalize(std::string_view text);

std::string_view StripLeft(std::string_view text);
std::string_view StripRight(std::string_view text);

}  // namespace lutra::jinja
