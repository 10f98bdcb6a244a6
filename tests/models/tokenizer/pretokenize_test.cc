#include "models/tokenizer/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <set>

#include "kernels/base/utf8.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

using unicode::ClassOf;
using unicode::CodePointClass;

std::string Encode(const std::vector<uint32_t>& code_points, size_t begin, size_t end) {
  std::string out;
  for (size_t i = begin; i < end; ++i) Utf8Append(code_points[i], &out);
  return out;
}

// The pieces with bars between.
std::string Pieces(const Splitter& splitter, std::string_view text) {
  SplitText split;
  DecodeForSplit(text, &split);
  std::vector<uint32_t> ends;
  Split(splitter, split, &ends);
  std::string pieces;
  uint32_t begin = 0;
  for (const uint32_t end : ends) {
    if (begin > 0) pieces += '|';
    pieces += Encode(split.code_points, begin, end);
    begin = end;
  }
  return pieces;
}

const Splitter& SplitterNamed(std::string_view name) {
  for (const Splitter* s : Splitters()) {
    if (name == s->name) return *s;
  }
  FAIL("no splitter " << name);
  return *Splitters()[0];
}

struct Case {
  const char* splitter;
  const char* text;
  const char* pieces;  // with bars between
};

// One splitter written as the published patterns, run by a regular expression engine.
class PatternSplitter {
 public:
  explicit PatternSplitter(const Splitter& splitter) {
    for (const SplitExpression& expression : splitter.expressions) {
      int error;
      PCRE2_SIZE offset;
      pcre2_code* code =
          pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.published), PCRE2_ZERO_TERMINATED,
                        PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &offset, nullptr);
      REQUIRE_MESSAGE(code != nullptr, expression.published << " at " << offset);
      codes_.push_back(code);
    }
  }
  PatternSplitter(const PatternSplitter&) = delete;
  PatternSplitter& operator=(const PatternSplitter&) = delete;
  ~PatternSplitter() {
    for (pcre2_code* code : codes_) pcre2_code_free(code);
  }

  // Ends of pieces in code points. White space beyond ASCII becomes U+000B first.
  std::vector<uint32_t> Split(std::vector<uint32_t> text) const {
    for (uint32_t& c : text) {
      if (c >= 0x80 && unicode::IsWhiteSpace(c)) c = 0x0B;
    }
    std::vector<uint32_t> ends;
    if (!text.empty()) ends.push_back(static_cast<uint32_t>(text.size()));
    for (const pcre2_code* code : codes_) {
      std::vector<uint32_t> next;
      uint32_t begin = 0;
      for (const uint32_t end : ends) {
        SplitPiece(code, text, begin, end, &next);
        begin = end;
      }
      ends = next;
    }
    return ends;
  }

 private:
  static void SplitPiece(const pcre2_code* code, const std::vector<uint32_t>& text, uint32_t begin,
                         uint32_t end, std::vector<uint32_t>* ends) {
    std::string subject;
    std::vector<uint32_t> at_byte;  // code point that starts at a byte
    for (uint32_t i = begin; i < end; ++i) {
      Utf8Append(text[i], &subject);
      at_byte.resize(subject.size(), i);
    }
    at_byte.push_back(end);
    pcre2_match_data* match = pcre2_match_data_create_from_pattern(code, nullptr);
    size_t done = 0, from = 0;
    while (from < subject.size() && pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(subject.data()),
                                                subject.size(), from, 0, match, nullptr) > 0) {
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match);
      REQUIRE(range[1] > range[0]);
      if (range[0] > done) ends->push_back(at_byte[range[0]]);
      ends->push_back(at_byte[range[1]]);
      done = from = range[1];
    }
    if (done < subject.size()) ends->push_back(end);
    pcre2_match_data_free(match);
  }

  std::vector<pcre2_code*> codes_;
};

}  // namespace

TEST_CASE("Code points have the classes of Unicode 15.1") {
  CHECK(ClassOf('a') == CodePointClass::kLetter);
  CHECK(ClassOf('Z') == CodePointClass::kLetter);
  CHECK(ClassOf('[') == CodePointClass::kPunctuation);
  CHECK(ClassOf('`') == CodePointClass::kSymbol);
  CHECK(ClassOf('0') == CodePointClass::kNumber);
  CHECK(ClassOf(0xB2) == CodePointClass::kNumber);  // superscript two
  CHECK(ClassOf(0x301) == CodePointClass::kMark);
  CHECK(ClassOf(0x4E00) == CodePointClass::kLetter);
  CHECK(ClassOf(0x2EBF0) == CodePointClass::kLetter);  // new in 15.1
  CHECK(ClassOf(0x2FFC) == CodePointClass::kSymbol);   // new in 15.1
  CHECK(ClassOf(0x1CCD6) == CodePointClass::kOther);   // new in 16
  CHECK(ClassOf(0x1F600) == CodePointClass::kSymbol);
  CHECK(ClassOf(0xE000) == CodePointClass::kOther);
  CHECK(ClassOf(0x378) == CodePointClass::kOther);
  CHECK(ClassOf(0xD800) == CodePointClass::kOther);
  CHECK(ClassOf(0x10FFFF) == CodePointClass::kOther);
  CHECK(ClassOf(0x110000) == CodePointClass::kOther);
  CHECK(ClassOf(UINT32_MAX) == CodePointClass::kOther);
  for (const uint32_t c : {0x09u, 0x0Du, 0x20u, 0x85u, 0xA0u, 0x1680u, 0x2000u, 0x200Au, 0x2028u,
                           0x2029u, 0x202Fu, 0x205Fu, 0x3000u}) {
    CHECK(ClassOf(c) == CodePointClass::kSpace);
  }
  for (const uint32_t c : {0x08u, 0x0Eu, 0x1Cu, 0x1Fu, 0x180Eu, 0x200Bu, 0xFEFFu}) {
    CHECK(ClassOf(c) == CodePointClass::kOther);
  }
  // Totals of DerivedGeneralCategory-15.1.0.txt.
  std::array<size_t, 7> count{};
  for (uint32_t c = 0; c < 0x110000; ++c) ++count[static_cast<size_t>(ClassOf(c))];
  CHECK(count[static_cast<size_t>(CodePointClass::kLetter)] == 136726);
  CHECK(count[static_cast<size_t>(CodePointClass::kNumber)] == 1831);
  CHECK(count[static_cast<size_t>(CodePointClass::kPunctuation)] == 842);
  CHECK(count[static_cast<size_t>(CodePointClass::kSymbol)] == 7775);
  CHECK(count[static_cast<size_t>(CodePointClass::kMark)] == 2450);
  CHECK(count[static_cast<size_t>(CodePointClass::kSpace)] == 25);
}

TEST_CASE("Broken UTF-8 becomes U+FFFD byte by byte, surrogates and overlong forms stay") {
  const auto decode = [](std::string_view bytes) {
    SplitText text;
    DecodeForSplit(bytes, &text);
    CHECK(text.classes.size() == text.code_points.size());
    return text.code_points;
  };
  using Points = std::vector<uint32_t>;
  CHECK(decode("") == Points{});
  CHECK(decode("a\xC3\xA9") == Points{'a', 0xE9});
  CHECK(decode("\xE2\x82") == Points{0xFFFD, 0xFFFD});
  CHECK(decode("\xF0\x9F\x98") == Points{0xFFFD, 0xFFFD, 0xFFFD});
  CHECK(decode("\x80\xFF") == Points{0xFFFD, 0xFFFD});
  CHECK(decode("\xED\xA0\x80") == Points{0xD800});
  CHECK(decode("\xC0\x80") == Points{0});
  CHECK(decode("\xF4\x8F\xBF\xBF") == Points{0x10FFFF});
  CHECK(decode("\xF4\x90\x80\x80") == Points{0xFFFD, 0xFFFD, 0xFFFD, 0xFFFD});
  CHECK(decode("\xF7\xBF\xBF\xBF") == Points{0xFFFD, 0xFFFD, 0xFFFD, 0xFFFD});
  CHECK(decode("\xE2\x41") == Points{0xFFFD, 'A'});
  CHECK(decode(std::string_view("\0x", 2)) == Points{0, 'x'});
}

TEST_CASE("Every pre-tokenizer of the table is found by its name, once") {
  std::set<std::string> names;
  for (const PreTokenizer& row : PreTokenizers()) {
    CHECK(names.insert(row.name).second);
    CHECK(FindPreTokenizer(row.name) == &row);
    CHECK(&SplitterNamed(row.splitter->name) == row.splitter);
  }
  for (const char* name : {"default", "llama-bpe", "qwen2", "smollm", "gpt-2", "deepseek-llm",
                           "deepseek-r1-qwen", "tekken"}) {
    CHECK(names.count(name) == 1);
  }
  CHECK(FindPreTokenizer("") == nullptr);
  CHECK(FindPreTokenizer("qwen") == nullptr);
  CHECK(FindPreTokenizer("llama-bpe")->whole_word_first);
  CHECK_FALSE(FindPreTokenizer("qwen2")->whole_word_first);
  CHECK_FALSE(FindPreTokenizer("qwen2")->clean_spaces);
}

TEST_CASE("Splitters cut where their patterns say") {
  const Case cases[] = {
      // Contractions.
      {"GPT2", "I'm he'LL", "I|'m| he|'|LL"},
      {"LLAMA3", "I'm he'LL o'v", "I|'m| he|'LL| o|'v"},
      {"QWEN2", "'S'rE'x", "'S|'rE|'x"},
      {"SMOLLM", "don't", "don|'t"},
      // White space: the last blank goes with the word, newlines end a run.
      {"GPT2", "a   b  ", "a|  | b|  "},
      {"GPT2", "a \n b", "a| \n| b"},
      {"LLAMA3", "a   b  ", "a|  | b|  "},
      {"LLAMA3", "a \n\n  b", "a| \n\n| | b"},
      {"LLAMA3", "x.\n\ny", "x|.\n\n|y"},
      {"QWEN2", "\t\tx", "\t|\tx"},
      {"TEKKEN", "a //\n b", "a| //\n| b"},
      {"DEFAULT", "a  b", "a| | b"},
      {"DS_LLM", "a\n\n b  ", "a|\n|\n| b|  "},
      {"DS_LLM", "  5", "  |5"},
      {"DS_CODER", "a\r\n\tb", "a|\r|\n|\tb"},
      {"LLAMA3",
       "a\xC2\xA0"
       "b",
       "a|\xC2\xA0"
       "b"},                                                                // no-break space
      {"DS_LLM", "\xE3\x80\x80\xE4\xB8\x80", "\xE3\x80\x80|\xE4\xB8\x80"},  // U+3000, ideograph
      // Digits.
      {"GPT2", "x 12345", "x| 12345"},
      {"LLAMA3", "x 12345", "x| |123|45"},
      {"QWEN2", "x 123", "x| |1|2|3"},
      {"SMOLLM", "a123", "a|1|2|3"},
      {"DEFAULT", "12345 7", "123|45| |7"},
      {"FALCON", "12345", "123|45"},
      {"DS_V3", "12345a", "123|45|a"},
      {"DS_LLM", "a1234", "a|1234"},
      {"MINICPM5", "12345", "123|45"},
      {"GPT4O", "1234", "123|4"},
      {"TEKKEN", "12", "1|2"},
      // Punctuation and symbols.
      {"DEFAULT", "a<=b c.", "a|<=|b| c|."},
      {"FALCON", "a`b", "a|`|b"},
      {"DEFAULT", "a`b", "a|`|b"},
      {"DS_V3", "a.b ==\n", "a|.b| ==\n"},
      {"DS_V3", "(foo bar)", "(foo| bar|)"},
      {"LLAMA3", "(foo bar)", "(foo| bar|)"},
      {"GPT2", "(foo bar)", "(|foo| bar|)"},
      // Scripts and marks.
      {"DS_LLM",
       "ab\xE4\xB8\xAD\xE6\x96\x87"
       "c",
       "ab|\xE4\xB8\xAD\xE6\x96\x87|c"},
      {"DS_V3",
       "ab\xE4\xB8\xAD\xE6\x96\x87"
       "c",
       "ab|\xE4\xB8\xAD\xE6\x96\x87|c"},
      {"LLAMA3",
       "ab\xE4\xB8\xAD\xE6\x96\x87"
       "c",
       "ab\xE4\xB8\xAD\xE6\x96\x87"
       "c"},
      {"LLAMA3",
       "e\xCC\x81"
       "e",
       "e|\xCC\x81"
       "e"},
      {"QWEN2",
       "e\xCC\x81"
       "e",
       "e|\xCC\x81"
       "e"},
      {"QWEN35",
       "e\xCC\x81"
       "e",
       "e\xCC\x81"
       "e"},
      {"DS_V3",
       "e\xCC\x81"
       "e",
       "e\xCC\x81"
       "e"},
      {"GPT2",
       "e\xCC\x81"
       "e",
       "e|\xCC\x81|e"},
      // Case: letters beyond ASCII are both.
      {"TEKKEN", "fooBarBAZ", "foo|Bar|BAZ"},
      {"TEKKEN", "HTTPServer", "HTTPServer"},
      {"TEKKEN",
       "\xC3\x80"
       "AB c",
       "\xC3\x80|AB| c"},
      {"TEKKEN",
       "a\xC3\x80"
       "B",
       "a\xC3\x80|B"},
      {"GPT4O", "fooBar'S", "foo|Bar'S"},
      {"GPT4O", "DON'T", "DON'T"},
      // Broken UTF-8 is a symbol.
      {"LLAMA3",
       "a\xFF\xFE"
       "b",
       "a|\xEF\xBF\xBD\xEF\xBF\xBD|b"},
      {"GPT2",
       "a\xFF\xFE"
       "b",
       "a|\xEF\xBF\xBD\xEF\xBF\xBD|b"},
      // Gaps between matches are pieces.
      {"SMOLLM", "a1b", "a|1|b"},
      {"DS_LLM",
       "\x01\x02"
       "a",
       "\x01\x02|a"},
      {"DS_CODER", "a\x01\x02 b", "a|\x01\x02| b"},
  };
  std::set<std::string> covered;
  for (const Case& c : cases) {
    CAPTURE(std::string(c.splitter));
    CAPTURE(std::string(c.text));
    CHECK(Pieces(SplitterNamed(c.splitter), c.text) == std::string(c.pieces));
    covered.insert(c.splitter);
  }
  CHECK(covered.size() == Splitters().size());
  for (const Splitter* s : Splitters()) CHECK(Pieces(*s, "").empty());
}

TEST_CASE("The handwritten splitters equal the published patterns on random texts") {
  // Code points that the engine's older Unicode tables class alike, of every class and with
  // everything that patterns name.
  const std::vector<uint32_t> rare = {
      0x00,   0x01,   0x1F,   0x7F,    0x85,    0xA0,    0xAD,    0x1680,   0x2003, 0x2028, 0x202F,
      0x3000, 0xAA,   0xB2,   0xBD,    0xC0,    0xE9,    0xDF,    0x1C5,    0x301,  0x489,  0x93E,
      0x905,  0x966,  0x3A9,  0x436,   0x5D0,   0x627,   0x660,   0x10D0,   0x1E9E, 0x200B, 0x200D,
      0x2018, 0x2019, 0x2026, 0x20AC,  0x2160,  0x2190,  0x2460,  0x3001,   0x3005, 0x3042, 0x30A2,
      0x309F, 0x4E00, 0x9FA5, 0x9FA6,  0xAC00,  0xD7A3,  0xD7FF,  0xE000,   0xFB01, 0xFE0F, 0xFF01,
      0xFF10, 0xFF21, 0xFFFD, 0x10400, 0x1D400, 0x1F600, 0x20000, 0x10FFFF, 0x378};
  const std::string common = " \n\r\t'sStTrReEvVmMlLdDaAzZ09/.,`^|~$+<=>_[](){}-\"\\#";
  uint32_t state = 2024;
  const auto random = [&state](size_t n) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % static_cast<uint32_t>(n);
  };
  std::vector<std::vector<uint32_t>> texts;
  for (int i = 0; i < 2500; ++i) {
    std::vector<uint32_t>& text = texts.emplace_back();
    const uint32_t style = random(4);
    for (size_t n = 1 + random(24); n > 0; --n) {
      uint32_t c = style < 3 && random(4) > style
                       ? static_cast<uint8_t>(common[random(common.size())])
                       : rare[random(rare.size())];
      for (uint32_t repeat = random(8) == 0 ? 1 + random(5) : 1; repeat > 0; --repeat)
        text.push_back(c);
    }
  }
  for (const Splitter* splitter : Splitters()) {
    CAPTURE(splitter->name);
    const PatternSplitter pattern(*splitter);
    size_t n_pieces = 0, n_texts = 0;
    for (const std::vector<uint32_t>& text : texts) {
      SplitText split{text, {}};
      for (const uint32_t c : text) split.classes.push_back(ClassOf(c));
      std::vector<uint32_t> ends;
      Split(*splitter, split, &ends);
      const std::vector<uint32_t> expected = pattern.Split(text);
      if (ends != expected) {
        CAPTURE(Encode(text, 0, text.size()));
        CHECK(ends == expected);
      }
      n_pieces += ends.size();
      ++n_texts;
    }
    CHECK(n_pieces > n_texts);
  }
}

}  // namespace lutra
