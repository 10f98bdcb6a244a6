// lutra quantize: a model file in other tensor types.
#include <algorithm>
#include <atomic>
#include <cctype>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/args.h"
#include "cli/command.h"
#include "cli/evaluation.h"
#include "cli/interrupt.h"
#include "cli/progress_line.h"
#include "cli/quantize_quality.h"
#include "cli/text_input.h"
#include "engine/sensitivity.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "kernels/base/parallel.h"
#include "kernels/quantize/quantize.h"
#include "models/gguf.h"
#include "models/imatrix.h"
#include "models/quantize_target.h"
#include "models/quantizer.h"

namespace lutra::cli {
namespace {

double Mib(uint64_t bytes) { return static_cast<double>(bytes) / 1048576.0; }

const TensorTypeInfo* TypeByName(const char* option, const std::string& name) {
  const TensorTypeInfo* type = FindWritableType(name);
  if (type == nullptr) {
    Fail(ErrorCode::kInvalidArgument,
         "%s: '%s' is no tensor type that can be written; there are: %s", option,
         Printable(name, 40).c_str(), WritableTypeNames().c_str());
  }
  return type;
}

std::string MixNames() {
  std::string names;
  for (const QuantizeMix& mix : AllQuantizeMixes()) {
    if (FindQuantizeMix(mix.name) != nullptr)
      names += std::string(names.empty() ? "" : " ") + mix.name;
  }
  return names;
}

// "REGEX=TYPE", or the name of a file with one such rule a line (# begins a comment).
void AddRules(const std::string& text,
              std::vector<std::pair<std::string, const TensorTypeInfo*>>* rules) {
  const auto add = [&](const std::string& rule, const std::string& where) {
    const size_t eq = rule.rfind('=');
    if (eq == std::string::npos || eq == 0) {
      Fail(ErrorCode::kInvalidArgument, "%s: '%s' is not of the form REGEX=TYPE", where.c_str(),
           Printable(rule, 80).c_str());
    }
    rules->emplace_back(rule.substr(0, eq), TypeByName(where.c_str(), rule.substr(eq + 1)));
  };
  std::ifstream file;
  if (text.find('=') == std::string::npos) {
    file.open(text);
    if (!file) {
      Fail(ErrorCode::kNotFound,
           "--tensor-type: '%s' is neither REGEX=TYPE nor a file with such lines",
           Printable(text, 200).c_str());
    }
    std::string line;
    for (int n = 1; std::getline(file, line); ++n) {
      line.erase(std::find(line.begin(), line.end(), '#'), line.end());
      while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())))
        line.pop_back();
      if (!line.empty()) add(line, Format("%s, line %d", Printable(text, 200).c_str(), n));
    }
    return;
  }
  add(text, "--tensor-type");
}

// "IQ4_K,IQ5_K" -> types; empty for an empty text.
std::vector<const TensorTypeInfo*> TypeList(const std::string& text) {
  std::vector<const TensorTypeInfo*> types;
  for (size_t begin = 0; begin < text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    types.push_back(TypeByName("--target-types", text.substr(begin, comma - begin)));
    begin = comma + 1;
  }
  return types;
}

// "[3/20]  14 %  blk.0.attn_q.weight  F16 -> IQ4_K  12.0 MiB written, 0:41 left"
std::string ProgressText(const QuantizeProgress& p, double seconds) {
  const double done = static_cast<double>(p.weights_done),
               total = static_cast<double>(std::max<uint64_t>(p.n_weights, 1));
  return Format("[%zu/%zu] %3.0f %%  %s  %s -> %s  %.1f MiB written, %s left", p.i_tensor + 1,
                p.n_tensors, 100.0 * done / total, Printable(p.tensor->tensor->name, 48).c_str(),
                p.tensor->tensor->type->name, p.tensor->type->name, Mib(p.bytes_written),
                TimeLeft(seconds, done, total).c_str());
}

void PrintPlan(const GgufFile& file, const QuantizePlan& plan, bool tensors) {
  if (tensors) {
    for (const TensorPlan& t : plan.tensors) {
      std::string shape;
      for (size_t i = t.tensor->dims.size(); i-- > 0;)
        shape += Format("%" PRIu64 "%s", t.tensor->dims[i], i == 0 ? "" : " x ");
      std::printf("%-36s %-20s %8s -> %-8s %10.3f MiB\n", Printable(t.tensor->name, 63).c_str(),
                  shape.c_str(), t.tensor->type->name, t.type->name, Mib(t.bytes));
    }
  }
  std::map<std::string, std::pair<uint64_t, uint64_t>> by_type;
  for (const TensorPlan& t : plan.tensors) {
    by_type[t.type->name].first += 1;
    by_type[t.type->name].second += t.bytes;
  }
  for (const auto& [name, sum] : by_type) {
    std::printf("%-8s %5" PRIu64 " tensors %12.3f MiB\n", name.c_str(), sum.first, Mib(sum.second));
  }
  std::printf("%s: %zu tensors, %" PRIu64 " weights: %.2f MiB -> %.2f MiB, %.3f bits per weight\n",
              Printable(file.path(), 200).c_str(), plan.tensors.size(), plan.n_weights,
              Mib(plan.source_bytes), Mib(plan.bytes), plan.bits_per_weight());
}

// Prints what the new file tells about itself.
int ReportQuality(const std::string& path, const QualityOptions& options) {
  const GgufFile file = GgufFile::Open(path);
  if (const auto quality = ModelQuality::Read(file))
    std::printf("\n%s", QualityText(file, *quality).c_str());
  if (const auto& e = options.failure()) {
    Fail(e->code(), "%s: is written, but was not compared with its source: %s",
         Printable(path, 200).c_str(), e->what());
  }
  if (!options.interrupted()) return kExitOk;
  std::fprintf(stderr,
               "lutra: interrupted; the file is written, its quality is that of the chunks done\n");
  return kExitInterrupted;
}

}  // namespace

int RunQuantize(int argc, char** argv) {
  CLI::App app(
      "Writes a model in other tensor types. TYPE is a tensor type for all or a mix by name:\n" +
      MixNames());
  std::string in_path, out_path, type_name, imatrix_path, output_type, embedding_type;
  std::vector<std::string> tensor_types, overrides;
  QuantizeOptions options;
  int threads = 0;
  bool dry_run = false, verbose = false;
  std::string target, target_types, target_text, recipe_path;
  int64_t target_chunks = 4;
  app.add_option("IN", in_path,
                 "the model, .gguf (of a split one, its first part): F32, F16 or BF16")
      ->required();
  app.add_option("OUT", out_path, "the file to write")->required();
  app.add_option("TYPE", type_name, "a tensor type or a mix: see above (not with --target)");
  auto* target_option = app.add_option("--target", target,
                                       "choose each tensor's type so that the file loses least at "
                                       "this size: bits a weight (3.5) or the file's (4GB, 3.8GiB)")
                            ->type_name("BPW|SIZE");
  app.add_option(
         "--target-types", target_types,
         "the types --target chooses from, divided by commas (default: IQK types, Q6_0, Q8_0)")
      ->type_name("LIST");
  app.add_option("--target-text", target_text,
                 "measure how much the model suffers from errors in each tensor on this text")
      ->needs(target_option)
      ->type_name("TEXT");
  app.add_option("--target-chunks", target_chunks,
                 "chunks of 512 tokens to measure on (4); each is run once a tensor")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  app.add_option("--save-recipe", recipe_path,
                 "write the type of every tensor as rules for --tensor-type")
      ->type_name("FILE");
  app.add_option("--imatrix", imatrix_path,
                 "importance matrix (lutra imatrix, llama.cpp's .gguf, the older .dat)")
      ->type_name("FILE");
  app.add_option("--output-tensor-type", output_type,
                 "type of output.weight, or of a tied embedding")
      ->type_name("TYPE");
  app.add_option("--token-embedding-type", embedding_type, "type of token_embd.weight")
      ->type_name("TYPE");
  app.add_option("--tensor-type", tensor_types,
                 "type of tensors whose name matches an expression; or a file with such lines; the "
                 "first match decides (repeatable)")
      ->type_name("REGEX=TYPE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--pure", options.pure, "no mix: TYPE for every tensor");
  app.add_flag("--leave-output-tensor", options.leave_output, "leave output.weight as it is");
  app.add_flag("--allow-requantize", options.allow_requantize,
               "take models that are quantized already");
  app.add_flag("--ignore-imatrix-rules", options.ignore_imatrix_rules,
               "go without importances where a type wants them");
  app.add_option("--include-weights", options.include_weights,
                 "use the importance matrix only for names with this part (repeatable)")
      ->type_name("PART");
  app.add_option("--exclude-weights", options.exclude_weights,
                 "do not use the importance matrix for names with this part (repeatable)")
      ->type_name("PART");
  app.add_option("--override-kv", overrides,
                 "set a key: KEY=int:N, float:X, bool:true or str:TEXT (repeatable)")
      ->type_name("KEY=KIND:VALUE");
  QualityOptions quality;
  quality.AddTo(app);
  app.add_flag("--keep-split", options.keep_split, "write as many files as the source has");
  app.add_option("-t,--threads", threads, "threads (default: physical cores)")
      ->check(CLI::Range(1, ThreadPool::kMaxThreads))
      ->type_name("N");
  app.add_flag("--dry-run", dry_run, "only say which tensor gets which type, and the sizes");
  app.add_flag("-v,--verbose", verbose, "list the tensors");
  if (const auto status = ParseArgs(app, argc, argv)) return *status;

  if (type_name.empty() == target.empty()) {
    Fail(ErrorCode::kInvalidArgument, "give either a TYPE or --target; types are: %s",
         MixNames().c_str());
  }
  options.mix = FindQuantizeMix(target.empty() ? type_name : "Q8_0");
  if (options.mix == nullptr) {
    Fail(ErrorCode::kInvalidArgument, "'%s' is no type to quantize to; there are: %s",
         Printable(type_name, 40).c_str(), MixNames().c_str());
  }
  if (!output_type.empty()) options.output_type = TypeByName("--output-tensor-type", output_type);
  if (!embedding_type.empty())
    options.embedding_type = TypeByName("--token-embedding-type", embedding_type);
  for (const std::string& rule : tensor_types) AddRules(rule, &options.tensor_types);
  for (const std::string& text : overrides) {
    const size_t eq = text.find('=');
    if (eq == std::string::npos || eq == 0) {
      Fail(ErrorCode::kInvalidArgument, "--override-kv: '%s' is not of the form KEY=KIND:VALUE",
           Printable(text, 80).c_str());
    }
    options.override_kv.emplace_back(text.substr(0, eq), text.substr(eq + 1));
  }
  std::optional<Imatrix> imatrix;
  if (!imatrix_path.empty()) {
    imatrix = Imatrix::Read(imatrix_path);
    options.imatrix = &*imatrix;
    std::fprintf(stderr, "%s: importances of %zu tensors, %u chunks\n",
                 Printable(imatrix_path, 200).c_str(), imatrix->entries.size(),
                 imatrix->chunk_count);
  }
  const GgufFile file = GgufFile::Open(in_path);
  const std::atomic<bool>& interrupted = InterruptFlag();
  if (quality.wanted() && options.keep_split && file.n_parts() > 1) {
    Fail(ErrorCode::kInvalidArgument, "--evaluate: goes with one file; leave out --keep-split");
  }
  if (quality.wanted() && !dry_run) quality.Prepare(file, threads);
  ThreadPool pool(threads > 0 ? threads : AdviseThreads().threads);
  QuantizePlan plan;
  if (target.empty()) {
    plan = PlanQuantize(file, options);
  } else {
    uint64_t n_weights = 0;
    for (const GgufTensor& tensor : file.tensors()) n_weights += tensor.n_weights();
    ProgressLine line;
    std::optional<Sensitivities> sensitivities;
    if (!target_text.empty()) {
      const EvalWindows windows =
          WindowsOf(ReadEvalText(target_text), file, kEvalContext, target_chunks);
      EngineOptions engine;
      engine.model_path = in_path;
      engine.threads = threads;
      ProgressLine bar;
      sensitivities = MeasureSensitivities(engine, options, windows, [&](size_t done, size_t all) {
        if (interrupted) Fail(ErrorCode::kCancelled, "interrupted: nothing was written");
        bar.Update([&] {
          return Format(
              "measuring sensitivities: %zu of %zu, %s left", done, all,
              TimeLeft(bar.Seconds(), static_cast<double>(done), static_cast<double>(all)).c_str());
        });
      });
    }
    const Sensitivities* measured = sensitivities ? &*sensitivities : nullptr;
    plan = PlanForTarget(
        file, options, ParseTargetSize(target, n_weights, BytesBesideTensors(file)),
        TypeList(target_types), measured, &pool, [&](size_t done, size_t all) {
          if (interrupted) Fail(ErrorCode::kCancelled, "interrupted: nothing was written");
          line.Update([&] { return Format("measuring errors: %zu of %zu", done, all); });
        });
  }
  if (!recipe_path.empty()) {
    std::ofstream recipe(recipe_path);
    recipe << RecipeText(plan) << std::flush;
    if (!recipe) Fail(ErrorCode::kIo, "%s: cannot write", Printable(recipe_path, 400).c_str());
  }
  for (const std::string& warning : plan.warnings) std::fprintf(stderr, "%s\n", warning.c_str());
  if (dry_run) {
    PrintPlan(file, plan, true);
    return kExitOk;
  }
  double seconds = 0.0;
  {
    ProgressLine line;
    const QuantizeQuality measured = quality.Quality();
    WriteQuantized(
        file, options, plan, &pool, out_path,
        [&](const QuantizeProgress& p) {
          if (interrupted) Fail(ErrorCode::kCancelled, "interrupted: nothing was written");
          seconds = line.Seconds();
          if (p.weights_done == p.n_weights) return line.Clear();
          line.Update([&] { return ProgressText(p, seconds); });
        },
        quality.wanted() ? &measured : nullptr);
  }
  PrintPlan(file, plan, verbose || !target.empty());
  std::printf("%s: quantized in %.1f s, %.1f million weights a second\n",
              Printable(out_path, 200).c_str(), seconds,
              static_cast<double>(plan.n_converted) / 1e6 / std::max(seconds, 1e-9));
  return quality.wanted() ? ReportQuality(out_path, quality) : kExitOk;
}

}  // namespace lutra::cli
