// Importance matrices: against the formulas in double, against llama.cpp's tool, and that nothing but the text matters.
#include "engine/imatrix_collector.h"

#include <map>

#include "kernels/base/error.h"
#include "models/arch/arch.h"
#include "tests/engine/eval_fixture.h"
#include "tests/models/naive_decoder.h"

namespace lutra {
namespace {

using testing::EvalFixture;
using testing::EvalIds;
using testing::TinyArch;
using testing::TinySpec;

// Sums of squares by tensor and matrix, as the naive decoder multiplies them.
struct NaiveSums {
  std::map<std::string, std::map<size_t, std::vector<double>>> sums;
  std::map<std::string, std::map<size_t, double>> counts;

  void AddWindow(const GgufFile& file, std::span<const int32_t> ids) {
    testing::NaiveDecoder decoder(file);
    decoder.on_product = [&](const std::string& weights, size_t part,
                             const std::vector<double>& x) {
      if (part > 0 && !weights.ends_with("_exps.weight")) return;  // other rows of a fused tensor
      std::vector<double>& s = sums[weights][part];
      s.resize(x.size());
      for (size_t i = 0; i < x.size(); ++i) s[i] += x[i] * x[i];
      ++counts[weights][part];
    };
    for (const int32_t id : ids) decoder.Step(id);
  }
};

Imatrix Collect(Engine& engine, const EvalWindows& windows, const ImatrixOptions& options = {}) {
  ImatrixSum sum(windows.n_ctx());
  CollectImatrix(engine, windows, options, &sum);
  return sum.Result();
}

void CheckAgainstNaive(const TinySpec& spec) {
  INFO(spec.arch);
  EvalFixture f;
  const EvalWindows windows(EvalIds(80, 7), 1, {24, -1, 0});
  const auto engine = f.Make(spec, 24);
  NaiveSums naive;
  std::vector<int32_t> ids;
  for (size_t w = 0; w < windows.size(); ++w) {
    windows.Get(w, &ids);
    naive.AddWindow(engine->model().file(), ids);
  }
  const Imatrix got = Collect(*engine, windows, {true, true});
  CHECK(got.chunk_count == 3);
  CHECK(got.chunk_size == 24);
  naive.sums.erase("token_embd.weight");
  CHECK(got.entries.size() == naive.sums.size());
  for (const auto& [name, matrices] : naive.sums) {
    INFO(name);
    REQUIRE(got.entries.contains(name));
    const ImatrixEntry& entry = got.entries.at(name);
    for (size_t m = 0; m < entry.n_matrices; ++m) {
      const auto found = matrices.find(m);
      CHECK(static_cast<double>(entry.counts[m]) ==
            (found == matrices.end() ? 0.0 : naive.counts[name][m]));
      double largest = 0;
      if (found != matrices.end()) {
        REQUIRE(found->second.size() == entry.n_columns);
        for (const double v : found->second) largest = std::max(largest, v);
      }
      size_t wrong = 0;
      for (size_t i = 0; i < entry.n_columns; ++i) {
        const double expected = found == matrices.end() ? 0.0 : found->second[i];
        // F16 keys and values move what comes after the first attention.
        if (!(std::fabs(static_cast<double>(entry.sums[m * entry.n_columns + i]) - expected) <=
              2e-3 * largest))
          ++wrong;
      }
      CHECK(wrong == 0);
    }
  }
}

}  // namespace

TEST_CASE("Sums of squares are those of a naive forward pass in double, for every architecture") {
  for (const ArchSpec* arch : AllArchs()) CheckAgainstNaive(TinyArch(arch->name));
  TinySpec spec = TinyArch("llama");
  spec.fused_qkv = true;
  CheckAgainstNaive(spec);
  spec = TinyArch("llama");
  spec.n_expert = 5;
  spec.n_used = 2;
  spec.tied = true;
  CheckAgainstNaive(spec);
}

// tests/data/README.md says how the expected files were made.
TEST_CASE("An importance matrix is what llama.cpp's tool collects") {
  for (const auto& [name, perplexity] :
       {std::pair("llama", 687.4856), std::pair("qwen3moe", 640.8338)}) {
    INFO(name);
    const std::string folder = std::string(LUTRA_TEST_DATA) + "/tiny-models/";
    EngineOptions options;
    options.model_path = folder + name + ".gguf";
    options.threads = 2;
    options.kv_type = KvType::kF32;
    Engine engine(ForEvaluation(options, 64));
    std::string text = testing::ReadText(folder + "imatrix.txt");
    text.pop_back();
    ImatrixSum sum(64);
    sum.AddDataset("imatrix.txt");
    const PerplexityResult result = CollectImatrix(
        engine, EvalWindows::FromText(engine.tokenizer(), text, {64, -1, 0}), {true, true}, &sum);
    CHECK(result.nll.Perplexity().value == doctest::Approx(perplexity).epsilon(1e-5));
    const Imatrix got = sum.Result(), expected = Imatrix::Read(folder + name + ".imatrix.gguf");
    CHECK(got.chunk_count == expected.chunk_count);
    CHECK(got.chunk_size == expected.chunk_size);
    CHECK(got.datasets == expected.datasets);
    CHECK(got.entries.size() == expected.entries.size());
    for (const auto& [weight, entry] : expected.entries) {
      INFO(weight);
      REQUIRE(got.entries.contains(weight));
      const ImatrixEntry& ours = got.entries.at(weight);
      CHECK(ours.counts == entry.counts);
      REQUIRE(ours.sums.size() == entry.sums.size());
      for (size_t i = 0; i < entry.sums.size(); ++i) {
        CHECK(std::fabs(ours.sums[i] - entry.sums[i]) <= 1e-5f * entry.sums[i]);
      }
    }
    // The same bytes but for the last digits of sums: the file has the same layout.
    testing::TemporaryFolder out;
    WriteImatrix(got, ImatrixForm::kGguf, out / "ours.gguf");
    CHECK(std::filesystem::file_size(out / "ours.gguf") ==
          std::filesystem::file_size(folder + name + ".imatrix.gguf"));
  }
}

TEST_CASE("Importance matrices are the same bits for all threads and batches") {
  EvalFixture f;
  const EvalWindows windows(EvalIds(300, 8), 1, {150, -1, 0});
  Imatrix first;
  for (const int threads : {1, 3}) {
    for (const uint32_t batch : {150u, 64u, 7u}) {
      INFO(threads, " threads, batch ", batch);
      const auto engine = f.Make(TinyArch("qwen2moe"), 150, threads, batch);
      const Imatrix now = Collect(*engine, windows);
      if (first.entries.empty()) first = now;
      REQUIRE(now.entries.size() == first.entries.size());
      for (const auto& [weight, entry] : first.entries) {
        INFO(weight);
        CHECK(now.entries.at(weight).sums == entry.sums);
        CHECK(now.entries.at(weight).counts == entry.counts);
      }
    }
  }
}

TEST_CASE(
    "The perplexity measured on the way is the usual one; without it, the sums are the same") {
  EvalFixture f;
  const EvalWindows windows(EvalIds(128, 9), 1, {32, -1, 0});
  const auto engine = f.Make(TinyArch("llama"), 32);
  const double nll = MeasurePerplexity(*engine, windows).nll.sum;
  ImatrixSum with(32), with_output(32), without(32);
  CHECK(CollectImatrix(*engine, windows, {false, true}, &with).nll.sum == nll);
  CHECK(CollectImatrix(*engine, windows, {true, true}, &with_output).nll.sum == nll);
  CHECK(CollectImatrix(*engine, windows, {false, false}, &without).nll.n == 0);
  CHECK_FALSE(with.entries().contains("output.weight"));
  CHECK(with_output.entries().at("output.weight").counts == std::vector<double>{128});
  CHECK(with_output.entries().size() == with.entries().size() + 1);
  for (const auto& [weight, entry] : with.entries()) {
    CHECK(entry.sums == without.entries().at(weight).sums);
    CHECK(entry.counts == std::vector<double>{128});
  }
  // Nobody looks any more.
  CHECK(MeasurePerplexity(*engine, windows).nll.sum == nll);
}

TEST_CASE("An interrupted run and the rest give what one run gives") {
  EvalFixture f;
  const std::vector<int32_t> ids = EvalIds(170, 10);
  const auto engine = f.Make(TinyArch("qwen3moe"), 32);
  ImatrixSum whole(32), parts(32);
  CollectImatrix(*engine, EvalWindows(ids, 1, {32, -1, 0}), {}, &whole);
  const PerplexityResult stopped =
      CollectImatrix(*engine, EvalWindows(ids, 1, {32, -1, 0}), {}, &parts,
                     [&](const PerplexityResult& so_far, size_t n) {
                       CHECK(n == 5);
                       CHECK(parts.chunk_count() == so_far.n_windows);
                       return so_far.n_windows < 2;
                     });
  CHECK_FALSE(stopped.complete);
  const EvalWindows rest(ids, 1, {32, -1, 0, 2});
  CHECK(rest.size() == 3);
  CHECK(rest.target(0, 20) == ids[64 + 21]);
  CollectImatrix(*engine, rest, {}, &parts);
  for (const auto& [weight, entry] : whole.entries()) {
    INFO(weight);
    CHECK(entry.sums == parts.entries().at(weight).sums);
    CHECK(entry.counts == parts.entries().at(weight).counts);
  }
  CHECK_THROWS_WITH_AS(EvalWindows(ids, 1, {32, -1, 0, 5}),
                       doctest::Contains("the text has 5 chunks: nothing is left"), Error);
}

}  // namespace lutra
