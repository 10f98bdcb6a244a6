// Shared by all tests.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace lutra::testing {

// Against hangs and work that grows too fast: the longest that something may take which takes a fraction of it. Sanitized code is slow.
inline std::chrono::milliseconds Patience(int seconds) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  return std::chrono::seconds(20 * seconds);
#else
  return std::chrono::seconds(seconds);
#endif
}

// Folder of the large reference material, or "" if it is not there: $LUTRA_SHARED, else ../shared beside the checkout.
inline std::string SharedDir() {
  const char* env = std::getenv("LUTRA_SHARED");
  const std::string dir = env != nullptr ? env : std::string(LUTRA_SOURCE_DIR) + "/../shared";
  return std::filesystem::is_directory(dir + "/golden") ? dir : "";
}

// Skips the rest of a test case, aloud, where the reference material is absent.
#define LUTRA_REQUIRE_SHARED(variable)                                            \
  const std::string variable = ::lutra::testing::SharedDir();                     \
  if (variable.empty()) {                                                         \
    MESSAGE("SKIPPED: the shared reference material is not beside the checkout"); \
    return;                                                                       \
  }

inline std::vector<uint8_t> ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE_MESSAGE(in.good(), "cannot open " << path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline std::string ReadText(const std::string& path) {
  const std::vector<uint8_t> bytes = ReadBytes(path);
  return std::string(bytes.begin(), bytes.end());
}

}  // namespace lutra::testing
