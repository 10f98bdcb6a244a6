// Perplexity: how a text is cut, what is scored, and that nothing else matters.
#include "engine/perplexity.h"

#include <bit>

#include "engine/logits_file.h"
#include "kernels/base/error.h"
#include "tests/engine/eval_fixture.h"

namespace lutra {
namespace {

using testing::EvalFixture;
using testing::EvalIds;
using testing::TinyArch;

std::vector<int32_t> Counting(size_t n) {
  std::vector<int32_t> ids(n);
  for (size_t i = 0; i < n; ++i) ids[i] = static_cast<int32_t>(i);
  return ids;
}

}  // namespace

TEST_CASE("Windows lie beside each other, begin with BOS, and their second half is scored") {
  const EvalWindows w(Counting(70), 999, {16, -1, 0});
  CHECK(w.size() == 4);  // 6 tokens are left over
  CHECK(w.n_ctx() == 16);
  CHECK(w.scored_begin() == 8);
  CHECK(w.scored_end() == 15);
  CHECK(w.n_scored() == 7);
  std::vector<int32_t> ids;
  w.Get(2, &ids);
  REQUIRE(ids.size() == 16);
  CHECK(ids[0] == 999);
  CHECK(ids[1] == 33);
  CHECK(ids[15] == 47);
  CHECK(w.target(2, 8) == 41);
  CHECK(w.target(2, 14) == 47);
  CHECK(w.tokens()[32] == 32);
  const EvalWindows without(Counting(70), kNoToken, {16, 2, 0});
  CHECK(without.size() == 2);
  without.Get(1, &ids);
  CHECK(ids[0] == 16);
  CHECK(EvalWindows(Counting(16), kNoToken, {16, 100, 0}).size() == 1);
}

TEST_CASE("With a stride windows overlap, and every token behind the first window is scored once") {
  const EvalWindows w(Counting(70), 999, {16, -1, 5});
  CHECK(w.size() == 11);
  CHECK(w.scored_begin() == 10);
  CHECK(w.n_scored() == 5);
  std::vector<int32_t> ids;
  int32_t expected = 11;
  for (size_t i = 0; i < w.size(); ++i) {
    w.Get(i, &ids);
    CHECK(ids[0] == static_cast<int32_t>(5 * i));
    for (size_t pos = w.scored_begin(); pos < w.scored_end(); ++pos) {
      CHECK(w.target(i, pos) == expected++);
      CHECK(ids[pos] + 1 == w.target(i, pos));
    }
  }
}

TEST_CASE("Texts and options that give no window are refused with the numbers") {
  CHECK_THROWS_WITH_AS(
      EvalWindows(Counting(15), kNoToken, {16, -1, 0}),
      doctest::Contains("the text has 15 tokens, which do not fill one window of 16"), Error);
  CHECK_THROWS_WITH_AS(EvalWindows(Counting(16), kNoToken, {16, -1, 4}),
                       doctest::Contains("16 tokens"), Error);
  CHECK_THROWS_WITH_AS(EvalWindows(Counting(99), kNoToken, {16, 0, 0}), doctest::Contains("chunks"),
                       Error);
  CHECK_THROWS_WITH_AS(EvalWindows(Counting(99), kNoToken, {16, -1, 16}),
                       doctest::Contains("stride"), Error);
  CHECK_THROWS_WITH_AS(EvalWindows(Counting(99), kNoToken, {3, -1, 0}),
                       doctest::Contains("context"), Error);
}

TEST_CASE("Perplexity is that of a token-by-token computation in double") {
  EvalFixture f;
  for (const uint32_t stride : {0u, 7u}) {
    INFO("stride ", stride);
    const EvalWindows windows(EvalIds(330), 1, {40, 3, stride});
    const auto engine = f.Make(TinyArch("llama"), windows.n_ctx());
    NllSum expected;
    std::vector<int32_t> ids;
    for (size_t w = 0; w < windows.size(); ++w) {
      windows.Get(w, &ids);
      const auto rows = testing::NaiveLogProbs(*engine, ids);
      for (size_t pos = windows.scored_begin(); pos < windows.scored_end(); ++pos) {
        expected.Add(-rows[pos][static_cast<size_t>(windows.target(w, pos))]);
      }
    }
    size_t calls = 0;
    const PerplexityResult got =
        MeasurePerplexity(*engine, windows, [&](const PerplexityResult& so_far, size_t n) {
          CHECK(so_far.n_windows == ++calls);
          CHECK(n == 3);
          return true;
        });
    CHECK(calls == 3);
    CHECK(got.complete);
    CHECK(got.nll.n == expected.n);
    CHECK(got.nll.sum == doctest::Approx(expected.sum).epsilon(1e-7));
    const Estimate ppl = got.nll.Perplexity();
    CHECK(ppl.value ==
          doctest::Approx(std::exp(expected.sum / static_cast<double>(expected.n))).epsilon(1e-7));
    CHECK(ppl.error > 0);
    CHECK(ppl.error == doctest::Approx(expected.Perplexity().error).epsilon(1e-5));
  }
}

TEST_CASE("Perplexity is the same bits for all threads, batches and rooms for logits") {
  EvalFixture f;
  const EvalWindows windows(EvalIds(600, 2), 1, {200, -1, 0});
  NllSum first;
  bool is_first = true;
  for (const int threads : {1, 3}) {
    for (const uint32_t batch : {200u, 64u, 7u}) {
      for (const uint64_t logits_bytes : {kEvalLogitsBytes, uint64_t{1}, uint64_t{48 * 4 * 13}}) {
        const auto engine = f.Make(TinyArch("qwen3moe"), 200, threads, batch, logits_bytes);
        const NllSum now = MeasurePerplexity(*engine, windows).nll;
        if (is_first) first = now;
        is_first = false;
        INFO(threads, " threads, batch ", batch, ", bytes ", logits_bytes);
        CHECK(std::bit_cast<uint64_t>(now.sum) == std::bit_cast<uint64_t>(first.sum));
        CHECK(std::bit_cast<uint64_t>(now.sum2) == std::bit_cast<uint64_t>(first.sum2));
        CHECK(now.n == 3 * 99);
      }
    }
  }
}

TEST_CASE("Stopping keeps what was measured") {
  EvalFixture f;
  const EvalWindows windows(EvalIds(400, 3), 1, {50, -1, 0});
  const auto engine = f.Make(TinyArch("llama"), 50);
  NllSum second;
  const PerplexityResult got =
      MeasurePerplexity(*engine, windows, [&](const PerplexityResult& so_far, size_t) {
        second = so_far.nll;
        return so_far.n_windows < 2;
      });
  CHECK_FALSE(got.complete);
  CHECK(got.n_windows == 2);
  CHECK(got.nll.n == 48);
  CHECK(got.nll.sum == second.sum);
  // Stopping after the last window stops nothing.
  CHECK(MeasurePerplexity(*engine, EvalWindows(EvalIds(50), 1, {50, -1, 0}),
                          [](const PerplexityResult&, size_t) { return false; })
            .complete);
}

TEST_CASE("Logits that are no numbers are an error naming file and place") {
  EvalFixture f;
  testing::TinySpec spec = TinyArch("llama");
  auto builder = testing::BuildTiny(spec);
  for (uint8_t& byte : builder.FindTensor("output_norm.weight")->bytes) byte = 0xFF;  // NaN
  const std::string path = f.folder / "nan.gguf";
  builder.WriteFile(path);
  EngineOptions options;
  options.model_path = path;
  options.threads = 1;
  options.need_tokenizer = false;
  Engine engine(ForEvaluation(options, 32));
  CHECK_THROWS_WITH_AS(
      MeasurePerplexity(engine, EvalWindows(EvalIds(64), 1, {32, -1, 0})),
      doctest::Contains("nan.gguf: the logits after token 17 of chunk 1 are not numbers"), Error);
}

// The numbers are llama.cpp's (llama-perplexity of August 2026, CPU, -c 512 --chunks 6).
TEST_CASE("Perplexities of real models agree with llama.cpp within 0.1 %") {
  LUTRA_REQUIRE_SHARED(shared);
  const std::string text = testing::ReadText(shared + "/models/demo-val.txt");
  const std::pair<const char*, Estimate> models[] = {
      {"stories260k-f32.gguf", {11.4380, 0.92041}},
      {"demo-stories-6m-f16.gguf", {33.4366, 3.08794}}};
  for (const auto& [name, expected] : models) {
    INFO(name);
    EngineOptions options;
    options.model_path = shared + "/models/" + name;
    Engine engine(ForEvaluation(options, kEvalContext));
    const auto windows = EvalWindows::FromText(engine.tokenizer(), text, {kEvalContext, 6, 0});
    const PerplexityResult got = MeasurePerplexity(engine, windows);
    CHECK(got.nll.n == 6 * 255);
    const Estimate ppl = got.nll.Perplexity();
    CHECK(std::fabs(ppl.value / expected.value - 1) < 1e-3);
    CHECK(std::fabs(ppl.error / expected.error - 1) < 1e-2);
  }
}

}  // namespace lutra
