// `lutra bench roofline`: the machine's limits.
#include <cstdio>
#include <ctime>

#include "cli/bench/roofline.h"
#include "cli/bench_options.h"
#include "cli/command.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"

namespace lutra::cli {
namespace {

void PrintRoofline(const bench::Roofline& r) {
  std::printf("%s, clock %.2f GHz, measured %s ago\n", Printable(r.cpu, 100).c_str(), r.clock_ghz,
              bench::AgeText(std::time(nullptr) - r.measured_at).c_str());
  if (!r.noise.empty())
    std::printf("not quiet while measured: %s: limits may be higher\n", r.noise.c_str());
  const std::string all = r.threads == 1 ? "1 thread " : Format("%d threads", r.threads);
  std::printf(
      "\n| reading                  |     1 thread | %12s |\n| ------------------------ | "
      "-----------: | -----------: |\n",
      all.c_str());
  std::printf("| 256 KiB a thread (cache) | %7.1f GB/s | %7.1f GB/s |\n", r.stream.cache_1,
              r.stream.cache_n);
  std::printf("| 1 GiB (memory)           | %7.1f GB/s | %7.1f GB/s |\n", r.stream.memory_1,
              r.stream.memory_n);
  std::printf(
      "\n| arithmetic  | instruction    |     1 thread | %12s |\n| ----------- | -------------- | "
      "-----------: | -----------: |\n",
      all.c_str());
  for (const bench::Roofline::Peak& p : r.peaks) {
    std::printf("| %-11s | %-14s | %7.3f TOPS | %7.3f TOPS |\n", p.name.c_str(),
                p.instruction.c_str(), p.gops_1 / 1e3, p.gops_n / 1e3);
  }
  if (r.peaks.empty()) std::printf("| (no loops for this CPU) | | | |\n");
}

}  // namespace

int RunBenchRoofline(int argc, char** argv) {
  CLI::App app(
      "Measures the machine's limits: reading from caches and memory, and int8, bf16 and f32 "
      "multiply-adds of each "
      "instruction set the CPU has (two operations each), on random data. Results are kept for a "
      "week.");
  int threads = AdviseThreads().threads;
  bool fresh = false, json = false, progress = false;
  app.add_option("-t,--threads", threads, "threads (default: what the machine offers)")
      ->check(CLI::Range(1, ThreadPool::kMaxThreads))
      ->type_name("N");
  app.add_flag("--fresh", fresh, "measure again, forget what was kept");
  app.add_flag("--json", json, "print JSON");
  app.add_flag("--progress", progress,
               "say on standard error what is being done, also where that is no terminal");
  if (const auto status = ParseBenchArgs(app, argc, argv)) return *status;
  BenchProgress line(progress);
  const bench::Roofline r =
      bench::FindRoofline(threads, fresh, [&](const std::string& what) { line.Say(what); });
  line.Clear();
  if (json) {
    std::printf("%s", bench::RooflineToJson(r).c_str());
  } else {
    PrintRoofline(r);
  }
  return kExitOk;
}

}  // namespace lutra::cli
