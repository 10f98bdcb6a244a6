// Filters over texts, numbers and single values.
#include <algorithm>
#include <cmath>

#include "models/chat/jinja/builtins.h"
#include "models/chat/jinja/print.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

// The input as text, keeping `safe` marks.
Value TextOf(const BuiltinCall& c) {
  return c.self.is_string() ? c.self : c.rt.String(ToStr(c.rt, c.self));
}

template <std::string (*map)(std::string_view)>
Value MapText(const BuiltinCall& c) {
  const Value text = TextOf(c);
  c.rt.ChargeBytes(16 * text.str().size());
  return c.rt.String(map(text.str()), text.text().markup);
}

bool IsWordChar(uint32_t c) { return IsAlpha(c) || IsDigit(c) || c == '_'; }

// Upper case after white space and - ( { [ <, lower case elsewhere.
std::string TitleWords(std::string_view text) {
  std::string out;
  bool start = true;
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view character = text.substr(pos, CharLength(text, pos));
    const uint32_t c = CodePoint(character);
    pos += character.size();
    const bool boundary = IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    out += start && !boundary ? Upper(character) : Lower(character);
    start = boundary;
  }
  return out;
}

Value Abs(const BuiltinCall& c) {
  if (c.self.is_float()) return Value::Float(std::fabs(c.self.number()));
  if (c.self.is_integral() && c.self.integer() >= 0) return Value::Int(c.self.integer());
  return c.rt.Negate(c.self);
}

Value Attr(const BuiltinCall& c) {
  c.rt.RequireDefined(c.self);
  Value out;
  if (c.rt.PlainAttribute(c.self, c.string(0), &out)) return out;
  return Value::Undefined(std::string(TypeName(c.self)) + " has no attribute '" + c.string(0) +
                          "'");
}

Value Center(const BuiltinCall& c) {
  const Value text = TextOf(c);
  const int64_t width = c.integer(0, 80);
  const auto n = static_cast<int64_t>(text.text().n_chars);
  if (width <= n) return text;
  c.rt.CheckStringSize(static_cast<size_t>(width));
  const auto pad = static_cast<size_t>(width - n);
  const size_t left = pad / 2 + (pad & static_cast<size_t>(width) & 1);
  return c.rt.String(std::string(left, ' ') + text.str() + std::string(pad - left, ' '),
                     text.text().markup);
}

Value Default(const BuiltinCall& c) {
  const bool replace = c.self.is_undefined() || (c.flag(1, false) && !Truthy(c.self));
  return replace ? c.value(0, Value::String("")) : c.self;
}

Value Escape(const BuiltinCall& c) {
  const Value text = TextOf(c);
  if (text.text().markup) return text;
  c.rt.ChargeBytes(4 * text.str().size());
  return c.rt.String(EscapeHtml(text.str()), true);
}

Value ForceEscape(const BuiltinCall& c) {
  return c.rt.String(EscapeHtml(ToStr(c.rt, c.self)), true);
}

Value Float(const BuiltinCall& c) {
  c.rt.RequireDefined(c.self);
  if (c.self.is_number()) return Value::Float(c.self.number());
  double f = 0;
  if (c.self.is_string() && ParseFloat(c.self.str(), &f)) return Value::Float(f);
  return c.value(0, Value::Float(0));
}

// A float towards zero as integer; false if it has none in 64 bits.
bool Truncate(double f, int64_t* out) {
  if (!(std::fabs(f) < 9.2e18)) return false;
  *out = static_cast<int64_t>(f);
  return true;
}

Value Int(const BuiltinCall& c) {
  c.rt.RequireDefined(c.self);
  int64_t i = 0;
  double f = 0;
  if (c.self.is_integral()) return Value::Int(c.self.integer());
  if (c.self.is_float() && Truncate(c.self.number(), &i)) return Value::Int(i);
  if (c.self.is_string()) {
    const int64_t base = c.integer(1, 10);
    if (base >= 2 && base <= 36 && ParseInteger(c.self.str(), static_cast<int>(base), &i)) {
      return Value::Int(i);
    }
    if (ParseFloat(c.self.str(), &f) && Truncate(f, &i)) return Value::Int(i);
  }
  return c.value(0, Value::Int(0));
}

Value FormatFilter(const BuiltinCall& c) {
  if (!c.raw.positional.empty() && !c.raw.keyword.empty()) {
    c.Fail("takes arguments with names or without, not both");
  }
  if (c.raw.keyword.empty()) return FormatPercent(c.rt, TextOf(c), c.rt.Tuple(c.raw.positional));
  Dict* dict = c.rt.New<Dict>();
  for (const auto& [key, value] : c.raw.keyword) dict->Set(c.rt, c.rt.String(key), value);
  return FormatPercent(c.rt, TextOf(c), Value::Of(dict));
}

Value Indent(const BuiltinCall& c) {
  const Value text = TextOf(c);
  std::string indention;
  if (c.has(0) && c.arg[0]->is_string()) {
    indention = c.arg[0]->str();
  } else {
    const int64_t width = std::max<int64_t>(c.integer(0, 4), 0);
    c.rt.CheckStringSize(static_cast<size_t>(width));
    indention.assign(static_cast<size_t>(width), ' ');
  }
  const bool first = c.flag(1, false);
  const bool blank = c.flag(2, false);
  const std::string source = text.str() + "\n";
  std::string out = first ? indention : "";
  bool first_line = true;
  for (const std::string_view line : SplitLines(source, false)) {
    if (!first_line) {
      out += '\n';
      if (blank || !line.empty()) {
        c.rt.ChargeBytes(indention.size());
        out += indention;
      }
    }
    first_line = false;
    c.rt.Charge(1);
    out += line;
    c.rt.CheckStringSize(out.size());
  }
  return c.rt.String(std::move(out), text.text().markup);
}

Value Replace(const BuiltinCall& c) {
  const int64_t count = c.has(2) && !c.arg[2]->is_none() ? c.integer(2) : -1;
  const Value text = c.rt.String(ToStr(c.rt, c.self));
  return ReplaceText(c.rt, text, ToStr(c.rt, *c.arg[0]), ToStr(c.rt, *c.arg[1]), count);
}

// Rounds half to even at `precision` decimals, on the exact decimal value as Python does.
double RoundDecimal(double f, int64_t precision) {
  if (!std::isfinite(f) || precision > 300) return f;
  if (precision >= 0) {
    const std::string text = lutra::Format("%.*f", static_cast<int>(precision), f);
    double out = f;
    ParseFloat(text, &out);
    return out;
  }
  if (precision < -308) return std::copysign(0.0, f);
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(f / scale) * scale;
}

Value Round(const BuiltinCall& c) {
  if (!c.self.is_number()) {
    c.rt.RequireDefined(c.self);
    c.Fail(std::string("needs a number, got ") + TypeName(c.self));
  }
  const int64_t precision = c.integer(0, 0);
  const std::string method = c.has(1) ? c.string(1) : "common";
  if (method == "common") {
    if (c.self.is_integral() && precision >= 0) return Value::Int(c.self.integer());
    const double rounded = RoundDecimal(c.self.number(), precision);
    int64_t i = 0;
    if (c.self.is_integral() && Truncate(rounded, &i)) return Value::Int(i);
    return Value::Float(rounded);
  }
  if (method != "ceil" && method != "floor") c.Fail("method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = c.self.number() * scale;
  return Value::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value Safe(const BuiltinCall& c) { return c.rt.String(ToStr(c.rt, c.self), true); }

Value String(const BuiltinCall& c) { return TextOf(c); }

std::string JsonSeparator(const BuiltinCall& c, const Value& v) {
  if (!v.is_string()) c.Fail("separators must be two strings");
  return v.str();
}

Value ToJsonFilter(const BuiltinCall& c) {
  JsonStyle style;
  style.ascii = c.flag(0, false);
  style.sort_keys = c.flag(3, false);
  if (c.has(1) && !c.arg[1]->is_none()) {
    if (c.arg[1]->is_string()) {
      style.indent = c.string(1);
    } else {
      const int64_t width = std::max<int64_t>(c.integer(1), 0);
      c.rt.CheckStringSize(static_cast<size_t>(width));
      style.indent = std::string(static_cast<size_t>(width), ' ');
    }
    style.item_separator = ",";
  }
  if (c.has(2) && !c.arg[2]->is_none()) {
    const std::vector<Value> pair = c.rt.Iterate(*c.arg[2]);
    if (pair.size() != 2) c.Fail("separators must be two strings");
    style.item_separator = JsonSeparator(c, pair[0]);
    style.key_separator = JsonSeparator(c, pair[1]);
  }
  return c.rt.String(ToJson(c.rt, c.self, style));
}

Value Trim(const BuiltinCall& c) {
  const Value text = TextOf(c);
  return c.rt.String(StripChars(c.rt, text.str(), c.arg[0], true, true), text.text().markup);
}

// Cuts to `length` characters with the end mark included, unless at most `leeway` would go.
Value TruncateFilter(const BuiltinCall& c) {
  const Value text = TextOf(c);
  const int64_t length = c.integer(0, 255);
  const bool kill_words = c.flag(1, false);
  const Value end = c.value(2, Value::String("..."));
  if (!end.is_string()) c.Fail("'end' must be a string");
  const int64_t leeway = c.has(3) && !c.arg[3]->is_none() ? c.integer(3) : 5;
  const auto n_end = static_cast<int64_t>(end.text().n_chars);
  if (length < n_end) c.Fail("length is less than that of the end mark");
  if (leeway < 0) c.Fail("leeway is negative");
  if (static_cast<int64_t>(text.text().n_chars) - length <= leeway) return text;
  const Value cut = c.rt.Slice(text, Value::None(), Value::Int(length - n_end), Value::None());
  std::string out = cut.str();
  if (!kill_words) {
    const size_t space = out.rfind(' ');
    if (space != std::string::npos) out.resize(space);
  }
  return c.rt.String(out + end.str());
}

// Percent-encoding of UTF-8; "/" stays.
std::string UrlQuote(const std::string& text, bool query) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto b = static_cast<uint8_t>(c);
    const bool plain = b < 0x80 && (IsAlpha(b) || IsDigit(b) || c == '_' || c == '.' || c == '-' ||
                                    c == '~' || (c == '/' && !query));
    if (plain) {
      out += c;
    } else if (query && c == ' ') {
      out += '+';
    } else {
      out += '%';
      out += kHex[b >> 4];
      out += kHex[b & 15];
    }
  }
  return out;
}

Value UrlEncode(const BuiltinCall& c) {
  const Dict* dict = c.self.dict();
  if (dict == nullptr && (c.self.sequence() == nullptr)) {
    return c.rt.String(UrlQuote(ToStr(c.rt, c.self), false));
  }
  std::string out;
  const auto add = [&](const Value& key, const Value& value) {
    if (!out.empty()) out += '&';
    out += UrlQuote(ToStr(c.rt, key), true) + "=" + UrlQuote(ToStr(c.rt, value), true);
    c.rt.CheckStringSize(out.size());
  };
  if (dict != nullptr) {
    for (const auto& [key, value] : dict->items) add(key, value);
  } else {
    for (const Value& item : c.rt.Iterate(c.self)) {
      const std::vector<Value> pair = c.rt.Iterate(item);
      if (pair.size() != 2) c.Fail("needs pairs of key and value");
      add(pair[0], pair[1]);
    }
  }
  return c.rt.String(std::move(out));
}

Value WordCount(const BuiltinCall& c) {
  const Value text = TextOf(c);
  c.rt.ChargeBytes(16 * text.str().size());
  const std::string_view s = text.str();
  int64_t words = 0;
  bool inside = false;
  for (size_t pos = 0; pos < s.size();) {
    const size_t n = CharLength(s, pos);
    const bool word = IsWordChar(CodePoint(s.substr(pos, n)));
    words += word && !inside;
    inside = word;
    pos += n;
  }
  return Value::Int(words);
}

const Builtin kTable[] = {
    {"abs", Abs},
    {"attr", Attr, 1, {"name"}},
    {"capitalize", MapText<Capitalize>},
    {"center", Center, 0, {"width"}},
    {"d", Default, 0, {"default_value", "boolean"}},
    {"default", Default, 0, {"default_value", "boolean"}},
    {"e", Escape},
    {"escape", Escape},
    {"float", Float, 0, {"default"}},
    {"forceescape", ForceEscape},
    {"format", FormatFilter, 0, {}, true},
    {"indent", Indent, 0, {"width", "first", "blank"}},
    {"int", Int, 0, {"default", "base"}},
    {"lower", MapText<Lower>},
    {"replace", Replace, 2, {"old", "new", "count"}},
    {"round", Round, 0, {"precision", "method"}},
    {"safe", Safe},
    {"string", String},
    {"title", MapText<TitleWords>},
    {"tojson", ToJsonFilter, 0, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"trim", Trim, 0, {"chars"}},
    {"truncate", TruncateFilter, 0, {"length", "killwords", "end", "leeway"}},
    {"upper", MapText<Upper>},
    {"urlencode", UrlEncode},
    {"wordcount", WordCount},
};

}  // namespace

std::span<const Builtin> FilterTable() { return kTable; }

}  // namespace lutra::jinja
