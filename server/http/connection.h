// A client's socket and what was received of its request. Nothing here is for users of HttpServer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include <httplib.h>

#include "server/http/request_scan.h"

namespace lutra::server {

using Clock = std::chrono::steady_clock;

struct Connection {
  enum class State { kIdle, kHead, kBody, kHandling, kLingering };

  explicit Connection(int socket) : fd(socket) {}
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Sends all of `data`; false if the client went away or took nothing for `stall_seconds`.
  bool Send(const char* data, size_t size, double stall_seconds);

  const int fd;
  std::string remote_ip, local_ip;
  int remote_port = 0, local_port = 0;

  // The intake thread's, or the worker's while the state is kHandling.
  State state = State::kHead;
  std::string input;   // received and not used yet
  size_t scanned = 0;  // of which so many hold no end of the head
  RequestHead head;
  std::string body;
  std::unique_ptr<ChunkDecoder> chunks;
  Clock::time_point since, last_data;
  bool close_after = false;
  bool watched = false;

  std::atomic<bool> leaving{
      false};  // the client has closed its side: it will hardly read a long answer
  std::atomic<bool> gone{false};  // nothing can be written any more
  std::mutex hook_mutex;
  std::function<void()> hook;  // called once when it goes
  void MarkLeaving();
  void MarkGone();
};

// What the parser and writer of cpp-httplib see: the head from memory, the answer to the socket.
class ConnectionStream final : public httplib::Stream {
 public:
  ConnectionStream(Connection& connection, double stall_seconds)
      : c_(connection), stall_seconds_(stall_seconds) {}
  bool is_readable() const override { return at_ < c_.head.text.size(); }
  bool is_writable() const override { return !c_.gone; }
  ssize_t read(char* ptr, size_t size) override;
  ssize_t write(const char* ptr, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    ip = c_.remote_ip, port = c_.remote_port;
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override {
    ip = c_.local_ip, port = c_.local_port;
  }
  socket_t socket() const override { return c_.fd; }

 private:
  Connection& c_;
  double stall_seconds_;
  size_t at_ = 0;
};

}  // namespace lutra::server
