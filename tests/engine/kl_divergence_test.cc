// Comparing models: the divergence against a naive computation, the statistics against their definitions.
#include "engine/kl_divergence.h"

#include <algorithm>
#include <bit>

#include "kernels/base/error.h"
#include "tests/engine/eval_fixture.h"

namespace lutra {
namespace {

using testing::EvalFixture;
using testing::EvalIds;
using testing::TinyArch;
using testing::TinySpec;

// The same model in 8 bits, more or less: other random weights would be too far away for a test of small differences.
TinySpec Rounded(TinySpec spec) {
  spec.type = testing::kF16Type;
  return spec;
}

}  // namespace

TEST_CASE("A model compared with itself: divergence 0, ratio 1, same top everywhere") {
  EvalFixture f;
  const auto a = f.Make(TinyArch("llama"), 64), b = f.Make(TinyArch("llama"), 64, 2, 17);
  const KlReport r = CompareModels(*a, *b, EvalWindows(EvalIds(300), 1, {64, -1, 0}));
  CHECK(r.complete);
  CHECK(r.n_tokens == 4 * 31);
  CHECK(r.n_windows == 4);
  CHECK(r.kld.value == 0);
  CHECK(r.kld.error == 0);
  CHECK(r.kld_min == 0);
  CHECK(r.kld_max == 0);
  CHECK(r.ln_ratio.value == 0);
  CHECK(r.ratio.value == 1);
  CHECK(r.difference.value == 0);
  CHECK(r.correlation == doctest::Approx(1.0));
  CHECK(r.delta_p_rms.value == 0);
  CHECK(r.same_top.value == 1);
  CHECK(r.same_top.error == 0);
}

TEST_CASE("Divergence and agreement are those of a naive computation in double") {
  EvalFixture f;
  TinySpec other = TinyArch("llama");
  other.seed = 2;
  const std::pair<TinySpec, double> cases[] = {{other, 1e-6}, {Rounded(TinyArch("llama")), 1e-7}};
  for (const auto& [spec, tolerance] : cases) {
    const EvalWindows windows(EvalIds(130, 5), 1, {40, -1, 0});
    const auto a = f.Make(TinyArch("llama"), 40), b = f.Make(spec, 40);
    double kld = 0, delta = 0, delta2 = 0, kld_max = 0, nll = 0, nll_reference = 0;
    size_t same = 0, n = 0;
    std::vector<int32_t> ids;
    for (size_t w = 0; w < windows.size(); ++w) {
      windows.Get(w, &ids);
      const auto p = testing::NaiveLogProbs(*a, ids), q = testing::NaiveLogProbs(*b, ids);
      for (size_t pos = windows.scored_begin(); pos < windows.scored_end(); ++pos, ++n) {
        double d = 0;
        for (size_t i = 0; i < p[pos].size(); ++i)
          d += std::exp(p[pos][i]) * (p[pos][i] - q[pos][i]);
        kld += d;
        kld_max = std::max(kld_max, d);
        const size_t target = static_cast<size_t>(windows.target(w, pos));
        const double change = std::exp(q[pos][target]) - std::exp(p[pos][target]);
        nll -= q[pos][target];
        nll_reference -= p[pos][target];
        delta += change;
        delta2 += change * change;
        same += std::max_element(p[pos].begin(), p[pos].end()) - p[pos].begin() ==
                std::max_element(q[pos].begin(), q[pos].end()) - q[pos].begin();
      }
    }
    const double count = static_cast<double>(n);
    const KlReport r = CompareModels(*a, *b, windows);
    CHECK(r.n_tokens == n);
    CHECK(std::fabs(r.kld.value - kld / count) < tolerance);
    CHECK(std::fabs(r.kld_max - kld_max) < 10 * tolerance);
    CHECK(r.kld.value > 0);
    CHECK(r.delta_p.value == doctest::Approx(delta / count).epsilon(1e-4));
    CHECK(r.delta_p_rms.value == doctest::Approx(std::sqrt(delta2 / count)).epsilon(1e-4));
    CHECK(r.same_top.value == static_cast<double>(same) / count);
    CHECK(r.perplexity.value == doctest::Approx(std::exp(nll / count)).epsilon(1e-7));
    CHECK(r.reference_perplexity.value ==
          doctest::Approx(std::exp(nll_reference / count)).epsilon(1e-7));
    CHECK(r.ln_ratio.value == doctest::Approx((nll - nll_reference) / count).epsilon(1e-4));
  }
}

TEST_CASE("The report is the same bits for all threads and batches") {
  EvalFixture f;
  const EvalWindows windows(EvalIds(400, 6), 1, {100, -1, 0});
  TinySpec other = TinyArch("qwen3");
  other.seed = 3;
  std::string first;
  double kld = 0;
  for (const int threads : {1, 2}) {
    for (const uint32_t batch : {100u, 33u}) {
      const auto a = f.Make(TinyArch("qwen3"), 100, threads, batch),
                 b = f.Make(other, 100, 3 - threads, 100);
      const KlReport r = CompareModels(*a, *b, windows);
      if (first.empty()) kld = r.kld.value;
      if (first.empty()) first = KlReportText(r);
      CHECK(KlReportText(r) == first);
      CHECK(std::bit_cast<uint64_t>(r.kld.value) == std::bit_cast<uint64_t>(kld));
    }
  }
}

TEST_CASE(
    "Types of the KV cache are compared over one copy of the weights, with the numbers of two") {
  EvalFixture f;
  const EvalWindows windows(EvalIds(200, 11), 1, {50, -1, 0});
  const auto f16 = f.Make(TinyArch("llama"), 50);
  EngineOptions options;
  options.model_path = f16->model().file().path();
  options.threads = 1;
  options.kv_type = KvType::kF32;
  options.need_tokenizer = false;
  Engine f32(ForEvaluation(options, 50));
  const KlReport once = CompareKvTypes(f32, KvType::kF16, windows),
                 twice = CompareModels(f32, *f16, windows);
  CHECK(once.kld.value > 0);
  CHECK(once.kld.value < 1e-5);
  CHECK(KlReportText(once) == KlReportText(twice));
  CHECK(std::bit_cast<uint64_t>(once.kld.value) == std::bit_cast<uint64_t>(twice.kld.value));
  CHECK(CompareKvTypes(f32, KvType::kF32, windows).kld_max == 0);
}

TEST_CASE("Statistics follow their definitions") {
  KlDivergence kl;
  const std::vector<double> nll = {1.0, 2.0, 0.5, 3.0, 1.5}, reference = {1.1, 1.8, 0.5, 2.9, 1.0};
  const std::vector<double> kld = {0.1, 0.4, 0.0, 0.2, 0.3};
  for (size_t i = 0; i < nll.size(); ++i) kl.Add({nll[i], reference[i], kld[i], i != 1});
  kl.EndWindow();
  const KlReport r = kl.Report();
  CHECK(r.n_tokens == 5);
  CHECK(r.n_windows == 1);
  // The error of a mean: sqrt((mean of squares - square of mean) / (n - 1)).
  const auto mean_and_error = [](const std::vector<double>& v) {
    double mean = 0, variance = 0;
    for (const double x : v) mean += x / static_cast<double>(v.size());
    for (const double x : v) variance += (x - mean) * (x - mean) / static_cast<double>(v.size());
    return Estimate{mean, std::sqrt(variance / static_cast<double>(v.size() - 1))};
  };
  const auto near = [](const Estimate& got, const Estimate& expected) {
    CHECK(got.value == doctest::Approx(expected.value).epsilon(1e-12));
    CHECK(got.error == doctest::Approx(expected.error).epsilon(1e-9));
  };
  near(r.kld, mean_and_error(kld));
  const Estimate ln = mean_and_error(nll), ln_reference = mean_and_error(reference);
  near(r.perplexity, {std::exp(ln.value), std::exp(ln.value) * ln.error});
  near(r.reference_perplexity,
       {std::exp(ln_reference.value), std::exp(ln_reference.value) * ln_reference.error});
  // The paired difference has the error of the differences' mean.
  std::vector<double> differences, deltas, squares;
  for (size_t i = 0; i < nll.size(); ++i) {
    differences.push_back(nll[i] - reference[i]);
    deltas.push_back(std::exp(-nll[i]) - std::exp(-reference[i]));
    squares.push_back(deltas.back() * deltas.back());
  }
  const Estimate ratio = mean_and_error(differences);
  near(r.ln_ratio, ratio);
  near(r.ratio, {std::exp(ratio.value), std::exp(ratio.value) * ratio.error});
  CHECK(r.difference.value == doctest::Approx(r.perplexity.value - r.reference_perplexity.value));
  CHECK(r.correlation > 0.9);
  CHECK(r.correlation < 1.0);
  near(r.delta_p, mean_and_error(deltas));
  const Estimate square = mean_and_error(squares);
  near(r.delta_p_rms, {std::sqrt(square.value), 0.5 * square.error / std::sqrt(square.value)});
  near(r.same_top, {0.8, std::sqrt(0.8 * 0.2 / 4)});
  CHECK(r.kld_min == 0.0);
  CHECK(r.kld_max == 0.4);
  std::sort(deltas.begin(), deltas.end());
  CHECK(r.delta_p_min == doctest::Approx(deltas.front()));
  CHECK(r.delta_p_max == doctest::Approx(deltas.back()));
  for (size_t i = 0; i < kKldPercentiles.size(); ++i) {  // of 0, 0.1, ..., 0.4
    CHECK(r.kld_percentiles[i] == doctest::Approx(kKldPercentiles[i] / 100 * 0.4));
  }
  CHECK(r.delta_p_percentiles[5] == doctest::Approx(deltas[2]));  // the median
  CHECK(r.delta_p_percentiles[4] == doctest::Approx(deltas[3]));  // 75 %
  const std::string text = KlReportText(r);
  CHECK(text.find("Mean    KLD:   0.200000 \u00b1   0.070711\n") != std::string::npos);
  CHECK(text.find("Median  KLD:   0.200000\n") != std::string::npos);
  CHECK(text.find("99.9%   KLD:   0.399600\n") != std::string::npos);
  CHECK(text.find("Same top p: 80.000 \u00b1 20.000 %\n") != std::string::npos);

  const KlReport means = kl.Means();
  CHECK(means.kld.value == r.kld.value);
  CHECK(means.kld_max == 0);
  CHECK(KlDivergence().Report().n_tokens == 0);
}

TEST_CASE("Stopping keeps what was compared; models of other vocabularies are refused") {
  EvalFixture f;
  const auto a = f.Make(TinyArch("llama"), 32);
  const EvalWindows windows(EvalIds(200), 1, {32, -1, 0});
  const KlReport r = CompareModels(*a, *a, windows, [](const KlDivergence&, size_t done, size_t n) {
    CHECK(n == 6);
    return done < 2;
  });
  CHECK_FALSE(r.complete);
  CHECK(r.n_windows == 2);
  TinySpec larger = TinyArch("llama");
  larger.n_vocab = 49;
  const auto b = f.Make(larger, 32);
  CHECK_THROWS_WITH_AS(CompareModels(*a, *b, windows), doctest::Contains("vocabulary of 48 tokens"),
                       Error);
}

// llama.cpp (llama-perplexity of August 2026): demo F16 against Q8_0, -c 512 --chunks 20, its own file of log probabilities:
// mean divergence 0.000305 +- 0.000006, same top 98.65 +- 0.16 %.
TEST_CASE("The divergence of a quantized model agrees with llama.cpp's") {
  LUTRA_REQUIRE_SHARED(shared);
  const std::string text = testing::ReadText(shared + "/models/demo-val.txt");
  EngineOptions options;
  options.model_path = shared + "/models/demo-stories-6m-f16.gguf";
  Engine reference(ForEvaluation(options, kEvalContext));
  options.model_path = shared + "/models/demo-stories-6m-Q8_0.gguf";
  Engine tested(ForEvaluation(options, kEvalContext));
  const auto windows = EvalWindows::FromText(reference.tokenizer(), text, {kEvalContext, 8, 0});
  const KlReport r = CompareModels(reference, tested, windows);
  CHECK(r.kld.value == doctest::Approx(0.000305).epsilon(0.08));
  CHECK(r.same_top.value > 0.978);
  CHECK(r.kld_min > -1e-8);
}

}  // namespace lutra
