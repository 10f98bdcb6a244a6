// Flags that every command with a model shares.
#pragma once

#include <CLI/CLI.hpp>

#include <memory>
#include <string>
#include <vector>

#include "cli/arithmetic_options.h"
#include "engine/engine.h"

namespace lutra::cli {

struct ModelOptions {
  std::string model;  // "": the demo model
  int threads = 0;
  uint32_t n_ctx = 0;
  uint32_t batch = 512;
  std::string kv_type = "f16";
  std::string kv_type_v;  // "" or the same
  ArithmeticOptions arithmetic;
  bool quiet = false;
};

// Adds -m, -t, -c, -b, --kv-type, -ctk, -ctv, --simd, --no-amx, --prefill, -q. Environment: LUTRA_MODEL, LUTRA_THREADS, LUTRA_SIMD,
// LUTRA_NO_AMX, LUTRA_PREFILL.
// With `many`, -m can be given several times and fills that instead of options->model.
void AddModelOptions(CLI::App& app, ModelOptions* options,
                     std::vector<std::string>* many = nullptr);

// What the flags say about an engine, all but the path. Also caps the instruction set as --simd says.
void ApplyModelOptions(const ModelOptions& options, EngineOptions* engine);

// Path of the demo model that comes with the repository: $LUTRA_DEMO_MODEL, beside the binary's source tree, or installed.
// Throws Error(kNotFound) saying how to name a model.
std::string DemoModelPath();

// Loads with a progress bar on stderr (where that is a terminal) and says in one line what was loaded and chosen, unless quiet.
std::unique_ptr<Engine> LoadEngine(const ModelOptions& options, EngineOptions engine_options = {});

}  // namespace lutra::cli
