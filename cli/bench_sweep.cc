// `lutra bench sweep`: speed over the depth of the context. `lutra bench batched`: several streams together.
#include <algorithm>
#include <cstdio>

#include "cli/arithmetic_options.h"
#include "cli/bench_options.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"

namespace lutra::cli {
namespace {

struct CommonOptions {
  SourceOptions source;
  ArithmeticOptions arithmetic;
  int threads = AdviseThreads().threads, ubatch = 512;
  std::string kv_type = "f16", output = "md";
  bool progress = false;
};

void AddCommon(CLI::App& app, CommonOptions* o) {
  AddSourceOptions(app, &o->source);
  app.add_option("-t,--threads", o->threads, "threads (default: what the machine offers)")
      ->check(CLI::Range(1, ThreadPool::kMaxThreads))
      ->type_name("N");
  app.add_option("--ub,--ubatch-size", o->ubatch,
                 "-ub: prompt tokens of a forward pass (default: 512)")
      ->check(CLI::Range(1, static_cast<int>(kMaxBatchTokens)))
      ->type_name("N");
  app.add_option("--ctk,--kv-type", o->kv_type,
                 "-ctk: type of the KV cache: f16, q8 or f32 (default: f16)")
      ->type_name("TYPE");
  app.add_option("-o,--output", o->output, "md or jsonl (default: md)")
      ->check(CLI::IsMember({"md", "jsonl"}))
      ->type_name("FORMAT");
  app.add_flag("--progress", o->progress,
               "say on standard error what is being done, also where that is no terminal");
  o->arithmetic.AddTo(app);
}

// A column: its name, and how its number is printed.
struct Cell {
  const char* name;
  double value;
  int width, digits;
};

void PrintRow(const std::vector<Cell>& row, bool first, bool jsonl) {
  std::string names = "|", lines = "|", values = "|", json;
  for (const Cell& c : row) {
    names += Format(" %*s |", c.width, c.name);
    lines += " " + std::string(static_cast<size_t>(c.width) - 1, '-') + ": |";
    values += Format(" %*.*f |", c.width, c.digits, c.value);
    std::string key = c.name;
    std::replace(key.begin(), key.end(), ' ', '_');
    std::replace(key.begin(), key.end(), '/', '_');
    json += Format("%s\"%s\": %.*f", json.empty() ? "" : ", ", key.c_str(), c.digits == 0 ? 0 : 6,
                   c.value);
  }
  if (jsonl) {
    Print("{" + json + "}\n", stdout);
  } else {
    Print((first ? names + "\n" + lines + "\n" : "") + values + "\n", stdout);
  }
}

}  // namespace

int RunBenchSweep(int argc, char** argv) {
  CLI::App app(
      "Speed of prompt (S_PP) and generation (S_TG) with N_KV tokens already in the context, from "
      "0 to the context size.");
  CommonOptions o;
  AddCommon(app, &o);
  int n_ctx = 4096, n_prompt = 0, n_gen = 0;
  app.add_option("-c,--ctx-size", n_ctx, "greatest context (default: 4096)")
      ->check(CLI::Range(1, kMaxBenchTokens))
      ->type_name("N");
  app.add_option("-p,--n-prompt", n_prompt,
                 "prompt tokens of each row, and its distance to the next (default: those of -ub)")
      ->check(CLI::Range(1, kMaxBenchTokens))
      ->type_name("N");
  app.add_option("-n,--n-gen", n_gen,
                 "generated tokens of each row (default: a quarter of the prompt)")
      ->check(CLI::Range(1, kMaxBenchTokens))
      ->type_name("N");
  if (const auto status = ParseBenchArgs(app, argc, argv)) return *status;
  if (n_prompt == 0) n_prompt = o.ubatch;
  if (n_gen == 0) n_gen = std::max(1, n_prompt / 4);
  if (n_prompt > n_ctx)
    Fail(ErrorCode::kInvalidArgument, "-p: %d prompt tokens do not fit a context of %d (-c)",
         n_prompt, n_ctx);
  const bench::ModelSource source = OneSource(o.source, "sweep");
  o.arithmetic.Apply();
  BenchProgress progress(o.progress);
  progress.Say("loading " + source.Name());
  bench::BenchModel model(source, o.threads);
  bench::RunOptions run;
  run.repetitions = 1;
  run.cancel = &InterruptFlag();
  run.progress = [&](const std::string& what) { progress.Say(what); };
  bench::TestSpec spec;
  spec.n_threads = o.threads;
  spec.n_ubatch = spec.n_batch = o.ubatch;
  spec.type_k = spec.type_v = o.kv_type;
  // The whole cache at once, and everything warm.
  spec.n_depth = 0;
  spec.n_prompt = 1;
  model.Reserve(spec, n_ctx + n_gen);
  for (int depth = 0; depth + n_prompt <= n_ctx; depth += n_prompt) {
    run.warmup = depth == 0;
    spec.n_depth = depth;
    spec.n_prompt = 0;
    spec.n_gen = n_gen;
    const double decode = model.Run(spec, run).median_seconds();
    spec.n_prompt = n_prompt;
    spec.n_gen = 0;
    const double prompt = model.Run(spec, run).median_seconds();
    progress.Clear();
    PrintRow({{"PP", static_cast<double>(n_prompt), 6, 0},
              {"TG", static_cast<double>(n_gen), 6, 0},
              {"N_KV", static_cast<double>(depth), 7, 0},
              {"T_PP s", prompt, 8, 3},
              {"S_PP t/s", n_prompt / prompt, 9, 2},
              {"T_TG s", decode, 8, 3},
              {"S_TG t/s", n_gen / decode, 9, 2}},
             depth == 0, o.output == "jsonl");
  }
  return kExitOk;
}

int RunBenchBatched(int argc, char** argv) {
  CLI::App app(
      "Speed of B streams that generate together, each with its own prompt: one forward pass gives "
      "every stream a token.");
  CommonOptions o;
  AddCommon(app, &o);
  std::vector<std::string> prompts, gens, streams;
  AddList(app, "-p,--npp", &prompts, "-npp: prompt tokens of each stream (default: 128)");
  AddList(app, "-n,--ntg", &gens, "-ntg: tokens each stream generates (default: 64)");
  AddList(app, "-B,--npl", &streams, "-npl: streams (default: 1-64*2)");
  if (const auto status = ParseBenchArgs(app, argc, argv)) return *status;
  const auto n_prompt = Numbers("-npp", prompts, 0, kMaxBenchTokens, 128);
  const auto n_gen = Numbers("-ntg", gens, 1, kMaxBenchTokens, 64);
  const auto n_streams =
      Numbers("-npl", streams.empty() ? std::vector<std::string>{"1-64*2"} : streams, 1, 1024, 1);
  const bench::ModelSource source = OneSource(o.source, "batched");
  o.arithmetic.Apply();
  BenchProgress progress(o.progress);
  progress.Say("loading " + source.Name());
  bench::BenchModel model(source, o.threads);
  bench::RunOptions run;
  run.cancel = &InterruptFlag();
  bool first = true;
  for (const int p : n_prompt) {
    for (const int n : n_gen) {
      for (const int b : n_streams) {
        progress.Say(Format("%d streams: %d prompt tokens, %d generated", b, p, n));
        bench::TestSpec spec;
        spec.n_prompt = p;
        spec.n_gen = n;
        spec.n_threads = o.threads;
        spec.n_ubatch = spec.n_batch = o.ubatch;
        spec.type_k = spec.type_v = o.kv_type;
        const auto t = model.RunBatched(spec, b, run);
        progress.Clear();
        const double all = t.prompt_seconds + t.decode_seconds;
        PrintRow({{"PP", static_cast<double>(p), 6, 0},
                  {"TG", static_cast<double>(n), 6, 0},
                  {"B", static_cast<double>(b), 4, 0},
                  {"N_KV", static_cast<double>(b) * (p + n), 7, 0},
                  {"T_PP s", t.prompt_seconds, 8, 3},
                  {"S_PP t/s", p > 0 ? b * p / t.prompt_seconds : 0, 9, 2},
                  {"T_TG s", t.decode_seconds, 8, 3},
                  {"S_TG t/s", b * n / t.decode_seconds, 9, 2},
                  {"T s", all, 8, 3},
                  {"S t/s", b * (p + n) / all, 9, 2}},
                 first, o.output == "jsonl");
        first = false;
      }
    }
  }
  return kExitOk;
}

}  // namespace lutra::cli
