#include "server/gbnf_text.h"

#include <vector>

#include "kernels/base/error.h"

namespace lutra::server {
namespace {

// Digits of [low, high], 0 <= low <= high, of one length each; no leading zeros.
void DigitRanges(const std::string& low, const std::string& high, std::string prefix,
                 std::vector<std::string>* out) {
  size_t same = 0;
  while (same < low.size() && low[same] == high[same]) ++same;
  prefix += low.substr(0, same);
  const std::string a = low.substr(same), b = high.substr(same);
  const auto piece = [&](char from, char to, size_t rest) {
    std::string s = prefix.empty() ? "" : "\"" + prefix + "\" ";
    s += from == to ? "\"" + std::string(1, from) + "\"" : std::string("[") + from + "-" + to + "]";
    if (rest > 0) s += " [0-9]{" + std::to_string(rest) + "}";
    out->push_back(s);
  };
  if (a.empty()) {
    out->push_back("\"" + prefix + "\"");
    return;
  }
  const size_t rest = a.size() - 1;
  if (rest == 0) {
    piece(a[0], b[0], 0);
    return;
  }
  const bool low_all = a.find_first_not_of('0', 1) == std::string::npos,
             high_all = b.find_first_not_of('9', 1) == std::string::npos;
  char from = a[0], to = b[0];
  if (!low_all) DigitRanges(a.substr(1), std::string(rest, '9'), prefix + a[0], out), ++from;
  if (!high_all) --to;
  if (from <= to) piece(from, to, rest);
  if (!high_all) DigitRanges(std::string(rest, '0'), b.substr(1), prefix + b[0], out);
}

std::string Nonnegative(int64_t low, const int64_t* high) {
  std::vector<std::string> parts;
  constexpr size_t kMostDigits = 16;
  for (std::string from = std::to_string(low);;) {
    const size_t digits = from.size();
    const std::string most(digits, '9');
    const std::string limit = high != nullptr ? std::to_string(*high) : "";
    if (high != nullptr && limit.size() == digits) {
      DigitRanges(from, limit, "", &parts);
      break;
    }
    DigitRanges(from, most, "", &parts);
    if (high == nullptr) {
      if (digits < kMostDigits)
        parts.push_back("[1-9] [0-9]{" + std::to_string(digits) + "," +
                        std::to_string(kMostDigits - 1) + "}");
      break;
    }
    from = "1" + std::string(digits, '0');
  }
  std::string out;
  for (const std::string& p : parts) out += (out.empty() ? "" : " | ") + p;
  return out;
}

}  // namespace

std::string GbnfLiteral(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const uint8_t b = static_cast<uint8_t>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (b < 0x20 || b == 0x7F) {
      out += Format("\\x%02X", b);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string IntegerRange(const int64_t* low, const int64_t* high) {
  std::string out;
  const auto add = [&](const std::string& s) { out += (out.empty() ? "" : " | ") + s; };
  if (low == nullptr || *low < 0) {
    // -to ... -from
    const int64_t from = high != nullptr && *high < 0 ? -*high : 1;
    const int64_t to = low != nullptr ? -*low : 0;
    add("\"-\" (" + Nonnegative(from, low != nullptr ? &to : nullptr) + ")");
  }
  if (high == nullptr || *high >= 0) {
    const int64_t from = low != nullptr && *low > 0 ? *low : 0;
    add(Nonnegative(from, high));
  }
  return out;
}

}  // namespace lutra::server
