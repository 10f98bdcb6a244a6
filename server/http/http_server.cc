#include "server/http/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <thread>
#include <unordered_map>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "server/http/connection.h"

namespace lutra::server {
namespace {

constexpr size_t kReadBytes = 64 << 10;
constexpr double kLingerSeconds =
    2;  // after a refusal: what the client still sends is read and dropped, so that it sees the answer
constexpr double kIdleWorkerSeconds = 30;

thread_local std::unique_ptr<Exchange> current_exchange;  // lives until the answer is written
thread_local Connection* current_connection = nullptr;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string Address(const sockaddr_storage& a, int* port) {
  char text[INET6_ADDRSTRLEN] = "";
  if (a.ss_family == AF_INET6) {
    const auto* in = reinterpret_cast<const sockaddr_in6*>(&a);
    ::inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof(text));
    *port = ntohs(in->sin6_port);
  } else if (a.ss_family == AF_INET) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(&a);
    ::inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
    *port = ntohs(in->sin_port);
  }
  return text;
}

const char* ReasonPhrase(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 408:
      return "Request Timeout";
    case 413:
      return "Payload Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 431:
      return "Request Header Fields Too Large";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Error";
  }
}

// cpp-httplib as parser of heads and writer of answers; sockets, bodies and routes are ours.
class Parser final : public httplib::Server {
 public:
  explicit Parser(const HttpServer::Handler& handler) {
    set_keep_alive_max_count(100000);
    set_keep_alive_timeout(60);
    set_pre_routing_handler(
        [&handler](const httplib::Request& request, httplib::Response& response) {
          current_exchange = std::make_unique<Exchange>(
              request, response, std::move(current_connection->body), current_connection);
          handler(*current_exchange);
          return HandlerResponse::Handled;
        });
  }
  void SetSocket(int fd) { svr_sock_ = fd; }  // chunked answers end early without one
  // True if the connection may serve another request.
  bool Process(Connection& connection, double stall_seconds, bool close) {
    ConnectionStream stream(connection, stall_seconds);
    bool closed = close;
    current_connection = &connection;
    const bool good = process_request(stream, close, closed, {});
    current_connection = nullptr;
    current_exchange.reset();
    return good && !closed && !connection.gone;
  }
};

}  // namespace

bool Exchange::client_gone() const { return static_cast<Connection*>(connection_)->leaving; }

void Exchange::OnClientGone(std::function<void()> hook) {
  auto* c = static_cast<Connection*>(connection_);
  const std::lock_guard lock(c->hook_mutex);
  if (hook && c->leaving) {
    hook();
  } else {
    c->hook = std::move(hook);
  }
}

struct HttpServer::Impl {
  Impl(const HttpLimits& l, Handler h, ErrorBody e)
      : limits(l), handler(std::move(h)), error_body(std::move(e)), parser(handler) {}
  ~Impl() {
    if (listener >= 0) ::close(listener);
    if (epoll >= 0) ::close(epoll);
    if (wakeup >= 0) ::close(wakeup);
  }

  const HttpLimits limits;
  const Handler handler;
  const ErrorBody error_body;
  Parser parser;
  HttpStats stats;
  int listener = -1, epoll = -1, wakeup = -1;
  std::thread intake;

  // The intake thread's.
  std::unordered_map<int, std::shared_ptr<Connection>> connections;
  uint64_t buffered = 0;

  std::mutex mutex;
  std::condition_variable work, ended;
  std::deque<std::shared_ptr<Connection>> queue;      // complete requests
  std::vector<std::shared_ptr<Connection>> returned;  // answered ones
  size_t n_threads = 0, n_idle = 0, n_posts = 0;
  bool stopping = false, closing = false;

  void Wake() {
    const uint64_t one = 1;
    if (::write(wakeup, &one, sizeof(one)) < 0) return;  // full: it will wake anyway
  }

  // --- intake thread ---
  void Watch(Connection& c, bool reading) {
    epoll_event event{};
    event.events = reading ? EPOLLIN | EPOLLRDHUP : EPOLLRDHUP;
    event.data.fd = c.fd;
    ::epoll_ctl(epoll, c.watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c.fd, &event);
    c.watched = true;
  }
  void Unwatch(Connection& c) {
    if (c.watched) ::epoll_ctl(epoll, EPOLL_CTL_DEL, c.fd, nullptr);
    c.watched = false;
  }
  void Close(Connection& c) {
    Unwatch(c);
    buffered -= std::min<uint64_t>(buffered, c.body.size());
    connections.erase(c.fd);  // a worker may still hold it
    stats.open = connections.size();
  }

  void Accept() {
    for (int i = 0; i < 64; ++i) {
      sockaddr_storage address{};
      socklen_t size = sizeof(address);
      const int fd = ::accept4(listener, reinterpret_cast<sockaddr*>(&address), &size,
                               SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) CloseLongestIdle();
        return;
      }
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      auto c = std::make_shared<Connection>(fd);
      c->remote_ip = Address(address, &c->remote_port);
      size = sizeof(address);
      if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0)
        c->local_ip = Address(address, &c->local_port);
      c->since = c->last_data = Clock::now();
      if (connections.size() >= limits.connections && !CloseLongestIdle())
        continue;  // closes the new one
      ++stats.connections;
      connections[fd] = c;
      stats.open = connections.size();
      Watch(*c, true);
    }
  }

  bool CloseLongestIdle() {
    Connection* oldest = nullptr;
    for (const auto& [fd, c] : connections) {
      if (c->state == Connection::State::kHandling) continue;
      if (oldest == nullptr || c->last_data < oldest->last_data) oldest = c.get();
    }
    if (oldest != nullptr) Close(*oldest);
    return oldest != nullptr;
  }

  void Refuse(Connection& c, int status, const std::string& message) {
    ++stats.refused;
    const std::string body = error_body(status, message);
    std::string answer = "HTTP/1.1 " + std::to_string(status) + " " + ReasonPhrase(status) +
                         "\r\nContent-Type: application/json\r\nConnection: close\r\n";
    if (status == 503) answer += "Retry-After: 1\r\n";
    answer += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    c.Send(answer.data(), answer.size(), 0);
    ::shutdown(c.fd, SHUT_WR);
    buffered -= std::min<uint64_t>(buffered, c.body.size());
    c.body = std::string();
    c.input = std::string();
    c.state = Connection::State::kLingering;
    c.since = Clock::now();
  }

  void Readable(const std::shared_ptr<Connection>& c) {
    char bytes[kReadBytes];
    for (int i = 0; i < 16; ++i) {  // others wait too
      const ssize_t n = ::recv(c->fd, bytes, sizeof(bytes), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      if (n <= 0) {
        Close(*c);
        return;
      }
      if (c->state == Connection::State::kLingering) continue;
      if (c->state == Connection::State::kIdle) {
        c->state = Connection::State::kHead;
        c->since = Clock::now();
      }
      c->last_data = Clock::now();
      c->input.append(bytes, static_cast<size_t>(n));
      Advance(c);
      if (c->state == Connection::State::kHandling) return;
    }
  }

  // Goes as far as the bytes received allow.
  void Advance(const std::shared_ptr<Connection>& c) {
    if (c->state == Connection::State::kHead) {
      while (c->scanned == 0 && c->input.starts_with("\r\n")) c->input.erase(0, 2);
      const size_t end = c->input.find("\r\n\r\n", c->scanned);
      if (end == std::string::npos ? c->input.size() > limits.head_bytes
                                   : end + 4 > limits.head_bytes) {
        const bool uri = c->input.find('\n') > limits.uri_bytes;
        Refuse(*c, uri ? 414 : 431,
               uri ? "the request's address is too long"
                   : "the request's head has more than " + std::to_string(limits.head_bytes) +
                         " bytes");
        return;
      }
      if (end == std::string::npos) {
        c->scanned = c->input.size() < 3 ? 0 : c->input.size() - 3;
        return;
      }
      c->head = ScanHead(std::string_view(c->input).substr(0, end + 4), limits.headers,
                         limits.body_bytes, limits.uri_bytes);
      c->input.erase(0, end + 4);
      c->scanned = 0;
      if (c->head.error != 0) {
        Refuse(*c, c->head.error, c->head.reason);
        return;
      }
      c->state = Connection::State::kBody;
      c->since = Clock::now();
      c->body.clear();
      c->chunks = c->head.chunked ? std::make_unique<ChunkDecoder>(limits.body_bytes) : nullptr;
      if (c->head.expect_continue && c->head.has_body && c->input.empty()) {
        constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
        c->Send(kContinue.data(), kContinue.size(), 0);
      }
    }
    if (c->state == Connection::State::kBody) {
      const size_t before = c->body.size();
      size_t taken;
      bool done;
      if (c->chunks != nullptr) {
        taken = c->chunks->Feed(c->input, &c->body);
        done = c->chunks->done();
      } else {
        taken = static_cast<size_t>(
            std::min<uint64_t>(c->input.size(), c->head.content_length - c->body.size()));
        c->body.append(c->input, 0, taken);
        done = c->body.size() == c->head.content_length;
      }
      c->input.erase(0, taken);
      buffered += c->body.size() - before;
      if (c->chunks != nullptr && c->chunks->error() != 0) {
        Refuse(*c, c->chunks->error(),
               c->chunks->error() == 413
                   ? "the body has more than " + std::to_string(limits.body_bytes) + " bytes"
                   : "the body's chunks are malformed");
      } else if (!done && buffered > limits.buffered_bytes) {
        Refuse(*c, 503, "too many large requests are being received; try again");
      } else if (done) {
        buffered -= std::min<uint64_t>(buffered, c->body.size());
        Dispatch(c);
      }
    }
  }

  void Dispatch(const std::shared_ptr<Connection>& c) {
    {
      const std::lock_guard lock(mutex);
      const bool post = c->head.method == "POST";
      const size_t busy = n_threads - n_idle + queue.size();
      if (!stopping && busy < limits.workers &&
          (!post || n_posts + limits.spare_workers < limits.workers)) {
        n_posts += post;
        queue.push_back(c);
        if (n_idle < queue.size() && n_threads < limits.workers) {
          try {
            std::thread([this] { Work(); }).detach();
            ++n_threads;
          } catch (const std::system_error&) {
            if (n_threads == 0) {
              queue.pop_back();
              n_posts -= post;
              Refuse(*c, 503, "no thread is to be had; try again");
              return;
            }
          }
        }
        c->state = Connection::State::kHandling;
        ++stats.requests;
      }
    }
    if (c->state == Connection::State::kHandling) {
      work.notify_one();
      Watch(*c, false);
    } else {
      Refuse(*c, 503, "too many requests are being handled; try again");
    }
  }

  void Resume(const std::shared_ptr<Connection>& c) {
    if (c->close_after || c->gone) {
      Close(*c);
      return;
    }
    c->state = c->input.empty() ? Connection::State::kIdle : Connection::State::kHead;
    c->since = c->last_data = Clock::now();
    Watch(*c, true);
    if (!c->input.empty()) Advance(c);
  }

  void CheckTimes() {
    std::vector<std::pair<std::shared_ptr<Connection>, int>> late;  // status 0: just close
    for (const auto& [fd, c] : connections) {
      const double total = Since(c->since);
      switch (c->state) {
        case Connection::State::kIdle:
          if (total > limits.idle_seconds) late.emplace_back(c, 0);
          break;
        case Connection::State::kHead:
          if (total > limits.head_seconds) late.emplace_back(c, c->input.empty() ? 0 : 408);
          break;
        case Connection::State::kBody:
          if (total > limits.body_seconds || Since(c->last_data) > limits.body_gap_seconds)
            late.emplace_back(c, 408);
          break;
        case Connection::State::kLingering:
          if (total > kLingerSeconds) late.emplace_back(c, 0);
          break;
        case Connection::State::kHandling:
          break;
      }
    }
    for (const auto& [c, status] : late) {
      ++stats.timeouts;
      if (status == 0) {
        Close(*c);
      } else {
        Refuse(*c, status, "the request did not arrive in time");
      }
    }
  }

  void Intake() {
    Clock::time_point checked = Clock::now();
    std::vector<epoll_event> events(256);
    bool listening = true;
    for (;;) {
      const int n = ::epoll_wait(epoll, events.data(), static_cast<int>(events.size()), 250);
      for (int i = 0; i < n; ++i) {
        const int fd = events[static_cast<size_t>(i)].data.fd;
        const uint32_t what = events[static_cast<size_t>(i)].events;
        if (fd == wakeup) {
          uint64_t count;
          if (::read(wakeup, &count, sizeof(count)) < 0) continue;
        } else if (fd == listener) {
          Accept();
        } else if (const auto it = connections.find(fd); it != connections.end()) {
          const std::shared_ptr<Connection> c = it->second;
          if (c->state == Connection::State::kHandling) {
            Unwatch(*c);
            c->MarkLeaving();
            if ((what & (EPOLLERR | EPOLLHUP)) != 0) c->gone = true;
          } else if ((what & (EPOLLERR | EPOLLHUP)) != 0) {
            Close(*c);
          } else {
            Readable(c);
          }
        }
      }
      std::vector<std::shared_ptr<Connection>> back;
      bool stop, close_all;
      {
        const std::lock_guard lock(mutex);
        back.swap(returned);
        stop = stopping;
        close_all = closing;
      }
      for (const auto& c : back) Resume(c);
      if (Since(checked) > 0.2) {
        CheckTimes();
        checked = Clock::now();
      }
      if (stop && listening) {
        ::epoll_ctl(epoll, EPOLL_CTL_DEL, listener, nullptr);
        ::close(listener);
        listener = -1;
        listening = false;
      }
      if (stop) {
        std::vector<std::shared_ptr<Connection>> all;
        for (const auto& [fd, c] : connections) {
          if (close_all || c->state == Connection::State::kIdle) all.push_back(c);
        }
        for (const auto& c : all) {
          if (c->state == Connection::State::kHandling) {
            c->MarkGone();
          } else {
            Close(*c);
          }
        }
        const std::lock_guard lock(mutex);
        if (close_all && n_threads == 0 && returned.empty()) break;
      }
    }
    connections.clear();
  }

  // --- worker threads ---
  void Work() {
    std::unique_lock lock(mutex);
    for (;;) {
      ++n_idle;
      const auto ready = [&] { return !queue.empty() || closing; };
      const bool got =
          work.wait_for(lock, std::chrono::duration<double>(kIdleWorkerSeconds), ready);
      --n_idle;
      if (!got || queue.empty()) break;
      const std::shared_ptr<Connection> c = std::move(queue.front());
      queue.pop_front();
      const bool post = c->head.method == "POST";
      const bool close = stopping;
      ++stats.busy_workers;
      lock.unlock();
      bool keep = false;
      try {
        keep = parser.Process(*c, limits.write_stall_seconds, close);
      } catch (const std::exception& e) {
        Log(LogLevel::kError, "a connection was dropped: %s", Printable(e.what()).c_str());
      }
      {
        const std::lock_guard hook_lock(c->hook_mutex);
        c->hook = nullptr;
      }
      c->close_after = !keep;
      c->body = std::string();
      lock.lock();
      --stats.busy_workers;
      n_posts -= post;
      returned.push_back(c);
      Wake();
    }
    --n_threads;
    ended.notify_all();
    Wake();
  }
};

HttpServer::HttpServer(const HttpLimits& limits, Handler handler, ErrorBody error_body)
    : impl_(std::make_unique<Impl>(limits, std::move(handler), std::move(error_body))) {}

HttpServer::~HttpServer() { Stop(0); }

const HttpStats& HttpServer::stats() const { return impl_->stats; }

int HttpServer::Start(const std::string& host, int port) {
  Impl& s = *impl_;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failed != 0)
    Fail(ErrorCode::kIo, "cannot listen on '%s': %s", Printable(host, 100).c_str(),
         ::gai_strerror(failed));
  int error = 0;
  for (const addrinfo* a = found; a != nullptr && s.listener < 0; a = a->ai_next) {
    const int fd =
        ::socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
    if (fd < 0) {
      error = errno;
      continue;
    }
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (::bind(fd, a->ai_addr, a->ai_addrlen) == 0 && ::listen(fd, 1024) == 0) {
      s.listener = fd;
    } else {
      error = errno;
      ::close(fd);
    }
  }
  ::freeaddrinfo(found);
  if (s.listener < 0) {
    Fail(ErrorCode::kIo, "cannot listen on %s port %d: %s", Printable(host, 100).c_str(), port,
         std::strerror(error));
  }
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  int bound = port;
  if (::getsockname(s.listener, reinterpret_cast<sockaddr*>(&address), &size) == 0)
    Address(address, &bound);
  s.epoll = ::epoll_create1(EPOLL_CLOEXEC);
  s.wakeup = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (s.epoll < 0 || s.wakeup < 0)
    Fail(ErrorCode::kIo, "cannot watch sockets: %s", std::strerror(errno));
  for (const int fd : {s.listener, s.wakeup}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(s.epoll, EPOLL_CTL_ADD, fd, &event);
  }
  s.parser.SetSocket(s.epoll);
  s.intake = std::thread([&s] { s.Intake(); });
  return bound;
}

void HttpServer::Stop(double seconds) {
  Impl& s = *impl_;
  if (!s.intake.joinable()) return;
  {
    std::unique_lock lock(s.mutex);
    s.stopping = true;
    s.Wake();
    const auto quiet = [&] { return s.queue.empty() && s.n_idle == s.n_threads; };
    const Clock::time_point end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                     std::chrono::duration<double>(seconds));
    while (!quiet() && Clock::now() < end) s.ended.wait_for(lock, std::chrono::milliseconds(20));
    s.closing = true;
  }
  s.work.notify_all();
  s.Wake();
  s.intake.join();
}

}  // namespace lutra::server
