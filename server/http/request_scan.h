// HTTP/1.1 requests as bytes: where the head ends, whether it is one we take, where the body ends. Strict: what two readers could
// read differently (two lengths, a length beside chunks, bare line feeds, folded lines) is refused, so that nothing can be
// smuggled past a proxy. Pure functions and one small state machine; no sockets.
// Source: RFC 9112.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lutra::server {

struct RequestHead {
  int error = 0;             // HTTP status to refuse it with, 0: good
  std::string reason;        // a sentence, with error
  std::string method, path;  // path without the query, as sent
  bool chunked = false;
  bool expect_continue = false;
  bool has_body = false;
  uint64_t content_length = 0;
  std::string
      text;  // the head for the parser behind: without the body's framing and without what we do not serve
             // (ranges, compression)
};

// Checks a whole head (through its empty line). `max_body` bounds content_length, `max_headers` the number of lines.
RequestHead ScanHead(std::string_view head, size_t max_headers, uint64_t max_body, size_t max_uri);

// The body of a chunked request, decoded as its bytes come.
class ChunkDecoder {
 public:
  explicit ChunkDecoder(uint64_t max_body) : max_body_(max_body) {}

  // Takes bytes from the front of `in` and appends the data to *body; returns how many bytes were taken. Stops at the end of the
  // body and at an error.
  size_t Feed(std::string_view in, std::string* body);
  bool done() const { return state_ == State::kDone; }
  int error() const { return error_; }  // HTTP status: 400 or 413

 private:
  enum class State {
    kSize,
    kExtension,
    kSizeEnd,
    kData,
    kDataCr,
    kDataLf,
    kTrailer,
    kTrailerLine,
    kTrailerEnd,
    kDone
  };
  uint64_t max_body_;
  State state_ = State::kSize;
  uint64_t left_ = 0;
  size_t digits_ = 0, line_bytes_ = 0, trailer_bytes_ = 0;
  int error_ = 0;
};

}  // namespace lutra::server
