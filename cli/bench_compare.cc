// `lutra bench compare`: two configurations, engines or recorded runs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include <nlohmann/json.hpp>

#include "cli/bench/compare.h"
#include "cli/bench_options.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "kernels/base/error.h"
#include "kernels/base/file_text.h"

namespace lutra::cli {
namespace {

namespace fs = std::filesystem;

// A or B: a file of results, or a program with its arguments that measures.
struct Side {
  std::string label;
  std::vector<bench::Series> recorded;  // of a file
  std::vector<std::string> command;     // to run
};

Side ReadSide(const std::string& text, const std::vector<std::string>& common) {
  Side side{text.substr(std::min(text.size(), text.find_first_not_of(' '))), {}, {}};
  std::error_code ignored;
  const std::string extension = fs::path(text).extension();
  if (fs::is_regular_file(text, ignored) &&
      (extension == ".json" || extension == ".jsonl" || extension == ".csv")) {
    side.recorded = bench::ReadRuns(FileText(text), text);
    return side;
  }
  side.command = bench::SplitWords(text);
  if (side.command.empty()) Fail(ErrorCode::kInvalidArgument, "compare: a side is empty");
  if (side.command[0].starts_with("-")) {  // options of our own
    const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
    side.command.insert(side.command.begin(), {self.string(), "bench"});
  } else if (extension == ".json" || extension == ".jsonl" || extension == ".csv") {
    Fail(ErrorCode::kNotFound, "%s: no such file", Printable(text, 300).c_str());
  }
  side.command.insert(side.command.end(), common.begin(), common.end());
  side.command.insert(side.command.end(), {"-o", "json"});
  return side;
}

// The measurements of one run, one number a test: the median of its repetitions.
void Add(const std::vector<bench::Series>& run, std::vector<bench::Series>* all) {
  for (const bench::Series& s : run) {
    auto it = std::find_if(all->begin(), all->end(),
                           [&](const bench::Series& x) { return x.test == s.test; });
    if (it == all->end()) it = all->insert(all->end(), {s.test, {}});
    it->ts.push_back(bench::Median(s.ts));
  }
}

void PrintTable(const std::vector<bench::Comparison>& rows) {
  std::printf("| %-20s | %10s | %10s | %8s | %17s | %4s | %-13s |\n", "test", "A t/s", "B t/s",
              "B / A", "95 % interval", "runs", "B is");
  std::printf(
      "| -------------------- | ---------: | ---------: | -------: | ----------------: | ---: | "
      "------------- |\n");
  for (const bench::Comparison& c : rows) {
    std::printf("| %-20s | %10.2f | %10.2f | %8.3f | %7.3f - %7.3f | %4zu | %-13s |\n",
                c.test.c_str(), c.a, c.b, c.ratio, c.interval.low, c.interval.high, c.n_pairs,
                c.verdict);
  }
}

void PrintJson(const Side& a, const Side& b, const std::vector<bench::Comparison>& rows) {
  nlohmann::ordered_json json = {
      {"a", a.label}, {"b", b.label}, {"tests", nlohmann::json::array()}};
  for (const bench::Comparison& c : rows) {
    json["tests"].push_back({{"test", c.test},
                             {"a_ts", c.a},
                             {"b_ts", c.b},
                             {"ratio", c.ratio},
                             {"low", c.interval.low},
                             {"high", c.interval.high},
                             {"pairs", c.n_pairs},
                             {"b_is", c.verdict}});
  }
  std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

}  // namespace

int RunBenchCompare(int argc, char** argv) {
  CLI::App app(
      "Compares B with A. Each is a file that bench -o json, jsonl or csv wrote; or options of "
      "lutra bench in quotes ('-m a.gguf'), "
      "or a program with its arguments that takes the same options ('/opt/other/llama-bench -m "
      "a.gguf'): these run in turns, A B A "
      "B ..., so that what disturbs the machine disturbs both. The ratio is the median over the "
      "rounds.");
  std::string a_text, b_text;
  std::vector<std::string> prompts, gens, depths, pg, threads;
  int rounds = 5, repetitions = 1, rest = 0;
  bool json = false, want_progress = false;
  app.add_option("A", a_text, "what to compare with")->required();
  app.add_option("B", b_text, "what to compare")->required();
  app.add_option("--rounds", rounds, "times that both are run (default: 5)")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  app.add_option("-r,--repetitions", repetitions,
                 "repetitions inside a run, of which the median counts (default: 1)")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  app.add_option("--rest", rest, "seconds between runs")
      ->check(CLI::Range(0, 3600))
      ->type_name("SECONDS");
  AddList(app, "-p,--n-prompt", &prompts, "given to both: prompt tokens");
  AddList(app, "-n,--n-gen", &gens, "given to both: generated tokens");
  AddList(app, "-d,--n-depth", &depths, "given to both: tokens already in the context");
  AddList(app, "--pg", &pg, "-pg: given to both: prompt and generation together")
      ->type_name("PP,TG");
  AddList(app, "-t,--threads", &threads, "given to both: threads");
  app.add_flag("--json", json, "print JSON");
  app.add_flag("--progress", want_progress,
               "say on standard error what is being done, also where that is no terminal");
  // '-m a.gguf', one argument with blanks, is a side and no option: a blank in front tells the parser.
  std::vector<std::string> args(argv, argv + argc);
  std::vector<char*> pointers;
  for (std::string& arg : args) {
    if (arg.starts_with("-") && arg.find(' ') != std::string::npos) arg.insert(0, " ");
    pointers.push_back(arg.data());
  }
  if (const auto status = ParseBenchArgs(app, argc, pointers.data())) return *status;

  std::vector<std::string> common = {"-r", std::to_string(repetitions)};
  const auto pass = [&](const char* option, const std::vector<std::string>& values) {
    for (const std::string& v : values) common.insert(common.end(), {option, v});
  };
  pass("-p", prompts);
  pass("-n", gens);
  pass("-d", depths);
  pass("-pg", pg);
  pass("-t", threads);
  Side sides[2] = {ReadSide(a_text, common), ReadSide(b_text, common)};
  std::vector<bench::Series> results[2] = {sides[0].recorded, sides[1].recorded};
  const bool live = !sides[0].command.empty() || !sides[1].command.empty();
  BenchProgress progress(want_progress);
  for (int round = 0; live && round < rounds; ++round) {
    for (int which = 0; which < 2; ++which) {
      // Every second round begins with the other.
      const int i = round % 2 == 0 ? which : 1 - which;
      if (sides[i].command.empty()) continue;
      if (InterruptFlag()) Fail(ErrorCode::kCancelled, "stopped");
      progress.Say(Format("round %d of %d: %c", round + 1, rounds, i == 0 ? 'A' : 'B'));
      Add(bench::ReadRuns(bench::RunProgram(sides[i].command), sides[i].command[0]), &results[i]);
      if (rest > 0) std::this_thread::sleep_for(std::chrono::seconds(rest));
    }
  }
  progress.Clear();
  const auto rows = bench::Compare(results[0], results[1]);
  if (rows.empty()) Fail(ErrorCode::kInvalidArgument, "compare: A and B have no test in common");
  if (json) {
    PrintJson(sides[0], sides[1], rows);
  } else {
    std::printf("A: %s\nB: %s\n\n", Printable(sides[0].label, 300).c_str(),
                Printable(sides[1].label, 300).c_str());
    PrintTable(rows);
  }
  return kExitOk;
}

}  // namespace lutra::cli
