// `lutra perplexity`: perplexity of a text, and how far a model is from a reference.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "cli/args.h"
#include "cli/command.h"
#include "cli/evaluation.h"
#include "cli/interrupt.h"
#include "cli/model_options.h"
#include "cli/text_input.h"
#include "engine/kl_divergence.h"
#include "engine/perplexity.h"

namespace lutra::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  ModelOptions model;
  std::string text_file, logits_file, compare, compare_kv_type;
  int64_t chunks = -1;
  uint32_t stride = 0;
  bool kl_divergence = false, json = false;
};

Json ToJson(const Estimate& e) { return {{"value", e.value}, {"error", e.error}}; }

template <size_t n>
Json Percentiles(const std::array<double, n>& percents, const std::array<double, n>& values) {
  Json json;
  for (size_t i = 0; i < n; ++i) json[Format("%g", percents[i])] = values[i];
  return json;
}

Json ToJson(const KlReport& r) {
  Json json;
  json["tokens"] = r.n_tokens;
  json["chunks"] = r.n_windows;
  json["complete"] = r.complete;
  json["perplexity"] = ToJson(r.perplexity);
  json["base_perplexity"] = ToJson(r.reference_perplexity);
  json["ln_ratio"] = ToJson(r.ln_ratio);
  json["ratio"] = ToJson(r.ratio);
  json["difference"] = ToJson(r.difference);
  json["correlation"] = r.correlation;
  json["kld"] = {{"mean", r.kld.value},
                 {"error", r.kld.error},
                 {"min", r.kld_min},
                 {"max", r.kld_max},
                 {"percentiles", Percentiles(kKldPercentiles, r.kld_percentiles)}};
  json["delta_p"] = {{"mean", r.delta_p.value},
                     {"error", r.delta_p.error},
                     {"min", r.delta_p_min},
                     {"max", r.delta_p_max},
                     {"percentiles", Percentiles(kDeltaPercentiles, r.delta_p_percentiles)},
                     {"rms", ToJson(r.delta_p_rms)}};
  json["same_top"] = ToJson(r.same_top);
  return json;
}

int StatusOf(bool complete) {
  if (complete) return kExitOk;
  std::fprintf(stderr, "lutra: interrupted; the numbers are those of the chunks done\n");
  return kExitInterrupted;
}

int Measure(const Options& o) {
  const uint32_t n_ctx = o.model.n_ctx;
  const std::string text = ReadEvalText(o.text_file);
  const auto engine = LoadForEvaluation(o.model, n_ctx);
  const auto windows =
      EvalWindows::FromText(engine->tokenizer(), text, {n_ctx, o.chunks, o.stride});
  SayWindows(o.model, windows);
  std::unique_ptr<LogitsFileWriter> writer;
  if (!o.logits_file.empty()) {
    writer = std::make_unique<LogitsFileWriter>(o.logits_file, windows, engine->hparams().n_vocab);
  }
  ProgressLine bar(o.model.quiet);
  const std::atomic<bool>& interrupted = InterruptFlag();
  const PerplexityResult result = MeasurePerplexity(
      *engine, windows,
      [&](const PerplexityResult& so_far, size_t n_windows) {
        if (!o.json && !o.model.quiet) {
          bar.Clear();
          std::printf("[%zu]%.4f,", so_far.n_windows, so_far.nll.Perplexity().value);
          std::fflush(stdout);
        }
        bar.Update([&] { return ChunksText(bar, so_far.n_windows, n_windows); });
        return !interrupted;
      },
      writer.get());
  bar.Clear();
  if (writer && result.complete) writer->Commit();
  const Estimate ppl = result.nll.Perplexity();
  if (o.json) {
    const Json json = {{"perplexity", ToJson(ppl)},  {"nll", ToJson(result.nll.Mean())},
                       {"tokens", result.nll.n},     {"chunks", result.n_windows},
                       {"context", windows.n_ctx()}, {"complete", result.complete}};
    std::printf("%s\n", json.dump(2).c_str());
  } else {
    std::printf("%sFinal estimate: PPL = %.4f +/- %.5f\n", o.model.quiet ? "" : "\n", ppl.value,
                ppl.error);
  }
  return StatusOf(result.complete);
}

// One row a chunk, as the tool people know prints it.
void PrintRow(const KlReport& r, size_t window) {
  if (window == 1) {
    std::printf(
        "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence           "
        "   \u0394p RMS         "
        "   Same top p\n");
  }
  std::printf(
      "%4zu    %9.4f \u00b1 %9.4f    %10.5f \u00b1 %10.5f    %10.5f \u00b1 %10.5f    %6.3f \u00b1 "
      "%6.3f %%    %6.3f \u00b1 %6.3f %%\n",
      window, r.perplexity.value, r.perplexity.error, r.ln_ratio.value, r.ln_ratio.error,
      r.kld.value, r.kld.error, 100 * r.delta_p_rms.value, 100 * r.delta_p_rms.error,
      100 * r.same_top.value, 100 * r.same_top.error);
  std::fflush(stdout);
}

// Weights need not be in memory twice.
bool IsSameModel(const Options& o, const Engine& reference) {
  if (o.compare.empty()) return true;
  std::error_code ignored;
  return std::filesystem::equivalent(o.compare, reference.model().file().path(), ignored);
}

// Distributions over different tokens cannot be compared; a few tokens may be named differently, as fine-tuning does.
void WarnOfOtherTokens(const Engine& a, const Engine& b) {
  const int32_t n = std::min(a.tokenizer().n_vocab(), b.tokenizer().n_vocab());
  int32_t different = 0;
  for (int32_t id = 0; id < n; ++id)
    different += a.tokenizer().TokenText(id) != b.tokenizer().TokenText(id);
  if (different == 0) return;
  std::fprintf(stderr,
               "warning: %d of %d tokens are spelt differently in the two models: is it the same "
               "tokenizer?\n",
               different, n);
}

int Compare(const Options& o) {
  ProgressLine bar(o.model.quiet);
  const std::atomic<bool>& interrupted = InterruptFlag();
  const auto progress = [&](const KlDivergence& so_far, size_t done, size_t n_windows) {
    if (!o.json && !o.model.quiet) {
      bar.Clear();
      PrintRow(so_far.Means(), done);
    }
    bar.Update([&] { return ChunksText(bar, done, n_windows); });
    return !interrupted;
  };
  KlReport report;
  if (o.kl_divergence) {
    const LogitsFile file(o.logits_file);
    if (o.model.n_ctx != file.n_ctx() && !o.model.quiet) {
      std::fprintf(stderr,
                   "the file of log probabilities has a context of %u tokens, which is taken\n",
                   file.n_ctx());
    }
    const auto engine = LoadForEvaluation(o.model, file.n_ctx());
    const Tokenizer& tokenizer = engine->tokenizer();
    const EvalWindows windows =
        file.Windows(tokenizer.add_bos() ? tokenizer.bos() : kNoToken, o.chunks);
    SayWindows(o.model, windows);
    report = CompareWithFile(file, *engine, windows, progress);
  } else {
    const uint32_t n_ctx = o.model.n_ctx;
    const std::string text = ReadEvalText(o.text_file);
    const auto reference = LoadForEvaluation(o.model, n_ctx);
    const auto windows =
        EvalWindows::FromText(reference->tokenizer(), text, {n_ctx, o.chunks, o.stride});
    if (IsSameModel(o, *reference)) {
      SayWindows(o.model, windows);
      report = CompareKvTypes(
          *reference, ParseKvType(o.compare_kv_type.empty() ? o.model.kv_type : o.compare_kv_type),
          windows, progress);
    } else {
      ModelOptions tested_options = o.model;
      tested_options.model = o.compare;
      if (!o.compare_kv_type.empty()) {
        tested_options.kv_type = o.compare_kv_type;
        tested_options.kv_type_v.clear();
      }
      const auto tested = LoadForEvaluation(tested_options, n_ctx);
      WarnOfOtherTokens(*reference, *tested);
      SayWindows(o.model, windows);
      report = CompareModels(*reference, *tested, windows, progress);
    }
  }
  bar.Clear();
  if (o.json) {
    std::printf("%s\n", ToJson(report).dump(2).c_str());
  } else {
    std::printf("%s%s", o.model.quiet ? "" : "\n", KlReportText(report).c_str());
  }
  return StatusOf(report.complete);
}

}  // namespace

int RunPerplexity(int argc, char** argv) {
  CLI::App app(
      "Measures the perplexity of a text, chunk by chunk: the second half of each is scored. With "
      "--compare, how far another "
      "model is from this one.");
  Options o;
  o.model.n_ctx = kEvalContext;
  o.model.kv_type = "f16";  // a measurement: the cache's own error must not show
  AddModelOptions(app, &o.model);
  auto* text = app.add_option("-f,--file", o.text_file, "the text; - reads standard input")
                   ->type_name("FILE");
  app.add_option("--chunks", o.chunks, "chunks to measure; -1: all")->type_name("N");
  auto* stride = app.add_option("--ppl-stride", o.stride,
                                "begin a chunk every N tokens, score the last N of each")
                     ->type_name("N");
  auto* logits = app.add_option("--kl-divergence-base,--save-all-logits", o.logits_file,
                                "file of log probabilities: written, or with --kl-divergence read")
                     ->type_name("FILE");
  auto* kl = app.add_flag("--kl-divergence", o.kl_divergence,
                          "compare with the model whose log probabilities the file holds");
  auto* compare =
      app.add_option("--compare", o.compare,
                     "a second model, compared with -m (the reference) in one pass, without a file")
          ->type_name("FILE");
  auto* compare_kv = app.add_option("--compare-kv-type", o.compare_kv_type,
                                    "type of the compared model's KV cache (default: as "
                                    "--kv-type); without --compare: the same "
                                    "model with that type")
                         ->type_name("TYPE");
  app.add_flag("--json", o.json, "print one JSON object");
  kl->needs(logits)->excludes(stride);
  compare->excludes(kl)->excludes(logits);
  compare_kv->excludes(kl)->excludes(logits);
  logits->excludes(stride);
  if (const auto status = ParseArgs(app, argc, argv)) return *status;
  if (o.model.n_ctx == 0)
    Fail(ErrorCode::kInvalidArgument,
         "context (-c): 0 is out of range; a chunk has at least 4 tokens");
  if (o.kl_divergence && text->count() > 0 && !o.model.quiet) {
    std::fprintf(stderr, "--file is not read: the file of log probabilities holds the tokens\n");
  }
  if (!o.kl_divergence && text->count() == 0) {
    Fail(ErrorCode::kInvalidArgument, "no text: give one with -f FILE, or -f - for standard input");
  }
  if (!isatty(STDOUT_FILENO) && !isatty(STDERR_FILENO) && o.json) o.model.quiet = true;
  return o.kl_divergence || !o.compare.empty() || !o.compare_kv_type.empty() ? Compare(o)
                                                                             : Measure(o);
}

}  // namespace lutra::cli
