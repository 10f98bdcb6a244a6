// Stop strings and UTF-8 borders in streamed text. Tokens end anywhere: inside a character, inside
// a stop string. StopFilter lets through only what can be shown for good.
//
// The text is searched byte by byte, so that its division into tokens changes nothing: it stops at
// the first byte that completes a stop string (of several that end there, the longest counts), and
// the text ends before that string.
// Source: Aho and Corasick 1975, "Efficient string matching"; linear in the bytes of text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lutra {

// For one generated text; one thread at a time. Copies are independent.
class StopFilter {
 public:
  // Throws Error(kInvalidArgument) if there are more than kMaxStopStrings, if one is empty or if
  // they have more than kMaxStopBytes bytes together.
  explicit StopFilter(std::span<const std::string> stops);

  // Takes the bytes of the next token and returns the text that may be shown now, perhaps none. It
  // ends at a character's border and not inside what could become a stop string. Valid until the
  // next call. After a stop, input is ignored and nothing is returned.
  std::string_view Feed(std::string_view bytes);

  // The end of the text: returns what is still held back (an unfinished character included, as
  // bytes). Later input starts a new text. Valid until the next call.
  std::string_view Finish();

  // Index in `stops` of the string that was found, -1 so far.
  int stop_index() const { return stop_index_; }
  bool stopped() const { return stop_index_ >= 0; }
  // Bytes held back.
  size_t held() const { return held_.size(); }

  // Back to an empty text.
  void Reset();

 private:
  struct Node {
    std::vector<uint16_t> next;  // [256]: the node after one more byte
    uint16_t depth;              // bytes of a stop string's beginning that the text ends with
    int16_t stop;                // the longest stop string that the text ends with, or -1
  };

  std::vector<Node> nodes_;
  std::vector<size_t> stop_bytes_;  // length of each stop string
  size_t node_ = 0;
  int stop_index_ = -1;
  std::string held_;      // not shown yet
  std::string released_;  // what the last call returned
};

}  // namespace lutra
