// `lutra bench`: how fast, in llama-bench's language.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arithmetic_options.h"
#include "cli/bench/int_list.h"
#include "cli/bench/printer.h"
#include "cli/bench/runner.h"
#include "cli/bench_options.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "models/synthetic.h"

namespace lutra::cli {
namespace {

using bench::BenchModel;
using bench::ModelSource;
using bench::TestSpec;

// As given on the command line: lists in text form.
struct BenchOptions {
  SourceOptions source;
  ArithmeticOptions arithmetic;
  std::vector<std::string> n_prompt, n_gen, pg, n_depth, n_batch, n_ubatch, n_threads, type_k,
      type_v;
  std::string save, output = "md", output_err = "none";
  int repetitions = 5, delay = 0;
  bool progress = false, no_warmup = false, no_roofline = false;
};

// Options of llama-bench that change nothing on a CPU or are always so here.
struct IgnoredOption {
  const char* names;
  const char* why;
};
constexpr IgnoredOption kIgnored[] = {
    {"--ngl,--n-gpu-layers", "there is no GPU"},
    {"--fa,--flash-attn", "attention never stores the score matrix"},
    {"--mmp,--mmap", "files are always mapped"},
    {"--lm,--load-mode", "files are always mapped"},
};
void AddBenchOptions(CLI::App& app, BenchOptions* o) {
  AddSourceOptions(app, &o->source);
  app.add_option("--save", o->save, "write the synthetic model to this GGUF file and end")
      ->type_name("FILE");
  AddList(app, "-p,--n-prompt", &o->n_prompt, "prompt tokens (default: 512)");
  AddList(app, "-n,--n-gen", &o->n_gen, "generated tokens (default: 128)");
  AddList(app, "--pg", &o->pg, "-pg PP,TG: a prompt and then generation, timed together")
      ->type_name("PP,TG");
  AddList(app, "-d,--n-depth", &o->n_depth, "tokens already in the context (default: 0)");
  AddList(app, "-b,--batch-size", &o->n_batch,
          "prompt tokens after which logits are computed (default: 2048)");
  AddList(app, "--ub,--ubatch-size", &o->n_ubatch,
          "-ub: prompt tokens of a forward pass (default: 512)");
  AddList(app, "-t,--threads", &o->n_threads, "threads (default: what the machine offers)");
  AddList(app, "--ctk,--cache-type-k", &o->type_k,
          "-ctk: type of cached keys: q8, f16 or f32 (default: f16)")
      ->type_name("TYPES");
  AddList(app, "--ctv,--cache-type-v", &o->type_v,
          "-ctv: type of cached values; the same as -ctk (default: that)")
      ->type_name("TYPES");
  app.add_option("-r,--repetitions", o->repetitions, "times each test is repeated (default: 5)")
      ->check(CLI::Range(1, 100000))
      ->type_name("N");
  app.add_option("--delay", o->delay, "seconds to rest before each test")
      ->check(CLI::Range(0, 3600))
      ->type_name("SECONDS");
  app.add_option("-o,--output", o->output,
                 "md, csv, json, jsonl or sql to standard output (default: md)")
      ->type_name("FORMAT");
  app.add_option("--oe,--output-err", o->output_err,
                 "-oe: the same to standard error (default: none)")
      ->type_name("FORMAT");
  app.add_flag("--progress", o->progress,
               "say on standard error what is being done, also where that is no terminal");
  app.add_flag("--no-warmup", o->no_warmup, "leave out the run before the first that counts");
  app.add_flag("--no-roofline", o->no_roofline, "do not measure or look up the machine's limits");
  o->arithmetic.AddTo(app);
}

// Every combination, in llama-bench's order.
std::vector<TestSpec> Tests(const BenchOptions& o) {
  const auto prompts = Numbers("-p", o.n_prompt, 0, kMaxBenchTokens, 512);
  const auto gens = Numbers("-n", o.n_gen, 0, kMaxBenchTokens, 128);
  const auto depths = Numbers("-d", o.n_depth, 0, kMaxBenchTokens, 0);
  const auto batches = Numbers("-b", o.n_batch, 1, kMaxBenchTokens, 2048);
  const auto ubatches = Numbers("-ub", o.n_ubatch, 1, static_cast<int>(kMaxBatchTokens), 512);
  const auto threads =
      Numbers("-t", o.n_threads, 1, ThreadPool::kMaxThreads, AdviseThreads().threads);
  std::vector<std::pair<int, int>> shapes;
  for (const int p : prompts) shapes.push_back({p, 0});
  for (const int n : gens) shapes.push_back({0, n});
  for (const std::string& text : o.pg)
    shapes.push_back(bench::ParseIntPair("-pg", text, kMaxBenchTokens));
  std::vector<std::pair<std::string, std::string>> types;
  const auto keys = o.type_k.empty() ? std::vector<std::string>{} : Words(o.type_k);
  const auto values = o.type_v.empty() ? std::vector<std::string>{} : Words(o.type_v);
  for (const std::string& t : keys.empty() ? values : keys) {
    if (!keys.empty() && !values.empty() &&
        std::find(values.begin(), values.end(), t) == values.end()) {
      Fail(ErrorCode::kInvalidArgument,
           "-ctk %s: keys and values have one type here; give -ctv the same list",
           Printable(t, 40).c_str());
    }
    ParseKvType(t);
    types.push_back({t, t});
  }
  if (types.empty()) types.push_back({"f16", "f16"});

  std::vector<TestSpec> tests;
  for (const int b : batches) {
    for (const int ub : ubatches) {
      for (const auto& [k, v] : types) {
        for (const int t : threads) {
          for (const int d : depths) {
            for (const auto& [p, n] : shapes) {
              if (p == 0 && n == 0) continue;
              tests.push_back({p, n, d, b, ub, t, k, v});
            }
          }
        }
      }
    }
  }
  if (tests.empty())
    Fail(ErrorCode::kInvalidArgument, "nothing to measure: -p, -n and -pg are all 0");
  return tests;
}

// Columns of the Markdown table that say something: what is not as usual or differs from test to test.
bench::MarkdownOptions Markdown(const std::vector<TestSpec>& tests) {
  const TestSpec usual;
  bench::MarkdownOptions options;
  const auto any = [&](auto differs) { return std::any_of(tests.begin(), tests.end(), differs); };
  if (any([&](const TestSpec& t) { return t.n_batch != usual.n_batch; }))
    options.columns.push_back("n_batch");
  if (any([&](const TestSpec& t) { return t.n_ubatch != usual.n_ubatch; }))
    options.columns.push_back("n_ubatch");
  if (any([&](const TestSpec& t) { return t.type_k != usual.type_k; })) {
    options.columns.push_back("type_k");
    options.columns.push_back("type_v");
  }
  return options;
}

int Save(const BenchOptions& o) {
  if (o.source.synthetic.size() != 1 || !o.source.models.empty()) {
    Fail(ErrorCode::kInvalidArgument,
         "--save: writes one synthetic model: give it with --synthetic SHAPE:TYPE");
  }
  ThreadPool pool(AdviseThreads().threads);
  const GgufWriter writer = SyntheticWriter(ParseSynthetic(o.source.synthetic[0]), pool);
  writer.Write(o.save);
  std::fprintf(stderr, "%s: %.2f GB of random weights\n", Printable(o.save, 400).c_str(),
               static_cast<double>(writer.FileBytes()) / 1e9);
  return kExitOk;
}

struct Mode {
  const char* name;
  const char* summary;
  int (*run)(int argc, char** argv);
};
constexpr Mode kModes[] = {
    {"sweep", "speed over the depth of the context", RunBenchSweep},
    {"batched", "speed of several streams together", RunBenchBatched},
    {"roofline", "the machine's limits: memory, int8 and bf16 arithmetic", RunBenchRoofline},
    {"compare", "two configurations, engines or recorded runs", RunBenchCompare},
};

}  // namespace

int RunBench(int argc, char** argv) {
  for (const Mode& mode : kModes) {
    if (argc < 2 || std::string_view(argv[1]) != mode.name) continue;
    std::string program = argv[0] + std::string(" ") + mode.name;
    argv[1] = program.data();
    return mode.run(argc - 1, argv + 1);
  }
  CLI::App app(
      "Measures prompt processing (pp) and generation (tg) speed. Options and output are "
      "llama-bench's. Lists: N,N,N, "
      "FIRST-LAST, FIRST-LAST+STEP, FIRST-LAST*FACTOR, or the option repeated.");
  std::string modes = "Modes: ";
  for (const Mode& mode : kModes)
    modes += Format("\n  lutra bench %-9s %s", mode.name, mode.summary);
  app.footer(modes);
  BenchOptions o;
  AddBenchOptions(app, &o);
  std::vector<std::string> ignored(std::size(kIgnored));
  for (size_t i = 0; i < std::size(kIgnored); ++i) {
    app.add_option(kIgnored[i].names, ignored[i])->type_name("")->group("");
  }
  if (const auto status = ParseBenchArgs(app, argc, argv)) return *status;
  for (size_t i = 0; i < std::size(kIgnored); ++i) {
    if (!ignored[i].empty())
      std::fprintf(stderr, "lutra bench: %s changes nothing: %s\n", kIgnored[i].names,
                   kIgnored[i].why);
  }
  if (!o.save.empty()) return Save(o);

  const std::vector<TestSpec> tests = Tests(o);
  const std::vector<ModelSource> sources = Sources(o.source);
  o.arithmetic.Apply();
  const auto out = bench::MakePrinter("-o", o.output, Markdown(tests));
  const auto err = bench::MakePrinter("-oe", o.output_err, Markdown(tests));
  BenchProgress progress(o.progress);
  bench::RunOptions run;
  run.repetitions = o.repetitions;
  run.delay_s = o.delay;
  run.warmup = !o.no_warmup;
  run.cancel = &InterruptFlag();
  std::optional<bench::Roofline> limits;
  if (!o.no_roofline) {
    run.roofline = [&](int threads) -> std::optional<bench::Roofline> {
      if (!limits || limits->threads != threads)
        limits = bench::FindRoofline(threads, false,
                                     [&](const std::string& what) { progress.Say(what); });
      return limits;
    };
  }

  if (out) Print(out->Header(), stdout);
  if (err) Print(err->Header(), stderr);
  int most_threads = 1;
  for (const TestSpec& t : tests) most_threads = std::max(most_threads, t.n_threads);
  size_t done = 0;
  for (const ModelSource& source : sources) {
    progress.Say("loading " + source.Name());
    BenchModel model(source, most_threads);
    for (const TestSpec& test : tests) {
      ++done;
      run.progress = [&](const std::string& what) {
        progress.Say(Format("[%zu/%zu] %s", done, tests.size() * sources.size(), what.c_str()));
      };
      const bench::BenchRecord record = model.Run(test, run);
      progress.Clear();
      if (out) Print(out->Row(record), stdout);
      if (err) Print(err->Row(record), stderr);
      if (!record.noise.empty()) {
        std::fprintf(stderr, "lutra bench: %s: the machine was not quiet: %s\n",
                     bench::TestName(test).c_str(), record.noise.c_str());
      }
    }
  }
  if (out) Print(out->Footer(), stdout);
  if (err) Print(err->Footer(), stderr);
  return kExitOk;
}

}  // namespace lutra::cli
