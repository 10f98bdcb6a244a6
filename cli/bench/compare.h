// Two sets of measurements of the same tests, side by side.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/bench/stats.h"

namespace lutra::bench {

// Tokens a second of one test, in the order they were measured.
struct Series {
  std::string test;  // TestName, with what else tells rows of one run apart
  std::vector<double> ts;
};

// Reads what `lutra bench` and other programs of its kind print with -o json, jsonl or csv: samples_ts, else avg_ts, of each row.
// Rows of the same test are told apart by number of threads, then by order. Throws Error(kCorrupt) naming `name` and the line or
// field.
std::vector<Series> ReadRuns(const std::string& text, const std::string& name);

struct Comparison {
  std::string test;
  double a = 0, b = 0;  // medians, tokens a second
  size_t n_pairs = 0;
  double ratio = 0;     // median of b_i / a_i
  Interval interval{};  // of it: 95 % by bootstrap
  // "faster" or "slower" (b than a) if the interval leaves 1 out, else "no difference"; "too few runs" below three pairs.
  const char* verdict = "";
};
// Tests that both have, in a's order; the i-th measurement of one is paired with the i-th of the other.
std::vector<Comparison> Compare(const std::vector<Series>& a, const std::vector<Series>& b);

// "-m 'a b.gguf' -p 512" -> -m, a b.gguf, -p, 512: blanks divide, quotes and backslashes keep. Throws Error(kInvalidArgument) for
// an open quote.
std::vector<std::string> SplitWords(std::string_view text);

// Runs a program and returns what it wrote to standard output; standard error goes to ours, or nowhere. Throws Error naming the
// program: kNotFound if it cannot be run, kIo with its exit status if it fails, with the end of what it wrote to standard error.
std::string RunProgram(const std::vector<std::string>& words);

}  // namespace lutra::bench
