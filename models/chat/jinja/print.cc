#include "models/chat/jinja/print.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "kernels/base/error.h"
#include "models/chat/jinja/runtime.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

void CheckDepth(Runtime& rt, size_t depth) {
  if (depth > kMaxValueDepth) {
    rt.Raise(ErrorCode::kResourceExhausted, "value to print is nested deeper than %zu levels",
             kMaxValueDepth);
  }
}

void ReprString(Runtime& rt, const std::string& s, std::string* out) {
  rt.ChargeBytes(s.size() * 8);
  const char quote =
      s.find('\'') != std::string::npos && s.find('"') == std::string::npos ? '"' : '\'';
  *out += quote;
  for (size_t pos = 0; pos < s.size();) {
    const std::string_view character = std::string_view(s).substr(pos, CharLength(s, pos));
    pos += character.size();
    const uint32_t c = CodePoint(character);
    if (c == static_cast<uint8_t>(quote) || c == '\\') {
      *out += '\\';
      *out += static_cast<char>(c);
    } else if (c == '\n') {
      *out += "\\n";
    } else if (c == '\r') {
      *out += "\\r";
    } else if (c == '\t') {
      *out += "\\t";
    } else if (c >= 0x20 && c < 0x7F) {
      *out += static_cast<char>(c);
    } else if (c < 0x80) {
      *out += lutra::Format("\\x%02x", c);
    } else if (c >= 0x110000 || IsPrintable(c)) {
      *out += character;
    } else {
      *out += lutra::Format(c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
  }
  *out += quote;
}

class JsonWriter {
 public:
  JsonWriter(Runtime& rt, const JsonStyle& style) : rt_(rt), style_(style) {}

  void Write(const Value& v, size_t depth) {
    rt_.Charge(1);
    CheckDepth(rt_, depth);
    rt_.CheckStringSize(out_.size());
    switch (v.kind()) {
      case Kind::kNone:
        out_ += "null";
        return;
      case Kind::kBool:
        out_ += v.integer() != 0 ? "true" : "false";
        return;
      case Kind::kInt:
        out_ += std::to_string(v.integer());
        return;
      case Kind::kFloat:
        out_ += Number(v.number());
        return;
      case Kind::kString:
        String(v.str());
        return;
      default:
        break;
    }
    const Sequence* s = v.sequence();
    if (s != nullptr && (s->type == Sequence::Type::kList || s->is_tuple())) {
      List(*s, depth);
    } else if (const Dict* d = v.dict()) {
      Object(*d, depth);
    } else {
      rt_.Raise(ErrorCode::kInvalidArgument, "tojson cannot write %s", TypeName(v));
    }
  }

  std::string Take() { return std::move(out_); }

 private:
  static std::string Number(double f) {
    return std::isnan(f)   ? "NaN"
           : std::isinf(f) ? (f > 0 ? "Infinity" : "-Infinity")
                           : FloatRepr(f);
  }

  void NewLine(size_t depth) {
    rt_.ChargeBytes(depth * style_.indent->size());
    rt_.CheckStringSize(out_.size() + depth * style_.indent->size());
    out_ += '\n';
    for (size_t i = 0; i < depth; ++i) out_ += *style_.indent;
  }

  void Separator(bool first, size_t depth) {
    if (!first) out_ += style_.item_separator;
    if (style_.indent) NewLine(depth);
  }

  void List(const Sequence& s, size_t depth) {
    out_ += '[';
    for (size_t i = 0; i < s.items.size(); ++i) {
      Separator(i == 0, depth + 1);
      Write(s.items[i], depth + 1);
    }
    if (style_.indent && !s.items.empty()) NewLine(depth);
    out_ += ']';
  }

  // Keys that are no strings are written as JSON would write them, in quotes.
  std::string KeyText(const Value& key) {
    switch (key.kind()) {
      case Kind::kString:
        return key.str();
      case Kind::kNone:
        return "null";
      case Kind::kBool:
        return key.integer() != 0 ? "true" : "false";
      case Kind::kInt:
        return std::to_string(key.integer());
      case Kind::kFloat:
        return Number(key.number());
      default:
        rt_.Raise(ErrorCode::kInvalidArgument, "tojson: %s as a key", TypeName(key));
    }
  }

  void Object(const Dict& d, size_t depth) {
    std::vector<const std::pair<Value, Value>*> rows;
    for (const auto& item : d.items) rows.push_back(&item);
    if (style_.sort_keys) {
      std::stable_sort(rows.begin(), rows.end(), [this](const auto* a, const auto* b) {
        return rt_.Ordered(Op::kLess, a->first, b->first);
      });
    }
    out_ += '{';
    for (size_t i = 0; i < rows.size(); ++i) {
      Separator(i == 0, depth + 1);
      String(KeyText(rows[i]->first));
      out_ += style_.key_separator;
      Write(rows[i]->second, depth + 1);
    }
    if (style_.indent && !rows.empty()) NewLine(depth);
    out_ += '}';
  }

  void String(const std::string& s) {
    rt_.ChargeBytes(s.size() * 8);
    out_ += '"';
    for (size_t pos = 0; pos < s.size();) {
      const char c = s[pos];
      if (static_cast<uint8_t>(c) >= 0x80) {
        const size_t n = CharLength(s, pos);
        if (style_.ascii) {
          Ascii(CodePoint(std::string_view(s).substr(pos, n)));
        } else {
          out_.append(s, pos, n);
        }
        pos += n;
        continue;
      }
      ++pos;
      switch (c) {
        case '"':
          out_ += "\\\"";
          break;
        case '\\':
          out_ += "\\\\";
          break;
        case '\n':
          out_ += "\\n";
          break;
        case '\r':
          out_ += "\\r";
          break;
        case '\t':
          out_ += "\\t";
          break;
        case '\b':
          out_ += "\\b";
          break;
        case '\f':
          out_ += "\\f";
          break;
        default:
          if (c < 0x20) {
            out_ += lutra::Format("\\u%04x", static_cast<unsigned>(c));
          } else {
            out_ += c;
          }
      }
    }
    out_ += '"';
  }

  void Ascii(uint32_t c) {
    if (c >= 0x110000) c = 0xFFFD;
    if (c >= 0x10000) {
      out_ += lutra::Format("\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                            0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      out_ += lutra::Format("\\u%04x", c);
    }
  }

  Runtime& rt_;
  const JsonStyle& style_;
  std::string out_;
};

void ReprItems(Runtime& rt, const std::vector<Value>& items, std::string* out, size_t depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) *out += ", ";
    Repr(rt, items[i], out, depth + 1);
  }
}

void ReprSequence(Runtime& rt, const Sequence& s, std::string* out, size_t depth) {
  switch (s.type) {
    case Sequence::Type::kList:
      *out += '[';
      ReprItems(rt, s.items, out, depth);
      *out += ']';
      return;
    case Sequence::Type::kTuple:
    case Sequence::Type::kGroup:
      *out += '(';
      ReprItems(rt, s.items, out, depth);
      *out += s.items.size() == 1 ? ",)" : ")";
      return;
    case Sequence::Type::kRange: {
      const int64_t first = s.items.empty() ? 0 : s.items[0].integer();
      const int64_t step = s.items.size() < 2 ? 1 : s.items[1].integer() - first;
      const int64_t stop = s.items.empty() ? 0 : s.items.back().integer() + step;
      *out += lutra::Format("range(%lld, %lld", static_cast<long long>(first),
                            static_cast<long long>(stop));
      *out += step == 1 ? ")" : ", " + std::to_string(step) + ")";
      return;
    }
    case Sequence::Type::kGenerator:
      *out += "<generator>";
      return;
    default:
      *out += std::string(s.TypeName()) + "([";
      ReprItems(rt, s.items, out, depth);
      *out += "])";
  }
}

}  // namespace

std::string FloatRepr(double f) {
  if (std::isnan(f)) return "nan";
  if (std::isinf(f)) return f > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto result =
      std::to_chars(buffer, buffer + sizeof(buffer), f, std::chars_format::scientific);
  std::string text(buffer, result.ptr);  // d[.ddd]e[+-]dd
  const size_t e = text.find('e');
  std::string mantissa = text.substr(0, e);
  const bool negative = mantissa[0] == '-';
  std::string digits;
  for (const char c : mantissa) {
    if (c >= '0' && c <= '9') digits += c;
  }
  int exponent = 0;
  const size_t start = e + 1 + (text[e + 1] == '+');
  std::from_chars(text.data() + start, text.data() + text.size(), exponent);
  std::string out = negative ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (digits.size() > 1) out += "." + digits.substr(1);
    return out + lutra::Format("e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

void Print(Runtime& rt, const Value& v, std::string* out) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return;
    case Kind::kString:
      rt.ChargeBytes(v.str().size());
      *out += v.str();
      return;
    default:
      Repr(rt, v, out);
  }
}

std::string ToStr(Runtime& rt, const Value& v) {
  std::string out;
  Print(rt, v, &out);
  return out;
}

void Repr(Runtime& rt, const Value& v, std::string* out, size_t depth) {
  rt.Charge(1);
  CheckDepth(rt, depth);
  rt.CheckStringSize(out->size());
  switch (v.kind()) {
    case Kind::kUndefined:
      *out += "Undefined";
      return;
    case Kind::kNone:
      *out += "None";
      return;
    case Kind::kBool:
      *out += v.integer() != 0 ? "True" : "False";
      return;
    case Kind::kInt:
      *out += std::to_string(v.integer());
      return;
    case Kind::kFloat:
      *out += FloatRepr(v.number());
      return;
    case Kind::kString:
      if (v.text().markup) *out += "Markup(";
      ReprString(rt, v.str(), out);
      if (v.text().markup) *out += ")";
      return;
    case Kind::kObject:
      break;
  }
  if (const Sequence* s = v.sequence()) return ReprSequence(rt, *s, out, depth);
  const Dict* d = v.dict();
  if (d == nullptr) {
    *out += v.object()->Print(rt, depth);
    return;
  }
  *out += '{';
  for (size_t i = 0; i < d->items.size(); ++i) {
    if (i > 0) *out += ", ";
    Repr(rt, d->items[i].first, out, depth + 1);
    *out += ": ";
    Repr(rt, d->items[i].second, out, depth + 1);
  }
  *out += '}';
}

std::string ToJson(Runtime& rt, const Value& v, const JsonStyle& style) {
  JsonWriter writer(rt, style);
  writer.Write(v, 0);
  return writer.Take();
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace lutra::jinja
