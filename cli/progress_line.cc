#include "cli/progress_line.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "kernels/base/error.h"

namespace lutra::cli {

ProgressLine::ProgressLine(bool quiet, double patience)
    : on_(!quiet && isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      next_(patience) {}

double ProgressLine::Seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void ProgressLine::Update(const std::function<std::string()>& text) {
  if (!on_ || Seconds() < next_) return;
  std::fprintf(stderr, "\r\x1b[K%s", text().c_str());
  std::fflush(stderr);
  drawn_ = true;
  next_ = Seconds() + 0.1;
}

void ProgressLine::Clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  drawn_ = false;
  next_ = 0.0;
}

std::string TimeLeft(double seconds, double done, double total) {
  const double left = done > 0.0 ? seconds * (total - done) / done : 0.0;
  const long s = static_cast<long>(std::min(left, 1e9));
  return s < 3600 ? Format("%ld:%02ld", s / 60, s % 60)
                  : Format("%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

}  // namespace lutra::cli
