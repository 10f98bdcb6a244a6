#include <chrono>
#include <random>

#include "engine/limits.h"
#include "engine/stop.h"
#include "kernels/base/error.h"
#include "kernels/base/utf8.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

using Strings = std::vector<std::string>;

struct Result {
  std::string text;
  int stop = -1;
};

// Feeds `text` in pieces of `piece` bytes; checks that nothing shown is ever taken back.
Result Run(const Strings& stops, const std::string& text, size_t piece) {
  StopFilter filter(stops);
  Result result;
  for (size_t i = 0; i < text.size() && !filter.stopped(); i += piece) {
    const std::string_view out = filter.Feed(std::string_view(text).substr(i, piece));
    if (!filter.stopped() && Utf8IsValid(text)) CHECK(Utf8IsValid(out));
    result.text += out;
  }
  result.text += filter.Finish();
  result.stop = filter.stop_index();
  return result;
}

// The first position at which a stop string ends; of those that end there, the longest.
Result Naive(const Strings& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    int best = -1;
    for (size_t i = 0; i < stops.size(); ++i) {
      const bool ends = std::string_view(text).substr(0, end).ends_with(stops[i]);
      if (ends && (best < 0 || stops[i].size() > stops[static_cast<size_t>(best)].size())) {
        best = static_cast<int>(i);
      }
    }
    if (best >= 0) return {text.substr(0, end - stops[static_cast<size_t>(best)].size()), best};
  }
  return {text, -1};
}

}  // namespace

TEST_CASE("A stop string is found across token borders, and the text ends before it") {
  for (size_t piece = 1; piece < 20; ++piece) {
    const Result r = Run({"\nUser:", "</s>"}, "Hello there.\nUser: more", piece);
    CHECK(r.text == "Hello there.");
    CHECK(r.stop == 0);
  }
}

TEST_CASE("Text that may become a stop string is held back and shown when it does not") {
  const Strings stops = {"STOP"};
  StopFilter filter(stops);
  CHECK(filter.Feed("aST") == "a");
  CHECK(filter.held() == 2);
  CHECK(filter.Feed("O") == "");
  CHECK(filter.Feed("x") == "STOx");
  CHECK(filter.Feed("STSTO") == "ST");
  CHECK(filter.Feed("P and more") == "");
  CHECK(filter.stopped());
  CHECK(filter.Feed("later") == "");
  CHECK(filter.Finish() == "");
  filter.Reset();
  CHECK(!filter.stopped());
  CHECK(filter.Feed("bST") == "b");
  CHECK(filter.Finish() == "ST");
}

TEST_CASE("Overlapping stop strings: the first end counts, then the longest") {
  CHECK(Run({"aab"}, "aaaab", 1).text == "aa");
  CHECK(Run({"abcd", "bc"}, "xabcd", 1).text == "xa");
  CHECK(Run({"c", "abc"}, "xabc", 2).text == "x");
  CHECK(Run({"abab", "ba"}, "abab", 3).stop == 1);
  CHECK(Run({"same", "same"}, "the same", 3).stop == 0);
}

TEST_CASE("Characters are shown whole") {
  StopFilter filter(Strings{"\xE2\x82\xAC"});  // EURO SIGN; U+20AB begins with the same two bytes
  CHECK(filter.Feed("1\xE2") == "1");
  CHECK(filter.Feed("\x82") == "");
  CHECK(filter.Feed("\xAB") == "\xE2\x82\xAB");
  CHECK(filter.Feed("2\xE2\x82") == "2");
  CHECK(filter.Feed("\xAC") == "");
  CHECK(filter.stopped());
  StopFilter none{Strings{}};
  CHECK(none.Feed("\xF0\x9F\x98") == "");
  CHECK(none.Feed("\x80!") == "\xF0\x9F\x98\x80!");
  CHECK(none.Feed("\xC3") == "");
  CHECK(none.Finish() == "\xC3");
  CHECK(none.Feed("\xFF\xFE") == "\xFF\xFE");  // will never become valid
}

TEST_CASE(
    "Random texts over a small alphabet agree with a naive search, however they are divided") {
  std::mt19937 random(3);
  const auto word = [&](size_t size) {
    std::string s;
    while (s.size() < size)
      s += random() % 4 == 0 ? std::string("\xC3\xA9") : std::string(1, "ab"[random() % 2]);
    return s;
  };
  int n_stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    Strings stops(1 + random() % 4);
    for (std::string& s : stops) s = word(1 + random() % 6);
    const std::string text = word(random() % 40);
    const Result want = Naive(stops, text), got = Run(stops, text, 1 + random() % 5);
    CHECK(got.text == want.text);
    CHECK((got.stop < 0) == (want.stop < 0));
    if (want.stop >= 0) {
      ++n_stopped;
      CHECK(stops[static_cast<size_t>(got.stop)] == stops[static_cast<size_t>(want.stop)]);
    }
  }
  CHECK(n_stopped > 500);
  CHECK(n_stopped < 2900);
}

TEST_CASE("Time is linear where naive search is quadratic, and memory held is bounded") {
  const Strings stops = {std::string(2000, 'a') + "b", std::string(1999, 'a') + "c"};
  StopFilter filter(stops);
  const auto start = std::chrono::steady_clock::now();
  size_t shown = 0;
  const std::string piece(1000, 'a');
  for (int i = 0; i < 1000; ++i) shown += filter.Feed(piece).size();
  CHECK(filter.held() == 2000);
  CHECK(shown == 1000000 - 2000);
  CHECK(std::chrono::steady_clock::now() - start < testing::Patience(5));
  CHECK(filter.Feed("b") == "");
  CHECK(filter.stop_index() == 0);
}

TEST_CASE("Stop strings have limits") {
  CHECK_THROWS_AS(StopFilter(Strings{"a", ""}), Error);
  CHECK_THROWS_AS(StopFilter(Strings(kMaxStopStrings + 1, "a")), Error);
  CHECK_THROWS_AS(StopFilter(Strings{std::string(kMaxStopBytes + 1, 'a')}), Error);
  CHECK_NOTHROW(StopFilter(Strings{std::string(kMaxStopBytes, 'a')}));
}

}  // namespace lutra
