// Texts that commands read.
#pragma once

#include <string>

namespace lutra::cli {

// The whole file; "-" is standard input. Throws Error(kNotFound, kInvalidArgument for a folder, kIo) naming it; `what` says what was wanted.
std::string ReadTextFile(const std::string& path, const char* what = "text file");

// The same for measuring, as llama.cpp reads a prompt file: without one line end at its end.
std::string ReadEvalText(const std::string& path);
std::string WithoutLineEnd(std::string text);

}  // namespace lutra::cli
