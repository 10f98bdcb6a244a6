// How much a model's output suffers from errors in each of its tensors.
#pragma once

#include <functional>

#include "engine/eval_windows.h"
#include "models/quantize_target.h"
#include "models/quantizer.h"

namespace lutra {

// For every tensor that `quantize` may convert: the mean KL divergence over the windows with this tensor alone rounded to about 3.4 bits,
// divided by the relative error that the rounding makes (weighted by the importance matrix, if there is one). Divergences of
// small errors are proportional to those, and those of several tensors add up. One pass over the windows a tensor; holds the logits of
// all scored tokens. options: the source model (F32, F16 or BF16; otherwise Error(kUnsupported)) and threads. progress(done, all) runs on
// the calling thread; what it throws ends the work.
Sensitivities MeasureSensitivities(
    EngineOptions options, const QuantizeOptions& quantize, const EvalWindows& windows,
    const std::function<void(size_t done, size_t all)>& progress = {});

}  // namespace lutra
