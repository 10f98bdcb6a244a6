// What the modes of `lutra bench` share: where models come from, lists, progress.
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <utility>
#include <vector>

#include "cli/bench/runner.h"
#include "engine/limits.h"

namespace lutra::cli {

inline constexpr int kMaxBenchTokens = static_cast<int>(kMaxContext) / 2;

// -m and --synthetic as given: lists in text form.
struct SourceOptions {
  std::vector<std::string> models, synthetic;
};
void AddSourceOptions(CLI::App& app, SourceOptions* options);
// All of them, the demo model if there are none. Throws Error(kInvalidArgument) for a synthetic model that is none.
std::vector<bench::ModelSource> Sources(const SourceOptions& options);
// Exactly one; the message names the mode.
bench::ModelSource OneSource(const SourceOptions& options, const char* mode);

// An option that may be repeated and takes lists.
CLI::Option* AddList(CLI::App& app, const char* names, std::vector<std::string>* values,
                     const char* help);
// The numbers of all lists, or `absent` if there are none.
std::vector<int> Numbers(const char* option, const std::vector<std::string>& lists, int low,
                         int high, int absent);
// "a,b" and "c" -> a, b, c.
std::vector<std::string> Words(const std::vector<std::string>& lists);

// Parses arguments in which llama-bench's options of several letters have one dash (-pg, -ctk): see ParseArgs.
std::optional<int> ParseBenchArgs(CLI::App& app, int argc, char** argv);

// One line of standard error that is overwritten (on a terminal), or a line each time (if wanted elsewhere).
class BenchProgress {
 public:
  explicit BenchProgress(bool wanted);
  ~BenchProgress();
  void Say(const std::string& text);
  void Clear();

 private:
  const bool terminal_, on_;
  bool drawn_ = false;
};

// Writes and flushes.
void Print(const std::string& text, std::FILE* out);

// Modes: argv[0] is "lutra bench MODE".
int RunBenchRoofline(int argc, char** argv);
int RunBenchSweep(int argc, char** argv);
int RunBenchBatched(int argc, char** argv);
int RunBenchCompare(int argc, char** argv);

}  // namespace lutra::cli
