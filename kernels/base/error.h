// Errors: one exception type with a code. Thrown when an operation as a whole cannot go on; expected outcomes (stop,
// queue full, end of input) are return values. Bytes from outside never reach a CHECK: they raise Error.
#pragma once

#include <cstdarg>
#include <stdexcept>
#include <string>

namespace lutra {

enum class ErrorCode {
  kInvalidArgument,    // the caller's request is wrong: names the field, its value, what it takes
  kNotFound,           // a file, model or token that does not exist
  kCorrupt,            // bytes from outside contradict their format: names file, key, offset, value
  kUnsupported,        // well formed, but not something we do: names it and what to use instead
  kResourceExhausted,  // a named limit was reached: names the limit
  kCancelled,
  kIo,
  kInternal,
};

// "invalid argument", "not found", ... for logs.
const char* ErrorCodeName(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// printf-style std::string.
std::string Format(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string FormatV(const char* format, va_list args);

// Throws Error(code, formatted message).
[[noreturn]] void Fail(ErrorCode code, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

// `text` made safe to print on a terminal or in one log line: control bytes, invalid UTF-8 and backslashes escaped,
// cut after `max_bytes` input bytes (then "..." follows).
std::string Printable(std::string_view text, size_t max_bytes = 200);

}  // namespace lutra
