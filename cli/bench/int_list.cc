#include "cli/bench/int_list.h"

#include <charconv>
#include <limits>
#include <optional>

#include "kernels/base/error.h"

namespace lutra::bench {
namespace {

constexpr size_t kMaxNumbers = 10'000;

// Takes digits from the front of `text`.
std::optional<int64_t> TakeNumber(std::string_view* text) {
  int64_t v = 0;
  if (text->empty() || text->front() < '0' || text->front() > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), v);
  if (error != std::errc()) return std::nullopt;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return v;
}

bool TakeChar(std::string_view* text, char c) {
  if (text->empty() || text->front() != c) return false;
  text->remove_prefix(1);
  return true;
}

}  // namespace

std::vector<int> ParseIntList(const char* option, std::string_view text, int low, int high) {
  const auto refuse = [&](const std::string& why) {
    Fail(ErrorCode::kInvalidArgument,
         "%s: '%s': %s; it takes numbers from %d to %d as N, N,N, FIRST-LAST, FIRST-LAST+STEP or "
         "FIRST-LAST*FACTOR",
         option, Printable(text, 60).c_str(), why.c_str(), low, high);
  };
  std::vector<int> out;
  std::string_view rest = text;
  do {
    const auto first = TakeNumber(&rest);
    if (!first) refuse("a number is missing");
    int64_t last = *first, step = 1;
    char op = '+';
    if (TakeChar(&rest, '-')) {
      const auto v = TakeNumber(&rest);
      if (!v) refuse("the end of a range is missing");
      last = *v;
      for (const char c : {'+', '*'}) {
        if (!TakeChar(&rest, c)) continue;
        op = c;
        const auto s = TakeNumber(&rest);
        if (!s) refuse("the step of a range is missing");
        step = *s;
      }
    }
    if (*first < low || last > high) refuse("out of range");
    if (last < *first) refuse("the range ends before it begins");
    if ((op == '+' && step < 1) || (op == '*' && (step < 2 || *first < 1) && last != *first))
      refuse("the range does not grow");
    for (int64_t i = *first; i <= last; i = op == '+' ? i + step : i * step) {
      if (out.size() >= kMaxNumbers) refuse(Format("more than %zu numbers", kMaxNumbers));
      out.push_back(static_cast<int>(i));
      if (last == *first || i > std::numeric_limits<int64_t>::max() / 2 / step) break;
    }
  } while (TakeChar(&rest, ','));
  if (!rest.empty()) refuse(Format("'%s' is not understood", Printable(rest, 20).c_str()));
  return out;
}

std::pair<int, int> ParseIntPair(const char* option, std::string_view text, int high) {
  std::string_view rest = text;
  const auto a = TakeNumber(&rest);
  const bool comma = TakeChar(&rest, ',');
  const auto b = TakeNumber(&rest);
  if (!a || !comma || !b || !rest.empty() || *a > high || *b > high) {
    Fail(ErrorCode::kInvalidArgument, "%s: '%s': takes two numbers from 0 to %d, PP,TG", option,
         Printable(text, 60).c_str(), high);
  }
  return {static_cast<int>(*a), static_cast<int>(*b)};
}

}  // namespace lutra::bench
