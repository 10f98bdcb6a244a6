// Classes of code points as pre-tokenizers see them: general categories by first letter, and white
// space. Source: Unicode 15.1.0, extracted/DerivedGeneralCategory.txt; white space: property
// White_Space.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace lutra::unicode {

// White space goes first: a code point that has the property White_Space has no other class here.
enum class CodePointClass : uint8_t {
  kOther = 0,   // control, format, surrogate, private use, unassigned
  kLetter = 1,  // \p{L}
  kNumber = 2,  // \p{N}
  kPunctuation = 3,
  kSymbol = 4,
  kMark = 5,
  kSpace = 6,
};

// Runs of equal class in ascending order: first code point << 3 | class (without white space). The
// first starts at 0.
extern const size_t kNumRuns;
extern const uint32_t kRuns[];

constexpr bool IsWhiteSpace(uint32_t c) {
  if (c < 0x80) return c == 0x20 || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// Any value; those above U+10FFFF are kOther.
inline CodePointClass ClassOf(uint32_t c) {
  if ((c | 0x20) - 'a' < 26u && c < 0x80) return CodePointClass::kLetter;  // most of most texts
  if (IsWhiteSpace(c)) return CodePointClass::kSpace;
  if (c > 0x10FFFF) return CodePointClass::kOther;
  const uint32_t* after = std::upper_bound(kRuns, kRuns + kNumRuns, c << 3 | 7);
  return static_cast<CodePointClass>(after[-1] & 7);
}

}  // namespace lutra::unicode
