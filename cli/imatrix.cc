// `lutra imatrix`: collects importance matrices, adds them up, shows what they say.
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/args.h"
#include "cli/command.h"
#include "cli/evaluation.h"
#include "cli/interrupt.h"
#include "cli/text_input.h"
#include "engine/imatrix_collector.h"
#include "models/imatrix_statistics.h"
#include "models/temporary_file.h"

namespace lutra::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string text_file, output = "imatrix.gguf", form;
  std::vector<std::string> in_files;
  int64_t chunks = -1;
  uint64_t from_chunk = 0, output_frequency = 10, save_frequency = 0;
  bool process_output = false, no_perplexity = false, parse_special = false, statistics = false,
       resume = false;
};

ImatrixForm FormOf(const Options& o) {
  if (o.form == "gguf") return ImatrixForm::kGguf;
  if (o.form == "dat") return ImatrixForm::kLegacy;
  return o.output.ends_with(".dat") ? ImatrixForm::kLegacy : ImatrixForm::kGguf;
}

// The table of --show-statistics.
int ShowStatistics(const Options& o) {
  if (o.in_files.size() != 1)
    Fail(ErrorCode::kInvalidArgument, "--show-statistics: needs one file (--in-file FILE)");
  const Imatrix imatrix = Imatrix::Read(o.in_files[0]);
  const std::vector<ImatrixStatistics> all = StatisticsOf(imatrix);
  std::printf("%s: %zu tensors, %u chunks of %u tokens\n\n", Printable(o.in_files[0], 400).c_str(),
              imatrix.entries.size(), imatrix.chunk_count, imatrix.chunk_size);
  std::printf(
      "layer tensor                  sum(act^2)         min          max        mean      stddev  "
      "active       n   entropy "
      "normed  z > 1  cosine\n");
  for (const ImatrixStatistics& s : all) {
    const std::string layer = s.layer < 0 ? "-" : std::to_string(s.layer);
    std::printf(
        "%5s %-20s %13.2f %11.4f %12.4f %11.4f %11.4f %6.2f%% %7zu %9.4f %5.2f%% %5.2f%% %7.4f\n",
        layer.c_str(), Printable(s.tensor, 40).c_str(), s.sum, s.min, s.max, s.mean, s.stddev,
        100 * s.active, s.n, s.entropy, 100 * s.normalized_entropy, 100 * s.outliers, s.cosine);
  }
  std::printf(
      "\nAverages of the layers, weighted by columns\nlayer    sum(act^2)    z > 1  cosine\n");
  for (const ImatrixLayerStatistics& l : LayerStatisticsOf(all)) {
    std::printf("%5d %13.2f %7.2f%% %7.4f\n", l.layer, l.sum, 100 * l.outliers, l.cosine);
  }
  return kExitOk;
}

// Writes *sum, and says which experts saw nothing.
void Save(const Options& o, const ImatrixSum& sum, const std::string& path, bool last) {
  const Imatrix result = sum.Result();
  if (result.entries.empty()) return;
  WriteImatrix(result, FormOf(o), path);
  if (!last || o.model.quiet) return;
  for (const std::string& gap : ImatrixGaps(result))
    std::fprintf(stderr, "warning: %s\n", gap.c_str());
  std::fprintf(stderr, "%s: %zu tensors, %u chunks of %u tokens\n", Printable(path, 400).c_str(),
               result.entries.size(), result.chunk_count, result.chunk_size);
}

// Where to go on, from what an interrupted run left.
void Resume(Options* o) {
  if (!std::filesystem::exists(o->output)) return;
  const Imatrix before = Imatrix::Read(o->output);
  if (before.legacy || before.chunk_size != o->model.n_ctx ||
      before.datasets != std::vector<std::string>{o->text_file}) {
    Fail(ErrorCode::kInvalidArgument,
         "%s: cannot be resumed: it is not of this text alone, in chunks of %u tokens, as GGUF",
         Printable(o->output, 400).c_str(), o->model.n_ctx);
  }
  o->in_files.push_back(o->output);
  o->from_chunk += before.chunk_count;
  if (o->chunks >= 0) o->chunks -= std::min<int64_t>(o->chunks, before.chunk_count);
  if (!o->model.quiet) std::fprintf(stderr, "resuming behind %u chunks\n", before.chunk_count);
}

int Collect(const Options& o, ImatrixSum* sum) {
  { const TemporaryFile can_be_written(o.output); }  // rather now than after hours
  const std::string text = ReadEvalText(o.text_file);
  const auto engine = LoadForEvaluation(o.model, o.model.n_ctx);
  const auto windows = EvalWindows::FromText(
      engine->tokenizer(), text, {o.model.n_ctx, o.chunks, 0, o.from_chunk}, o.parse_special);
  SayWindows(o.model, windows);
  sum->AddDataset(o.text_file);
  ProgressLine bar(o.model.quiet);
  const std::atomic<bool>& interrupted = InterruptFlag();
  const PerplexityResult result = CollectImatrix(
      *engine, windows, {o.process_output, !o.no_perplexity}, sum,
      [&](const PerplexityResult& so_far, size_t n_windows) {
        if (!o.no_perplexity && !o.model.quiet) {
          bar.Clear();
          std::printf("[%zu]%.4f,", so_far.n_windows, so_far.nll.Perplexity().value);
          std::fflush(stdout);
        }
        bar.Update([&] { return ChunksText(bar, so_far.n_windows, n_windows); });
        const size_t done = so_far.n_windows;
        if (o.output_frequency > 0 && done % o.output_frequency == 0 && done < n_windows)
          Save(o, *sum, o.output, false);
        if (o.save_frequency > 0 && done % o.save_frequency == 0) {
          Save(o, *sum, o.output + ".at_" + std::to_string(sum->chunk_count()), false);
        }
        return !interrupted;
      });
  bar.Clear();
  if (!o.no_perplexity) {
    const Estimate ppl = result.nll.Perplexity();
    std::printf("%sFinal estimate: PPL = %.4f +/- %.5f\n", o.model.quiet ? "" : "\n", ppl.value,
                ppl.error);
  }
  Save(o, *sum, o.output, true);
  if (result.complete) return kExitOk;
  std::fprintf(stderr,
               "lutra: interrupted after %zu of %zu chunks, which are saved; --resume goes on\n",
               result.n_windows, windows.size());
  return kExitInterrupted;
}

}  // namespace

int RunImatrix(int argc, char** argv) {
  CLI::App app(
      "Reads a text with a model and sums the squared activations that meet each column of each "
      "weight matrix: what quantizing "
      "with --imatrix weighs errors by. Without a text, adds up files (--in-file).");
  Options o;
  o.model.n_ctx = kEvalContext;
  o.model.kv_type = "f16";  // a measurement: the cache's own error must not show
  AddModelOptions(app, &o.model);
  auto* text = app.add_option("-f,--file", o.text_file, "the text; - reads standard input")
                   ->type_name("FILE");
  app.add_option("-o,--output,--output-file", o.output, "file to write (imatrix.gguf)")
      ->type_name("FILE");
  app.add_option("--output-format", o.form,
                 "gguf or dat (the older form); default: by the output's name")
      ->check(CLI::IsMember({"gguf", "dat"}))
      ->type_name("FORM");
  auto* in = app.add_option("--in-file", o.in_files,
                            "importance matrix to add (repeatable, or divided by commas)")
                 ->delimiter(',')
                 ->allow_extra_args(false)
                 ->type_name("FILE");
  app.add_option("--chunks", o.chunks, "chunks to read; -1: all")->type_name("N");
  auto* from =
      app.add_option("--from-chunk,--chunk", o.from_chunk, "chunks to leave out at the beginning")
          ->type_name("N");
  app.add_flag("--resume", o.resume,
               "go on where an interrupted run with the same text and output ended")
      ->needs(text)
      ->excludes(in)
      ->excludes(from);
  app.add_flag("--process-output", o.process_output, "output.weight, too");
  app.add_flag("--no-ppl", o.no_perplexity, "do not measure the perplexity on the way");
  app.add_flag("--parse-special", o.parse_special, "control tokens in the text are recognised");
  app.add_option("--output-frequency,--ofreq", o.output_frequency,
                 "write the output every N chunks (10); 0: only at the end")
      ->type_name("N");
  app.add_option("--save-frequency", o.save_frequency, "keep a copy, OUTPUT.at_N, every N chunks")
      ->type_name("N");
  app.add_flag("--show-statistics", o.statistics, "print a table about the file --in-file and end");
  if (const auto status = ParseArgs(app, argc, argv)) return *status;
  if (o.statistics) return ShowStatistics(o);
  if (o.model.n_ctx == 0)
    Fail(ErrorCode::kInvalidArgument,
         "context (-c): 0 is out of range; a chunk has at least 4 tokens");
  if (text->count() == 0 && o.in_files.empty()) {
    Fail(ErrorCode::kInvalidArgument,
         "no text: give one with -f FILE, or importance matrices to add with --in-file");
  }
  if (o.resume) Resume(&o);
  ImatrixSum sum(o.model.n_ctx);
  for (const std::string& file : o.in_files) sum.Add(Imatrix::Read(file));
  if (o.resume && o.chunks == 0) {
    if (!o.model.quiet) std::fprintf(stderr, "nothing is left to do\n");
    return kExitOk;
  }
  if (text->count() > 0) return Collect(o, &sum);
  Save(o, sum, o.output, true);
  return kExitOk;
}

}  // namespace lutra::cli
