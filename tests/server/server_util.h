// A server on a free port with the demo model, and clients for it: cpp-httplib's, and a bare socket for what no client would send.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/base/log.h"
#include "server/json.h"
#include "server/server.h"
#include "tests/test_util.h"

namespace lutra::testing {

using server::Json;

inline std::string DemoPath() {
  return std::string(LUTRA_SOURCE_DIR) + "/models/demo/demo-stories-6m-5.5bpw.gguf";
}

inline server::ServerOptions TestOptions(size_t slots = 4) {
  server::ServerOptions o;
  o.port = 0;
  o.drain_seconds = 1;
  server::ModelSpec m;
  m.alias = "demo";
  m.engine.model_path = DemoPath();
  m.engine.threads = 2;
  m.engine.n_ctx = 512;
  m.engine.kv_tokens = 512 * slots;
  m.engine.batch_tokens = 128;
  m.scheduler.max_sequences = slots;
  o.models.push_back(m);
  return o;
}

class TestServer {
 public:
  explicit TestServer(server::ServerOptions options = TestOptions()) {
    SetLogLevel(LogLevel::kWarning);
    server = std::make_unique<server::LutraServer>(std::move(options));
    port = server->Start();
    server->WaitReady();
  }
  httplib::Client Client() const {
    httplib::Client client("127.0.0.1", port);
    client.set_read_timeout(Patience(60));
    return client;
  }
  struct Answer {
    int status = 0;
    Json json;
    httplib::Headers headers;
    std::string body;
    std::string header(const std::string& name) const {
      const auto it = headers.find(name);
      return it == headers.end() ? "" : it->second;
    }
  };
  Answer Post(const std::string& path, const std::string& body,
              const httplib::Headers& headers = {}) const {
    auto client = Client();
    return Wrap(client.Post(path, headers, body, "application/json"));
  }
  Answer Post(const std::string& path, const Json& body,
              const httplib::Headers& headers = {}) const {
    return Post(path, server::Dump(body), headers);
  }
  Answer Get(const std::string& path, const httplib::Headers& headers = {}) const {
    auto client = Client();
    return Wrap(client.Get(path, headers));
  }
  static Answer Wrap(const httplib::Result& r) {
    Answer a;
    REQUIRE_MESSAGE(static_cast<bool>(r), "no answer: " << static_cast<int>(r.error()));
    a.status = r->status;
    a.headers = r->headers;
    a.body = r->body;
    a.json = Json::parse(r->body, nullptr, false);
    return a;
  }
  // The events of a stream: the JSON of each "data:" line but [DONE].
  std::vector<Json> Stream(const std::string& path, Json body, bool* done = nullptr) const {
    body["stream"] = true;
    const Answer a = Post(path, body);
    REQUIRE_MESSAGE(a.status == 200, a.body);
    CHECK(a.header("Content-Type") == "text/event-stream");
    std::vector<Json> events;
    if (done != nullptr) *done = false;
    for (size_t at = 0; at < a.body.size();) {
      const size_t end = a.body.find("\n\n", at);
      REQUIRE(end != std::string::npos);
      const std::string line = a.body.substr(at, end - at);
      at = end + 2;
      if (line == ":") continue;
      REQUIRE(line.starts_with("data: "));
      if (line == "data: [DONE]") {
        CHECK(at == a.body.size());
        if (done != nullptr) *done = true;
        continue;
      }
      events.push_back(Json::parse(line.substr(6)));
    }
    return events;
  }

  std::unique_ptr<server::LutraServer> server;
  int port = 0;
};

// A bare connection.
class Socket {
 public:
  explicit Socket(int port) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(static_cast<uint16_t>(port));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::connect(fd_, reinterpret_cast<sockaddr*>(&a), sizeof(a)) == 0);
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Socket() { Close(); }
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  bool Send(const std::string& s) {
    size_t at = 0;
    while (at < s.size()) {
      const ssize_t n = ::send(fd_, s.data() + at, s.size() - at, MSG_NOSIGNAL);
      if (n <= 0) return false;
      at += static_cast<size_t>(n);
    }
    return true;
  }
  // Everything until the other side closes, `until` was seen or nothing comes for so long.
  std::string Read(int timeout_ms = 5000, const std::string& until = "") {
    std::string out;
    char buffer[4096];
    for (;;) {
      struct pollfd p = {fd_, POLLIN, 0};
      if (::poll(&p, 1, timeout_ms) <= 0) return out;
      const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
      if (n <= 0) return out;
      out.append(buffer, static_cast<size_t>(n));
      if (!until.empty() && out.find(until) != std::string::npos) return out;
    }
  }
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

inline int StatusOf(const std::string& answer) {
  return answer.starts_with("HTTP/1.1 ") && answer.size() > 12
             ? (answer[9] - '0') * 100 + (answer[10] - '0') * 10 + (answer[11] - '0')
             : 0;
}

inline std::string HttpPost(const std::string& path, const std::string& body) {
  return "POST " + path +
         " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace lutra::testing
