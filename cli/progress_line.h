// How far work is, on one line of stderr where that is a terminal: rewritten, at most ten times a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace lutra::cli {

class ProgressLine {
 public:
  // Nothing is drawn when quiet, nor in the first `patience` seconds.
  explicit ProgressLine(bool quiet = false, double patience = 0.0);
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Draws text() in place of what stood there. Not if the last time was a moment ago.
  void Update(const std::function<std::string()>& text);
  void Clear();
  double Seconds() const;  // since construction

 private:
  const bool on_;
  const std::chrono::steady_clock::time_point start_;
  double next_;
  bool drawn_ = false;
};

// What work of that pace still takes: "4:05", "1:02:03".
std::string TimeLeft(double seconds, double done, double total);

}  // namespace lutra::cli
