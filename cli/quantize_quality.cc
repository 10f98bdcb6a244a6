#include "cli/quantize_quality.h"

#include <cinttypes>
#include <filesystem>

#include "cli/evaluation.h"
#include "cli/interrupt.h"
#include "cli/text_input.h"
#include "engine/kl_divergence.h"
#include "kernels/base/error.h"
#include "kernels/base/sha256.h"
#include "models/hparams.h"

namespace lutra::cli {
namespace {

constexpr size_t kWorstTensors = 5;

ModelQuality::Value ToValue(const Estimate& e) {
  return {static_cast<float>(e.value), static_cast<float>(e.error)};
}

void Store(const KlReport& report, ModelQuality* quality) {
  quality->chunks = static_cast<uint32_t>(report.n_windows);
  quality->tokens = report.n_tokens;
  quality->perplexity = ToValue(report.perplexity);
  quality->reference_perplexity = ToValue(report.reference_perplexity);
  quality->perplexity_ratio = ToValue(report.ratio);
  quality->kl_divergence = ToValue(report.kld);
  quality->kl_divergence_max = static_cast<float>(report.kld_max);
  static_assert(kKldPercentiles[1] == 99);
  quality->kl_divergence_99 = static_cast<float>(report.kld_percentiles[1]);
  quality->same_top = ToValue(report.same_top);
}

std::string FileName(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

}  // namespace

void QualityOptions::AddTo(CLI::App& app) {
  auto* text =
      app.add_option(
             "--evaluate", text_file_,
             "compare the new model with its source on a text and store the result in the file")
          ->type_name("TEXT");
  app.add_option("--evaluate-chunks", chunks_, "chunks of the text to compare (default: all)")
      ->needs(text)
      ->type_name("N");
  app.add_option("--evaluate-context", n_ctx_, "tokens a chunk (512)")
      ->needs(text)
      ->check(CLI::Range(4u, kMaxContext))
      ->type_name("N");
}

void QualityOptions::Prepare(const GgufFile& source, int threads) {
  const std::string text = ReadTextFile(text_file_);
  known_.reference = FileName(source.path());
  known_.text = text_file_ == "-" ? "standard input" : FileName(text_file_);
  known_.text_bytes = text.size();
  known_.text_sha256 = Sha256Hex({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  known_.context = n_ctx_;
  windows_ = WindowsOf(WithoutLineEnd(text), source, n_ctx_, chunks_);
  source_.model = source.path();
  source_.threads = threads;
  source_.quiet = true;
  EngineOptions engine;
  engine = ForEvaluation(engine, n_ctx_);
  RequireMemory(PlanMemory(source, ReadHparams(source), engine), source.path());
}

void QualityOptions::Measure(const std::string& model, ModelQuality* quality) const {
  ModelOptions tested_options = source_;
  tested_options.model = model;
  const auto reference = LoadForEvaluation(source_, n_ctx_),
             tested = LoadForEvaluation(tested_options, n_ctx_);
  ProgressLine line;
  const KlReport report = CompareModels(
      *reference, *tested, *windows_, [&](const KlDivergence&, size_t done, size_t n) {
        line.Update([&] { return "comparing with the source " + ChunksText(line, done, n); });
        return !InterruptFlag();
      });
  interrupted_ = !report.complete;
  Store(report, quality);
}

QuantizeQuality QualityOptions::Quality() const {
  return {known_, [this](const std::string& model, ModelQuality* quality) {
            try {
              Measure(model, quality);
            } catch (const Error& e) {
              failure_ = e;
            }
          }};
}

std::string QualityText(const GgufFile& file, const ModelQuality& q) {
  std::string text = Format("quality: against %s", Printable(q.reference, 80).c_str());
  if (q.chunks > 0) {
    text += Format(" on %s (%" PRIu64 " bytes, SHA-256 %s), %u chunks of %u tokens\n",
                   Printable(q.text, 80).c_str(), q.text_bytes,
                   Printable(q.text_sha256.substr(0, 16), 80).c_str(), q.chunks, q.context);
    const auto d = [](float v) { return static_cast<double>(v); };
    text += Format("  perplexity ratio  %.5f \u00b1 %.5f  (%.4f of %.4f)\n",
                   d(q.perplexity_ratio.value), d(q.perplexity_ratio.error), d(q.perplexity.value),
                   d(q.reference_perplexity.value));
    text +=
        Format("  KL divergence     %.5f \u00b1 %.5f  (99 %% of tokens below %.5f, maximum %.5f)\n",
               d(q.kl_divergence.value), d(q.kl_divergence.error), d(q.kl_divergence_99),
               d(q.kl_divergence_max));
    text += Format("  same top token    %.2f \u00b1 %.2f %%\n", 100 * d(q.same_top.value),
                   100 * d(q.same_top.error));
  } else {
    text += ", weights only\n";
  }
  text += Format("  worst tensors by relative error of the weights%s\n",
                 q.importance ? ", by importance" : "");
  for (const size_t i : q.WorstTensors(kWorstTensors)) {
    const GgufTensor& t = file.tensors()[i];
    text += Format("    %-28s %-8s %7.3f %%\n", Printable(t.name, 63).c_str(), t.type->name,
                   100.0 * static_cast<double>(q.tensor_errors[i]));
  }
  return text;
}

}  // namespace lutra::cli
