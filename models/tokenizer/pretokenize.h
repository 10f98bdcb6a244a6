// Pre-tokenizers: cutting text into the pieces that byte-pair merges may not cross.
//
// A splitter is a list of expressions. The first is applied to the whole text, each next one to
// every piece so far; matches and the gaps between them all become pieces. Expressions are written
// by hand in linear time (backtracking on `\s+(?!\S)` is quadratic); each stands beside the regular
// expression it equals, and the tests compare the two. Letters have no case beyond ASCII here:
// `[^a-z]` and `[^A-Z]` both take every non-ASCII letter. Source: the tables of published
// pre-tokenizers as GGUF names them (`tokenizer.ggml.pre`); classes of code points are those of
// Unicode 15.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/unicode_tables.h"

namespace lutra {

// Text as splitters see it: code points and their classes, of equal length.
struct SplitText {
  std::vector<uint32_t> code_points;
  std::vector<unicode::CodePointClass> classes;
};

// Decodes `bytes`, which may be anything. A byte that does not start a complete sequence becomes
// U+FFFD; only the patterns of lead and continuation bytes are tested, so that encoded surrogates
// and overlong forms give the code point they spell; values above U+10FFFF are invalid. Overwrites
// *text. bytes.size() < 2^32.
void DecodeForSplit(std::string_view bytes, SplitText* text);

// The part [begin, end) of a text that an expression sees; `end` is the end of text to it.
struct SplitWindow {
  const uint32_t* cp;
  const unicode::CodePointClass* cls;
  size_t begin;
  size_t end;
};

struct SplitExpression {
  const char* published;  // as a PCRE2 pattern; all white space beyond ASCII reads as U+000B
  size_t (*match)(const SplitWindow&, size_t i);  // code points of the match that starts at i, or 0
};

struct Splitter {
  const char* name;
  std::span<const SplitExpression> expressions;
};

// One value of `tokenizer.ggml.pre` and what it switches.
struct PreTokenizer {
  const char* name;
  const Splitter* splitter;
  bool whole_word_first;  // a piece that is a token is taken before any merge is tried
  bool add_bos;           // default of add_bos_token
  bool clean_spaces;      // whole-sequence decoding drops spaces before punctuation
  bool has_bos_default;   // the byte-pair default ids apply to BOS
};

std::span<const PreTokenizer> PreTokenizers();
std::span<const Splitter* const> Splitters();
// nullptr if the name is not in the table.
const PreTokenizer* FindPreTokenizer(std::string_view name);

// Ends of the pieces of `text`, as code point indexes in ascending order; the last is the length.
// Linear in the text. *ends is overwritten.
void Split(const Splitter& splitter, const SplitText& text, std::vector<uint32_t>* ends);

}  // namespace lutra
