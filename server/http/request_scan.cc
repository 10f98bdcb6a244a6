#include "server/http/request_scan.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "kernels/base/error.h"

namespace lutra::server {
namespace {

bool IsTokenChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         (c != '\0' && std::strchr("!#$%&'*+-.^_`|~", c) != nullptr);
}

std::string Lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

std::string_view Trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

RequestHead Refuse(RequestHead head, int status, std::string reason) {
  head.error = status;
  head.reason = std::move(reason);
  return head;
}

constexpr std::string_view kMethods[] = {"GET", "HEAD",  "POST",  "OPTIONS",
                                         "PUT", "PATCH", "DELETE"};
// Headers that the parser behind does not see: we frame bodies ourselves and serve neither ranges nor compressed answers.
constexpr std::string_view kDropped[] = {
    "content-length", "transfer-encoding", "range", "accept-encoding", "expect", "te", "trailer"};

}  // namespace

RequestHead ScanHead(std::string_view head, size_t max_headers, uint64_t max_body, size_t max_uri) {
  RequestHead out;
  for (size_t i = 0; i < head.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(head[i]);
    if (c == '\r' && i + 1 < head.size() && head[i + 1] == '\n') {
      ++i;
    } else if ((c < 0x20 && c != '\t') || c == 0x7F) {
      return Refuse(out, 400, "a control character or a bare line end in the request's head");
    }
  }
  const size_t line_end = head.find("\r\n");
  const std::string_view line = head.substr(0, line_end);
  const size_t a = line.find(' ');
  const size_t b = line.rfind(' ');
  if (a == std::string_view::npos || a == b)
    return Refuse(out, 400, "the request line is not METHOD TARGET VERSION");
  out.method = line.substr(0, a);
  const std::string_view target = line.substr(a + 1, b - a - 1);
  const std::string_view version = line.substr(b + 1);
  if (!std::all_of(out.method.begin(), out.method.end(), IsTokenChar) || target.empty() ||
      target.find(' ') != std::string_view::npos) {
    return Refuse(out, 400, "the request line is not METHOD TARGET VERSION");
  }
  if (version != "HTTP/1.1" && version != "HTTP/1.0")
    return Refuse(out, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
  if (std::find(std::begin(kMethods), std::end(kMethods), out.method) == std::end(kMethods)) {
    return Refuse(out, 501, "the method '" + Printable(out.method, 20) + "' is not implemented");
  }
  if (target.size() > max_uri)
    return Refuse(out, 414,
                  "the request's address is longer than " + std::to_string(max_uri) + " bytes");
  if (target[0] != '/' && target != "*")
    return Refuse(out, 400, "the request's address does not begin with /");
  out.path = target.substr(0, target.find('?'));
  out.text = std::string(line) + "\r\n";

  size_t n_headers = 0, n_host = 0, n_length = 0, n_encoding = 0;
  for (size_t at = line_end + 2; at < head.size();) {
    const size_t end = head.find("\r\n", at);
    const std::string_view header = head.substr(at, end - at);
    at = end + 2;
    if (header.empty()) break;
    if (++n_headers > max_headers)
      return Refuse(out, 431, "more than " + std::to_string(max_headers) + " header lines");
    const size_t colon = header.find(':');
    const std::string_view name = header.substr(0, colon);
    if (colon == std::string_view::npos || name.empty() ||
        !std::all_of(name.begin(), name.end(), IsTokenChar)) {
      return Refuse(out, 400, "a header line is not NAME: VALUE");
    }
    const std::string key = Lower(name);
    const std::string_view value = Trim(header.substr(colon + 1));
    if (key == "host") ++n_host;
    if (key == "content-length") {
      ++n_length;
      const auto r = std::from_chars(value.data(), value.data() + value.size(), out.content_length);
      if (value.empty() || r.ec != std::errc() || r.ptr != value.data() + value.size()) {
        return Refuse(out, 400, "the Content-Length is no number");
      }
    }
    if (key == "transfer-encoding") {
      ++n_encoding;
      if (Lower(value) != "chunked")
        return Refuse(out, 501, "the only Transfer-Encoding taken is chunked");
      out.chunked = true;
    }
    if (key == "content-encoding" && Lower(value) != "identity")
      return Refuse(out, 415, "compressed bodies are not taken");
    if (key == "expect") {
      if (Lower(value) != "100-continue")
        return Refuse(out, 417, "the only Expect taken is 100-continue");
      out.expect_continue = true;
    }
    if (std::find(std::begin(kDropped), std::end(kDropped), key) == std::end(kDropped))
      out.text += std::string(header) + "\r\n";
  }
  out.text += "\r\n";
  if (n_length > 1 || n_encoding > 1 || (n_length > 0 && n_encoding > 0)) {
    return Refuse(out, 400, "the body's length is given more than once");
  }
  if (n_host > 1 || (n_host == 0 && version == "HTTP/1.1"))
    return Refuse(out, 400, "exactly one Host header is needed");
  if (out.chunked && version == "HTTP/1.0") return Refuse(out, 400, "HTTP/1.0 knows no chunks");
  if (out.content_length > max_body) {
    return Refuse(out, 413,
                  "the body has " + std::to_string(out.content_length) + " bytes; at most " +
                      std::to_string(max_body) + " are taken");
  }
  out.has_body = out.chunked || out.content_length > 0;
  return out;
}

size_t ChunkDecoder::Feed(std::string_view in, std::string* body) {
  constexpr size_t kMaxLine = 256, kMaxTrailer = 4096;
  size_t i = 0;
  const auto fail = [&](int status) {
    error_ = status;
    return i;
  };
  while (i < in.size() && state_ != State::kDone && error_ == 0) {
    const char c = in[i];
    switch (state_) {
      case State::kSize: {
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit >= 0) {
          if (++digits_ > 15) return fail(400);
          left_ = left_ * 16 + static_cast<uint64_t>(digit);
        } else if (digits_ > 0 && (c == '\r' || c == ';')) {
          state_ = c == ';' ? State::kExtension : State::kSizeEnd;
          line_bytes_ = 0;
        } else {
          return fail(400);
        }
        break;
      }
      case State::kExtension:
        if (c == '\r') {
          state_ = State::kSizeEnd;
        } else if (++line_bytes_ > kMaxLine || c == '\n') {
          return fail(400);
        }
        break;
      case State::kSizeEnd:
        if (c != '\n') return fail(400);
        if (left_ > max_body_ || body->size() > max_body_ - left_) return fail(413);
        state_ = left_ == 0 ? State::kTrailer : State::kData;
        break;
      case State::kData: {
        const size_t n = static_cast<size_t>(std::min<uint64_t>(left_, in.size() - i));
        body->append(in.substr(i, n));
        left_ -= n;
        i += n;
        if (left_ == 0) state_ = State::kDataCr;
        continue;
      }
      case State::kDataCr:
        if (c != '\r') return fail(400);
        state_ = State::kDataLf;
        break;
      case State::kDataLf:
        if (c != '\n') return fail(400);
        state_ = State::kSize;
        digits_ = 0;
        left_ = 0;
        break;
      case State::kTrailer:
        state_ = c == '\r' ? State::kTrailerEnd : State::kTrailerLine;
        if (c == '\n') return fail(400);
        break;
      case State::kTrailerLine:
        if (++trailer_bytes_ > kMaxTrailer) return fail(400);
        if (c == '\n') state_ = State::kTrailer;
        break;
      case State::kTrailerEnd:
        if (c != '\n') return fail(400);
        state_ = State::kDone;
        break;
      case State::kDone:
        break;
    }
    ++i;
  }
  return i;
}

}  // namespace lutra::server
