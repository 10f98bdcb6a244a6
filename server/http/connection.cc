#include "server/http/connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace lutra::server {

Connection::~Connection() { ::close(fd); }

void Connection::MarkGone() {
  gone = true;
  MarkLeaving();
}

void Connection::MarkLeaving() {
  if (leaving.exchange(true)) return;
  const std::lock_guard lock(hook_mutex);
  if (hook) hook();
  hook = nullptr;
}

bool Connection::Send(const char* data, size_t size, double stall_seconds) {
  Clock::time_point last = Clock::now();
  while (size > 0) {
    if (gone) return false;
    const ssize_t n = ::send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      data += n;
      size -= static_cast<size_t>(n);
      last = Clock::now();
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    const bool full = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    if (!full || std::chrono::duration<double>(Clock::now() - last).count() > stall_seconds) {
      MarkGone();
      return false;
    }
    struct pollfd p = {fd, POLLOUT, 0};
    ::poll(&p, 1, 200);
  }
  return true;
}

ssize_t ConnectionStream::read(char* ptr, size_t size) {
  const size_t n = std::min(size, c_.head.text.size() - at_);
  std::memcpy(ptr, c_.head.text.data() + at_, n);
  at_ += n;
  return static_cast<ssize_t>(n);
}

ssize_t ConnectionStream::write(const char* ptr, size_t size) {
  return c_.Send(ptr, size, stall_seconds_) ? static_cast<ssize_t>(size) : -1;
}

}  // namespace lutra::server
