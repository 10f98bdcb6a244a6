#include "models/tokenizer/pretokenize.h"

#include <algorithm>
#include <array>
#include <string>

namespace lutra {
namespace {

using unicode::CodePointClass;
using Window = SplitWindow;

struct Range {
  uint32_t first, last;
};

// Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee, Deseret, ... letters of the DeepSeek LLM
// split.
constexpr Range kDeepSeekLetters[] = {
    {0x41, 0x5A},       {0x61, 0x7A},       {0xB5, 0xB5},       {0xC0, 0xD6},
    {0xD8, 0xF6},       {0xF8, 0x1BA},      {0x1BC, 0x1BF},     {0x1C4, 0x293},
    {0x295, 0x2AF},     {0x370, 0x373},     {0x376, 0x377},     {0x37B, 0x37D},
    {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},     {0x38C, 0x38C},
    {0x38E, 0x3A1},     {0x3A3, 0x3F5},     {0x3F7, 0x481},     {0x48A, 0x52F},
    {0x531, 0x556},     {0x10A0, 0x10C5},   {0x13A0, 0x13F5},   {0x13F8, 0x13FD},
    {0x1C90, 0x1CBA},   {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},   {0x1D6B, 0x1D77},
    {0x1D79, 0x1D9A},   {0x1E00, 0x1F15},   {0x1F18, 0x1F1D},   {0x1F20, 0x1F45},
    {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},   {0x1F5B, 0x1F5B},
    {0x1F5D, 0x1F5D},   {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},   {0x1FB6, 0x1FBC},
    {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},   {0x1FC6, 0x1FCC},   {0x1FD0, 0x1FD3},
    {0x1FD6, 0x1FDB},   {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},   {0x1FF6, 0x1FFC},
    {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210A, 0x2113},   {0x2115, 0x2115},
    {0x2119, 0x211D},   {0x2124, 0x2124},   {0x2126, 0x2126},   {0x2128, 0x2128},
    {0x212A, 0x212D},   {0x212F, 0x2134},   {0x2139, 0x2139},   {0x213C, 0x213F},
    {0x2145, 0x2149},   {0x214E, 0x214E},   {0x2183, 0x2184},   {0x2C00, 0x2C7B},
    {0x2C7E, 0x2CE4},   {0x2CEB, 0x2CEE},   {0x2CF2, 0x2CF3},   {0xA640, 0xA66D},
    {0xA680, 0xA69B},   {0xA722, 0xA76F},   {0xA771, 0xA787},   {0xA78B, 0xA78E},
    {0xAB70, 0xABBF},   {0xFB00, 0xFB06},   {0xFB13, 0xFB17},   {0xFF21, 0xFF3A},
    {0xFF41, 0xFF5A},   {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB},
    {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
};
constexpr Range kDeepSeekPunctuation[] = {
    {0x21, 0x2F},     {0x3A, 0x7E},     {0x2018, 0x201F},
    {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E},
};
constexpr Range kDeepSeekCjk[] = {{0x800, 0x9FA5}, {0xAC00, 0xD7FF}};
constexpr Range kDeepSeekV3Cjk[] = {{0x3040, 0x309F}, {0x30A0, 0x30FF}, {0x4E00, 0x9FA5}};

#define LUTRA_DS_LETTERS                                                                  \
  "\\x{41}-\\x{5A}\\x{61}-\\x{7A}\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}"   \
  "\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}-\\x{377}" \
  "\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}"           \
  "\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}"                  \
  "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}"          \
  "\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}"          \
  "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}"          \
  "\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}"  \
  "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}" \
  "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}" \
  "\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}"   \
  "\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}" \
  "\\x{214E}\\x{2183}-\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}" \
  "\\x{2CF2}-\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"          \
  "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}"          \
  "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"        \
  "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"  \
  "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"

// --- Classes of single code points. All take any i < w.end. ---

bool IsSpace(const Window& w, size_t i) { return w.cls[i] == CodePointClass::kSpace; }
bool IsLetter(const Window& w, size_t i) { return w.cls[i] == CodePointClass::kLetter; }
bool IsNumber(const Window& w, size_t i) { return w.cls[i] == CodePointClass::kNumber; }
bool IsPunctuation(const Window& w, size_t i) { return w.cls[i] == CodePointClass::kPunctuation; }
bool IsNewline(const Window& w, size_t i) { return w.cp[i] == '\n' || w.cp[i] == '\r'; }
bool IsNewlineOrSlash(const Window& w, size_t i) { return IsNewline(w, i) || w.cp[i] == '/'; }
bool IsDigit(const Window& w, size_t i) { return w.cp[i] >= '0' && w.cp[i] <= '9'; }

bool IsLetterOrMark(const Window& w, size_t i) {
  return IsLetter(w, i) || w.cls[i] == CodePointClass::kMark;
}

bool IsPunctuationOrSymbol(const Window& w, size_t i) {
  return IsPunctuation(w, i) || w.cls[i] == CodePointClass::kSymbol;
}

template <bool kMarks>
bool IsWord(const Window& w, size_t i) {
  return kMarks ? IsLetterOrMark(w, i) : IsLetter(w, i);
}

// Neither white space nor letter nor number.
template <bool kMarks>
bool IsRest(const Window& w, size_t i) {
  return !IsSpace(w, i) && !IsWord<kMarks>(w, i) && !IsNumber(w, i);
}

bool IsAsciiLower(uint32_t c) { return c >= 'a' && c <= 'z'; }
bool IsAsciiUpper(uint32_t c) { return c >= 'A' && c <= 'Z'; }

template <const auto& kRanges>
bool InRanges(const Window& w, size_t i) {
  const uint32_t c = w.cp[i];
  if (c >= 0x80 && IsSpace(w, i)) return false;  // reads as U+000B
  const auto after =
      std::upper_bound(std::begin(kRanges), std::end(kRanges), c,
                       [](uint32_t value, const Range& r) { return value < r.first; });
  return after != std::begin(kRanges) && c <= after[-1].last;
}

// --- Parts of expressions: code points matched at i. ---

using Class = bool (*)(const Window&, size_t);

template <Class kIn>
size_t RunEnd(const Window& w, size_t i) {
  while (i < w.end && kIn(w, i)) ++i;
  return i;
}

// [class]+
template <Class kIn>
size_t Run(const Window& w, size_t i) {
  return RunEnd<kIn>(w, i) - i;
}

// [class]
template <Class kIn>
size_t One(const Window& w, size_t i) {
  return kIn(w, i) ? 1 : 0;
}

// [class]{1,kMax}
template <Class kIn, size_t kMax>
size_t UpTo(const Window& w, size_t i) {
  size_t n = 0;
  while (n < kMax && i + n < w.end && kIn(w, i + n)) ++n;
  return n;
}

// [0-9][0-9][0-9]
size_t ThreeDigits(const Window& w, size_t i) { return UpTo<IsDigit, 3>(w, i) == 3 ? 3 : 0; }

// \s?[class]+
template <Class kIn>
size_t SpaceRun(const Window& w, size_t i) {
  if (kIn(w, i)) return Run<kIn>(w, i);
  return IsSpace(w, i) && i + 1 < w.end && kIn(w, i + 1) ? 1 + Run<kIn>(w, i + 1) : 0;
}

//  ?[class]+  with a plain space only
template <Class kIn>
size_t BlankRun(const Window& w, size_t i) {
  if (w.cp[i] == ' ' && (i + 1 >= w.end || !kIn(w, i + 1))) return 0;
  const size_t first = w.cp[i] == ' ' ? i + 1 : i;
  return kIn(w, first) ? RunEnd<kIn>(w, first) - i : 0;
}

//  ?[class]+[tail]*
template <Class kIn, Class kTail>
size_t BlankRunTail(const Window& w, size_t i) {
  const size_t n = BlankRun<kIn>(w, i);
  return n == 0 ? 0 : RunEnd<kTail>(w, i + n) - i;
}

// '(s|t|re|ve|m|ll|d)
template <bool kAnyCase>
size_t Contraction(const Window& w, size_t i) {
  if (w.cp[i] != '\'') return 0;
  const auto letter = [&w](size_t k) -> uint32_t {
    if (k >= w.end) return 0;
    return kAnyCase && IsAsciiUpper(w.cp[k]) ? w.cp[k] + 0x20 : w.cp[k];
  };
  const uint32_t a = letter(i + 1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  const uint32_t b = letter(i + 2);
  return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

// White space at i: `\s*[\r\n]+` if kNewlines, then `\s+(?!\S)`, then `\s+`.
template <bool kNewlines>
size_t WhiteSpace(const Window& w, size_t i) {
  const size_t end = RunEnd<IsSpace>(w, i);
  if (end == i) return 0;
  if (kNewlines) {
    size_t k = end;
    while (k > i && !IsNewline(w, k - 1)) --k;
    if (k > i) return k - i;
  }
  return end < w.end && end - i > 1 ? end - i - 1 : end - i;
}

// \s+$  A run is asked about from its first code point only: asking from each would be quadratic.
size_t TrailingSpace(const Window& w, size_t i) {
  if (!IsSpace(w, i) || (i > w.begin && IsSpace(w, i - 1))) return 0;
  const size_t end = RunEnd<IsSpace>(w, i);
  return end == w.end ? end - i : 0;
}

// --- Whole expressions. ---

size_t Gpt2(const Window& w, size_t i) {
  if (const size_t n = Contraction<false>(w, i)) return n;
  if (const size_t n = BlankRun<IsLetter>(w, i)) return n;
  if (const size_t n = BlankRun<IsNumber>(w, i)) return n;
  if (const size_t n = BlankRun<IsRest<false>>(w, i)) return n;
  return WhiteSpace<false>(w, i);
}

// [^\r\n\p{L}\p{N}]?[word]+
template <bool kMarks>
size_t PrefixedWord(const Window& w, size_t i) {
  if (IsWord<kMarks>(w, i)) return Run<IsWord<kMarks>>(w, i);
  if (IsNewline(w, i) || IsNumber(w, i)) return 0;
  return i + 1 < w.end && IsWord<kMarks>(w, i + 1) ? 1 + Run<IsWord<kMarks>>(w, i + 1) : 0;
}

template <bool kMarks, size_t kMaxDigits>
size_t Llama3(const Window& w, size_t i) {
  if (const size_t n = Contraction<true>(w, i)) return n;
  if (const size_t n = PrefixedWord<kMarks>(w, i)) return n;
  if (const size_t n = UpTo<IsNumber, kMaxDigits>(w, i)) return n;
  if (const size_t n = BlankRunTail<IsRest<kMarks>, IsNewline>(w, i)) return n;
  return WhiteSpace<true>(w, i);
}

// [upper]*[lower]+|[upper]+[lower]* after an optional prefix, where upper is any letter but a-z and
// lower any letter but A-Z: letters beyond ASCII are both.
size_t CasedWord(const Window& w, size_t i) {
  size_t first = i;
  if (!IsLetter(w, i)) {
    if (IsNewline(w, i) || IsNumber(w, i) || i + 1 >= w.end || !IsLetter(w, i + 1)) return 0;
    first = i + 1;
  }
  size_t k = first;
  while (k < w.end && IsLetter(w, k) && !IsAsciiLower(w.cp[k])) ++k;
  if (k < w.end && IsLetter(w, k)) {  // the upper run ends before a lower one
    while (k < w.end && IsLetter(w, k) && !IsAsciiUpper(w.cp[k])) ++k;
    return k - i;
  }
  // Only upper ones: the first alternative gives back letters until its last one is lower as well.
  for (size_t last = k; last > first; --last) {
    if (!IsAsciiUpper(w.cp[last - 1])) return last - i;
  }
  return k - i;
}

size_t Tekken(const Window& w, size_t i) {
  if (const size_t n = CasedWord(w, i)) return n;
  if (const size_t n = One<IsNumber>(w, i)) return n;
  if (const size_t n = BlankRunTail<IsRest<false>, IsNewlineOrSlash>(w, i)) return n;
  return WhiteSpace<true>(w, i);
}

size_t Gpt4o(const Window& w, size_t i) {
  if (const size_t n = CasedWord(w, i)) return i + n < w.end ? n + Contraction<true>(w, i + n) : n;
  if (const size_t n = UpTo<IsNumber, 3>(w, i)) return n;
  if (const size_t n = BlankRunTail<IsRest<false>, IsNewlineOrSlash>(w, i)) return n;
  return WhiteSpace<true>(w, i);
}

bool IsDefaultMark(const Window& w, size_t i) {
  constexpr std::u32string_view kExtra = U"$+<=>^~|";
  return IsPunctuation(w, i) || kExtra.find(w.cp[i]) != std::u32string_view::npos;
}

bool IsFalconMark(const Window& w, size_t i) { return IsDefaultMark(w, i) || w.cp[i] == '`'; }

size_t DeepSeekV3(const Window& w, size_t i) {
  const auto ascii_letter = [&w](size_t k) {
    return k < w.end && (IsAsciiLower(w.cp[k]) || IsAsciiUpper(w.cp[k]));
  };
  if (w.cp[i] > ' ' && w.cp[i] < 0x7F && IsPunctuationOrSymbol(w, i) && ascii_letter(i + 1)) {
    size_t k = i + 1;
    while (ascii_letter(k)) ++k;
    return k - i;
  }
  if (IsLetterOrMark(w, i)) return Run<IsLetterOrMark>(w, i);
  if (!IsNewline(w, i) && !IsPunctuationOrSymbol(w, i) && i + 1 < w.end &&
      IsLetterOrMark(w, i + 1)) {
    return 1 + Run<IsLetterOrMark>(w, i + 1);
  }
  if (const size_t n = BlankRunTail<IsPunctuationOrSymbol, IsNewline>(w, i)) return n;
  return WhiteSpace<true>(w, i);
}

// --- The published patterns beside them. ---

#define LUTRA_CONTRACTIONS "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define LUTRA_WHITE_SPACE "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LUTRA_LLAMA3(DIGITS)                                  \
  LUTRA_CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" DIGITS \
                     "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" LUTRA_WHITE_SPACE
#define LUTRA_UPPER "((?=[\\p{L}])([^a-z]))"
#define LUTRA_LOWER "((?=[\\p{L}])([^A-Z]))"
#define LUTRA_PREFIX "[^\\r\\n\\p{L}\\p{N}]?"
#define LUTRA_SLASHED "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" LUTRA_WHITE_SPACE

constexpr SplitExpression kGpt2Expression = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", Gpt2};
constexpr SplitExpression kNumberExpression = {"\\p{N}", One<IsNumber>};
constexpr SplitExpression kNumbersExpression = {"\\p{N}+", Run<IsNumber>};
constexpr SplitExpression kThreeNumbersExpression = {"\\p{N}{1,3}", UpTo<IsNumber, 3>};
constexpr SplitExpression kThreeDigitsExpression = {"[0-9][0-9][0-9]", ThreeDigits};
constexpr SplitExpression kNewlineExpression = {"[\\r\\n]", One<IsNewline>};
constexpr SplitExpression kDeepSeekCjkExpression = {"[\\x{800}-\\x{9FA5}\\x{AC00}-\\x{D7FF}]+",
                                                    Run<InRanges<kDeepSeekCjk>>};

constexpr SplitExpression kGpt2Expressions[] = {kGpt2Expression};
constexpr SplitExpression kLlama3Expressions[] = {{LUTRA_LLAMA3("\\p{N}{1,3}"), Llama3<false, 3>}};
constexpr SplitExpression kQwen2Expressions[] = {{LUTRA_LLAMA3("\\p{N}"), Llama3<false, 1>}};
constexpr SplitExpression kQwen35Expressions[] = {
    {LUTRA_CONTRACTIONS "|" LUTRA_PREFIX "[\\p{L}\\p{M}]+|\\p{N}"
                        "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LUTRA_WHITE_SPACE,
     Llama3<true, 1>}};
constexpr SplitExpression kSmolLmExpressions[] = {kNumberExpression, kGpt2Expression};
constexpr SplitExpression kDefaultExpressions[] = {
    {"[\\p{P}\\$\\+<=>\\^~\\|]+", Run<IsDefaultMark>},
    kGpt2Expression,
    kNumbersExpression,
    kThreeDigitsExpression};
constexpr SplitExpression kFalconExpressions[] = {
    {"[\\p{P}\\$\\+<=>\\^~\\|`]+", Run<IsFalconMark>}, kGpt2Expression, kThreeDigitsExpression};
constexpr SplitExpression kDeepSeekCoderExpressions[] = {kNewlineExpression,
                                                         {"\\s?\\p{L}+", SpaceRun<IsLetter>},
                                                         {"\\s?\\p{P}+", SpaceRun<IsPunctuation>},
                                                         kDeepSeekCjkExpression,
                                                         kNumberExpression};
constexpr SplitExpression kDeepSeekLlmExpressions[] = {
    kNewlineExpression,
    {"\\s?[" LUTRA_DS_LETTERS "]+", SpaceRun<InRanges<kDeepSeekLetters>>},
    {"\\s?[\\x{21}-\\x{2F}\\x{3A}-\\x{7E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}\\x{FF01}-\\x{FF0F}"
     "\\x{FF1A}-\\x{FF5E}]+",
     SpaceRun<InRanges<kDeepSeekPunctuation>>},
    {"\\s+$", TrailingSpace},
    kDeepSeekCjkExpression,
    kNumbersExpression};
constexpr SplitExpression kDeepSeekV3Expressions[] = {
    kThreeNumbersExpression,
    {"[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+", Run<InRanges<kDeepSeekV3Cjk>>},
    {"[!\"#$%&'()*+,\\-./"
     ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
     "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LUTRA_WHITE_SPACE,
     DeepSeekV3}};
constexpr SplitExpression kTekkenExpressions[] = {{LUTRA_PREFIX LUTRA_UPPER
                                                   "*" LUTRA_LOWER "+|" LUTRA_PREFIX LUTRA_UPPER
                                                   "+" LUTRA_LOWER "*|\\p{N}" LUTRA_SLASHED,
                                                   Tekken}};
constexpr SplitExpression kGpt4oExpressions[] = {
    {LUTRA_PREFIX LUTRA_UPPER "*" LUTRA_LOWER "+" LUTRA_CONTRACTIONS "?|" LUTRA_PREFIX LUTRA_UPPER
                              "+" LUTRA_LOWER "*" LUTRA_CONTRACTIONS "?|\\p{N}{1,3}" LUTRA_SLASHED,
     Gpt4o}};
constexpr SplitExpression kMiniCpm5Expressions[] = {
    kThreeNumbersExpression, {LUTRA_LLAMA3("\\p{N}+"), Llama3<false, SIZE_MAX>}};

constexpr Splitter kGpt2 = {"GPT2", kGpt2Expressions};
constexpr Splitter kLlama3 = {"LLAMA3", kLlama3Expressions};
constexpr Splitter kQwen2 = {"QWEN2", kQwen2Expressions};
constexpr Splitter kQwen35 = {"QWEN35", kQwen35Expressions};
constexpr Splitter kSmolLm = {"SMOLLM", kSmolLmExpressions};
constexpr Splitter kDefault = {"DEFAULT", kDefaultExpressions};
constexpr Splitter kFalcon = {"FALCON", kFalconExpressions};
constexpr Splitter kDeepSeekCoder = {"DS_CODER", kDeepSeekCoderExpressions};
constexpr Splitter kDeepSeekLlm = {"DS_LLM", kDeepSeekLlmExpressions};
constexpr Splitter kDeepSeekV3 = {"DS_V3", kDeepSeekV3Expressions};
constexpr Splitter kTekken = {"TEKKEN", kTekkenExpressions};
constexpr Splitter kGpt4o = {"GPT4O", kGpt4oExpressions};
constexpr Splitter kMiniCpm5 = {"MINICPM5", kMiniCpm5Expressions};

constexpr const Splitter* kSplitters[] = {
    &kGpt2,          &kLlama3,      &kQwen2,      &kQwen35, &kSmolLm, &kDefault,  &kFalcon,
    &kDeepSeekCoder, &kDeepSeekLlm, &kDeepSeekV3, &kTekken, &kGpt4o,  &kMiniCpm5,
};

// One row a pre-tokenizer: name, splitter, whole word first, add BOS, clean spaces, has a BOS
// default.
constexpr PreTokenizer kPreTokenizers[] = {
    {"default", &kDefault, false, false, true, true},
    {"llama3", &kLlama3, true, true, true, true},
    {"llama-v3", &kLlama3, true, true, true, true},
    {"llama-bpe", &kLlama3, true, true, true, true},
    {"falcon3", &kLlama3, true, true, true, true},
    {"falcon-h1", &kLlama3, true, true, true, true},
    {"pixtral", &kLlama3, true, true, true, true},
    {"midm-2.0", &kLlama3, true, true, true, true},
    {"lfm2", &kLlama3, true, true, true, true},
    {"jina-v5-nano", &kLlama3, true, true, true, true},
    {"dbrx", &kLlama3, false, false, true, true},
    {"smaug-bpe", &kLlama3, false, false, true, true},
    {"chatglm-bpe", &kLlama3, false, false, true, false},
    {"glm4", &kLlama3, false, false, true, false},
    {"minicpm5", &kMiniCpm5, true, false, true, true},
    {"qwen2", &kQwen2, false, false, false, true},
    {"deepseek-r1-qwen", &kQwen2, false, false, false, true},
    {"kormo", &kQwen2, false, false, false, true},
    {"f2llmv2", &kQwen2, false, false, false, true},
    {"hunyuan", &kQwen2, false, false, false, true},
    {"solar-open", &kQwen2, false, false, false, true},
    {"grok-2", &kQwen2, false, false, false, true},
    {"megrez", &kQwen2, false, false, true, true},
    {"stablelm2", &kQwen2, false, false, true, true},
    {"qwen35", &kQwen35, false, false, false, true},
    {"gpt-2", &kGpt2, false, false, true, true},
    {"phi-2", &kGpt2, false, false, true, true},
    {"mpt", &kGpt2, false, false, true, true},
    {"olmo", &kGpt2, false, false, true, true},
    {"jais", &kGpt2, false, false, true, true},
    {"exaone4", &kGpt2, false, false, true, true},
    {"gigachat", &kGpt2, false, false, true, true},
    {"modern-bert", &kGpt2, false, false, true, true},
    {"mellum", &kGpt2, false, false, true, true},
    {"trillion", &kGpt2, false, false, false, true},
    {"granite-docling", &kGpt2, false, false, false, true},
    {"smollm", &kSmolLm, false, false, false, true},
    {"command-r", &kSmolLm, false, false, false, true},
    {"starcoder", &kSmolLm, false, false, true, true},
    {"refact", &kSmolLm, false, false, true, true},
    {"codeshell", &kSmolLm, false, false, true, true},
    {"exaone", &kSmolLm, false, false, true, true},
    {"minerva-7b", &kSmolLm, false, false, true, true},
    {"mellum2", &kSmolLm, false, false, true, true},
    {"deepseek-llm", &kDeepSeekLlm, false, false, false, true},
    {"deepseek-coder", &kDeepSeekCoder, false, false, false, true},
    {"deepseek-v3", &kDeepSeekV3, false, false, false, true},
    {"hunyuan-dense", &kDeepSeekV3, false, false, false, true},
    {"joyai-llm", &kDeepSeekV3, false, false, false, true},
    {"tekken", &kTekken, true, true, false, true},
    {"gpt-4o", &kGpt4o, false, false, false, true},
    {"llama4", &kGpt4o, false, false, false, true},
    {"kanana2", &kGpt4o, false, false, false, true},
    {"falcon", &kFalcon, false, false, true, true},
};

// Splits every piece in `ends` again by `expression`.
void Apply(const SplitExpression& expression, const SplitText& text,
           const std::vector<uint32_t>& ends, std::vector<uint32_t>* out) {
  out->clear();
  SplitWindow w = {text.code_points.data(), text.classes.data(), 0, 0};
  for (const uint32_t end : ends) {
    w.begin = w.end;
    w.end = end;
    size_t done = w.begin;
    for (size_t i = w.begin; i < w.end;) {
      const size_t n = expression.match(w, i);
      if (n == 0) {
        ++i;
        continue;
      }
      if (done < i) out->push_back(static_cast<uint32_t>(i));
      i += n;
      out->push_back(static_cast<uint32_t>(i));
      done = i;
    }
    if (done < w.end) out->push_back(end);
  }
}

}  // namespace

void DecodeForSplit(std::string_view bytes, SplitText* text) {
  text->code_points.clear();
  text->classes.clear();
  text->code_points.reserve(bytes.size());
  text->classes.reserve(bytes.size());
  const auto byte = [&bytes](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  for (size_t i = 0; i < bytes.size();) {
    const uint8_t lead = byte(i);
    const size_t n = lead < 0x80   ? 1
                     : lead < 0xC0 ? 0
                     : lead < 0xE0 ? 2
                     : lead < 0xF0 ? 3
                     : lead < 0xF8 ? 4
                                   : 0;
    uint32_t c = n < 2 ? lead : lead & (0x7Fu >> n);
    bool ok = n > 0 && n <= bytes.size() - i;
    for (size_t k = 1; ok && k < n; ++k) {
      ok = (byte(i + k) & 0xC0) == 0x80;
      c = c << 6 | (byte(i + k) & 0x3F);
    }
    ok = ok && c <= 0x10FFFF;
    if (!ok) c = 0xFFFD;
    i += ok ? n : 1;
    text->code_points.push_back(c);
    text->classes.push_back(unicode::ClassOf(c));
  }
}

std::span<const PreTokenizer> PreTokenizers() { return kPreTokenizers; }

std::span<const Splitter* const> Splitters() { return kSplitters; }

const PreTokenizer* FindPreTokenizer(std::string_view name) {
  const auto row = std::find_if(std::begin(kPreTokenizers), std::end(kPreTokenizers),
                                [name](const PreTokenizer& p) { return name == p.name; });
  return row == std::end(kPreTokenizers) ? nullptr : row;
}

void Split(const Splitter& splitter, const SplitText& text, std::vector<uint32_t>* ends) {
  ends->clear();
  if (text.code_points.empty()) return;
  ends->push_back(static_cast<uint32_t>(text.code_points.size()));
  std::vector<uint32_t> next;
  for (const SplitExpression& expression : splitter.expressions) {
    Apply(expression, text, *ends, &next);
    ends->swap(next);
  }
}

}  // namespace lutra
