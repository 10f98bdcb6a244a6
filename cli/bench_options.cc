#include "cli/bench_options.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string_view>

#include "cli/args.h"
#include "cli/bench/int_list.h"
#include "cli/model_options.h"
#include "kernels/base/error.h"
#include "models/synthetic.h"

namespace lutra::cli {
namespace {

// llama-bench writes these with one dash.
constexpr std::string_view kOneDash[] = {"-pg",  "-ub",  "-ctk", "-ctv", "-oe",  "-npp",
                                         "-ntg", "-npl", "-ngl", "-fa",  "-mmp", "-lm"};

}  // namespace

void AddSourceOptions(CLI::App& app, SourceOptions* o) {
  AddList(app, "-m,--model", &o->models, "GGUF files (default: the demo model)")
      ->type_name("FILE[,FILE]");
  AddList(app, "--synthetic", &o->synthetic,
          "a model in memory with random weights: SHAPE:TYPE, e.g. llama-3.2-1b:IQ4_K or "
          "layers=4,embd=1024:Q4_K")
      ->type_name("SHAPE:TYPE");
}

std::vector<bench::ModelSource> Sources(const SourceOptions& o) {
  std::vector<bench::ModelSource> sources;
  for (const std::string& path : Words(o.models)) sources.push_back({path, ""});
  for (const std::string& text : o.synthetic) {
    ParseSynthetic(text);  // a mistake shows before anything is measured
    sources.push_back({"", text});
  }
  if (sources.empty()) sources.push_back({DemoModelPath(), ""});
  return sources;
}

bench::ModelSource OneSource(const SourceOptions& options, const char* mode) {
  const auto sources = Sources(options);
  if (sources.size() != 1)
    Fail(ErrorCode::kInvalidArgument, "bench %s: takes one model, not %zu", mode, sources.size());
  return sources[0];
}

CLI::Option* AddList(CLI::App& app, const char* names, std::vector<std::string>* values,
                     const char* help) {
  return app.add_option(names, *values, help)->allow_extra_args(false)->type_name("LIST");
}

std::vector<int> Numbers(const char* option, const std::vector<std::string>& lists, int low,
                         int high, int absent) {
  std::vector<int> out;
  for (const std::string& text : lists) {
    const std::vector<int> part = bench::ParseIntList(option, text, low, high);
    out.insert(out.end(), part.begin(), part.end());
  }
  if (lists.empty()) out.push_back(absent);
  return out;
}

std::vector<std::string> Words(const std::vector<std::string>& lists) {
  std::vector<std::string> out;
  for (const std::string& text : lists) {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t comma = std::min(text.find(',', begin), text.size());
      out.push_back(text.substr(begin, comma - begin));
      begin = comma + 1;
    }
  }
  return out;
}

std::optional<int> ParseBenchArgs(CLI::App& app, int argc, char** argv) {
  std::vector<std::string> args(argv, argv + argc);
  std::vector<char*> pointers;
  for (std::string& arg : args) {
    const std::string name = arg.substr(0, arg.find('='));
    if (std::any_of(std::begin(kOneDash), std::end(kOneDash),
                    [&](std::string_view s) { return s == name; }))
      arg.insert(0, "-");
    pointers.push_back(arg.data());
  }
  return ParseArgs(app, argc, pointers.data());
}

BenchProgress::BenchProgress(bool wanted)
    : terminal_(isatty(STDERR_FILENO)), on_(wanted || terminal_) {}
BenchProgress::~BenchProgress() { Clear(); }

void BenchProgress::Say(const std::string& text) {
  if (!on_) return;
  std::fprintf(stderr, terminal_ ? "\r%s\033[K" : "%s\n", text.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void BenchProgress::Clear() {
  if (terminal_ && drawn_) std::fprintf(stderr, "\r\033[K");
  drawn_ = false;
}

void Print(const std::string& text, std::FILE* out) {
  std::fwrite(text.data(), 1, text.size(), out);
  std::fflush(out);
}

}  // namespace lutra::cli
