#include "cli/model_options.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "cli/progress_line.h"
#include "kernels/base/error.h"
#include "kernels/dispatch.h"

namespace lutra::cli {
namespace {

constexpr const char* kDemoFile = "demo-stories-6m-5.5bpw.gguf";

// "loading [####   ]  42 % of 1.30 GB"
std::string LoadText(uint64_t done, uint64_t total) {
  const double part = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  const int filled = static_cast<int>(part * 30);
  return Format("loading [%.*s%*s] %3.0f %% of %.2f GB", filled, "##############################",
                30 - filled, "", 100.0 * part, static_cast<double>(total) / 1e9);
}

}  // namespace

void AddModelOptions(CLI::App& app, ModelOptions* o, std::vector<std::string>* many) {
  if (many != nullptr) {
    app.add_option("-m,--model", *many,
                   "GGUF model file, or NAME=FILE (repeatable; default: the demo model)")
        ->envname("LUTRA_MODEL")
        ->type_name("FILE")
        ->allow_extra_args(false);
  } else {
    app.add_option("-m,--model", o->model, "GGUF model file (default: the demo model)")
        ->envname("LUTRA_MODEL")
        ->type_name("FILE");
  }
  app.add_option("-t,--threads", o->threads, "threads; 0 takes what the machine offers")
      ->envname("LUTRA_THREADS")
      ->check(CLI::Range(0, ThreadPool::kMaxThreads))
      ->type_name("N");
  app.add_option("-c,--ctx-size", o->n_ctx,
                 "context in tokens; 0 takes the model's own, at most 8192")
      ->type_name("N");
  app.add_option("-b,--batch-size", o->batch, "prompt tokens computed at once")->type_name("N");
  app.add_option("--kv-type", o->kv_type, "type of the KV cache: q8, f16 or f32")
      ->type_name("TYPE");
  o->arithmetic.AddTo(app);
  app.add_flag("-q,--quiet", o->quiet, "say nothing but results and errors");
  app.add_option("--ctk,--cache-type-k", o->kv_type, "-ctk: the same as --kv-type")
      ->type_name("TYPE");
  app.add_option("--ctv,--cache-type-v", o->kv_type_v,
                 "-ctv: type of cached values; only what -ctk says")
      ->type_name("TYPE");
}

std::string DemoModelPath() {
  namespace fs = std::filesystem;
  if (const char* env = std::getenv("LUTRA_DEMO_MODEL")) return env;
  std::vector<fs::path> places;
  std::error_code ignored;
  const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
  // <repo>/build/<preset>/cli/lutra, or <prefix>/bin/lutra.
  for (fs::path dir = self.parent_path(); !dir.empty() && dir != dir.root_path();
       dir = dir.parent_path()) {
    places.push_back(dir / "models" / "demo" / kDemoFile);
    places.push_back(dir / "share" / "lutra" / kDemoFile);
  }
  places.push_back(fs::path("models") / "demo" / kDemoFile);
  for (const fs::path& p : places) {
    if (fs::is_regular_file(p, ignored)) return p.string();
  }
  Fail(ErrorCode::kNotFound,
       "no model named and the demo model %s is not beside this program: name a GGUF file with -m",
       kDemoFile);
}

void ApplyModelOptions(const ModelOptions& o, EngineOptions* e) {
  o.arithmetic.Apply();
  e->threads = o.threads;
  e->n_ctx = o.n_ctx;
  e->batch_tokens = o.batch;
  e->kv_type = ParseKvType(o.kv_type);
  if (!o.kv_type_v.empty() && ParseKvType(o.kv_type_v) != e->kv_type) {
    Fail(ErrorCode::kInvalidArgument,
         "-ctv %s: cached keys and values have one type here: give -ctk the same",
         Printable(o.kv_type_v, 40).c_str());
  }
}

std::unique_ptr<Engine> LoadEngine(const ModelOptions& o, EngineOptions e) {
  ApplyModelOptions(o, &e);
  e.model_path = o.model.empty() ? DemoModelPath() : o.model;
  std::unique_ptr<Engine> engine;
  {
    ProgressLine bar(o.quiet, 0.3);  // once loading takes long enough to wonder
    e.progress = [&bar](uint64_t done, uint64_t total) {
      bar.Update([&] { return LoadText(done, total); });
    };
    engine = std::make_unique<Engine>(e);
  }
  if (!o.quiet) {
    const auto name = engine->model().file().GetString("general.name");
    std::fprintf(stderr, "%s: %s, %s; loaded in %.2f s\n%s; SIMD %s; %s\n",
                 std::filesystem::path(e.model_path).filename().c_str(),
                 name ? Printable(*name, 80).c_str() : "no name", engine->hparams().arch->name,
                 engine->load_seconds(), engine->thread_reason().c_str(), SimdName().c_str(),
                 engine->plan().Text().c_str());
  }
  return engine;
}

}  // namespace lutra::cli
