// What commands that run a model over a text share.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "cli/model_options.h"
#include "cli/progress_line.h"
#include "engine/eval_windows.h"

namespace lutra::cli {

// An engine for windows of n_ctx tokens; batches are no longer than that.
std::unique_ptr<Engine> LoadForEvaluation(ModelOptions model, uint32_t n_ctx);

// A text in the tokens of a model that is not loaded, in chunks of n_ctx; at most that many unless negative.
EvalWindows WindowsOf(const std::string& text, const GgufFile& model, uint32_t n_ctx,
                      int64_t chunks);

// "256095 tokens, 500 chunks of 512, 255 tokens scored in each", unless quiet.
void SayWindows(const ModelOptions& model, const EvalWindows& windows);

// "[12/500] 3.10 s a chunk, 25:13 left", for `line`, which began with the first chunk.
std::string ChunksText(const ProgressLine& line, size_t done, size_t total);

}  // namespace lutra::cli
