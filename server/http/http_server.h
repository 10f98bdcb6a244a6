// Sockets. One thread accepts connections and reads whole requests from all of them (epoll), with limits on sizes and time, so
// that a slow or silent client costs a few hundred bytes and nobody's time; a complete request is handled by a worker thread,
// which parses the head and writes the answer with cpp-httplib. While a request is handled its connection is watched: a client
// that goes away is noticed at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <httplib.h>

namespace lutra::server {

// Every limit on what a connection may cost. Reasons beside them.
struct HttpLimits {
  size_t head_bytes = 16384;        // a browser's cookies fit; header floods do not
  size_t headers = 100;
  size_t uri_bytes = 8192;          // what parsers and proxies take
  uint64_t body_bytes = 32u << 20;  // a context of a million tokens is about 5 MiB of JSON
  uint64_t buffered_bytes = 512u << 20;  // of all bodies that are being received
  size_t connections = 8192;        // beyond it the longest idle one is closed
  size_t workers = 512;             // requests handled at the same time
  size_t spare_workers = 16;        // of which so many are kept for what is no POST, such as /health
  double head_seconds = 10;         // to send a head, from its first byte (or from connecting)
  double body_gap_seconds = 30;     // between two parts of a body
  double body_seconds = 120;        // for a whole body
  double idle_seconds = 60;         // between requests of a connection
  double write_stall_seconds = 30;  // a client that takes nothing for so long is dropped
};

// One request while it is handled. Belongs to the worker; Gone() and the hook are safe from any thread.
class Exchange {
 public:
  Exchange(const httplib::Request& q, httplib::Response& p, std::string b, void* connection)
      : request(q), response(p), body(std::move(b)), connection_(connection) {}
  const httplib::Request& request;
  httplib::Response& response;
  std::string body;

  bool client_gone() const;
  // `hook` is called once, from another thread, if the client goes away (at once if it has); null removes it. After the removal
  // returns the old hook does not run any more.
  void OnClientGone(std::function<void()> hook);

 private:
  void* connection_;
};

struct HttpStats {
  std::atomic<uint64_t> connections{0}, open{0}, requests{0}, refused{0}, timeouts{0}, busy_workers{0};
};

class HttpServer {
 public:
  using Handler = std::function<void(Exchange&)>;
  // Body (JSON) of an answer that the transport gives itself.
  using ErrorBody = std::function<std::string(int status, const std::string& message)>;

  HttpServer(const HttpLimits& limits, Handler handler, ErrorBody error_body);
  ~HttpServer();

  // Binds and starts; port 0 takes a free one. Returns the port. Throws Error(kIo) naming address and reason.
  int Start(const std::string& host, int port);
  // No new connections or requests from now on; handled ones go on. Waits until they have ended, at most so long, then drops them.
  void Stop(double seconds);

  const HttpStats& stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lutra::server
