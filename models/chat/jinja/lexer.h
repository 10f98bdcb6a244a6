// From template source to tokens, with Jinja's white space control applied to the text between
// tags.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lutra::jinja {

enum class TokenType : uint8_t {
  kText,           // text between tags
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kName,
  kString,    // text: the value, escapes resolved
  kInteger,   // integer
  kFloat,     // number
  kOperator,  // text: one of + - * ** / // % ~ ( ) [ ] { } == != < <= > >= = . : , |
  kEnd,
};

struct Token {
  TokenType type;
  uint32_t line;
  std::string text;
  int64_t integer = 0;
  double number = 0;
};

// Throws Error naming `name` and the line.
std::vector<Token> Tokenize(std::string_view source, std::string_view name);

}  // namespace lutra::jinja
