// Reads regular expressions; see pattern.h.
#include "server/pattern.h"

#include <algorithm>

#include "kernels/base/utf8.h"
#include "server/api_error.h"
#include "server/limits.h"

namespace lutra::server {
namespace {

using Kind = PatternNode::Kind;

PatternNode Chars(std::vector<CharRange> ranges) { return {Kind::kChars, std::move(ranges)}; }

PatternNode AnyText() { return {Kind::kRepeat, {}, {Chars({{0, kMaxCodePoint}})}, 0, -1}; }

class PatternParser {
 public:
  PatternParser(const std::string& text, const std::string& where, const std::string& field)
      : text_(text), where_(where), field_(field) {}

  PatternNode Run() {
    if (text_.size() > kMaxPatternBytes)
      Refuse("it is longer than " + std::to_string(kMaxPatternBytes) + " bytes");
    PatternNode out{Kind::kChoice};
    // Anchors bind tighter than |: each alternative has its own.
    for (;;) {
      const bool begin = Peek('^');
      if (begin) ++at_;
      PatternNode items = Items(0);
      const bool end = Peek('$');
      if (end) ++at_;
      if (!begin) items.parts.insert(items.parts.begin(), AnyText());
      if (!end) items.parts.push_back(AnyText());
      out.parts.push_back(std::move(items));
      if (!Peek('|')) break;
      ++at_;
    }
    if (at_ < text_.size()) Refuse(Peek(')') ? "a ) too many" : "$ is taken at the end only");
    return out;
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw ApiError(400,
                   "field '" + field_ + "': at " + (where_.empty() ? "the schema's root" : where_) +
                       ": pattern '" + Printable(text_, 60) + "': " + what,
                   field_, "invalid_schema");
  }
  bool Peek(char c) const { return at_ < text_.size() && text_[at_] == c; }

  PatternNode Choice(int depth) {
    if (depth > kMaxPatternDepth) Refuse("its groups are too deep");
    PatternNode out{Kind::kChoice};
    out.parts.push_back(Items(depth));
    while (Peek('|')) {
      ++at_;
      out.parts.push_back(Items(depth));
    }
    return out;
  }

  // Up to the end of the alternative; at depth 0 its $ is left to the caller.
  PatternNode Items(int depth) {
    PatternNode out{Kind::kSequence};
    while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')') {
      if (text_[at_] == '$') {
        if (depth > 0) Refuse("$ inside a group is not supported; put it behind the group");
        break;
      }
      if (text_[at_] == '^') Refuse("^ is taken at the beginning only");
      PatternNode item = Item(depth);
      Times(&item);
      out.parts.push_back(std::move(item));
    }
    return out;
  }

  int Number() {
    int n = 0;
    const size_t begin = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      n = n * 10 + (text_[at_] - '0');
      if (n > kMaxPatternRepeat)
        Refuse("it repeats more than " + std::to_string(kMaxPatternRepeat) + " times");
    }
    if (at_ == begin) Refuse("{m,n} is malformed");
    return n;
  }

  void Times(PatternNode* item) {
    if (at_ >= text_.size()) return;
    int min = 0, max = -1;
    switch (text_[at_]) {
      case '*':
        break;
      case '+':
        min = 1;
        break;
      case '?':
        max = 1;
        break;
      case '{':
        ++at_;
        min = max = Number();
        if (Peek(',')) {
          ++at_;
          max = Peek('}') ? -1 : Number();
        }
        if (!Peek('}')) Refuse("{m,n} is malformed");
        if (max >= 0 && max < min) Refuse("{m,n} has the greater number first");
        break;
      default:
        return;
    }
    ++at_;
    if (Peek('?')) ++at_;  // lazy: which texts match is the same
    if (Peek('*') || Peek('+') || Peek('{')) Refuse("a repetition of a repetition");
    *item = {Kind::kRepeat, {}, {std::move(*item)}, min, max};
  }

  PatternNode Item(int depth) {
    const char c = text_[at_];
    if (c == '(') {
      ++at_;
      if (Peek('?')) {
        if (text_.compare(at_, 2, "?:") == 0) {
          at_ += 2;
        } else if (text_.compare(at_, 2, "?<") == 0 && at_ + 2 < text_.size() &&
                   text_[at_ + 2] != '=' && text_[at_ + 2] != '!') {
          const size_t close = text_.find('>', at_);
          if (close == std::string::npos) Refuse("> is missing");
          at_ = close + 1;
        } else {
          Refuse("look-around is not supported");
        }
      }
      PatternNode inner = Choice(depth + 1);
      if (!Peek(')')) Refuse(") is missing");
      ++at_;
      return inner;
    }
    if (c == '[') return Chars(Class());
    if (c == '.') {
      ++at_;
      return Chars(OtherCodePoints({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}));
    }
    if (c == '*' || c == '+' || c == '?') Refuse("nothing stands before a repetition");
    std::vector<CharRange> ranges;
    bool negated = false;
    One(&ranges, &negated);
    return Chars(negated ? OtherCodePoints(ranges) : ranges);
  }

  uint32_t Hex(size_t n) {
    uint32_t value = 0;
    for (size_t i = 0; i < n; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int d = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
      if (d < 0) Refuse("a hexadecimal digit is missing");
      value = value * 16 + static_cast<uint32_t>(d);
    }
    return value;
  }

  // One character or escape; classes such as \d add several ranges.
  void One(std::vector<CharRange>* out, bool* negated) {
    if (text_[at_] != '\\') {
      const size_t n = std::max<size_t>(1, Utf8SequenceLength(std::string_view(text_).substr(at_)));
      const uint8_t first = static_cast<uint8_t>(text_[at_]);
      uint32_t code = n == 1 ? first : first & (0x7Fu >> n);
      for (size_t i = 1; i < n; ++i)
        code = code << 6 | (static_cast<uint8_t>(text_[at_ + i]) & 0x3F);
      at_ += n;
      out->emplace_back(code, code);
      return;
    }
    ++at_;
    const char c = at_ < text_.size() ? text_[at_++] : '\0';
    const auto add = [&](std::initializer_list<CharRange> ranges) {
      out->insert(out->end(), ranges);
    };
    switch (c) {
      case 'D':
        *negated = true;
        [[fallthrough]];
      case 'd':
        return add({{'0', '9'}});
      case 'W':
        *negated = true;
        [[fallthrough]];
      case 'w':
        return add({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
      case 'S':
        *negated = true;
        [[fallthrough]];
      case 's':
        return add({{' ', ' '},
                    {'\t', '\r'},
                    {0xA0, 0xA0},
                    {0x1680, 0x1680},
                    {0x2000, 0x200A},
                    {0x2028, 0x2029},
                    {0x202F, 0x202F},
                    {0x205F, 0x205F},
                    {0x3000, 0x3000},
                    {0xFEFF, 0xFEFF}});
      case 'n':
        return add({{'\n', '\n'}});
      case 't':
        return add({{'\t', '\t'}});
      case 'r':
        return add({{'\r', '\r'}});
      case 'f':
        return add({{'\f', '\f'}});
      case 'v':
        return add({{'\v', '\v'}});
      case 'x': {
        const uint32_t code = Hex(2);
        return add({{code, code}});
      }
      case 'u': {
        const uint32_t code = Hex(4);
        return add({{code, code}});
      }
      default:
        break;
    }
    if (c == '\0' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      Refuse(c == '\0' ? "it ends with \\" : std::string("\\") + c + " is not supported");
    }
    add({{static_cast<uint8_t>(c), static_cast<uint8_t>(c)}});
  }

  std::vector<CharRange> Class() {
    ++at_;
    const bool negated = Peek('^');
    if (negated) ++at_;
    std::vector<CharRange> ranges;
    while (!Peek(']')) {
      if (at_ >= text_.size()) Refuse("] is missing");
      bool not_these = false;
      std::vector<CharRange> one;
      One(&one, &not_these);
      if (not_these) one = OtherCodePoints(one);
      if (one.size() == 1 && one[0].first == one[0].second && Peek('-') && at_ + 1 < text_.size() &&
          text_[at_ + 1] != ']') {
        ++at_;
        std::vector<CharRange> to;
        One(&to, &not_these);
        if (to.size() != 1 || to[0].first < one[0].first) Refuse("a range ends before it begins");
        one[0].second = to[0].second;
      }
      ranges.insert(ranges.end(), one.begin(), one.end());
    }
    ++at_;
    return negated ? OtherCodePoints(ranges) : ranges;
  }

  const std::string& text_;
  const std::string &where_, &field_;
  size_t at_ = 0;
};

}  // namespace

PatternNode ParsePattern(const std::string& pattern, const std::string& where,
                         const std::string& field) {
  return PatternParser(pattern, where, field).Run();
}

}  // namespace lutra::server
