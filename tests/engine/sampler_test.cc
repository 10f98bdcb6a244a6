#include "engine/sampler.h"

#include <cmath>
#include <limits>
#include <set>

#include "engine/float_math.h"
#include "engine/sampler_stage.h"
#include "kernels/base/error.h"
#include "tests/engine/naive_sampler.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

using testing::BellLogits;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0.0f;
  return params;
}

SamplingParams Seeded(uint32_t seed) {
  SamplingParams params;
  params.seed = seed;
  return params;
}

std::vector<int32_t> Generate(Sampler* sampler, size_t n_vocab, int n) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < n; ++i) {
    tokens.push_back(sampler->Sample(BellLogits(n_vocab, static_cast<uint32_t>(i), 1.5f)));
    sampler->Accept(tokens.back());
  }
  return tokens;
}

ErrorCode CodeOf(Sampler* sampler, const std::vector<float>& logits,
                 const TokenMask* mask = nullptr) {
  try {
    sampler->Sample(logits, mask);
  } catch (const Error& e) {
    return e.code();
  }
  FAIL("no error");
  return ErrorCode::kIo;
}

}  // namespace

TEST_CASE("Random numbers are mt19937's") {
  std::mt19937 engine(42);
  const uint32_t x0 = engine(), x1 = engine();
  CHECK(x0 == 1608637542u);  // fixed by the standard's definition of the engine
  RandomStream a(42), b(42);
  CHECK(a.NextDouble() == (static_cast<double>(x0) + static_cast<double>(x1) * 0x1p32) * 0x1p-64);
  CHECK(b.NextFloat() == static_cast<float>(x0) * 0x1p-32f);
  for (int i = 0; i < 100000; ++i) {
    const double u = a.NextDouble();
    if (!(u >= 0.0 && u < 1.0)) FAIL("out of range");
  }
  b.Reset();
  CHECK(b.NextFloat() == static_cast<float>(x0) * 0x1p-32f);
}

TEST_CASE("A seed gives the same tokens always, and these ones") {
  constexpr size_t kVocab = 1000;
  Sampler a(Seeded(7), nullptr, kVocab), b(Seeded(7), nullptr, kVocab),
      c(Seeded(8), nullptr, kVocab);
  const std::vector<int32_t> tokens = Generate(&a, kVocab, 50);
  CHECK(tokens == Generate(&b, kVocab, 50));
  CHECK(tokens != Generate(&c, kVocab, 50));
  a.Reset();
  CHECK(tokens == Generate(&a, kVocab, 50));

  // Computed once; the logits are exact on every machine.
  SamplingParams all = Seeded(123);
  for (const auto& [name, value] :
       std::vector<std::pair<const char*, const char*>>{{"repeat_penalty", "1.1"},
                                                        {"presence_penalty", "0.2"},
                                                        {"top_k", "300"},
                                                        {"typical_p", "0.97"},
                                                        {"xtc_probability", "0.3"},
                                                        {"xtc_threshold", "0.02"},
                                                        {"dynatemp_range", "0.3"},
                                                        {"top_p", "0.99"},
                                                        {"min_p", "0.001"}}) {
    SetByName(&all, name, value);
  }
  Sampler d(all, nullptr, kVocab);
  CHECK(Generate(&d, kVocab, 12) ==
        std::vector<int32_t>{149, 348, 436, 608, 110, 965, 499, 137, 984, 545, 558, 294});
  SamplingParams mirostat = Seeded(5);
  mirostat.mirostat = 1;
  Sampler e(mirostat, nullptr, kVocab);
  CHECK(Generate(&e, kVocab, 12) ==
        std::vector<int32_t>{421, 148, 373, 144, 166, 965, 499, 137, 317, 963, 558, 801});
}

TEST_CASE("A random seed is reported and can be used again") {
  Sampler a(SamplingParams(), nullptr, 1000);
  CHECK(a.seed() != kRandomSeed);
  Sampler b(Seeded(a.seed()), nullptr, 1000);
  CHECK(Generate(&a, 1000, 30) == Generate(&b, 1000, 30));
  std::set<uint32_t> seeds;
  for (int i = 0; i < 8; ++i) seeds.insert(Sampler(SamplingParams(), nullptr, 4).seed());
  CHECK(seeds.size() > 4);
}

TEST_CASE("A clone goes on alike and independently") {
  const testing::LiteralVocab vocab(std::vector<std::string>(200, "w"));
  for (const int32_t mirostat : {0, 1, 2}) {
    SamplingParams params = Seeded(3);
    params.mirostat = mirostat;
    params.repeat_penalty = 1.2f;
    params.dry_multiplier = 0.8f;
    params.xtc_probability = 0.5f;
    Sampler a(params, &vocab, 200);
    Generate(&a, 200, 20);
    Sampler b = a.Clone();
    const std::vector<int32_t> next = Generate(&a, 200, 20);
    CHECK(next == Generate(&b, 200, 20));
    CHECK(b.seed() == a.seed());
    Sampler c = std::move(b);
    CHECK(Generate(&a, 200, 5) == Generate(&c, 200, 5));
  }
}

TEST_CASE("Greedy takes the best token, the lower id of equals, whatever else is on") {
  const size_t n_vocab = 4099;
  for (uint32_t seed = 0; seed < 30; ++seed) {
    std::vector<float> logits = BellLogits(n_vocab, seed);
    for (float& x : logits) x = std::floor(x * 4.0f);  // many equals
    logits[5] = kNan;
    const auto naive = [&] {
      int32_t best = -1;
      for (size_t i = 0; i < n_vocab; ++i) {
        if (best < 0 ? logits[i] == logits[i] : logits[i] > logits[static_cast<size_t>(best)]) {
          best = static_cast<int32_t>(i);
        }
      }
      return best;
    }();
    for (const char* order : {"default", "none", "kt", "tpk", "sykpmxt", "t"}) {
      SamplingParams params = Greedy();
      SetByName(&params, "samplers", order);
      params.top_n_sigma = 1.0f;
      Sampler sampler(params, nullptr, n_vocab);
      if (std::string(order) == "none") continue;
      CHECK(sampler.Sample(logits) == naive);
      CHECK(sampler.LastCandidates().size() == 1);
      CHECK(sampler.LastCandidates()[0].p == 1.0f);
    }
  }
}

TEST_CASE("Greedy sees penalties and biases") {
  SamplingParams params = Greedy();
  params.repeat_penalty = 2.0f;
  params.logit_bias = {{3, -kInf}, {2, -5.0f}};
  Sampler sampler(params, nullptr, 4);
  const std::vector<float> logits = {1.0f, 1.5f, 6.0f, 9.0f};
  CHECK(sampler.Sample(logits) == 1);
  sampler.Accept(1);
  CHECK(sampler.Sample(logits) == 0);  // 2 has 1 as well, but the higher id
  sampler.Accept(0);
  CHECK(sampler.Sample(logits) == 2);
  sampler.Reset();
  CHECK(sampler.Sample(logits) == 1);
}

TEST_CASE("Penalties forget tokens that leave the window, and count prompt tokens") {
  SamplingParams params = Greedy();
  params.presence_penalty = 10.0f;
  params.repeat_last_n = 3;
  Sampler sampler(params, nullptr, 4);
  const std::vector<float> logits = {4.0f, 3.0f, 2.0f, 1.0f};
  for (const int32_t prompt : {0, 0, 1}) sampler.Accept(prompt);
  CHECK(sampler.Sample(logits) == 2);
  sampler.Accept(2);
  CHECK(sampler.Sample(logits) == 3);  // 0 is still there once
  sampler.Accept(3);
  CHECK(sampler.Sample(logits) == 0);
  CHECK_THROWS_AS(sampler.Accept(4), Error);
  CHECK_THROWS_AS(sampler.Accept(-1), Error);
}

TEST_CASE("A mask limits the draw, in every mode") {
  const size_t n_vocab = 500;
  TokenMask mask(n_vocab);
  for (const int32_t id : {0, 63, 64, 130, 499}) mask.Allow(id);
  CHECK(mask.Allows(63));
  CHECK(!mask.Allows(62));
  for (const char* mode : {"0", "1", "2"}) {
    for (const char* temperature : {"0", "1.5"}) {
      SamplingParams params = Seeded(4);
      SetByName(&params, "mirostat", mode);
      SetByName(&params, "temperature", temperature);
      Sampler sampler(params, nullptr, n_vocab);
      std::vector<float> logits = BellLogits(n_vocab, 3, 0.1f);
      std::set<int32_t> drawn;
      for (int i = 0; i < 300; ++i) {
        sampler.Sample(logits);
        const int32_t token = sampler.Sample(logits, &mask);
        CHECK(mask.Allows(token));
        sampler.Accept(token);
        drawn.insert(token);
      }
      if (std::string(temperature) != "0" && std::string(mode) == "0") CHECK(drawn.size() == 5);
    }
  }
  Sampler sampler(Seeded(1), nullptr, n_vocab);
  mask.Clear();
  CHECK(CodeOf(&sampler, BellLogits(n_vocab, 3), &mask) == ErrorCode::kInvalidArgument);
  CHECK(CodeOf(&sampler, std::vector<float>(3)) == ErrorCode::kInvalidArgument);
  const TokenMask small(n_vocab - 1);
  CHECK(CodeOf(&sampler, BellLogits(n_vocab, 3), &small) == ErrorCode::kInvalidArgument);
}

TEST_CASE("Edge cases: few tokens, equal, forbidden, tiny temperature, huge logits") {
  const testing::LiteralVocab vocab({"a"});
  std::vector<SamplingParams> variants;
  for (const int32_t mirostat : {0, 1, 2}) {
    for (const float temperature : {0.8f, 1e-6f, 0.0f, 1e6f, 1e-38f}) {
      SamplingParams params = Seeded(6);
      params.mirostat = mirostat;
      params.temperature = temperature;
      variants.push_back(params);
      params.typical_p = 0.5f;
      params.top_n_sigma = 1.0f;
      params.xtc_probability = 1.0f;
      params.xtc_threshold = 0.0f;
      params.dry_multiplier = 1.0f;
      params.repeat_penalty = 1000.0f;
      variants.push_back(params);
      params.repeat_penalty = 0.001f;
      params.dynatemp_range = 0.5f;
      params.top_k = 0;
      variants.push_back(params);
      params.samplers = std::vector<std::string>{"temperature", "top_p", "typ_p", "top_n_sigma"};
      variants.push_back(params);
    }
  }
  for (size_t v = 0; v < variants.size(); ++v) {
    INFO("variant " << v);
    Sampler one(variants[v], &vocab, 1);
    for (int i = 0; i < 5; ++i) {
      CHECK(one.Sample(std::vector<float>{-4.0f}) == 0);
      one.Accept(0);
    }
    const auto legal = [&](const std::vector<float>& logits) {
      Sampler sampler(variants[v], &vocab, logits.size());
      for (int i = 0; i < 20; ++i) {
        const int32_t token = sampler.Sample(logits);
        CHECK(logits[static_cast<size_t>(token)] > -kInf);
        double sum = 0.0;
        for (const Candidate& x : sampler.LastCandidates()) sum += static_cast<double>(x.p);
        CHECK(sum == doctest::Approx(1.0).epsilon(1e-5));
        sampler.Accept(token);
      }
    };
    legal(std::vector<float>(700, 2.5f));
    legal({-kInf, -kInf, 7.0f, -kInf});
    legal({kNan, -kInf, -7.0f, kNan});
    legal({1e30f, -1e30f, 5.0f, 1e30f});
    legal({3e38f, -3e38f, kInf, -kInf, kNan});
    legal({-3e38f, -3.1e38f, -3.2e38f});
    legal({1e-40f, -1e-40f, 0.0f, -0.0f});
    Sampler sampler(variants[v], &vocab, 3);
    CHECK(CodeOf(&sampler, {kNan, kNan, kNan}) == ErrorCode::kInternal);
    CHECK(CodeOf(&sampler, {-kInf, -kInf, -kInf}) == ErrorCode::kInvalidArgument);
    CHECK(sampler.LastCandidates().empty());
    CHECK(sampler.Sample(std::vector<float>{-kInf, 0.0f, -kInf}) == 1);  // usable after an error
  }
}

TEST_CASE("A tiny temperature draws the best token, huge logits do not make it ambiguous") {
  SamplingParams params = Seeded(2);
  params.temperature = 1e-6f;
  Sampler sampler(params, nullptr, 4);
  CHECK(sampler.Sample(std::vector<float>{1.0f, 1.001f, 0.0f, 1.0005f}) == 1);
  params.temperature = 1e-20f;
  Sampler colder(params, nullptr, 3);
  CHECK(colder.Sample(std::vector<float>{1e30f, 2e30f, 1.5e30f}) == 1);
  CHECK(colder.Sample(std::vector<float>{-2e30f, -1e30f, -1.5e30f}) == 1);
}

TEST_CASE("ignore_eos forbids the ends of generation; what is missing is named") {
  const testing::LiteralVocab vocab({"a", "b", "</s>"}, 2);
  SamplingParams params = Greedy();
  params.ignore_eos = true;
  Sampler sampler(params, &vocab, 3);
  CHECK(sampler.Sample(std::vector<float>{0.0f, 1.0f, 9.0f}) == 1);
  CHECK_THROWS_AS(Sampler(params, nullptr, 3), Error);
  params = SamplingParams();
  params.dry_multiplier = 1.0f;
  CHECK_THROWS_AS(Sampler(params, nullptr, 3), Error);
  params = SamplingParams();
  params.logit_bias = {{3, 1.0f}};
  CHECK_THROWS_AS(Sampler(params, nullptr, 3), Error);
  CHECK_THROWS_AS(Sampler(SamplingParams(), nullptr, 0), Error);
  CHECK_THROWS_AS(Sampler(SamplingParams(), &vocab, 2), Error);
  params = SamplingParams();
  params.min_p = 7.0f;
  CHECK_THROWS_AS(Sampler(params, nullptr, 3), Error);
}

TEST_CASE("A stage that is left out has no effect") {
  SamplingParams params = Greedy();
  params.seed = 1;
  params.samplers = std::vector<std::string>{};
  Sampler sampler(params, nullptr, 8);
  std::set<int32_t> drawn;
  for (int i = 0; i < 500; ++i) drawn.insert(sampler.Sample(std::vector<float>(8, 1.0f)));
  CHECK(drawn.size() == 8);
}

TEST_CASE("Mirostat holds the surprise near tau on a Zipf distribution") {
  constexpr size_t kVocab = 4000;
  std::vector<float> logits(kVocab);
  for (size_t i = 0; i < kVocab; ++i) {
    logits[i] = static_cast<float>(-1.1 * Log(static_cast<double>(i + 1)));
  }
  for (const int32_t version : {1, 2}) {
    for (const float tau : {3.0f, 5.0f, 7.0f}) {
      INFO("version " << version << " tau " << tau);
      SamplingParams params = Seeded(11);
      params.mirostat = version;
      params.mirostat_tau = tau;
      params.temperature = 1.0f;
      Sampler sampler(params, nullptr, kVocab);
      double sum = 0.0;
      constexpr int kWarm = 100, kCount = 1500;
      for (int i = 0; i < kWarm + kCount; ++i) {
        const int32_t token = sampler.Sample(logits);
        for (const Candidate& x : sampler.LastCandidates()) {
          if (x.id == token && i >= kWarm) sum -= Log(static_cast<double>(x.p)) / Log(2.0);
        }
        sampler.Accept(token);
      }
      CHECK(sum / kCount == doctest::Approx(static_cast<double>(tau)).epsilon(0.03));
    }
  }
}

TEST_CASE("Mirostat learns only from tokens that are accepted") {
  SamplingParams params = Seeded(11);
  params.mirostat = 2;
  params.mirostat_tau = 3.0f;
  params.mirostat_eta = 1.0f;
  const std::vector<float> logits = BellLogits(300, 21);
  const auto count = [&](Sampler* s) {
    s->Sample(logits);
    return s->LastCandidates().size();
  };
  Sampler sampler(params, nullptr, 300);
  const size_t first = count(&sampler);
  for (int i = 0; i < 20; ++i) CHECK(count(&sampler) == first);
  const int32_t drawn = sampler.Sample(logits);
  sampler.Accept((drawn + 1) % 300);
  CHECK(count(&sampler) == first);
  size_t changed = 0;
  for (int i = 0; i < 20; ++i) {
    sampler.Accept(sampler.Sample(logits));
    changed += count(&sampler) != first;
  }
  CHECK(changed > 0);
}

}  // namespace lutra
