// Logging. Libraries never touch stdout or stderr; they call Log, and the one sink is set by the program.
#pragma once

#include <string>

namespace lutra {

enum class LogLevel { kTrace, kDebug, kInfo, kWarning, kError };

using LogSink = void (*)(LogLevel level, const std::string& line);

// Replaces the sink (default: warnings and errors to stderr). Not thread-safe against concurrent Log calls.
void SetLogSink(LogSink sink);
// Messages below `level` are dropped before they are formatted. Default kInfo.
void SetLogLevel(LogLevel level);

// Thread-safe. One line, without a line end.
void Log(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace lutra
