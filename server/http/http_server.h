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

#include "server/limits.h"

namespace lutra::server {

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
  std::atomic<uint64_t> connections{0}, open{0}, requests{0}, refused{0}, timeouts{0},
      busy_workers{0};
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
