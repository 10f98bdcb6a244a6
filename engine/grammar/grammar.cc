#include "engine/grammar/grammar.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "kernels/base/code_points.h"
#include "kernels/base/error.h"
#include "kernels/base/utf8.h"

namespace lutra {
namespace {

using Range = CodePointRange;

bool IsNameChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

}  // namespace

class GbnfParser {
 public:
  GbnfParser(std::string_view text, Grammar* out) : text_(text), out_(out) {}

  void Run() {
    SkipSpace(true);
    while (at_ < text_.size()) Rule();
    const auto root = names_.find("root");
    if (root == names_.end()) Fail(ErrorCode::kInvalidArgument, "the grammar has no rule 'root'");
    for (const auto& [name, rule] : names_) {
      if (!defined_[rule])
        Fail(ErrorCode::kInvalidArgument, "the grammar's rule '%s' is not defined",
             Printable(name, 60).c_str());
    }
    out_->root_ = root->second;
    Store();
    CheckRecursion();
  }

 private:
  using Element = Grammar::Element;
  using Sequence = std::vector<Element>;
  using Alternatives = std::vector<Sequence>;

  [[noreturn]] void Refuse(const char* what) {
    Fail(ErrorCode::kInvalidArgument, "the grammar is malformed at byte %zu: %s; there is '%s'",
         at_, what, Printable(text_.substr(at_), 20).c_str());
  }
  void Count(size_t n) {
    n_elements_ += n;
    if (n_elements_ > kMaxGrammarElements) {
      Fail(ErrorCode::kResourceExhausted, "the grammar has more than %zu elements; simplify it",
           kMaxGrammarElements);
    }
  }

  bool Peek(char c) const { return at_ < text_.size() && text_[at_] == c; }
  void SkipSpace(bool newlines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        return;
      }
    }
  }
  std::string Name() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsNameChar(text_[at_])) ++at_;
    if (at_ == begin) Refuse("a rule's name is expected");
    return std::string(text_.substr(begin, at_ - begin));
  }
  uint32_t RuleOf(const std::string& name) {
    const auto [it, added] = names_.try_emplace(name, static_cast<uint32_t>(rules_.size()));
    if (added) NewRule();
    return it->second;
  }
  uint32_t NewRule() {
    rules_.emplace_back();
    defined_.push_back(false);
    return static_cast<uint32_t>(rules_.size() - 1);
  }
  uint32_t NewRule(Alternatives alternatives) {
    for (const Sequence& s : alternatives) Count(s.size() + 1);
    const uint32_t rule = NewRule();
    rules_[rule] = std::move(alternatives);
    defined_[rule] = true;
    return rule;
  }

  void Rule() {
    const uint32_t rule = RuleOf(Name());
    SkipSpace(false);
    if (text_.substr(at_, 3) != "::=") Refuse("::= is expected");
    at_ += 3;
    SkipSpace(true);
    if (defined_[rule]) Refuse("the rule is defined twice");
    Alternatives alternatives = Choice(0);
    for (const Sequence& s : alternatives) Count(s.size() + 1);
    rules_[rule] = std::move(alternatives);
    defined_[rule] = true;
    SkipSpace(false);
    if (at_ < text_.size() && text_[at_] != '\n' && text_[at_] != '\r')
      Refuse("the end of the line is expected");
    SkipSpace(true);
  }

  Alternatives Choice(int depth) {
    if (depth > kMaxGrammarDepth)
      Fail(ErrorCode::kResourceExhausted, "the grammar's groups are deeper than %d",
           kMaxGrammarDepth);
    Alternatives out;
    for (;;) {
      out.push_back(Items(depth));
      SkipSpace(depth > 0);
      // A line may begin with the bar that continues the rule before it.
      const size_t here = at_;
      SkipSpace(true);
      if (!Peek('|')) {
        if (depth == 0) at_ = here;
        return out;
      }
      ++at_;
      SkipSpace(true);
    }
  }

  Sequence Items(int depth) {
    Sequence out;
    for (;;) {
      SkipSpace(depth > 0);
      if (at_ >= text_.size()) return out;
      Sequence item;
      const char c = text_[at_];
      if (c == '"') {
        item = Literal();
      } else if (c == '[') {
        item = {Class()};
      } else if (c == '.') {
        ++at_;
        item = {CodePoints({{0, kMaxCodePoint}})};
      } else if (c == '(') {
        ++at_;
        Alternatives inner = Choice(depth + 1);
        SkipSpace(true);
        if (!Peek(')')) Refuse(") is expected");
        ++at_;
        if (inner.size() == 1) {
          item = std::move(inner[0]);
        } else {
          item = {{Grammar::Kind::kCall, NewRule(std::move(inner))}};
        }
      } else if (IsNameChar(c)) {
        item = {{Grammar::Kind::kCall, RuleOf(Name())}};
      } else {
        return out;
      }
      Repeat(&item);
      Count(item.size());
      out.insert(out.end(), item.begin(), item.end());
    }
  }

  int Number() {
    int n = 0;
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
      n = n * 10 + (text_[at_++] - '0');
      if (n > kMaxGrammarRepeat)
        Fail(ErrorCode::kResourceExhausted, "the grammar repeats more than %d times at byte %zu",
             kMaxGrammarRepeat, at_);
    }
    if (at_ == begin) Refuse("a number is expected");
    return n;
  }

  // Postfix operators of the item just read.
  void Repeat(Sequence* item) {
    for (int n_operators = 0; at_ < text_.size(); ++n_operators) {
      int min = 0, max = -1;
      const char c = text_[at_];
      if (c == '*') {
        ++at_;
      } else if (c == '+') {
        ++at_;
        min = 1;
      } else if (c == '?') {
        ++at_;
        max = 1;
      } else if (c == '{') {
        ++at_;
        SkipSpace(true);
        min = max = Number();
        SkipSpace(true);
        if (Peek(',')) {
          ++at_;
          SkipSpace(true);
          max = Peek('}') ? -1 : Number();
          SkipSpace(true);
        }
        if (!Peek('}')) Refuse("} is expected");
        ++at_;
        if (max >= 0 && max < min) Refuse("the repetition's greater bound is the smaller one");
      } else {
        return;
      }
      if (n_operators > kMaxGrammarDepth) Refuse("too many repetitions of one item");
      *item = Repeated(*item, min, max);
    }
  }

  Sequence Repeated(const Sequence& item, int min, int max) {
    // The item once, as one element, so that copies are small.
    Sequence one = item;
    if (item.size() > 1) one = {{Grammar::Kind::kCall, NewRule({item})}};
    Sequence out;
    Count(static_cast<size_t>(min));
    for (int i = 0; i < min; ++i) out.insert(out.end(), one.begin(), one.end());
    if (one.empty()) return out;
    if (max < 0) {
      // r ::= item r | (nothing)
      const uint32_t rule = NewRule();
      Sequence more = one;
      more.push_back({Grammar::Kind::kCall, rule});
      Count(more.size() + 2);
      rules_[rule] = {more, {}};
      defined_[rule] = true;
      out.push_back({Grammar::Kind::kCall, rule});
    } else if (max > min) {
      // r_k ::= item r_{k-1} | (nothing)
      uint32_t last = 0;
      for (int i = 0; i < max - min; ++i) {
        Sequence more = one;
        if (i > 0) more.push_back({Grammar::Kind::kCall, last});
        last = NewRule({more, {}});
      }
      out.push_back({Grammar::Kind::kCall, last});
    }
    return out;
  }

  uint32_t Hex(int n) {
    uint32_t value = 0;
    for (int i = 0; i < n; ++i) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int d = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
      if (d < 0) Refuse("a hexadecimal digit is expected");
      value = value * 16 + static_cast<uint32_t>(d);
      ++at_;
    }
    if (value > kMaxCodePoint) Refuse("no code point is so large");
    return value;
  }

  // One character of a literal or class, with escapes.
  uint32_t Character() {
    if (at_ >= text_.size()) Refuse("the text ends inside a literal or class");
    if (text_[at_] == '\\') {
      ++at_;
      const char c = at_ < text_.size() ? text_[at_++] : '\0';
      switch (c) {
        case 'n':
          return '\n';
        case 't':
          return '\t';
        case 'r':
          return '\r';
        case 'x':
          return Hex(2);
        case 'u':
          return Hex(4);
        case 'U':
          return Hex(8);
        case '\\':
        case '"':
        case '[':
        case ']':
        case '-':
        case '^':
        case '/':
          return static_cast<uint8_t>(c);
        default:
          --at_;
          Refuse("no such escape");
      }
    }
    const size_t n = Utf8SequenceLength(text_.substr(at_));
    if (n == 0) Refuse("the grammar is not valid UTF-8");
    const uint8_t first = static_cast<uint8_t>(text_[at_]);
    uint32_t code = n == 1 ? first : first & (0x7Fu >> n);
    for (size_t i = 1; i < n; ++i) code = code << 6 | (static_cast<uint8_t>(text_[at_ + i]) & 0x3F);
    at_ += n;
    return code;
  }

  Sequence Literal() {
    ++at_;
    std::string bytes;
    while (!Peek('"')) Utf8Append(Character(), &bytes);
    ++at_;
    Sequence out;
    for (const char c : bytes)
      out.push_back(Bytes(static_cast<uint8_t>(c), static_cast<uint8_t>(c)));
    return out;
  }

  Element Class() {
    ++at_;
    const bool negated = Peek('^');
    if (negated) ++at_;
    std::vector<Range> ranges;
    while (!Peek(']')) {
      const uint32_t from = Character();
      uint32_t to = from;
      if (Peek('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        to = Character();
      }
      if (to < from) Refuse("the range ends before it begins");
      ranges.emplace_back(from, to);
    }
    ++at_;
    if (negated) ranges = OtherCodePoints(std::move(ranges));
    if (ranges.empty()) Refuse("the class is empty");
    return CodePoints(ranges);
  }

  Element Set(const ByteSet& set) {
    const auto [it, added] = set_index_.try_emplace(set, static_cast<uint32_t>(out_->sets_.size()));
    if (added) out_->sets_.push_back(set);
    return {Grammar::Kind::kSet, it->second};
  }
  Element Bytes(uint8_t from, uint8_t to) {
    ByteSet set{};
    for (unsigned b = from; b <= to; ++b) set[b / 64] |= uint64_t{1} << (b % 64);
    return Set(set);
  }

  // Any of the code points (surrogates are none): one set for ASCII alone, else a rule of byte sequences.
  Element CodePoints(const std::vector<Range>& ranges) {
    ByteSet ascii{};
    bool has_ascii = false;
    Alternatives out;
    for (auto [from, to] : ranges) {
      for (; from <= to && from < 0x80; ++from) {
        ascii[from / 64] |= uint64_t{1} << (from % 64);
        has_ascii = true;
      }
      if (from > to) continue;
      // Split where the length changes and around surrogates, then where the leading bytes differ.
      static constexpr Range kParts[] = {
          {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, kMaxCodePoint}};
      for (const auto& [low, high] : kParts) {
        if (from <= high && to >= low) Split(std::max(from, low), std::min(to, high), &out);
      }
    }
    if (out.empty() && has_ascii) return Set(ascii);
    if (has_ascii) out.insert(out.begin(), Sequence{Set(ascii)});
    if (out.empty()) Refuse("the class holds surrogates only");
    if (out.size() == 1 && out[0].size() == 1) return out[0][0];
    const auto [it, added] = class_rules_.try_emplace(ranges, 0);
    if (added) it->second = NewRule(std::move(out));
    return {Grammar::Kind::kCall, it->second};
  }

  // Byte sequences of [from, to], which have one length.
  void Split(uint32_t from, uint32_t to, Alternatives* out) {
    std::string a, b;
    Utf8Append(from, &a);
    Utf8Append(to, &b);
    const size_t n = a.size();
    for (size_t i = 1; i < n; ++i) {
      const uint32_t mask = (1u << (6 * i)) - 1;  // the last i bytes
      if ((from & ~mask) == (to & ~mask)) continue;
      if ((from & mask) != 0) {
        Split(from, from | mask, out);
        Split((from | mask) + 1, to, out);
        return;
      }
      if ((to & mask) != mask) {
        Split(from, (to & ~mask) - 1, out);
        Split(to & ~mask, to, out);
        return;
      }
    }
    Sequence sequence;
    for (size_t i = 0; i < n; ++i)
      sequence.push_back(Bytes(static_cast<uint8_t>(a[i]), static_cast<uint8_t>(b[i])));
    out->push_back(std::move(sequence));
  }

  void Store() {
    for (const Alternatives& alternatives : rules_) {
      out_->rules_.emplace_back();
      for (const Sequence& s : alternatives) {
        out_->rules_.back().push_back(static_cast<uint32_t>(out_->elements_.size()));
        out_->elements_.insert(out_->elements_.end(), s.begin(), s.end());
        out_->elements_.push_back({Grammar::Kind::kEnd, 0});
      }
    }
  }

  // A rule that can call itself before any byte, with something behind the call, would never come to an end.
  void CheckRecursion() {
    const size_t n = rules_.size();
    std::vector<bool> nullable(n);
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t r = 0; r < n; ++r) {
        if (nullable[r]) continue;
        for (const Sequence& s : rules_[r]) {
          if (std::all_of(s.begin(), s.end(), [&](const Element& e) {
                return e.kind == Grammar::Kind::kCall && nullable[e.value];
              })) {
            nullable[r] = true;
            changed = true;
            break;
          }
        }
      }
    }
    struct Edge {
      uint32_t to;
      bool tail;  // nothing behind the call
    };
    std::vector<std::vector<Edge>> edges(n);
    for (size_t r = 0; r < n; ++r) {
      for (const Sequence& s : rules_[r]) {
        for (size_t i = 0; i < s.size() && s[i].kind == Grammar::Kind::kCall; ++i) {
          edges[r].push_back({s[i].value, i + 1 == s.size()});
          if (!nullable[s[i].value]) break;
        }
      }
    }
    // Strongly connected components (Tarjan 1972, iterative); within one, every edge must be a tail.
    std::vector<uint32_t> index(n, 0), low(n, 0), component(n, 0), stack;
    std::vector<bool> on_stack(n);
    uint32_t counter = 0, n_components = 0;
    for (uint32_t start = 0; start < n; ++start) {
      if (index[start] != 0) continue;
      std::vector<std::pair<uint32_t, size_t>> frames = {{start, 0}};
      while (!frames.empty()) {
        const uint32_t v = frames.back().first;
        size_t& next = frames.back().second;
        if (next == 0 && index[v] == 0) {
          index[v] = low[v] = ++counter;
          stack.push_back(v);
          on_stack[v] = true;
        }
        if (next < edges[v].size()) {
          const uint32_t w = edges[v][next++].to;
          if (index[w] == 0) {
            frames.emplace_back(w, 0);
          } else if (on_stack[w]) {
            low[v] = std::min(low[v], index[w]);
          }
          continue;
        }
        if (low[v] == index[v]) {
          ++n_components;
          for (;;) {
            const uint32_t w = stack.back();
            stack.pop_back();
            on_stack[w] = false;
            component[w] = n_components;
            if (w == v) break;
          }
        }
        frames.pop_back();
        if (!frames.empty()) low[frames.back().first] = std::min(low[frames.back().first], low[v]);
      }
    }
    for (uint32_t r = 0; r < n; ++r) {
      for (const Edge& e : edges[r]) {
        if (e.tail || component[e.to] != component[r]) continue;
        std::string name = "(a group)";
        for (const auto& [text, rule] : names_) {
          if (rule == r || rule == e.to) name = text;
        }
        Fail(ErrorCode::kInvalidArgument,
             "the grammar's rule '%s' begins with itself (left recursion)",
             Printable(name, 60).c_str());
      }
    }
  }

  std::string_view text_;
  Grammar* out_;
  size_t at_ = 0;
  size_t n_elements_ = 0;
  std::map<std::string, uint32_t> names_;
  std::vector<Alternatives> rules_;
  std::vector<bool> defined_;
  std::map<ByteSet, uint32_t> set_index_;
  std::map<std::vector<Range>, uint32_t> class_rules_;
};

Grammar::Grammar(std::string_view gbnf) { GbnfParser(gbnf, this).Run(); }

}  // namespace lutra
