#include "cli/text_input.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "kernels/base/error.h"

namespace lutra::cli {
namespace {

std::string ReadStream(std::istream& in, const std::string& name) {
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) Fail(ErrorCode::kIo, "%s: cannot read", Printable(name, 400).c_str());
  return text;
}

}  // namespace

std::string ReadTextFile(const std::string& path, const char* what) {
  if (path == "-") return ReadStream(std::cin, "standard input");
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    Fail(ErrorCode::kInvalidArgument, "%s: is a folder, a %s is wanted", Printable(path, 400).c_str(), what);
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
