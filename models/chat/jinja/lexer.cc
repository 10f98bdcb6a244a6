#include "models/chat/jinja/lexer.h"

#include <charconv>

#include "kernels/base/error.h"
#include "kernels/base/utf8.h"
#include "models/chat/jinja/jinja.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<uint8_t>(c) >= 0x80;
}
bool IsDigitChar(char c) { return c >= '0' && c <= '9'; }
bool IsNameChar(char c) { return IsNameStart(c) || IsDigitChar(c); }

// Line ends become \n and one trailing line end goes.
std::string Normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view name)
      : source_(Normalize(source)), text_(source_), name_(name) {}

  std::vector<Token> Run() {
    while (pos_ < text_.size()) {
      const size_t begin = FindTag();
      if (begin == std::string_view::npos) {
        EmitText(text_.substr(pos_));
        break;
      }
      Tag(begin);
    }
    CountLinesTo(text_.size());
    tokens_.push_back({TokenType::kEnd, line_, "end of template"});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    lutra::Fail(ErrorCode::kCorrupt, "%s, line %u: %s", name_.c_str(), line_, what.c_str());
  }

  // Keeps line_ the line of position `pos`.
  void CountLinesTo(size_t pos) {
    for (; counted_ < pos; ++counted_) line_ += text_[counted_] == '\n';
  }

  size_t FindTag() const {
    for (size_t at = pos_; (at = text_.find('{', at)) != std::string_view::npos; ++at) {
      if (at + 1 >= text_.size()) break;
      const char c = text_[at + 1];
      if (c == '{' || c == '%' || c == '#') return at;
    }
    return std::string_view::npos;
  }

  char At(size_t pos) const { return pos < text_.size() ? text_[pos] : '\0'; }

  size_t SkipSpace(size_t pos) const {
    return text_.size() - StripLeft(text_.substr(std::min(pos, text_.size()))).size();
  }

  void EmitText(std::string_view text) {
    if (!text.empty()) tokens_.push_back({TokenType::kText, line_, std::string(text)});
  }

  // Text before a tag, white space at its end removed as the tag's sign says. lstrip_blocks removes
  // what is between the start of a line and the tag, unless the tag is a variable.
  void EmitTextBeforeTag(std::string_view text, char sign, bool variable) {
    if (sign == '-') {
      text = StripRight(text);
    } else if (sign != '+' && !variable) {
      const size_t newline = text.rfind('\n');
      const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
      if (line_start > 0 || line_starting_) {
        if (StripLeft(text.substr(line_start)).empty()) text = text.substr(0, line_start);
      }
    }
    EmitText(text);
  }

  // After the end of a block or comment: '-' strips all white space, '+' nothing, else one line end
  // goes.
  void AfterTag(size_t end, char sign) {
    pos_ = end;
    if (sign == '-') {
      pos_ = SkipSpace(pos_);
    } else if (sign != '+' && At(pos_) == '\n') {
      ++pos_;
    }
    line_starting_ = pos_ > 0 && text_[pos_ - 1] == '\n';
  }

  void Tag(size_t begin) {
    const char type = text_[begin + 1];
    size_t inside = begin + 2;
    const char sign = At(inside) == '-' || At(inside) == '+' ? text_[inside] : '\0';
    if (sign != '\0') ++inside;
    if (type == '%' && RawBlock(begin, inside, sign)) return;
    EmitTextBeforeTag(text_.substr(pos_, begin - pos_), sign, type == '{');
    CountLinesTo(begin);
    if (type == '#') {
      const size_t end = text_.find("#}", inside);
      if (end == std::string_view::npos) Fail("comment without its end '#}'");
      const char last = end > inside ? text_[end - 1] : '\0';
      AfterTag(end + 2, last);
      CountLinesTo(pos_);
    } else {
      tokens_.push_back({type == '{' ? TokenType::kVariableBegin : TokenType::kBlockBegin, line_,
                         std::string(text_.substr(begin, 2))});
      pos_ = inside;
      Code(type == '{');
    }
  }

  // {% raw %} ... {% endraw %} as text; false if the tag at `begin` is another.
  bool RawBlock(size_t begin, size_t inside, char sign) {
    size_t p = SkipSpace(inside);
    if (text_.substr(p, 3) != "raw") return false;
    p = SkipSpace(p + 3);
    const bool strip = At(p) == '-';
    p += strip;
    if (text_.substr(p, 2) != "%}") return false;
    EmitTextBeforeTag(text_.substr(pos_, begin - pos_), sign, false);
    CountLinesTo(begin);
    pos_ = strip ? SkipSpace(p + 2) : p + 2;
    line_starting_ = text_[pos_ - 1] == '\n';
    for (size_t at = pos_; (at = text_.find("{%", at)) != std::string_view::npos; ++at) {
      size_t q = at + 2;
      const char end_sign = At(q) == '-' || At(q) == '+' ? text_[q] : '\0';
      q = SkipSpace(q + (end_sign != '\0'));
      if (text_.substr(q, 6) != "endraw") continue;
      q = SkipSpace(q + 6);
      const char after = At(q) == '-' || At(q) == '+' ? text_[q] : '\0';
      if (after != '\0') ++q;
      if (text_.substr(q, 2) != "%}") continue;
      EmitTextBeforeTag(text_.substr(pos_, at - pos_), end_sign, false);
      AfterTag(q + 2, after);
      CountLinesTo(pos_);
      return true;
    }
    Fail("raw block without its endraw");
  }

  // Tokens of one tag up to and with its end.
  void Code(bool variable) {
    std::string open;  // brackets: inside them "}}" is two operators
    while (true) {
      pos_ = SkipSpace(pos_);
      CountLinesTo(pos_);
      if (pos_ >= text_.size()) {
        Fail(variable ? "'{{' without its end '}}'" : "'{%' without its end '%}'");
      }
      if (open.empty() && TagEnd(variable)) return;
      const char c = text_[pos_];
      if (IsDigitChar(c)) {
        Number();
      } else if (IsNameStart(c)) {
        size_t end = pos_;
        while (IsNameChar(At(end))) ++end;
        Push(TokenType::kName, end);
      } else if (c == '"' || c == '\'') {
        String(c);
      } else {
        Operator(&open);
      }
    }
  }

  bool TagEnd(bool variable) {
    size_t p = pos_;
    char sign = '\0';
    if (At(p) == '-' || (At(p) == '+' && !variable)) sign = text_[p++];
    if (text_.substr(p, 2) != (variable ? "}}" : "%}")) return false;
    tokens_.push_back(
        {variable ? TokenType::kVariableEnd : TokenType::kBlockEnd, line_, variable ? "}}" : "%}"});
    if (variable && sign == '\0') sign = '+';  // variables keep the line end
    AfterTag(p + 2, sign);
    CountLinesTo(pos_);
    return true;
  }

  void Push(TokenType type, size_t end) {
    tokens_.push_back({type, line_, std::string(text_.substr(pos_, end - pos_))});
    pos_ = end;
  }

  // Digits with single underscores between them, starting at p; the end.
  size_t Digits(size_t p) const {
    while (IsDigitChar(At(p)) || (At(p) == '_' && IsDigitChar(At(p + 1)))) ++p;
    return p;
  }

  void Number() {
    size_t end = Digits(pos_);
    bool is_float = false;
    const bool after_dot = pos_ > 0 && text_[pos_ - 1] == '.';  // a.0.1 is two items
    if (!after_dot) {
      if (At(end) == '.' && IsDigitChar(At(end + 1))) {
        end = Digits(end + 1);
        is_float = true;
      }
      if (At(end) == 'e' || At(end) == 'E') {
        size_t p = end + 1;
        if (At(p) == '+' || At(p) == '-') ++p;
        if (IsDigitChar(At(p))) {
          end = Digits(p);
          is_float = true;
        }
      }
    }
    int base = 10;
    size_t start = pos_;
    if (!is_float && text_[pos_] == '0') {
      const char letter = static_cast<char>(At(pos_ + 1) | 0x20);
      base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
      if (base != 10) {
        start = pos_ + 2;
        end = start;
        while (At(end) == '_' || IsDigitInBase(At(end), base)) ++end;
      } else {
        end = pos_;  // 0, 00: zeros only, as in Python
        while (At(end) == '0' || (At(end) == '_' && At(end + 1) == '0')) ++end;
      }
    }
    std::string digits;
    for (const char c : text_.substr(start, end - start)) {
      if (c != '_') digits += c;
    }
    Token token{is_float ? TokenType::kFloat : TokenType::kInteger, line_,
                std::string(text_.substr(pos_, end - pos_))};
    const char* last = digits.data() + digits.size();
    const auto result = is_float ? std::from_chars(digits.data(), last, token.number)
                                 : std::from_chars(digits.data(), last, token.integer, base);
    if (result.ec != std::errc() || result.ptr != last) {
      Fail("number '" + Printable(token.text, 40) + "' is malformed or beyond 64 bits");
    }
    tokens_.push_back(std::move(token));
    pos_ = end;
  }

  static bool IsDigitInBase(char c, int base) {
    const char lower = static_cast<char>(c | 0x20);
    const int value = IsDigitChar(c)                 ? c - '0'
                      : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                                     : 99;
    return value < base;
  }

  uint32_t HexEscape(size_t* p, size_t n) const {
    uint32_t value = 0;
    const std::string_view digits = text_.substr(std::min(*p, text_.size()), n);
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() != n || result.ptr != digits.data() + n || value > 0x10FFFF) {
      Fail("malformed \\x, \\u or \\U escape in a string");
    }
    *p += n;
    return value;
  }

  void String(char quote) {
    Token token{TokenType::kString, line_, ""};
    size_t p = pos_ + 1;
    while (true) {
      if (p >= text_.size()) Fail("string without its closing quote");
      const char c = text_[p++];
      if (c == quote) break;
      if (c != '\\') {
        token.text += c;
        continue;
      }
      if (p >= text_.size()) Fail("string without its closing quote");
      const char e = text_[p++];
      switch (e) {
        case '\n':
          break;
        case '\\':
        case '\'':
        case '"':
          token.text += e;
          break;
        case 'a':
          token.text += '\a';
          break;
        case 'b':
          token.text += '\b';
          break;
        case 'f':
          token.text += '\f';
          break;
        case 'n':
          token.text += '\n';
          break;
        case 'r':
          token.text += '\r';
          break;
        case 't':
          token.text += '\t';
          break;
        case 'v':
          token.text += '\v';
          break;
        case 'x':
          Utf8Append(HexEscape(&p, 2), &token.text);
          break;
        case 'u':
          Utf8Append(HexEscape(&p, 4), &token.text);
          break;
        case 'U':
          Utf8Append(HexEscape(&p, 8), &token.text);
          break;
        case 'N':
          Fail("\\N{...} escapes are not supported");
        default:
          if (e >= '0' && e <= '7') {
            uint32_t value = static_cast<uint32_t>(e - '0');
            for (int i = 0; i < 2 && At(p) >= '0' && At(p) <= '7'; ++i) {
              value = value * 8 + static_cast<uint32_t>(text_[p++] - '0');
            }
            Utf8Append(value, &token.text);
          } else {
            token.text += '\\';
            token.text += e;
          }
      }
    }
    tokens_.push_back(std::move(token));
    pos_ = p;
  }

  void Operator(std::string* open) {
    static constexpr std::string_view kLong[] = {"**", "//", "==", "!=", "<=", ">="};
    for (const std::string_view op : kLong) {
      if (text_.substr(pos_, 2) == op) return Push(TokenType::kOperator, pos_ + 2);
    }
    const char c = text_[pos_];
    if (std::string_view("+-*/%~()[]{}<>=.:,|").find(c) == std::string_view::npos) {
      Fail("unexpected character '" + Printable(text_.substr(pos_, 1)) + "'");
    }
    if (c == '(' || c == '[' || c == '{') {
      open->push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (open->empty() || open->back() != c) {
        Fail(std::string("'") + c + "' closes nothing that is open");
      }
      open->pop_back();
    }
    Push(TokenType::kOperator, pos_ + 1);
  }

  const std::string source_;
  const std::string_view text_;
  const std::string name_;
  size_t pos_ = 0;
  size_t counted_ = 0;
  uint32_t line_ = 1;
  bool line_starting_ = true;  // the last tag ended with a line end
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source, std::string_view name) {
  if (source.size() > kMaxTemplateBytes) {
    Fail(ErrorCode::kResourceExhausted, "%s: %zu bytes; the limit for a template is %zu",
         std::string(name).c_str(), source.size(), kMaxTemplateBytes);
  }
  return Lexer(source, name).Run();
}

}  // namespace lutra::jinja
