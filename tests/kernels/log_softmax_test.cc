// Sums over vocabularies: near double arithmetic, the same bits on every SIMD choice.
#include "kernels/log_softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/kernels/simd_util.h"

namespace lutra {
namespace {

using testing::ForEachSimd;
using testing::RandomFloats;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr size_t kSizes[] = {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 48, 100, 255, 4099, 32000};

// The same number, bit for bit, on every SIMD choice.
template <class Compute>
double SameDouble(Compute compute) {
  double first = 0;
  bool is_first = true;
  ForEachSimd([&] {
    const double now = compute();
    if (is_first) first = now;
    is_first = false;
    CHECK(std::bit_cast<uint64_t>(now) == std::bit_cast<uint64_t>(first));
  });
  return first;
}

}  // namespace

TEST_CASE("SumExp: maximum, first place of it and sum of exponentials") {
  std::mt19937 rng(1);
  for (const size_t n : kSizes) {
    INFO("n ", n);
    std::vector<float> x = RandomFloats(n, rng, 5.0f);
    if (n > 20) x[n / 2] = x[n - 2] = 30.0f;  // equals: the first counts
    const size_t best = static_cast<size_t>(std::max_element(x.begin(), x.end()) - x.begin());
    double sum = 0;
    for (const float v : x) sum += std::exp(static_cast<double>(v) - x[best]);
    const double got = SameDouble([&] {
      const ExpSum s = SumExp(x.data(), n);
      CHECK(s.max == x[best]);
      CHECK(s.argmax == best);
      return s.sum;
    });
    // The difference is rounded to float: relative error of e^d below |d| 2^-24 and about 1 ulp of the exponential.
    CHECK(got == doctest::Approx(sum).epsilon(40 * 0x1p-24));
  }
}

TEST_CASE("SumExp: logits that cannot occur, and ones that are no numbers") {
  std::vector<float> x(37, -kInf);
  x[35] = 2.0f;
  ForEachSimd([&] {
    const ExpSum s = SumExp(x.data(), x.size());
    CHECK(s.max == 2.0f);
    CHECK(s.argmax == 35);
    CHECK(s.sum == 1.0);
    for (const float bad : {kInf, std::numeric_limits<float>::quiet_NaN()}) {
      for (const size_t at : {size_t{0}, size_t{5}, size_t{36}}) {
        std::vector<float> y = x;
        y[at] = bad;
        CHECK(std::isnan(SumExp(y.data(), y.size()).sum));
      }
    }
    const std::vector<float> none(19, -kInf);
    CHECK(std::isnan(SumExp(none.data(), none.size()).sum));
  });
}

TEST_CASE("SumExpDifference gives KL divergences") {
  std::mt19937 rng(2);
  for (const size_t n : kSizes) {
    INFO("n ", n);
    std::vector<float> a = RandomFloats(n, rng, 4.0f), b = a;
    for (size_t i = 0; i < n; ++i) b[i] += 0.05f * RandomFloats(1, rng)[0];
    if (n > 8) a[3] = -kInf;  // weight 0, whatever b says
    if (n > 8) b[3] = -kInf;
    double max_a = a[0], max_b = b[0], sum_a = 0, sum_b = 0;
    for (size_t i = 0; i < n; ++i) {
      max_a = std::max(max_a, static_cast<double>(a[i]));
      max_b = std::max(max_b, static_cast<double>(b[i]));
    }
    for (size_t i = 0; i < n; ++i) {
      sum_a += std::exp(a[i] - max_a);
      sum_b += std::exp(b[i] - max_b);
    }
    double kl = 0;
    for (size_t i = 0; i < n; ++i) {
      if (a[i] == -kInf) continue;
      kl += std::exp(a[i] - max_a) / sum_a *
            ((a[i] - max_a - std::log(sum_a)) - (b[i] - max_b - std::log(sum_b)));
    }
    const ExpSum sa = SumExp(a.data(), n), sb = SumExp(b.data(), n);
    const double difference =
        SameDouble([&] { return SumExpDifference(a.data(), sa.max, b.data(), n); });
    const double got = difference / sa.sum + std::log(sb.sum) - std::log(sa.sum) + sb.max - sa.max;
    CHECK(std::fabs(got - kl) < 2e-8);
    CHECK(SumExpDifference(a.data(), sa.max, a.data(), n) == 0.0);
  }
}

TEST_CASE("Log probabilities in 16 bits are within half a step, over at most 16 from the largest") {
  std::mt19937 rng(3);
  for (const size_t n : kSizes) {
    INFO("n ", n);
    std::vector<float> x = RandomFloats(n, rng, 6.0f);
    if (n > 40) x[30] = -kInf;
    const ExpSum sum = SumExp(x.data(), n);
    const double log_sum = std::log(sum.sum);
    std::vector<uint16_t> codes(n), first;
    LogProbCodes scale{};
    ForEachSimd([&] {
      scale = EncodeLogProbs(x.data(), n, sum, static_cast<float>(log_sum), codes.data());
      if (first.empty()) first = codes;
      CHECK(codes == first);
    });
    float least = *std::min_element(x.begin(), x.end());
    least = std::max(least, sum.max - 16.0f);
    CHECK(scale.min_log_prob == doctest::Approx(least - sum.max - log_sum).epsilon(1e-6));
    if (n > 1) CHECK(codes[sum.argmax] == 65535);
    double kl = 0;
    for (size_t i = 0; i < n; ++i) {
      const double exact =
          std::max(static_cast<double>(x[i]), static_cast<double>(least)) - sum.max - log_sum;
      const double coded =
          static_cast<double>(scale.step) * codes[i] + static_cast<double>(scale.min_log_prob);
      CHECK(std::fabs(coded - exact) <= 0.5 * static_cast<double>(scale.step) + 4e-6);
      if (coded > -16)
        kl += std::exp(coded) * (coded - (static_cast<double>(x[i]) - sum.max - log_sum));
    }
    const float lse = static_cast<float>(sum.max + log_sum);
    const double got =
        SameDouble([&] { return SumCodedDifference(scale, codes.data(), x.data(), lse, n); });
    CHECK(std::fabs(got - kl) < 1e-5);
  }
}

TEST_CASE("Log probabilities in 16 bits: equal logits") {
  const std::vector<float> x(10, 3.0f);
  const ExpSum sum = SumExp(x.data(), x.size());
  std::vector<uint16_t> codes(10, 7);
  const LogProbCodes scale = EncodeLogProbs(x.data(), x.size(), sum, std::log(10.0f), codes.data());
  CHECK(scale.step == 0.0f);
  CHECK(scale.min_log_prob == -std::log(10.0f));
  CHECK(codes == std::vector<uint16_t>(10, 0));
}

}  // namespace lutra
