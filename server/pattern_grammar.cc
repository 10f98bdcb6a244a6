// Regular expressions of JSON schemas (ECMA-262, the part without look-around) as GBNF over the characters of a JSON string.
#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/base/utf8.h"
#include "server/api_error.h"
#include "server/schema_grammar.h"

namespace lutra::server {
namespace {

using Range = std::pair<uint32_t, uint32_t>;
constexpr int kMaxDepth = 100;
constexpr size_t kMaxPatternBytes = 4096;

class PatternParser {
 public:
  PatternParser(const std::string& text, std::string where, std::string field)
      : text_(text), where_(std::move(where)), field_(std::move(field)) {}

  std::string Run() {
    if (text_.size() > kMaxPatternBytes) Refuse("it is longer than 4096 bytes");
    const bool begin = !text_.empty() && text_[0] == '^';
    if (begin) ++at_;
    bool end = false;
    std::string body = Choice(0, &end);
    if (at_ < text_.size()) Refuse("a ) too many");
    // Anchors bind less than |: only where there is no | outside groups do they hold for all of it.
    if (choice_ && (begin || end)) Refuse("^ or $ beside | is not supported; put the alternatives into a group");
    if (!begin) body = "char* (" + body + ")";
    if (!end) body = "(" + body + ") char*";
    return body;
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw ApiError(400, "field '" + field_ + "': at " + (where_.empty() ? "the schema's root" : where_) + ": pattern '" +
                            Printable(text_, 60) + "': " + what,
                   field_, "invalid_schema");
  }
  bool Peek(char c) const { return at_ < text_.size() && text_[at_] == c; }

  std::string Choice(int depth, bool* end) {
    if (depth > kMaxDepth) Refuse("its groups are too deep");
    std::string out = Items(depth, end);
    while (Peek('|')) {
      ++at_;
      if (depth == 0) choice_ = true;
      out += " | " + Items(depth, end);
    }
    return out;
  }

  std::string Items(int depth, bool* end) {
    std::string out;
    while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')') {
      if (text_[at_] == '$') {
        ++at_;
        if (depth > 0 || at_ != text_.size()) Refuse("$ is taken at its end only");
        *end = true;
        break;
      }
      if (text_[at_] == '^') Refuse("^ is taken at its beginning only");
      std::string item = Item(depth);
      item += Times();
      out += (out.empty() ? "" : " ") + item;
    }
    return out.empty() ? "\"\"" : out;
  }

  std::string Times() {
    if (at_ >= text_.size()) return "";
    std::string out;
    const char c = text_[at_];
    if (c == '*' || c == '+' || c == '?') {
      out = c;
      ++at_;
    } else if (c == '{') {
      const size_t close = text_.find('}', at_);
      if (close == std::string::npos) Refuse("} is missing");
      out = text_.substr(at_, close - at_ + 1);
      if (out.size() < 3 || out[1] < '0' || out[1] > '9' || out.find_first_not_of("0123456789,", 1) != out.size() - 1 || out.size() > 12) {
        Refuse("{m,n} is malformed");
      }
      at_ = close + 1;
    } else {
      return "";
    }
    if (Peek('?')) ++at_;  // lazy: which texts match is the same
    if (Peek('*') || Peek('+') || Peek('{')) Refuse("a repetition of a repetition");
    return out;
  }

  std::string Item(int depth) {
    const char c = text_[at_];
    if (c == '(') {
      ++at_;
      if (Peek('?')) {
        if (text_.compare(at_, 2, "?:") == 0) {
          at_ += 2;
        } else if (text_.compare(at_, 2, "?<") == 0 && at_ + 2 < text_.size() && text_[at_ + 2] != '=' && text_[at_ + 2] != '!') {
          const size_t close = text_.find('>', at_);
          if (close == std::string::npos) Refuse("> is missing");
          at_ = close + 1;
        } else {
          Refuse("look-around is not supported");
        }
      }
      bool end = false;
      const std::string inner = Choice(depth + 1, &end);
      if (!Peek(')')) Refuse(") is missing");
      ++at_;
      return "(" + inner + ")";
    }
    if (c == '[') return Characters(Class());
    if (c == '.') {
      ++at_;
      return "char";
    }
    if (c == '*' || c == '+' || c == '?') Refuse("nothing stands before a repetition");
    std::vector<Range> ranges;
    bool negated = false;
    One(&ranges, &negated);
    return Characters(negated ? Others(ranges) : ranges);
  }

  uint32_t Hex(size_t n) {
    uint32_t value = 0;
    for (size_t i = 0; i < n; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (d < 0) Refuse("a hexadecimal digit is missing");
      value = value * 16 + static_cast<uint32_t>(d);
    }
    return value;
  }

  // One character or escape; classes such as \d add several ranges.
  void One(std::vector<Range>* out, bool* negated) {
    if (text_[at_] != '\\') {
      const size_t n = std::max<size_t>(1, Utf8SequenceLength(std::string_view(text_).substr(at_)));
      const uint8_t first = static_cast<uint8_t>(text_[at_]);
      uint32_t code = n == 1 ? first : first & (0x7Fu >> n);
      for (size_t i = 1; i < n; ++i) code = code << 6 | (static_cast<uint8_t>(text_[at_ + i]) & 0x3F);
      at_ += n;
      out->emplace_back(code, code);
      return;
    }
    ++at_;
    const char c = at_ < text_.size() ? text_[at_++] : '\0';
    const auto add = [&](std::initializer_list<Range> ranges) { out->insert(out->end(), ranges); };
    switch (c) {
      case 'D': *negated = true; [[fallthrough]];
      case 'd': return add({{'0', '9'}});
      case 'W': *negated = true; [[fallthrough]];
      case 'w': return add({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
      case 'S': *negated = true; [[fallthrough]];
      case 's': return add({{' ', ' '}, {'\t', '\r'}, {0xA0, 0xA0}});
      case 'n': return add({{'\n', '\n'}});
      case 't': return add({{'\t', '\t'}});
      case 'r': return add({{'\r', '\r'}});
      case 'f': return add({{'\f', '\f'}});
      case 'v': return add({{'\v', '\v'}});
      case 'x': {
        const uint32_t code = Hex(2);
        return add({{code, code}});
      }
      case 'u': {
        const uint32_t code = Hex(4);
        return add({{code, code}});
      }
      default: break;
    }
    if (c == '\0' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      Refuse(std::string("\\") + c + " is not supported");
    }
    add({{static_cast<uint8_t>(c), static_cast<uint8_t>(c)}});
  }

  std::vector<Range> Class() {
    ++at_;
    const bool negated = Peek('^');
    if (negated) ++at_;
    std::vector<Range> ranges;
    while (!Peek(']')) {
      if (at_ >= text_.size()) Refuse("] is missing");
      bool not_these = false;
      std::vector<Range> one;
      One(&one, &not_these);
      if (not_these) one = Others(one);
      if (one.size() == 1 && one[0].first == one[0].second && Peek('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        std::vector<Range> to;
        One(&to, &not_these);
        if (to.size() != 1 || to[0].first < one[0].first) Refuse("a range ends before it begins");
        one[0].second = to[0].second;
      }
      ranges.insert(ranges.end(), one.begin(), one.end());
    }
    ++at_;
    return negated ? Others(ranges) : ranges;
  }

  static std::vector<Range> Others(std::vector<Range> ranges) {
    std::sort(ranges.begin(), ranges.end());
    std::vector<Range> out;
    uint32_t next = 0;
    for (const auto& [from, to] : ranges) {
      if (from > next) out.emplace_back(next, from - 1);
      next = std::max(next, to + 1);
    }
    out.emplace_back(next, 0x10FFFF);
    return out;
  }

  // As a JSON string spells them: what must be escaped is, by its short form; other control characters are left out.
  std::string Characters(const std::vector<Range>& ranges) const {
    static constexpr std::pair<uint32_t, const char*> kEscapes[] = {
        {'"', "\"\\\\\\\"\""}, {'\\', "\"\\\\\\\\\""}, {'\n', "\"\\\\n\""}, {'\t', "\"\\\\t\""}, {'\r', "\"\\\\r\""}, {'\b', "\"\\\\b\""}, {'\f', "\"\\\\f\""}};
    std::string set, out;
    const auto code = [](uint32_t c) { return Format("\\U%08X", c); };
    const auto plain = [&](uint32_t from, uint32_t to) {
      if (from <= to) set += code(from) + "-" + code(to);
    };
    for (auto [from, to] : ranges) {
      for (const auto& [c, text] : kEscapes) {
        if (c >= from && c <= to) out += (out.empty() ? "" : " | ") + std::string(text);
      }
      from = std::max<uint32_t>(from, 0x20);
      if (from > to) continue;
      // Without ", \ and delete.
      uint32_t at = from;
      for (const uint32_t hole : {uint32_t{'"'}, uint32_t{'\\'}, uint32_t{0x7F}}) {
        if (hole < at || hole > to) continue;
        if (hole > at) plain(at, hole - 1);
        at = hole + 1;
      }
      plain(at, to);
    }
    if (!set.empty()) out = "[" + set + "]" + (out.empty() ? "" : " | " + out);
    if (out.empty()) Refuse("a class holds nothing that a JSON string can");
    return "(" + out + ")";
  }

  const std::string text_;
  const std::string where_, field_;
  size_t at_ = 0;
  bool choice_ = false;
};

}  // namespace

std::string PatternRule(const std::string& pattern, const std::string& where, const std::string& field) {
  return PatternParser(pattern, where, field).Run();
}

}  // namespace lutra::server
