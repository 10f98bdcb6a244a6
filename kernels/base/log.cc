#include "kernels/base/log.h"

#include <atomic>
#include <cstdarg>
#include <cstdio>

#include "kernels/base/error.h"

namespace lutra {
namespace {

void DefaultSink(LogLevel level, const std::string& line) {
  if (level >= LogLevel::kWarning) std::fprintf(stderr, "%s\n", line.c_str());
}

std::atomic<LogSink> g_sink{&DefaultSink};
std::atomic<LogLevel> g_level{LogLevel::kInfo};

}  // namespace

void SetLogSink(LogSink sink) { g_sink = sink; }
void SetLogLevel(LogLevel level) { g_level = level; }

void Log(LogLevel level, const char* format, ...) {
  if (level < g_level.load()) return;
  va_list args;
  va_start(args, format);
  const std::string line = FormatV(format, args);
  va_end(args);
  g_sink.load()(level, line);
}

}  // namespace lutra
