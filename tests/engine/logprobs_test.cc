#include <cmath>
#include <limits>

#include "engine/logprobs.h"
#include "tests/engine/naive_sampler.h"
#include "tests/test_util.h"

namespace lutra {
namespace {
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
}  // namespace

TEST_CASE("Log probabilities are those of a naive softmax over the raw logits") {
  std::vector<float> logits = testing::BellLogits(5000, 7);
  logits[17] = -kInf;
  logits[18] = kNan;
  logits[40] = logits[41] = logits[4000] = 9.0f;  // the best, equal
  const double lse = LogSumExp(logits);
  long double sum = 0;
  for (const float x : logits) sum += std::isfinite(x) ? std::exp(static_cast<long double>(x)) : 0;
  CHECK(lse == doctest::Approx(static_cast<double>(std::log(sum))).epsilon(1e-8));

  testing::NaiveList naive = testing::NaiveStart(logits);
  testing::NaiveSoftmax(&naive);
  testing::NaiveSort(&naive);
  std::vector<TokenLogprob> best(50);
  REQUIRE(TopLogprobs(logits, lse, best) == 50);
  for (size_t i = 0; i < best.size(); ++i) {
    CHECK(best[i].id == naive[i].id);
    CHECK(best[i].logprob ==
          doctest::Approx(static_cast<double>(std::log(naive[i].p))).epsilon(1e-6));
    CHECK(best[i].logprob == LogprobOf(logits, lse, best[i].id).logprob);
  }
  CHECK(LogprobOf(logits, lse, 17).logprob == -kInf);
  CHECK(LogprobOf(logits, lse, 18).logprob == -kInf);
}

TEST_CASE("Log probabilities at the borders") {
  TokenLogprob best[4];
  const std::vector<float> one = {3.0f};
  CHECK(TopLogprobs(one, LogSumExp(one), best) == 1);
  CHECK(best[0].logprob == 0.0f);
  const std::vector<float> none = {-kInf, kNan};
  CHECK(LogSumExp(none) == -std::numeric_limits<double>::infinity());
  CHECK(TopLogprobs(none, LogSumExp(none), best) == 0);
  const std::vector<float> huge = {1e30f, -3e38f, 3e38f, kInf, kInf};
  CHECK(TopLogprobs(huge, LogSumExp(huge), best) == 4);
  CHECK(best[0].id == 3);
  CHECK(best[1].id == 4);
  CHECK(best[2].id == 2);
  CHECK(TopLogprobs(one, 0.0, {}) == 0);
  const std::vector<float> large = {1e8f, -3e38f, 1e8f, kNan};
  CHECK(TopLogprobs(large, LogSumExp(large), best) == 3);
  CHECK(best[1].logprob == doctest::Approx(std::log(0.5)));
  CHECK(best[2].logprob < -1e38f);
}

}  // namespace lutra
