// `lutra quantize --evaluate`: the new model beside its source, over a text.
#pragma once

#include <CLI/CLI.hpp>

#include <optional>
#include <string>

#include "cli/model_options.h"
#include "engine/eval_windows.h"
#include "kernels/base/error.h"
#include "models/gguf.h"
#include "models/model_quality.h"
#include "models/quantizer.h"

namespace lutra::cli {

class QualityOptions {
 public:
  void AddTo(CLI::App& app);
  bool wanted() const { return !text_file_.empty(); }

  // Reads the text, cuts it and looks whether the source model can be run: what would fail after hours fails now.
  void Prepare(const GgufFile& source, int threads);
  // For WriteQuantized; this must outlive it. Interrupted, or if the models cannot be run, what was measured by then is kept: the new
  // file is not at fault.
  QuantizeQuality Quality() const;
  // What kept the models from being compared.
  const std::optional<Error>& failure() const { return failure_; }
  bool interrupted() const { return interrupted_; }

 private:
  void Measure(const std::string& model, ModelQuality* quality) const;

  std::string text_file_;
  uint32_t n_ctx_ = kEvalContext;
  int64_t chunks_ = -1;
  ModelOptions source_;
  std::optional<EvalWindows> windows_;
  ModelQuality known_;
  mutable std::optional<Error> failure_;
  mutable bool interrupted_ = false;
};

// "quality against f16.gguf on val.txt ...", several lines.
std::string QualityText(const GgufFile& file, const ModelQuality& quality);

}  // namespace lutra::cli
