// Sampling parameters on the command line: one option for each row of SamplingParamTable().
#pragma once

#include <CLI/CLI.hpp>

#include "engine/sampling_params.h"
#include "models/gguf.h"

namespace lutra::cli {

// Adds --temp, --top-k, ... in the group "Sampling". Values are set when the command line is parsed; bad ones are usage errors.
void AddSamplingOptions(CLI::App& app, SamplingParams* params);

// Sampling advice that a model file carries (general.sampling.*), for every parameter that the user did not set on `app`.
// Advice out of range is left out with a warning.
void ApplyModelAdvice(const GgufFile& file, const CLI::App& app, SamplingParams* params);

}  // namespace lutra::cli
