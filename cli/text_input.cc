#include "cli/text_input.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <vector>

#include "kernels/base/error.h"

namespace lutra::cli {
namespace {

// What does not end (a device, a pipe) is refused in time.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

std::string ReadStream(std::istream& in, const std::string& name) {
  std::string text;
  std::vector<char> part(size_t{1} << 20);
  while (in.read(part.data(), static_cast<std::streamsize>(part.size())), in.gcount() > 0) {
    text.append(part.data(), static_cast<size_t>(in.gcount()));
    if (text.size() > kMaxTextBytes) {
      Fail(ErrorCode::kInvalidArgument,
           "%s: is longer than %zu bytes, the most that a text may have: give a part of it",
           Printable(name, 400).c_str(), kMaxTextBytes);
    }
  }
  if (in.bad()) Fail(ErrorCode::kIo, "%s: cannot read", Printable(name, 400).c_str());
  return text;
}

}  // namespace

std::string ReadTextFile(const std::string& path, const char* what) {
  if (path == "-") return ReadStream(std::cin, "standard input");
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    Fail(ErrorCode::kInvalidArgument, "%s: is a folder, a %s is wanted",
         Printable(path, 400).c_str(), what);
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) Fail(ErrorCode::kNotFound, "%s: cannot open the %s", Printable(path, 400).c_str(), what);
  return ReadStream(in, path);
}

std::string WithoutLineEnd(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

std::string ReadEvalText(const std::string& path) { return WithoutLineEnd(ReadTextFile(path)); }

}  // namespace lutra::cli
