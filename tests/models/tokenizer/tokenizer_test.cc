// Encoding and decoding with vocabularies made by hand, against plain slow definitions.
#include "models/tokenizer/tokenizer.h"

#include <time.h>

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/base/utf8.h"
#include "models/gguf.h"
#include "models/tokenizer/pretokenize.h"
#include "models/tokenizer/special_finder.h"
#include "tests/models/tokenizer/small_vocab.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

using testing::SmallVocab;
using Ids = std::vector<int32_t>;

constexpr const char* kLow = "\xE2\x96\x81";  // U+2581

class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed) {}
  uint32_t operator()(size_t n) {
    state_ = state_ * 1664525 + 1013904223;
    return (state_ >> 8) % static_cast<uint32_t>(n);
  }
  std::string Bytes(size_t max, std::string_view alphabet) {
    std::string s;
    for (uint32_t n = (*this)(max + 1); n > 0; --n) s += alphabet[(*this)(alphabet.size())];
    return s;
  }
  std::string ValidText(size_t max) {
    std::string s;
    for (uint32_t n = (*this)(max + 1); n > 0; --n) {
      const uint32_t kind = (*this)(4);
      const uint32_t c = (*this)(kind == 0 ? 0x110000 : kind == 1 ? 0x3000 : 0x80);
      Utf8Append(c >= 0xD800 && c < 0xE000 ? ' ' : c, &s);
    }
    return s;
  }

 private:
  uint32_t state_;
};

SmallVocab HelloSpm() {
  SmallVocab v = SmallVocab::Spm();
  for (const char* c : {kLow, "h", "e", "l", "o", "s", "<", ">"}) v.Add(c, TokenType::kNormal, -10);
  v.Add("he", TokenType::kNormal, -1);
  v.Add("ll", TokenType::kNormal, -2);
  v.Add("llo", TokenType::kNormal, -3);
  v.Add("hello", TokenType::kNormal, -4);
  v.Add(std::string(kLow) + "hello", TokenType::kNormal, -5);
  v.Add("<tool>", TokenType::kUserDefined);
  return v;
}

// `ids` as token texts with bars between.
std::string Spell(const Tokenizer& t, const Ids& ids) {
  std::string out;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += '|';
    out += t.TokenText(ids[i]);
  }
  return out;
}

std::string Stream(const Tokenizer& t, const Ids& ids, bool special,
                   std::vector<int32_t> rendered = {}) {
  StreamDecoder decoder(t, special, std::move(rendered));
  std::string all;
  for (const int32_t id : ids) {
    std::string chunk;
    decoder.Append(id, &chunk);
    CHECK(Utf8IsValid(chunk));
    all += chunk;
  }
  decoder.Flush(&all);
  CHECK(decoder.held_bytes() == 0);
  CHECK(Utf8IsValid(all));
  return all;
}

// --- Slow definitions. ---

// Merges of `parts`: the best adjacent pair first, leftmost among equals. `value` gives less for
// better pairs.
template <class Value>
std::vector<std::string> MergeSlowly(std::vector<std::string> parts, const Value& value) {
  while (true) {
    std::optional<double> best;
    size_t at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const std::optional<double> v = value(parts[i], parts[i + 1]);
      if (v && (!best || *v < *best)) {
        best = v;
        at = i;
      }
    }
    if (!best) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

// Special tokens one after another, longest first, each cut out of all that is left.
std::vector<TextFragment> SplitSlowly(const Vocab& vocab, std::string_view text,
                                      bool parse_special) {
  std::vector<TextFragment> fragments;
  if (!text.empty()) fragments.push_back({kNoToken, text});
  Ids specials;
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const TokenType t = vocab.type(id);
    if (t == TokenType::kUserDefined ||
        (parse_special && (t == TokenType::kControl || t == TokenType::kUnknown))) {
      specials.push_back(id);
    }
  }
  std::sort(specials.begin(), specials.end(),
            [&](int32_t a, int32_t b) { return vocab.text(a).size() > vocab.text(b).size(); });
  for (const int32_t id : specials) {
    std::vector<TextFragment> next;
    for (const TextFragment& f : fragments) {
      std::string_view rest = f.text;
      while (f.token == kNoToken) {
        const size_t at = rest.find(vocab.text(id));
        if (at == std::string_view::npos) break;
        const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
        size_t before = at, after = at + vocab.text(id).size();
        while (vocab.strips_left(id) && before > 0 && is_space(rest[before - 1])) --before;
        while (vocab.strips_right(id) && after < rest.size() && is_space(rest[after])) ++after;
        if (before > 0) next.push_back({kNoToken, rest.substr(0, before)});
        next.push_back({id, rest.substr(at, vocab.text(id).size())});
        rest.remove_prefix(after);
      }
      if (f.token != kNoToken || !rest.empty()) next.push_back({f.token, rest});
    }
    fragments = next;
  }
  return fragments;
}

}  // namespace

TEST_CASE("SentencePiece: the greatest score first, leftmost among equals, bytes for the rest") {
  const SmallVocab v = HelloSpm();
  const Tokenizer t(v.data);
  const auto spell = [&](std::string_view text) { return Spell(t, t.Encode(text, false, false)); };
  CHECK(spell("hello") == std::string(kLow) + "hello");
  CHECK(spell("") == "");
  CHECK(spell(" ") == std::string(kLow) + "|" + kLow);
  CHECK(spell("lll") == std::string(kLow) + "|ll|l");
  CHECK(spell("hex") == std::string(kLow) + "|he|<0x78>");
  CHECK(spell("\xC3\xA9") == std::string(kLow) + "|<0xC3>|<0xA9>");
  CHECK(spell("\xFF\x80l") ==
        std::string(kLow) + "|<0xFF>|<0x80>|<0x6C>");  // a lead byte takes 3 more
  CHECK(spell(std::string_view("\0", 1)) == std::string(kLow) + "|<0x00>");
  CHECK(spell("\n") == std::string(kLow) + "|<0x0A>");
  CHECK(spell("<s>") == std::string(kLow) + "|<|s|>");
}

TEST_CASE("SentencePiece: a space goes in front and after every special token") {
  const SmallVocab v = HelloSpm();
  const Tokenizer t(v.data);
  const std::string hello = std::string(kLow) + "hello";
  CHECK(Spell(t, t.Encode("hello", true, false)) == "<s>|" + hello);
  CHECK(Spell(t, t.Encode("<s>hello</s>hello", true, true)) ==
        "<s>|<s>|" + hello + "|</s>|" + hello);
  CHECK(Spell(t, t.Encode("<s> hello", false, true)) == "<s>|" + std::string(kLow) + "|" + hello);
  CHECK(Spell(t, t.Encode("<tool>hello", false, false)) == "<tool>|" + hello);
  CHECK(t.Encode("", true, true) == Ids{1});

  SmallVocab plain = HelloSpm();
  plain.data.add_space_prefix = false;
  const Tokenizer p(plain.data);
  CHECK(Spell(p, p.Encode("hello", false, false)) == "hello");
}

TEST_CASE(
    "SentencePiece: whole sequences lose the space that was put in front, but not after BOS") {
  const SmallVocab v = HelloSpm();
  const Tokenizer t(v.data);
  const Ids ids = t.Encode("hello", true, false);
  CHECK(t.Decode(ids, true, false) == " hello");
  CHECK(t.Decode(ids, false, true) == "<s> hello");
  CHECK(t.Decode(std::span(ids).subspan(1), true, false) == "hello");
  CHECK(t.Decode(Ids{}, true, true).empty());
  CHECK(Stream(t, ids, false) == " hello");
  CHECK(t.Decode(t.Encode("  h", false, false), false, false) == "  h");
}

TEST_CASE("SentencePiece: bytes without a token become the unknown token") {
  SetLogLevel(LogLevel::kError);
  SmallVocab v;
  v.data.model = "llama";
  v.Add("<unk>", TokenType::kUnknown);
  v.Add("<s>", TokenType::kControl);
  v.Add("a");
  const Tokenizer t(v.data);
  CHECK(t.Encode("ab", false, false) == Ids{0, 0, 0, 2, 0});  // three of U+2581
  SetLogLevel(LogLevel::kInfo);
}

TEST_CASE("Byte-pair: the lowest rank first, leftmost among equals") {
  SmallVocab v = SmallVocab::Bpe("gpt-2");
  const int32_t bc = v.Merge("b", "c"), ab = v.Merge("a", "b"), aa = v.Merge("a", "a");
  const int32_t abbc = v.Merge("ab", "bc"), space_a = v.Merge("\xC4\xA0", "a");
  const Tokenizer t(v.data);
  CHECK(t.Encode("abc", false, false) == Ids{'a', bc});
  CHECK(t.Encode("abbc", false, false) == Ids{abbc});
  CHECK(t.Encode("aaa", false, false) == Ids{aa, 'a'});
  CHECK(t.Encode("ab a", false, false) == Ids{ab, space_a});
  CHECK(t.Encode("\xFF", false, false) == Ids{0xEF, 0xBF, 0xBD});
  CHECK(t.Encode("", true, true).empty());
}

TEST_CASE(
    "Byte-pair: a piece that is a token is taken whole only where the pre-tokenizer says so") {
  for (const char* pre : {"llama-bpe", "qwen2"}) {
    SmallVocab v = SmallVocab::Bpe(pre);
    const int32_t unreachable = v.Add("abc");
    const Tokenizer t(v.data);
    const Ids whole = {unreachable}, parts = {'a', 'b', 'c'};
    CHECK(t.Encode("abc", false, false) == (std::string(pre) == "llama-bpe" ? whole : parts));
  }
}

TEST_CASE("Byte-pair: pieces map back to bytes, characters outside the alphabet are named") {
  SmallVocab v = SmallVocab::Bpe("qwen2");
  const int32_t odd = v.Add("a\xE4\xB8\xAD\xFF"), control = v.Add("<c>", TokenType::kControl);
  const Tokenizer t(v.data);
  for (int b = 0; b < 256; ++b)
    CHECK(t.TokenToPiece(b, false) == std::string(1, static_cast<char>(b)));
  CHECK(t.TokenToPiece(odd, false) == "a[UNK_BYTE_0xe4b8ad][UNK_BYTE_0xff]");
  CHECK(t.TokenToPiece(control, false).empty());
  CHECK(t.TokenToPiece(control, true) == "<c>");
  std::string appended = "x";
  t.AppendPiece('a', false, &appended);
  CHECK(appended == "xa");
}

TEST_CASE("Spaces are cleaned in whole sequences only, and only where the vocabulary asks") {
  const std::string text = "he said ' hi ' n't 's . x ?!  , we 're 'd 'm ' ' '";
  const SmallVocab llama = SmallVocab::Bpe("llama-bpe"), qwen = SmallVocab::Bpe("qwen2");
  const Tokenizer clean(llama.data), plain(qwen.data);
  const Ids ids = clean.Encode(text, false, false);
  CHECK(clean.Decode(ids, false, false) == "he said'hi'n't's. x?! , we're 'd'm'' '");
  CHECK(Stream(clean, ids, false) == text);
  CHECK(plain.Decode(plain.Encode(text, false, false), false, false) == text);
}

TEST_CASE("A longer special text wins over a shorter one even if it starts later") {
  SmallVocab v = SmallVocab::Bpe("qwen2");
  const int32_t ab = v.Add("<ab", TokenType::kControl),
                long_one = v.Add("b>cd", TokenType::kControl);
  const int32_t user = v.Add("ab", TokenType::kUserDefined);
  const Tokenizer t(v.data);
  CHECK(t.Encode("<ab>cd", false, true) == Ids{'<', 'a', long_one});
  CHECK(t.Encode("<ab>c", false, true) == Ids{ab, '>', 'c'});
  CHECK(t.Encode("<ab>cd", false, false) == Ids{'<', user, '>', 'c', 'd'});
}

TEST_CASE("Phi-3's special tokens swallow the white space behind them") {
  SmallVocab v = HelloSpm();
  const int32_t user = v.Add("<|user|>", TokenType::kControl);
  v.data.name = "Phi-3-mini";
  const Tokenizer t(v.data);
  CHECK(Spell(t, t.Encode("<|user|>\n\t hello", false, true)) ==
        std::string("<|user|>|") + kLow + "hello");
  CHECK(Spell(t, t.Encode("<s> hello", false, true)) ==
        std::string("<s>|") + kLow + "|" + kLow + "hello");
  CHECK(t.vocab().strips_right(user));
}

TEST_CASE("Special tokens are found as by the slow definition") {
  SetLogLevel(LogLevel::kError);
  Random random(5);
  const std::string_view alphabet = "aab< >";
  size_t cut = 0;
  for (int round = 0; round < 3000; ++round) {
    SmallVocab v = SmallVocab::Spm();
    v.data.tokens.resize(3);
    v.data.types.resize(3);
    v.data.scores.resize(3);
    std::set<size_t> lengths;  // the order of equal lengths is not defined
    for (uint32_t n = random(6); n > 0; --n) {
      const std::string text = random.Bytes(5, alphabet) + "a";
      if (!lengths.insert(text.size()).second) continue;
      constexpr TokenType kTypes[] = {TokenType::kControl, TokenType::kUserDefined,
                                      TokenType::kNormal};
      v.Add(text, kTypes[random(3)]);
    }
    if (random(3) == 0) v.data.name = "phi3";
    const Vocab vocab(v.data);
    const SpecialFinder finder(vocab);
    const std::string text = random.Bytes(20, alphabet);
    for (const bool parse_special : {false, true}) {
      const auto fragments = finder.Split(text, parse_special);
      const auto expected = SplitSlowly(vocab, text, parse_special);
      CAPTURE(text);
      REQUIRE(fragments.size() == expected.size());
      for (size_t i = 0; i < fragments.size(); ++i) {
        CHECK(fragments[i].token == expected[i].token);
        if (expected[i].token == kNoToken) CHECK(fragments[i].text == expected[i].text);
      }
      cut += fragments.size() > 2;
    }
  }
  SetLogLevel(LogLevel::kInfo);
  CHECK(cut > 500);
}

TEST_CASE("Merges are those of the slow definition") {
  SetLogLevel(LogLevel::kError);
  Random random(6);
  const std::string_view alphabet = "aaabbc";
  for (int round = 0; round < 300; ++round) {
    SmallVocab spm = SmallVocab::Spm(), bpe = SmallVocab::Bpe("qwen2");
    for (const char* c : {kLow, "a", "b", "c"}) spm.Add(c);
    std::map<std::string, double> scores;
    std::map<std::pair<std::string, std::string>, double> ranks;
    std::vector<std::string> known = {"a", "b", "c"};
    for (int i = 0; i < 12; ++i) {
      const std::string left = known[random(known.size())], right = known[random(known.size())];
      known.push_back(left + right);
      if (ranks.emplace(std::pair(left, right), i).second) bpe.Merge(left, right);
      const double score = -static_cast<double>(random(4));
      if (scores.emplace(left + right, score).second) {
        spm.Add(left + right, TokenType::kNormal, static_cast<float>(score));
      }
    }
    const Tokenizer spm_tokenizer(spm.data), bpe_tokenizer(bpe.data);
    for (int i = 0; i < 10; ++i) {
      const std::string text = random.Bytes(30, alphabet);
      std::vector<std::string> letters;
      for (const char c : text) letters.emplace_back(1, c);
      const auto by_rank = MergeSlowly(letters, [&](const std::string& a, const std::string& b) {
        const auto it = ranks.find({a, b});
        return it == ranks.end() ? std::nullopt : std::optional<double>(it->second);
      });
      const auto by_score = MergeSlowly(letters, [&](const std::string& a, const std::string& b) {
        const auto it = scores.find(a + b);
        return it == scores.end() ? std::nullopt : std::optional<double>(-it->second);
      });
      const auto join = [](const std::vector<std::string>& parts) {
        std::string out;
        for (const std::string& p : parts) out += (out.empty() ? "" : "|") + p;
        return out;
      };
      CHECK(Spell(bpe_tokenizer, bpe_tokenizer.Encode(text, false, false)) == join(by_rank));
      Ids ids = spm_tokenizer.Encode(text, false, false);
      if (!ids.empty()) ids.erase(ids.begin());  // the space in front
      CHECK(Spell(spm_tokenizer, ids) == join(by_score));
    }
  }
  SetLogLevel(LogLevel::kInfo);
}

TEST_CASE("Every valid text comes back from byte-level ids, whatever the pre-tokenizer") {
  Random random(7);
  for (const PreTokenizer& row : PreTokenizers()) {
    CAPTURE(std::string(row.name));
    SmallVocab v = SmallVocab::Bpe(row.name);
    v.Merge("a", "b");
    v.Merge("\xC4\xA0", "a");
    v.Merge("\xC4\xA0", "\xC4\xA0");
    const Tokenizer t(v.data);
    for (int i = 0; i < 40; ++i) {
      const std::string text = random.ValidText(40);
      const Ids ids = t.Encode(text, false, false);
      CHECK(Stream(t, ids, false) == text);
      if (!row.clean_spaces) CHECK(t.Decode(ids, false, false) == text);
    }
  }
}

TEST_CASE("Any bytes are encoded, and SentencePiece gives them back") {
  const SmallVocab spm = HelloSpm(), bpe = SmallVocab::Bpe("llama-bpe");
  const Tokenizer s(spm.data), b(bpe.data);
  Random random(8);
  // A broken lead byte may take a part of the escaped space behind it: then it stays U+2581.
  CHECK(s.Decode(s.Encode("\xC3 x", false, false), false, false) ==
        std::string("\xC3") + kLow + "x");
  std::string any;
  for (int c = 0; c < 256; ++c) any += static_cast<char>(c);
  for (int i = 0; i < 500; ++i) {
    std::string text = random.Bytes(60, any);
    const Ids with_spaces = s.Encode(text, true, true);
    CHECK(Stream(s, with_spaces, true).size() >= text.size());
    std::replace(text.begin(), text.end(), ' ', '_');
    CHECK(s.Decode(s.Encode(text, false, false), false, false) == text);
    const Ids ids = b.Encode(text, true, true);
    CHECK(Utf8IsValid(Stream(b, ids, true)));
  }
}

TEST_CASE("A stream holds back what is not yet a character") {
  const SmallVocab v = HelloSpm();
  const Tokenizer t(v.data);
  const auto byte = [](int b) { return 3 + b; };
  StreamDecoder decoder(t);
  std::string out;
  for (const int b : {0xF0, 0x9F, 0x98}) {
    decoder.Append(byte(b), &out);
    CHECK(out.empty());
  }
  CHECK(decoder.held_bytes() == 3);
  decoder.Append(byte(0x80), &out);
  CHECK(out == "\xF0\x9F\x98\x80");
  out.clear();
  decoder.Append(byte(0xE2), &out);
  decoder.Append(byte('a'), &out);  // the sequence will never be whole
  CHECK(out ==
        "\xEF\xBF\xBD"
        "a");
  out.clear();
  decoder.Append(byte(0xE2), &out);
  decoder.Append(byte(0x82), &out);
  decoder.Flush(&out);
  CHECK(out == "\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK_THROWS_AS(decoder.Append(-1, &out), Error);
  CHECK(Stream(t, {1, 2}, false).empty());
  CHECK(Stream(t, {1, 2}, true) == "<s></s>");
  CHECK(Stream(t, {2, 1}, false, {2}) == "</s>");
}

TEST_CASE("Threads share a tokenizer") {
  const SmallVocab v = HelloSpm();
  const Tokenizer t(v.data);
  const Ids expected = t.Encode("hello <s> hello", true, true);
  std::vector<int> wrong(4);
  {
    std::vector<std::jthread> threads;
    for (int& n : wrong) {
      threads.emplace_back([&t, &expected, &n] {
        for (int i = 0; i < 200; ++i) n += t.Encode("hello <s> hello", true, true) != expected;
      });
    }
  }
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("A text above the limit is refused") {
  const SmallVocab v = HelloSpm();
  const Tokenizer t(v.data);
  // Not read: only the size counts.
  const std::string_view huge("", kMaxTextBytes + 1);
  CHECK_THROWS_AS(t.Encode(huge, false, false), Error);
}

// --- Long texts: time grows with the length, not with its square. ---

namespace {

// Processor time of this thread: other programs on the machine do not count.
double ThreadSeconds() {
  timespec now{};
  REQUIRE(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The least of three runs.
double Seconds(const Tokenizer& t, const std::string& text) {
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    const double start = ThreadSeconds();
    const Ids ids = t.Encode(text, true, true);
    best = std::min(best, ThreadSeconds() - start);
    CHECK(!ids.empty());
  }
  return best;
}

void CheckLinear(const Tokenizer& t, const std::string& name) {
  const std::pair<std::string, std::string> units[] = {
      {"letters", "a"},
      {"upper case", "A"},
      {"spaces", " "},
      {"spaces before an ideograph", "\xE4\xB8\x80 \t "},
      {"newlines", "\n"},
      {"emoji", "\xF0\x9F\x98\x80"},
      {"invalid", "\xFF"},
      {"truncated", "\xE2\x96"},
      {"digits", "1"},
      {"punctuation", "<|"},
      {"almost special", "<|endoftext"},
      {"special", "</s>"},
      {"letters beyond ASCII", "\xC3\x80"},
      {"mixed", "The quick brown fox, 12 \xE4\xB8\x80's.\n"},
  };
  for (const auto& [unit_name, part] : units) {
    const auto text = [&unit = part](size_t bytes) {
      std::string s;
      while (s.size() < bytes) s += unit;
      return s + "\xE4\xB8\x80";  // a run that ends, before what no splitter joins to it
    };
    constexpr size_t kBytes = size_t{1} << 13, kFactor = 8;
    const double small = Seconds(t, text(kBytes)), large = Seconds(t, text(kFactor * kBytes));
    INFO(name << ", " << unit_name << ": " << small << " s and " << large
              << " s for 8 times as much");
    CHECK(large < 4 * kFactor * small);  // quadratic time: kFactor times kFactor
  }
}

}  // namespace

TEST_CASE("Long texts of any kind take time in proportion to their length") {
  SmallVocab spm = HelloSpm();
  std::string run = "a";
  spm.Add(run);
  for (int i = 0; i < 5; ++i) {
    run += run;
    spm.Add(run, TokenType::kNormal, static_cast<float>(i));
  }
  CheckLinear(Tokenizer(spm.data), "spm");
  std::set<const Splitter*> seen;
  for (const PreTokenizer& row : PreTokenizers()) {
    if (!seen.insert(row.splitter).second) continue;
    SmallVocab bpe = SmallVocab::Bpe(row.name);
    for (const char* c : {"a", "A", "\xC4\xA0", "\xC4\x8A", "1", "\xC3\xBF"}) {
      std::string text = c;
      for (int i = 0; i < 5; ++i) {
        bpe.Merge(text, text);
        text += text;
      }
    }
    bpe.Add("</s>", TokenType::kControl);
    bpe.Add("<|endoftext|>", TokenType::kControl);
    CheckLinear(Tokenizer(bpe.data), row.name);
  }
}

TEST_CASE("Long texts take time in proportion to their length with real vocabularies too") {
  LUTRA_REQUIRE_SHARED(shared);
  for (const char* name : {"llama-bpe", "qwen2", "llama-spm", "gpt-2", "deepseek-llm"}) {
    const auto t =
        Tokenizer::FromGguf(GgufFile::Open(shared + "/vocabs/ggml-vocab-" + name + ".gguf"));
    CheckLinear(*t, name);
  }
}

}  // namespace lutra
