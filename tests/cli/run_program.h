// Runs the program itself.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "tests/models/gguf_check.h"

namespace lutra::testing {

struct Outcome {
  int status;
  std::string output;  // stdout, and stderr where asked for
};
// before: shell text in front of the program.
inline Outcome Run(const std::string& arguments, bool with_stderr = false,
                   const std::string& before = "") {
  const std::string command = before + std::string(LUTRA_PROGRAM) + " " + arguments +
                              (with_stderr ? " 2>&1" : " 2>/dev/null");
  FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  Outcome out;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;)
    out.output.append(buffer, n);
  const int status = ::pclose(pipe);
  out.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return out;
}
inline bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace lutra::testing
