// Methods of str.
#include <algorithm>
#include <cstring>

#include "models/chat/jinja/builtins.h"
#include "models/chat/jinja/print.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

using std::string_view;
constexpr size_t kNone = string_view::npos;

Value Same(const BuiltinCall& c, std::string text) {
  return c.rt.String(std::move(text), c.self.text().markup);
}

// The price of a search, and of a look at every character.
void ChargeScan(const BuiltinCall& c) { c.rt.ChargeBytes(4 * c.self.str().size()); }
void ChargeChars(const BuiltinCall& c) { c.rt.ChargeBytes(16 * c.self.str().size()); }

template <std::string (*map)(string_view)>
Value MapText(const BuiltinCall& c) {
  ChargeChars(c);
  return Same(c, map(c.self.str()));
}

std::string SwapCase(string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const string_view character = text.substr(pos, CharLength(text, pos));
    const uint32_t c = CodePoint(character);
    out += ToLower(c) != c ? Lower(character) : Upper(character);
    pos += character.size();
  }
  return out;
}

// Upper case where a cased character follows one that is not cased.
std::string TitleCase(string_view text) {
  std::string out;
  bool cased = false;
  for (size_t pos = 0; pos < text.size();) {
    const string_view character = text.substr(pos, CharLength(text, pos));
    out += cased ? Lower(character) : Upper(character);
    cased = IsCased(CodePoint(character));
    pos += character.size();
  }
  return out;
}

template <bool left, bool right>
Value Strip(const BuiltinCall& c) {
  return Same(c, StripChars(c.rt, c.self.str(), c.arg[0], left, right));
}

// Byte offset of character i.
size_t OffsetOf(const Text& text, size_t i) {
  if (text.bytewise()) return i;
  size_t pos = 0;
  for (; i > 0; --i) pos += CharLength(text.bytes, pos);
  return pos;
}

// The part [start, end) of the text that arguments `first` and `first + 1` select; false if start
// is beyond the end.
bool Window(const BuiltinCall& c, size_t first, size_t* begin, size_t* end) {
  const Text& text = c.self.text();
  ChargeScan(c);
  const auto n = static_cast<int64_t>(text.n_chars);
  const auto at = [&](size_t i, int64_t fallback) {
    if (!c.has(i) || c.arg[i]->is_none()) return fallback;
    const int64_t v = c.integer(i);
    return v < 0 ? std::max<int64_t>(v + n, 0) : v;
  };
  const int64_t from = at(first, 0);
  const int64_t to = std::min(at(first + 1, n), n);
  if (from > n) return false;
  *begin = OffsetOf(text, static_cast<size_t>(from));
  *end = OffsetOf(text, static_cast<size_t>(std::max<int64_t>(to, 0)));
  return *begin <= *end;
}

template <bool at_end>
Value Affix(const BuiltinCall& c) {
  size_t begin = 0;
  size_t end = 0;
  if (!Window(c, 1, &begin, &end)) return Value::Bool(false);
  const string_view text = string_view(c.self.str()).substr(begin, end - begin);
  const auto matches = [&](const Value& v) {
    if (!v.is_string()) {
      c.rt.RequireDefined(v);
      c.Fail(std::string("needs a string or a tuple of strings, got ") + TypeName(v));
    }
    return at_end ? text.ends_with(v.str()) : text.starts_with(v.str());
  };
  const Sequence* s = c.arg[0]->sequence();
  if (s == nullptr || !s->is_tuple()) return Value::Bool(matches(*c.arg[0]));
  return Value::Bool(std::any_of(s->items.begin(), s->items.end(), matches));
}

template <bool from_right, bool must_exist>
Value Find(const BuiltinCall& c) {
  const std::string& needle = c.string(0);
  size_t begin = 0;
  size_t end = 0;
  size_t found = kNone;
  if (Window(c, 1, &begin, &end)) {
    const string_view text = string_view(c.self.str()).substr(begin, end - begin);
    found = from_right ? FindLastText(text, needle) : FindText(text, needle);
  }
  if (found != kNone) {
    return Value::Int(
        static_cast<int64_t>(CountChars(string_view(c.self.str()).substr(0, begin + found))));
  }
  if (must_exist) c.Fail("the text does not occur");
  return Value::Int(-1);
}

Value Count(const BuiltinCall& c) {
  const std::string& needle = c.string(0);
  size_t begin = 0;
  size_t end = 0;
  if (!Window(c, 1, &begin, &end)) return Value::Int(0);
  const string_view text = string_view(c.self.str()).substr(begin, end - begin);
  if (needle.empty()) return Value::Int(static_cast<int64_t>(CountChars(text)) + 1);
  int64_t n = 0;
  for (size_t at = 0; (at = FindText(text, needle, at)) != kNone; at += needle.size()) ++n;
  return Value::Int(n);
}

Value Replace(const BuiltinCall& c) {
  return ReplaceText(c.rt, c.self, c.string(0), c.string(1), c.integer(2, -1));
}

Value Texts(const BuiltinCall& c, const std::vector<string_view>& parts) {
  std::vector<Value> out;
  out.reserve(parts.size());
  c.rt.Charge(8 * parts.size());
  for (const string_view part : parts) out.push_back(Same(c, std::string(part)));
  return c.rt.List(std::move(out));
}

// White space as separator: runs of it, none at the ends.
std::vector<string_view> SplitSpace(string_view text, int64_t max) {
  std::vector<string_view> parts;
  text = StripLeft(text);
  while (!text.empty()) {
    if (max >= 0 && static_cast<int64_t>(parts.size()) == max) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const size_t n = CharLength(text, end);
      if (IsSpace(CodePoint(text.substr(end, n)))) break;
      end += n;
    }
    parts.push_back(text.substr(0, end));
    text = StripLeft(text.substr(end));
  }
  return parts;
}

std::vector<string_view> SplitSpaceRight(string_view text, int64_t max) {
  std::vector<string_view> parts;
  text = StripRight(text);
  while (!text.empty()) {
    if (max >= 0 && static_cast<int64_t>(parts.size()) == max) {
      parts.push_back(text);
      break;
    }
    size_t start = text.size();
    while (start > 0) {
      const size_t before = CharBefore(text, start);
      if (IsSpace(CodePoint(text.substr(before, start - before)))) break;
      start = before;
    }
    parts.push_back(text.substr(start));
    text = StripRight(text.substr(0, start));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

template <bool from_right>
Value Split(const BuiltinCall& c) {
  ChargeScan(c);
  string_view text = c.self.str();
  const int64_t max = c.integer(1, -1);
  if (!c.has(0) || c.arg[0]->is_none()) {
    ChargeChars(c);
    return Texts(c, from_right ? SplitSpaceRight(text, max) : SplitSpace(text, max));
  }
  const std::string& separator = c.string(0);
  if (separator.empty()) c.Fail("the separator is empty");
  std::vector<string_view> parts;
  if (!from_right) {
    size_t start = 0;
    while (max < 0 || static_cast<int64_t>(parts.size()) < max) {
      const size_t at = FindText(text, separator, start);
      if (at == kNone) break;
      parts.push_back(text.substr(start, at - start));
      start = at + separator.size();
    }
    parts.push_back(text.substr(start));
    return Texts(c, parts);
  }
  // From the right on the reversed text: one search stays linear.
  std::string reversed(text.rbegin(), text.rend());
  const std::string reversed_separator(separator.rbegin(), separator.rend());
  size_t start = 0;
  while (max < 0 || static_cast<int64_t>(parts.size()) < max) {
    const size_t at = FindText(reversed, reversed_separator, start);
    if (at == kNone) break;
    parts.push_back(text.substr(text.size() - at, at - start));
    start = at + separator.size();
  }
  parts.push_back(text.substr(0, text.size() - start));
  std::reverse(parts.begin(), parts.end());
  return Texts(c, parts);
}

Value SplitLinesMethod(const BuiltinCall& c) {
  ChargeChars(c);
  return Texts(c, SplitLines(c.self.str(), c.flag(0, false)));
}

template <bool from_right>
Value Partition(const BuiltinCall& c) {
  ChargeScan(c);
  const std::string& text = c.self.str();
  const std::string& separator = c.string(0);
  if (separator.empty()) c.Fail("the separator is empty");
  const size_t at = from_right ? FindLastText(text, separator) : FindText(text, separator);
  if (at == kNone) {
    const Value empty = Same(c, "");
    return from_right ? c.rt.Tuple({empty, empty, c.self}) : c.rt.Tuple({c.self, empty, empty});
  }
  return c.rt.Tuple({Same(c, text.substr(0, at)), Same(c, separator),
                     Same(c, text.substr(at + separator.size()))});
}

Value Join(const BuiltinCall& c) {
  std::string out;
  bool first = true;
  for (const Value& item : c.rt.Iterate(*c.arg[0])) {
    if (!item.is_string()) {
      c.rt.RequireDefined(item);
      c.Fail(std::string("an item is ") + TypeName(item) + ", not str");
    }
    c.rt.ChargeBytes(c.self.str().size() + item.str().size());
    if (!first) out += c.self.str();
    first = false;
    out += item.str();
    c.rt.CheckStringSize(out.size());
  }
  return Same(c, std::move(out));
}

Value RemovePrefix(const BuiltinCall& c) {
  const std::string& text = c.self.str();
  return Same(c, text.starts_with(c.string(0)) ? text.substr(c.string(0).size()) : text);
}

Value RemoveSuffix(const BuiltinCall& c) {
  const std::string& text = c.self.str();
  const bool ends = text.ends_with(c.string(0));
  return Same(c, ends ? text.substr(0, text.size() - c.string(0).size()) : text);
}

enum class Side { kLeft, kRight, kBoth };

template <Side side>
Value Justify(const BuiltinCall& c) {
  const auto n = static_cast<int64_t>(c.self.text().n_chars);
  const int64_t width = c.integer(0);
  const std::string fill = c.has(1) ? c.string(1) : " ";
  if (CountChars(fill) != 1) c.Fail("the fill must be one character");
  if (width <= n) return c.self;
  c.rt.CheckStringSize(static_cast<size_t>(width));
  const auto pad = static_cast<size_t>(width - n);
  size_t left = side == Side::kRight ? pad : 0;
  if (side == Side::kBoth) left = pad / 2 + (pad & static_cast<size_t>(width) & 1);
  std::string out;
  for (size_t i = 0; i < left; ++i) out += fill;
  out += c.self.str();
  for (size_t i = left; i < pad; ++i) out += fill;
  return Same(c, std::move(out));
}

Value ZeroFill(const BuiltinCall& c) {
  const std::string& text = c.self.str();
  const auto n = static_cast<int64_t>(c.self.text().n_chars);
  const int64_t width = c.integer(0);
  if (width <= n) return c.self;
  c.rt.CheckStringSize(static_cast<size_t>(width));
  const std::string zeros(static_cast<size_t>(width - n), '0');
  const bool sign = !text.empty() && (text[0] == '+' || text[0] == '-');
  return Same(c, text.substr(0, sign) + zeros + text.substr(sign));
}

Value ExpandTabs(const BuiltinCall& c) {
  const int64_t size = c.integer(0, 8);
  if (size > 1000) c.Fail("a tab size beyond 1000");
  std::string out;
  int64_t column = 0;
  const string_view text = c.self.str();
  for (size_t pos = 0; pos < text.size();) {
    const size_t n = CharLength(text, pos);
    if (text[pos] == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      c.rt.ChargeBytes(static_cast<size_t>(spaces));
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      column = text[pos] == '\n' || text[pos] == '\r' ? 0 : column + 1;
      out += text.substr(pos, n);
    }
    c.rt.CheckStringSize(out.size());
    pos += n;
  }
  return Same(c, std::move(out));
}

// True if the text is not empty and every character passes.
template <bool (*pass)(uint32_t)>
Value All(const BuiltinCall& c) {
  ChargeChars(c);
  const string_view text = c.self.str();
  for (size_t pos = 0; pos < text.size();) {
    const size_t n = CharLength(text, pos);
    if (!pass(CodePoint(text.substr(pos, n)))) return Value::Bool(false);
    pos += n;
  }
  return Value::Bool(!text.empty());
}

bool IsAlnum(uint32_t c) { return IsAlpha(c) || IsDigit(c); }
bool IsNameChar(uint32_t c) { return IsAlnum(c) || c == '_'; }
bool IsAsciiChar(uint32_t c) { return c < 0x80; }

Value IsAscii(const BuiltinCall& c) {
  return c.self.str().empty() ? Value::Bool(true) : All<IsAsciiChar>(c);
}

Value IsPrintableText(const BuiltinCall& c) {
  return c.self.str().empty() ? Value::Bool(true) : All<IsPrintable>(c);
}

template <uint32_t (*map)(uint32_t)>
Value IsInCase(const BuiltinCall& c) {
  ChargeChars(c);
  const string_view text = c.self.str();
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const size_t n = CharLength(text, pos);
    const uint32_t code = CodePoint(text.substr(pos, n));
    pos += n;
    if (!IsCased(code)) continue;
    if (map(code) != code) return Value::Bool(false);
    any = true;
  }
  return Value::Bool(any);
}

Value IsTitle(const BuiltinCall& c) {
  ChargeChars(c);
  const std::string& text = c.self.str();
  const auto any_cased = [&] {
    for (size_t pos = 0; pos < text.size(); pos += CharLength(text, pos)) {
      if (IsCased(CodePoint(string_view(text).substr(pos, CharLength(text, pos))))) return true;
    }
    return false;
  };
  return Value::Bool(TitleCase(text) == text && any_cased());
}

Value IsIdentifier(const BuiltinCall& c) {
  const std::string& text = c.self.str();
  if (text.empty() || IsDigit(static_cast<uint8_t>(text[0]))) return Value::Bool(false);
  return All<IsNameChar>(c);
}

Value Format(const BuiltinCall& c) { return FormatBraces(c.rt, c.self, c.raw); }

const Builtin kTable[] = {
    {"capitalize", MapText<Capitalize>},
    {"casefold", MapText<Lower>},
    {"center", Justify<Side::kBoth>, 1, {"width", "fillchar"}},
    {"count", Count, 1, {"sub", "start", "end"}},
    {"endswith", Affix<true>, 1, {"suffix", "start", "end"}},
    {"expandtabs", ExpandTabs, 0, {"tabsize"}},
    {"find", Find<false, false>, 1, {"sub", "start", "end"}},
    {"format", Format, 0, {}, true},
    {"index", Find<false, true>, 1, {"sub", "start", "end"}},
    {"isalnum", All<IsAlnum>},
    {"isalpha", All<IsAlpha>},
    {"isascii", IsAscii},
    {"isdecimal", All<IsDigit>},
    {"isdigit", All<IsDigit>},
    {"isidentifier", IsIdentifier},
    {"islower", IsInCase<ToLower>},
    {"isnumeric", All<IsDigit>},
    {"isprintable", IsPrintableText},
    {"isspace", All<IsSpace>},
    {"istitle", IsTitle},
    {"isupper", IsInCase<ToUpper>},
    {"join", Join, 1, {"iterable"}},
    {"ljust", Justify<Side::kLeft>, 1, {"width", "fillchar"}},
    {"lower", MapText<Lower>},
    {"lstrip", Strip<true, false>, 0, {"chars"}},
    {"partition", Partition<false>, 1, {"sep"}},
    {"removeprefix", RemovePrefix, 1, {"prefix"}},
    {"removesuffix", RemoveSuffix, 1, {"suffix"}},
    {"replace", Replace, 2, {"old", "new", "count"}},
    {"rfind", Find<true, false>, 1, {"sub", "start", "end"}},
    {"rindex", Find<true, true>, 1, {"sub", "start", "end"}},
    {"rjust", Justify<Side::kRight>, 1, {"width", "fillchar"}},
    {"rpartition", Partition<true>, 1, {"sep"}},
    {"rsplit", Split<true>, 0, {"sep", "maxsplit"}},
    {"rstrip", Strip<false, true>, 0, {"chars"}},
    {"split", Split<false>, 0, {"sep", "maxsplit"}},
    {"splitlines", SplitLinesMethod, 0, {"keepends"}},
    {"startswith", Affix<false>, 1, {"prefix", "start", "end"}},
    {"strip", Strip<true, true>, 0, {"chars"}},
    {"swapcase", MapText<SwapCase>},
    {"title", MapText<TitleCase>},
    {"upper", MapText<Upper>},
    {"zfill", ZeroFill, 1, {"width"}},
};

}  // namespace

std::span<const Builtin> StringMethodTable() { return kTable; }

size_t FindText(string_view text, string_view needle, size_t from) {
  if (from > text.size()) return kNone;
  if (needle.empty()) return from;
  // memmem of glibc and musl is two-way: linear for every needle.
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found == nullptr ? kNone
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t FindLastText(string_view text, string_view needle) {
  const std::string reversed(text.rbegin(), text.rend());
  const std::string reversed_needle(needle.rbegin(), needle.rend());
  const size_t at = FindText(reversed, reversed_needle);
  return at == kNone ? kNone : text.size() - at - needle.size();
}

Value ReplaceText(Runtime& rt, const Value& text, const std::string& from, const std::string& to,
                  int64_t max_count) {
  const std::string& s = text.str();
  rt.ChargeBytes(4 * s.size());
  uint64_t left = max_count < 0 ? UINT64_MAX : static_cast<uint64_t>(max_count);
  std::string out;
  size_t pos = 0;
  const auto add = [&] {
    rt.ChargeBytes(to.size());
    out += to;
    rt.CheckStringSize(out.size());
    --left;
  };
  if (from.empty()) {  // between all characters and at both ends
    for (; left > 0 && pos < s.size();) {
      add();
      const size_t n = CharLength(s, pos);
      out.append(s, pos, n);
      pos += n;
    }
    if (left > 0) add();
  } else {
    for (size_t at = 0; left > 0 && (at = FindText(s, from, pos)) != kNone;
         pos = at + from.size()) {
      out.append(s, pos, at - pos);
      add();
    }
  }
  out.append(s, pos);
  return rt.String(std::move(out), text.text().markup);
}

std::string StripChars(Runtime& rt, string_view text, const Value* chars, bool left, bool right) {
  rt.ChargeBytes(text.size());
  if (chars == nullptr || chars->is_none()) {
    if (left) text = StripLeft(text);
    if (right) text = StripRight(text);
    return std::string(text);
  }
  if (!chars->is_string()) {
    rt.RequireDefined(*chars);
    rt.Raise(ErrorCode::kInvalidArgument, "strip: the characters are %s, not str",
             TypeName(*chars));
  }
  const std::string& set_text = chars->str();
  rt.ChargeBytes(16 * set_text.size());
  std::vector<uint32_t> set;
  for (size_t pos = 0; pos < set_text.size(); pos += CharLength(set_text, pos)) {
    set.push_back(CodePoint(string_view(set_text).substr(pos, CharLength(set_text, pos))));
  }
  std::sort(set.begin(), set.end());
  const auto stripped = [&](string_view character) {
    return std::binary_search(set.begin(), set.end(), CodePoint(character));
  };
  while (left && !text.empty() && stripped(text.substr(0, CharLength(text, 0)))) {
    text.remove_prefix(CharLength(text, 0));
  }
  while (right && !text.empty() && stripped(text.substr(CharBefore(text, text.size())))) {
    text = text.substr(0, CharBefore(text, text.size()));
  }
  return std::string(text);
}

std::vector<string_view> SplitLines(string_view text, bool keep_ends) {
  std::vector<string_view> lines;
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t n = CharLength(text, pos);
    const uint32_t c = CodePoint(text.substr(pos, n));
    const bool is_end =
        (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    const size_t end = pos;
    pos += n;
    if (!is_end) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    lines.push_back(text.substr(start, (keep_ends ? pos : end) - start));
    start = pos;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

}  // namespace lutra::jinja
