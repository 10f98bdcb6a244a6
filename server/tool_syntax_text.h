// Shared by the syntaxes of tool calls.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/tool_syntax.h"

namespace lutra::server {

// The index of the first character from `at` on that is no white space.
size_t SkipSpace(std::string_view s, size_t at);

// False if it is no JSON.
bool ParseText(std::string_view text, Json* out);

// What a reader says that waits for more text.
inline CallReader::Status More(bool last) {
  return last ? CallReader::Status::kNoCall : CallReader::Status::kMore;
}

// The end tag, perhaps behind white space, from `at` on; at the end of the text it may be missing (a stop text), in whole or in part.
CallReader::Status ReadEndTag(std::string_view text, size_t at, std::string_view tag, bool last,
                              size_t* used);

// <tool_call><function=NAME><parameter=NAME>value</parameter>...</function></tool_call>: Qwen3-Coder, Qwen3.5.
const ToolSyntax& XmlCalls();

}  // namespace lutra::server
