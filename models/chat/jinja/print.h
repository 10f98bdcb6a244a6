// Values as text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "models/chat/jinja/value.h"

namespace lutra::jinja {

// str(v): what {{ v }} prints. Appends to *out.
void Print(Runtime& rt, const Value& v, std::string* out);
std::string ToStr(Runtime& rt, const Value& v);
// repr(v), as in printed lists: strings in quotes.
void Repr(Runtime& rt, const Value& v, std::string* out, size_t depth = 0);
// repr of a float: the shortest digits that read back the same.
std::string FloatRepr(double f);

// json.dumps(v, ensure_ascii=..., indent=..., separators=..., sort_keys=...).
struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // text of one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
std::string ToJson(Runtime& rt, const Value& v, const JsonStyle& style);

// & < > ' " as HTML entities.
std::string EscapeHtml(std::string_view text);

}  // namespace lutra::jinja
