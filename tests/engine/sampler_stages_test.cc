// Every stage against its naive version: which candidates it leaves, and how they are drawn.
#include <cmath>
#include <limits>
#include <set>

#include "engine/sampler.h"
#include "kernels/base/error.h"
#include "tests/engine/naive_sampler.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

using testing::BellLogits;
using testing::LiteralVocab;
using testing::NaiveList;

constexpr float kInf = std::numeric_limits<float>::infinity();

using Settings = std::vector<std::pair<const char*, const char*>>;

SamplingParams With(const Settings& settings) {
  SamplingParams params;
  params.seed = 20240817;
  for (const auto& [name, value] : settings) SetByName(&params, name, value);
  return params;
}

// Settings that switch one stage on, several kinds of each.
struct StageCase {
  const char* stage;
  Settings settings;
};
const StageCase kCases[] = {
    {"penalties", {{"repeat_penalty", "1.3"}}},
    {"penalties", {{"frequency_penalty", "0.4"}, {"presence_penalty", "0.7"}}},
    {"penalties",
     {{"repeat_penalty", "0.8"}, {"frequency_penalty", "-0.5"}, {"repeat_last_n", "5"}}},
    {"dry", {{"dry_multiplier", "0.8"}}},
    {"dry", {{"dry_multiplier", "0.5"}, {"dry_base", "1.2"}, {"dry_allowed_length", "1"}}},
    {"dry", {{"dry_multiplier", "1"}, {"dry_allowed_length", "1"}, {"dry_penalty_last_n", "7"}}},
    {"top_n_sigma", {{"top_n_sigma", "1"}}},
    {"top_n_sigma", {{"top_n_sigma", "0.3"}}},
    {"top_k", {{"top_k", "5"}}},
    {"top_k", {{"top_k", "1"}}},
    {"top_k", {{"top_k", "100000"}}},
    {"top_k", {{"top_k", "600"}}},
    {"typ_p", {{"typical_p", "0.5"}}},
    {"typ_p", {{"typical_p", "0.95"}}},
    {"typ_p", {{"typical_p", "0.1"}, {"min_keep", "4"}}},
    {"top_p", {{"top_p", "0.9"}}},
    {"top_p", {{"top_p", "0.3"}}},
    {"top_p", {{"top_p", "0.999"}}},
    {"top_p", {{"top_p", "0"}}},
    {"top_p", {{"top_p", "0.1"}, {"min_keep", "6"}}},
    {"min_p", {{"min_p", "0.2"}}},
    {"min_p", {{"min_p", "1"}}},
    {"min_p", {{"min_p", "0.9"}, {"min_keep", "4"}}},
    {"xtc", {{"xtc_probability", "1"}, {"xtc_threshold", "0.05"}}},
    {"xtc", {{"xtc_probability", "0.5"}, {"xtc_threshold", "0.08"}}},
    {"xtc", {{"xtc_probability", "1"}, {"xtc_threshold", "0.05"}, {"min_keep", "11"}}},
    {"temperature", {{"temperature", "0.5"}}},
    {"temperature", {{"temperature", "1.7"}}},
    {"temperature", {{"temperature", "0"}}},
    {"temperature", {{"temperature", "1"}, {"dynatemp_range", "0.5"}}},
    {"temperature",
     {{"temperature", "0.4"}, {"dynatemp_range", "0.9"}, {"dynatemp_exponent", "2"}}},
};

std::vector<int32_t> History(size_t n_vocab, size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> history(n);
  const uint32_t range = static_cast<uint32_t>(std::min<size_t>(n_vocab, 4));
  for (int32_t& t : history) t = static_cast<int32_t>(random() % range);
  return history;
}

LiteralVocab PlainVocab(size_t n) {
  std::vector<std::string> texts(n);
  for (size_t i = 0; i < n; ++i) texts[i] = std::string(1, static_cast<char>('A' + i % 26));
  return LiteralVocab(texts);
}

// Probability of every token after `stages`; XTC's two outcomes are mixed.
std::vector<double> NaiveDistribution(const std::vector<std::string>& stages,
                                      const SamplingParams& params,
                                      const std::vector<int32_t>& history,
                                      const std::vector<float>& logits) {
  std::vector<double> p(logits.size());
  for (const bool xtc : {false, true}) {
    NaiveList list = testing::NaiveStart(logits);
    for (const std::string& stage : stages) {
      testing::NaiveStage(stage, params, history, xtc, &list);
    }
    testing::NaiveSoftmax(&list);
    const double share = xtc ? static_cast<double>(params.xtc_probability)
                             : 1.0 - static_cast<double>(params.xtc_probability);
    for (const auto& x : list) {
      p[static_cast<size_t>(x.id)] += share * static_cast<double>(x.p);
    }
  }
  return p;
}

// True if `counts` of draws go with probabilities `p`: chi-square below mean + 5 deviations, and
// nothing impossible was drawn.
bool Plausible(const std::vector<int>& counts, const std::vector<double>& p, int n_draws) {
  double chi = 0.0, rest_p = 0.0;
  int degrees = -1, rest = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0.0 && counts[i] > 0) return false;
    const double expected = p[i] * n_draws;
    if (expected < 10.0) {
      rest_p += p[i];
      rest += counts[i];
      continue;
    }
    chi += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++degrees;
  }
  if (rest_p * n_draws >= 10.0) {
    chi += (rest - rest_p * n_draws) * (rest - rest_p * n_draws) / (rest_p * n_draws);
    ++degrees;
  }
  return degrees <= 0 || chi < degrees + 5.0 * std::sqrt(2.0 * degrees);
}

}  // namespace

TEST_CASE("Every stage draws from the distribution of its definition") {
  constexpr int kDraws = 20000;
  constexpr size_t kVocab = 12;
  const LiteralVocab vocab = PlainVocab(kVocab);
  std::set<std::string> tested;
  for (const StageCase& c : kCases) {
    INFO(c.stage << " " << c.settings[0].first << " " << c.settings[0].second);
    SamplingParams params = With(c.settings);
    params.samplers = std::vector<std::string>{c.stage};
    params.dry_sequence_breakers.clear();
    const std::vector<float> logits = BellLogits(kVocab, 11, 0.5f);
    const std::vector<int32_t> history = History(kVocab, 30, 12);
    Sampler sampler(params, &vocab, kVocab);
    for (const int32_t t : history) sampler.Accept(t);
    std::vector<int> counts(kVocab);
    for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sampler.Sample(logits))];
    const std::vector<double> p = NaiveDistribution({c.stage}, params, history, logits);
    CHECK(Plausible(counts, p, kDraws));
    // The test itself must be able to fail: the distribution without the stage is not plausible,
    // unless the stage changes nothing here.
    const std::vector<double> plain = NaiveDistribution({}, params, history, logits);
    double change = 0.0;
    for (size_t i = 0; i < kVocab; ++i) change = std::max(change, std::fabs(p[i] - plain[i]));
    if (change > 0.02) {
      CHECK_FALSE(Plausible(counts, plain, kDraws));
      tested.insert(c.stage);
    }
  }
  for (const SamplerStageRow& row : SamplerStages()) {
    CHECK_MESSAGE(tested.count(row.name) == 1, std::string(row.name)
                                                   << " has no case that changes something");
  }
}

TEST_CASE("Every stage leaves the candidates and probabilities of its definition") {
  for (const size_t n_vocab : {size_t{1}, size_t{2}, size_t{31}, size_t{300}, size_t{5000}}) {
    const LiteralVocab vocab = PlainVocab(n_vocab);
    for (const StageCase& c : kCases) {
      for (const float scale : {0.25f, 1.0f, 3.0f}) {
        for (const int kind : {0, 1, 2}) {  // as they are; some equal; some forbidden
          INFO(c.stage << " " << c.settings[0].first << " " << c.settings[0].second
                       << " vocabulary " << n_vocab << " scale " << scale << " kind " << kind);
          SamplingParams params = With(c.settings);
          if (params.xtc_probability > 0.0f) params.xtc_probability = 1.0f;
          params.samplers = std::vector<std::string>{c.stage};
          params.dry_sequence_breakers.clear();
          std::vector<float> logits = BellLogits(n_vocab, static_cast<uint32_t>(n_vocab), scale);
          if (kind == 1) {
            for (float& x : logits) x = std::floor(x * 2.0f) / 2.0f;
          }
          if (kind == 2 && n_vocab > 2) {
            for (size_t i = 0; i < n_vocab; i += 3) logits[i] = i % 2 == 0 ? -kInf : std::nanf("");
          }
          const std::vector<int32_t> history = History(n_vocab, 40, 13);
          Sampler sampler(params, &vocab, n_vocab);
          for (const int32_t t : history) sampler.Accept(t);
          const int32_t token = sampler.Sample(logits);
          const std::vector<double> want = NaiveDistribution({c.stage}, params, history, logits);
          std::vector<double> got(n_vocab);
          for (const Candidate& x : sampler.LastCandidates()) {
            got[static_cast<size_t>(x.id)] = static_cast<double>(x.p);
          }
          CHECK(want[static_cast<size_t>(token)] > 0.0);
          double worst = 0.0;
          for (size_t i = 0; i < n_vocab; ++i) {
            // Relative, so that a candidate that is missing or one too many shows.
            const double diff = std::fabs(got[i] - want[i]);
            if (want[i] > 1e-30 || got[i] > 1e-30)
              worst = std::max(worst, diff / std::max(got[i], want[i]));
          }
          CHECK(worst < 1e-4);
        }
      }
    }
  }
}

TEST_CASE("Whole chains in any order agree with the naive chain") {
  constexpr size_t kVocab = 2000;
  const LiteralVocab vocab = PlainVocab(kVocab);
  std::mt19937 random(14);
  std::vector<std::string> order;
  for (const SamplerStageRow& row : SamplerStages()) order.push_back(row.name);
  for (int round = 0; round < 300; ++round) {
    SamplingParams params;
    params.seed = 9;
    params.dry_sequence_breakers.clear();
    const auto maybe = [&](float off, float on) { return random() % 2 == 0 ? off : on; };
    params.repeat_penalty = maybe(1.0f, 1.2f);
    params.presence_penalty = maybe(0.0f, 0.5f);
    params.dry_multiplier = maybe(0.0f, 0.8f);
    params.top_n_sigma = maybe(-1.0f, 2.5f);
    params.top_k = static_cast<int32_t>(maybe(0.0f, 200.0f));
    params.typical_p = maybe(1.0f, 0.9f);
    params.top_p = maybe(1.0f, 0.93f);
    params.min_p = maybe(0.0f, 0.02f);
    params.xtc_probability = maybe(0.0f, 1.0f);
    params.xtc_threshold = 0.03f;
    params.temperature = random() % 8 == 0 ? 0.0f : maybe(1.0f, 0.7f);
    params.dynatemp_range = maybe(0.0f, 0.4f);
    params.min_keep = static_cast<int32_t>(maybe(0.0f, 3.0f));
    if (round % 3 != 0) std::shuffle(order.begin(), order.end(), random);
    if (round % 3 != 0) params.samplers = order;
    std::vector<std::string> names;
    for (const SamplerStageRow& row : SamplerStages()) names.push_back(row.name);
    if (params.samplers.has_value()) names = *params.samplers;

    const std::vector<float> logits = BellLogits(kVocab, static_cast<uint32_t>(100 + round), 2.0f);
    const std::vector<int32_t> history = History(kVocab, 50, static_cast<uint32_t>(round));
    Sampler sampler(params, &vocab, kVocab);
    for (const int32_t t : history) sampler.Accept(t);
    const int32_t token = sampler.Sample(logits);
    const std::vector<double> want = NaiveDistribution(names, params, history, logits);
    INFO("round " << round);
    CHECK(want[static_cast<size_t>(token)] > 0.0);
    double total = 0.0;
    for (const Candidate& x : sampler.LastCandidates()) {
      CHECK(static_cast<double>(x.p) ==
            doctest::Approx(want[static_cast<size_t>(x.id)]).epsilon(1e-4));
      total += want[static_cast<size_t>(x.id)];
    }
    CHECK(total == doctest::Approx(1.0).epsilon(1e-5));
  }
}

TEST_CASE("DRY: the penalty grows with the repeated sequence") {
  // a b c d | x | a b c -> d would repeat a sequence of 3.
  const LiteralVocab vocab({"a", "b", "c", "d", "x"});
  const SamplingParams params =
      With({{"dry_multiplier", "0.5"}, {"dry_base", "2"}, {"samplers", "dry"}});
  const std::vector<float> logits(5, 1.0f);
  const auto logit_of = [&](const std::vector<int32_t>& history, int32_t token) {
    Sampler sampler(params, &vocab, 5);
    for (const int32_t t : history) sampler.Accept(t);
    sampler.Sample(logits);
    for (const Candidate& x : sampler.LastCandidates()) {
      if (x.id == token) return x.logit;
    }
    return std::nanf("");
  };
  CHECK(logit_of({0, 1, 2, 3, 4, 0, 1, 2}, 3) == 1.0f - 0.5f * 2.0f);  // m = 3: base^1
  CHECK(logit_of({0, 1, 2, 3, 4, 1, 2}, 3) == 1.0f - 0.5f);            // m = 2: base^0
  CHECK(logit_of({0, 1, 2, 3, 4, 2}, 3) == 1.0f);                      // m = 1: allowed
  CHECK(logit_of({0, 1, 2, 3, 4, 0, 1, 2}, 4) == 1.0f);
  CHECK(logit_of({0, 0, 0, 0}, 0) == 1.0f - 0.5f * 2.0f);  // overlapping with itself, m = 3
  CHECK(logit_of({0, 0}, 0) == 1.0f);
}

TEST_CASE("DRY: breakers bound the sequence") {
  // "stop" as one token, as no|pe over two, and inside longer texts.
  const LiteralVocab vocab({"a", "b", "c", ":", "x:y", "no", "pe", "p"});
  const auto penalized = [&](const char* breakers, const std::vector<int32_t>& history) {
    const SamplingParams params =
        With({{"dry_multiplier", "1"}, {"samplers", "dry"}, {"dry_sequence_breakers", breakers}});
    Sampler sampler(params, &vocab, 8);
    for (const int32_t t : history) sampler.Accept(t);
    sampler.Sample(std::vector<float>(8, 0.0f));
    std::set<int32_t> ids;
    for (const Candidate& x : sampler.LastCandidates()) {
      if (x.logit < 0.0f) ids.insert(x.id);
    }
    return ids;
  };
  using Set = std::set<int32_t>;
  CHECK(penalized("none", {0, 1, 2, 3, 0, 1}) == Set{2});
  CHECK(penalized(":", {0, 1, 2, 3, 0, 1}) == Set{2});    // two tokens behind the breaker
  CHECK(penalized(":", {0, 3, 1, 2, 0, 3, 1}) == Set{});  // only one
  CHECK(penalized("none", {0, 3, 1, 2, 0, 3, 1}) == Set{2});
  CHECK(penalized(":", {0, 4, 1, 2, 0, 4, 1}) == Set{});  // ':' inside a token
  CHECK(penalized("none", {0, 1, 3, 0, 1}) == Set{3});
  CHECK(penalized(":", {0, 1, 3, 0, 1}) == Set{});  // breakers are spared
  CHECK(penalized("none", {5, 6, 1, 2, 5, 6, 1}) == Set{2});
  CHECK(penalized("nope", {5, 6, 1, 2, 5, 6, 1}) == Set{});  // no|pe is the breaker
  CHECK(penalized("nope", {5, 6, 1, 0, 2, 5, 6, 1, 0}) == Set{2});
  CHECK(penalized("nope", {5, 7, 1, 2, 5, 7, 1}) == Set{2});  // no|p is not
}

TEST_CASE("DRY agrees with a quadratic search on random histories") {
  const size_t n_vocab = 6;
  const LiteralVocab vocab = PlainVocab(n_vocab);
  std::mt19937 random(15);
  for (int round = 0; round < 300; ++round) {
    SamplingParams params =
        With({{"dry_multiplier", "0.25"}, {"dry_base", "1.5"}, {"samplers", "dry"}});
    params.dry_sequence_breakers.clear();
    params.dry_penalty_last_n = static_cast<int32_t>(1 + random() % 40);
    params.dry_allowed_length = static_cast<int32_t>(1 + random() % 4);
    Sampler sampler(params, &vocab, n_vocab);
    const std::vector<int32_t> history = History(3, random() % 60, static_cast<uint32_t>(round));
    for (const int32_t t : history) sampler.Accept(t);
    const std::vector<float> logits(n_vocab, 0.0f);
    sampler.Sample(logits);
    NaiveList naive = testing::NaiveStart(logits);
    testing::NaiveStage("dry", params, history, false, &naive);
    for (const Candidate& x : sampler.LastCandidates()) {
      CHECK(static_cast<double>(x.logit) ==
            doctest::Approx(static_cast<double>(naive[static_cast<size_t>(x.id)].logit))
                .epsilon(1e-6));
    }
  }
}

TEST_CASE("DRY: an enormous repetition has a finite penalty") {
  const LiteralVocab vocab({"a", "b"});
  SamplingParams params = With({{"dry_multiplier", "1"},
                                {"dry_base", "4"},
                                {"dry_penalty_last_n", "2000"},
                                {"samplers", "dry"}});
  Sampler sampler(params, &vocab, 2);
  for (int i = 0; i < 2000; ++i) sampler.Accept(0);
  CHECK(sampler.Sample(std::vector<float>{50.0f, -50.0f}) == 1);
  for (const Candidate& x : sampler.LastCandidates()) CHECK(std::isfinite(x.logit));
}

}  // namespace lutra
