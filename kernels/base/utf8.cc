#include "kernels/base/utf8.h"

#include <algorithm>

namespace lutra {
namespace {

uint8_t Byte(std::string_view s, size_t i) { return static_cast<uint8_t>(s[i]); }

// Length announced by a lead byte, 0 if it cannot lead; and the range allowed for the second byte.
size_t LeadLength(uint8_t lead, uint8_t* low, uint8_t* high) {
  *low = 0x80;
  *high = 0xBF;
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) {
    if (lead == 0xE0) *low = 0xA0;
    if (lead == 0xED) *high = 0x9F;
    return 3;
  }
  if (lead < 0xF5) {
    if (lead == 0xF0) *low = 0x90;
    if (lead == 0xF4) *high = 0x8F;
    return 4;
  }
  return 0;
}

// Number of leading bytes of `text` that belong to one (perhaps unfinished) sequence; *length is what it needs.
size_t Match(std::string_view text, size_t* length) {
  uint8_t low, high;
  *length = text.empty() ? 0 : LeadLength(Byte(text, 0), &low, &high);
  if (*length == 0) return 0;
  size_t n = 1;
  while (n < *length && n < text.size()) {
    const uint8_t c = Byte(text, n);
    const bool ok = n == 1 ? (c >= low && c <= high) : (c >= 0x80 && c <= 0xBF);
    if (!ok) return 0;
    ++n;
  }
  return n;
}

}  // namespace

size_t Utf8SequenceLength(std::string_view text) {
  size_t length;
  const size_t n = Match(text, &length);
  return n == length ? n : 0;
}

size_t Utf8CompletePrefix(std::string_view text) {
  const size_t first = text.size() > 3 ? text.size() - 3 : 0;
  for (size_t i = first; i < text.size(); ++i) {
    size_t length;
    const size_t n = Match(text.substr(i), &length);
    if (n > 0 && n < length && i + n == text.size()) return i;
  }
  return text.size();
}

bool Utf8IsValid(std::string_view text) {
  while (!text.empty()) {
    const size_t n = Utf8SequenceLength(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

void Utf8Append(uint32_t c, std::string* out) {
  if (c < 0x80) {
    *out += static_cast<char>(c);
  } else if (c < 0x800) {
    *out += static_cast<char>(0xC0 | (c >> 6));
    *out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    *out += static_cast<char>(0xE0 | (c >> 12));
    *out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    *out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    *out += static_cast<char>(0xF0 | (c >> 18));
    *out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    *out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    *out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::string Utf8Sanitize(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t n = Utf8SequenceLength(text);
    if (n == 0) {
      out += "\xEF\xBF\xBD";
    } else {
      out.append(text.substr(0, n));
    }
    text.remove_prefix(std::max<size_t>(n, 1));
  }
  return out;
}

}  // namespace lutra
