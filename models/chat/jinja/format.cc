// text % values, text.format(values), strftime, and numbers from texts.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "kernels/base/utf8.h"
#include "models/chat/jinja/builtins.h"
#include "models/chat/jinja/print.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

constexpr int64_t kMaxPrecision = 300;

// How one value is laid out; both kinds of formatting end here.
struct Spec {
  std::string fill = " ";
  char align = '\0';  // < > ^ =
  char sign = '-';    // - + or space
  bool alternate = false;
  bool zero = false;
  bool commas = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

bool IsDigitChar(char c) { return c >= '0' && c <= '9'; }

int64_t ReadNumber(Runtime& rt, std::string_view s, size_t* pos) {
  int64_t n = 0;
  while (*pos < s.size() && IsDigitChar(s[*pos])) {
    n = n * 10 + (s[(*pos)++] - '0');
    rt.CheckStringSize(static_cast<size_t>(n));
  }
  return n;
}

// sign and digits padded to the width.
std::string Pad(Runtime& rt, const Spec& spec, const std::string& prefix, const std::string& body) {
  const auto n = static_cast<int64_t>(CountChars(prefix) + CountChars(body));
  if (spec.width <= n) return prefix + body;
  rt.CheckStringSize(static_cast<size_t>(spec.width) * spec.fill.size());
  const auto pad = static_cast<size_t>(spec.width - n);
  size_t left = 0;
  if (spec.align == '>' || spec.align == '=') left = pad;
  if (spec.align == '^') left = pad / 2;
  std::string before;
  std::string after;
  for (size_t i = 0; i < pad; ++i) (i < left ? before : after) += spec.fill;
  return spec.align == '=' ? prefix + before + body : before + prefix + body + after;
}

std::string SignOf(const Spec& spec, bool negative) {
  return negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
}

std::string GroupDigits(const std::string& digits) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out + digits.substr(whole);
}

std::string FormatInteger(Runtime& rt, Spec spec, int64_t value) {
  const bool negative = value < 0;
  const uint64_t magnitude =
      negative ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  const int base = spec.type == 'x' || spec.type == 'X' ? 16
                   : spec.type == 'o'                   ? 8
                   : spec.type == 'b'                   ? 2
                                                        : 10;
  char buffer[72];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), magnitude, base).ptr;
  std::string digits(buffer, end);
  if (spec.type == 'X') digits = Upper(digits);
  if (spec.precision > static_cast<int64_t>(digits.size())) {
    digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
  }
  if (spec.commas) digits = GroupDigits(digits);
  std::string prefix = SignOf(spec, negative);
  if (spec.alternate && base != 10) prefix += std::string("0") + spec.type;
  if (spec.align == '\0') spec.align = '>';
  return Pad(rt, spec, prefix, digits);
}

std::string FormatFloat(Runtime& rt, Spec spec, double value) {
  if (spec.precision > kMaxPrecision) {
    rt.Raise(ErrorCode::kResourceExhausted, "format: a precision of more than %d",
             static_cast<int>(kMaxPrecision));
  }
  const bool negative = std::signbit(value);
  const double magnitude = std::fabs(value);
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  std::string digits;
  if (!std::isfinite(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
  } else {
    switch (spec.type) {
      case 'e':
      case 'E':
        digits = lutra::Format("%.*e", precision, magnitude);
        break;
      case 'g':
      case 'G':
        digits = lutra::Format("%.*g", precision, magnitude);
        break;
      case '%':
        digits = lutra::Format("%.*f%%", precision, magnitude * 100);
        break;
      case '\0':
        digits =
            spec.precision < 0 ? FloatRepr(magnitude) : lutra::Format("%.*g", precision, magnitude);
        break;
      default:
        digits = lutra::Format("%.*f", precision, magnitude);
    }
  }
  if (spec.type == 'E' || spec.type == 'G' || spec.type == 'F') digits = Upper(digits);
  if (spec.commas) digits = GroupDigits(digits);
  if (spec.align == '\0') spec.align = '>';
  return Pad(rt, spec, SignOf(spec, negative && !std::isnan(value)), digits);
}

std::string FormatText(Runtime& rt, Spec spec, std::string text) {
  if (spec.precision >= 0) {
    size_t pos = 0;
    for (int64_t i = 0; i < spec.precision && pos < text.size(); ++i) pos += CharLength(text, pos);
    text.resize(pos);
  }
  if (spec.align == '\0' || spec.align == '=') spec.align = '<';
  return Pad(rt, spec, "", text);
}

[[noreturn]] void FailFormat(Runtime& rt, const std::string& what) {
  rt.Raise(ErrorCode::kInvalidArgument, "format: %s", what.c_str());
}

int64_t IntegerFor(Runtime& rt, const Value& v, char type) {
  if (v.is_integral()) return v.integer();
  if (v.is_float() && std::fabs(v.number()) < 9.2e18 &&
      (type == 'd' || type == 'i' || type == 'u')) {
    return static_cast<int64_t>(v.number());
  }
  rt.RequireDefined(v);
  FailFormat(rt, std::string("%") + type + " needs an integer, got " + TypeName(v));
}

std::string FormatPercentValue(Runtime& rt, Spec spec, const Value& v) {
  if (spec.zero && spec.align == '\0') {
    spec.fill = "0";
    spec.align = '=';
  }
  switch (spec.type) {
    case 'd':
    case 'i':
    case 'u': {
      const int64_t i = IntegerFor(rt, v, spec.type);
      spec.type = 'd';
      return FormatInteger(rt, spec, i);
    }
    case 'x':
    case 'X':
    case 'o':
      return FormatInteger(rt, spec, IntegerFor(rt, v, spec.type));
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      if (!v.is_number()) {
        rt.RequireDefined(v);
        FailFormat(rt, std::string("%") + spec.type + " needs a number, got " + TypeName(v));
      }
      return FormatFloat(rt, spec, v.number());
    case 'c':
      if (v.is_integral() && v.integer() >= 0 && v.integer() <= 0x10FFFF) {
        std::string text;
        Utf8Append(static_cast<uint32_t>(v.integer()), &text);
        return FormatText(rt, spec, text);
      }
      if (!v.is_string() || v.text().n_chars != 1) FailFormat(rt, "%c needs one character");
      return FormatText(rt, spec, v.str());
    default:
      break;
  }
  std::string text;
  if (spec.type == 's') {
    Print(rt, v, &text);
  } else {
    Repr(rt, v, &text);
  }
  if (spec.align != '<') spec.align = '>';
  spec.fill = " ";
  return FormatText(rt, spec, std::move(text));
}

// Hands out the values of text % values.
class PercentValues {
 public:
  PercentValues(Runtime& rt, const Value& values) : rt_(rt), values_(values) {
    const Sequence* s = values.sequence();
    if (s != nullptr && s->is_tuple()) {
      items_ = s->items;
    } else {
      items_ = {values};
    }
  }
  const Value& Next() {
    if (at_ >= items_.size()) FailFormat(rt_, "not enough values for the format");
    return items_[at_++];
  }
  Value Named(const std::string& name) {
    named_ = true;
    const Dict* dict = values_.dict();
    if (dict == nullptr) FailFormat(rt_, "%(name) needs a dict");
    const Value* v = dict->Find(std::string_view(name));
    if (v == nullptr) FailFormat(rt_, "no value for '" + Printable(name, 40) + "'");
    return *v;
  }
  void Finish() {
    const bool container = values_.dict() != nullptr;
    if (!named_ && !container && at_ < items_.size()) {
      FailFormat(rt_, "more values than the format takes");
    }
  }

 private:
  Runtime& rt_;
  const Value& values_;
  std::vector<Value> items_;
  size_t at_ = 0;
  bool named_ = false;
};

int64_t StarOrNumber(Runtime& rt, std::string_view s, size_t* pos, PercentValues* values) {
  if (*pos < s.size() && s[*pos] == '*') {
    ++*pos;
    const Value& v = values->Next();
    if (!v.is_integral()) FailFormat(rt, "* needs an integer");
    rt.CheckStringSize(static_cast<size_t>(std::max<int64_t>(v.integer(), 0)));
    return std::max<int64_t>(v.integer(), 0);
  }
  return ReadNumber(rt, s, pos);
}

// {name.attribute[key]} of format().
Value LookUpField(Runtime& rt, std::string_view field, const Arguments& args, size_t* automatic) {
  const size_t end = std::min(field.find_first_of(".["), field.size());
  const std::string_view first = field.substr(0, end);
  Value v;
  if (first.empty() || IsDigitChar(first[0])) {
    size_t index = 0;
    if (first.empty()) {
      index = (*automatic)++;
    } else {
      const auto result = std::from_chars(first.data(), first.data() + first.size(), index);
      if (result.ptr != first.data() + first.size()) FailFormat(rt, "malformed field");
    }
    if (index >= args.positional.size()) FailFormat(rt, "not enough values for the format");
    v = args.positional[index];
  } else {
    const auto row = std::find_if(args.keyword.begin(), args.keyword.end(),
                                  [first](const auto& k) { return k.first == first; });
    if (row == args.keyword.end()) {
      FailFormat(rt, "no value for '" + Printable(first, 40) + "'");
    }
    v = row->second;
  }
  for (size_t pos = end; pos < field.size();) {
    if (field[pos] == '.') {
      const size_t stop = std::min(field.find_first_of(".[", pos + 1), field.size());
      v = rt.Attribute(v, std::string(field.substr(pos + 1, stop - pos - 1)));
      pos = stop;
    } else {
      const size_t close = field.find(']', pos);
      if (field[pos] != '[' || close == std::string_view::npos) FailFormat(rt, "malformed field");
      const std::string key(field.substr(pos + 1, close - pos - 1));
      int64_t index = 0;
      const bool digits = !key.empty() && IsDigitChar(key[0]) && ParseInteger(key, 10, &index);
      v = rt.Item(v, digits ? Value::Int(index) : Value::String(key));
      pos = close + 1;
    }
  }
  return v;
}

bool IsAlign(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

// [[fill]align][sign][#][0][width][,][.precision][type]
Spec ParseSpec(Runtime& rt, std::string_view s) {
  Spec spec;
  size_t pos = 0;
  const auto at = [&](size_t i) { return i < s.size() ? s[i] : '\0'; };
  if (!s.empty()) {
    const size_t n = CharLength(s, 0);
    if (IsAlign(at(n))) {
      spec.fill = std::string(s.substr(0, n));
      spec.align = at(n);
      pos = n + 1;
    } else if (IsAlign(s[0])) {
      spec.align = s[0];
      pos = 1;
    }
  }
  if (at(pos) == '+' || at(pos) == '-' || at(pos) == ' ') spec.sign = s[pos++];
  if (at(pos) == '#') {
    spec.alternate = true;
    ++pos;
  }
  if (at(pos) == '0') {
    if (spec.align == '\0') {
      spec.align = '=';
      spec.fill = "0";
    }
    ++pos;
  }
  spec.width = ReadNumber(rt, s, &pos);
  if (at(pos) == ',') {
    spec.commas = true;
    ++pos;
  }
  if (at(pos) == '.') {
    ++pos;
    if (!IsDigitChar(at(pos))) FailFormat(rt, "precision without a number");
    spec.precision = ReadNumber(rt, s, &pos);
  }
  if (pos < s.size()) spec.type = s[pos++];
  if (pos != s.size()) FailFormat(rt, "malformed specification '" + Printable(s, 40) + "'");
  return spec;
}

std::string FormatWithSpec(Runtime& rt, const Value& v, std::string_view text) {
  const Spec spec = ParseSpec(rt, text);
  const auto is_one_of = [&](std::string_view types) {
    return spec.type == '\0' || types.find(spec.type) != std::string_view::npos;
  };
  if (v.is_float() || (v.is_integral() && spec.type != '\0' && is_one_of("eEfFgG%"))) {
    if (is_one_of("eEfFgG%")) return FormatFloat(rt, spec, v.number());
  } else if (v.is_integral() && !(v.is_bool() && text.empty())) {
    if (spec.precision < 0 && is_one_of("dxXob")) return FormatInteger(rt, spec, v.integer());
  } else if (v.is_string() || text.empty()) {
    if (is_one_of("s")) return FormatText(rt, spec, ToStr(rt, v));
  }
  FailFormat(rt, "'" + Printable(text, 40) + "' does not work on " + TypeName(v));
}

}  // namespace

Value FormatPercent(Runtime& rt, const Value& format, const Value& values_given) {
  const std::string_view s = format.str();
  rt.ChargeBytes(4 * s.size());
  PercentValues values(rt, values_given);
  std::string out;
  for (size_t pos = 0; pos < s.size();) {
    if (s[pos] != '%') {
      const size_t end = std::min(s.find('%', pos), s.size());
      out += s.substr(pos, end - pos);
      pos = end;
      continue;
    }
    if (++pos < s.size() && s[pos] == '%') {
      out += s[pos++];
      continue;
    }
    Spec spec;
    Value named;
    bool has_name = false;
    if (pos < s.size() && s[pos] == '(') {
      const size_t close = s.find(')', pos);
      if (close == std::string_view::npos) FailFormat(rt, "'%(' without ')'");
      named = values.Named(std::string(s.substr(pos + 1, close - pos - 1)));
      has_name = true;
      pos = close + 1;
    }
    for (; pos < s.size() && std::string_view("#0- +").find(s[pos]) != std::string_view::npos;
         ++pos) {
      if (s[pos] == '#') spec.alternate = true;
      if (s[pos] == '0') spec.zero = true;
      if (s[pos] == '-') spec.align = '<';
      if (s[pos] == '+' || (s[pos] == ' ' && spec.sign != '+')) spec.sign = s[pos];
    }
    spec.width = StarOrNumber(rt, s, &pos, &values);
    if (pos < s.size() && s[pos] == '.') {
      ++pos;
      spec.precision = StarOrNumber(rt, s, &pos, &values);
    }
    if (pos >= s.size()) FailFormat(rt, "the format ends inside a '%' field");
    spec.type = s[pos++];
    if (std::string_view("diuxXoeEfFgGcsra").find(spec.type) == std::string_view::npos) {
      FailFormat(rt, "unknown field '%" + Printable(std::string(1, spec.type)) + "'");
    }
    rt.Charge(1);
    const Value& v = has_name ? named : values.Next();
    std::string text = FormatPercentValue(rt, spec, v);
    const bool escape = format.text().markup && !(v.is_string() && v.text().markup);
    out += escape ? EscapeHtml(text) : text;
    rt.CheckStringSize(out.size());
  }
  values.Finish();
  return rt.String(std::move(out), format.text().markup);
}

Value FormatBraces(Runtime& rt, const Value& format, const Arguments& args) {
  const std::string_view s = format.str();
  rt.ChargeBytes(4 * s.size());
  std::string out;
  size_t automatic = 0;
  for (size_t pos = 0; pos < s.size();) {
    const char c = s[pos++];
    if (c != '{' && c != '}') {
      out += c;
      continue;
    }
    if (pos < s.size() && s[pos] == c) {
      out += c;
      ++pos;
      continue;
    }
    const size_t close = s.find('}', pos);
    if (c == '}' || close == std::string_view::npos) FailFormat(rt, "single brace in the format");
    std::string_view field = s.substr(pos, close - pos);
    pos = close + 1;
    const size_t colon = std::min(field.find(':'), field.size());
    const std::string_view spec = field.substr(std::min(colon + 1, field.size()));
    field = field.substr(0, colon);
    if (spec.find('{') != std::string_view::npos) {
      FailFormat(rt, "fields inside of a specification are not supported");
    }
    char conversion = '\0';
    if (const size_t mark = field.find('!'); mark != std::string_view::npos) {
      if (mark + 2 != field.size()) FailFormat(rt, "malformed conversion");
      conversion = field[mark + 1];
      if (conversion != 's' && conversion != 'r') FailFormat(rt, "unknown conversion");
      field = field.substr(0, mark);
    }
    Value v = LookUpField(rt, field, args, &automatic);
    if (conversion == 's') v = rt.String(ToStr(rt, v));
    if (conversion == 'r') {
      std::string text;
      Repr(rt, v, &text);
      v = rt.String(std::move(text));
    }
    rt.Charge(1);
    out += FormatWithSpec(rt, v, spec);
    rt.CheckStringSize(out.size());
  }
  return rt.String(std::move(out), format.text().markup);
}

std::string FormatTime(Runtime& rt, const std::tm& t, const std::string& format) {
  rt.ChargeBytes(4 * format.size());
  std::string out;
  for (size_t pos = 0; pos < format.size(); ++pos) {
    if (format[pos] != '%' || pos + 1 >= format.size()) {
      out += format[pos];
      continue;
    }
    // One directive of strftime, with glibc's flags for padding; widths are not taken.
    std::string directive = "%";
    ++pos;
    if (std::string_view("-_0^#").find(format[pos]) != std::string_view::npos &&
        pos + 1 < format.size()) {
      directive += format[pos++];
    }
    directive += format[pos];
    if (std::string_view("aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%").find(format[pos]) ==
        std::string_view::npos) {
      out += format[pos] == 'f' ? "000000" : directive;
      continue;
    }
    char buffer[128];
    const size_t n = std::strftime(buffer, sizeof(buffer), directive.c_str(), &t);
    out.append(buffer, n);
    rt.CheckStringSize(out.size());
  }
  return out;
}

bool ParseInteger(std::string_view text, int base, int64_t* out) {
  text = StripRight(StripLeft(text));
  std::string digits;
  size_t pos = 0;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    if (text[0] == '-') digits = "-";
    pos = 1;
  }
  if (pos + 1 < text.size() && text[pos] == '0') {  // 0x.. where the base says so
    const char letter = static_cast<char>(text[pos + 1] | 0x20);
    if ((base == 16 && letter == 'x') || (base == 8 && letter == 'o') ||
        (base == 2 && letter == 'b')) {
      pos += 2;
    }
  }
  if (pos >= text.size() || text[pos] == '+' || text[pos] == '-') return false;
  for (bool after_digit = false; pos < text.size(); ++pos) {
    if (text[pos] == '_') {
      if (!after_digit || pos + 1 == text.size()) return false;
      after_digit = false;
      continue;
    }
    digits += text[pos];
    after_digit = true;
  }
  const char* last = digits.data() + digits.size();
  const auto result = std::from_chars(digits.data(), last, *out, base);
  return result.ec == std::errc() && result.ptr == last;
}

bool ParseFloat(std::string_view text, double* out) {
  text = StripRight(StripLeft(text));
  std::string digits;
  size_t pos = !text.empty() && text[0] == '+' ? 1 : 0;
  if (pos < text.size() && pos == 1 && text[1] == '-') return false;
  for (; pos < text.size(); ++pos) {
    if (text[pos] == '_') {
      if (pos == 0 || pos + 1 == text.size() || !IsDigitChar(text[pos - 1]) ||
          !IsDigitChar(text[pos + 1])) {
        return false;
      }
      continue;
    }
    digits += text[pos];
  }
  const char* last = digits.data() + digits.size();
  const auto result = std::from_chars(digits.data(), last, *out);
  if (result.ptr != last || digits.empty()) return false;
  if (result.ec == std::errc::result_out_of_range) {  // as Python: infinity, or zero if tiny
    const bool tiny =
        digits.find("e-") != std::string::npos || digits.find("E-") != std::string::npos;
    *out = std::copysign(tiny ? 0.0 : HUGE_VAL, digits[0] == '-' ? -1.0 : 1.0);
    return true;
  }
  return result.ec == std::errc();
}

}  // namespace lutra::jinja
