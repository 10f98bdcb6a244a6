#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "engine/float_math.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

long double RelativeError(double got, long double want) {
  return std::fabs((static_cast<long double>(got) - want) / want);
}

}  // namespace

TEST_CASE("Exp, Log and Pow are near the exact values") {
  std::mt19937_64 random(1);
  const auto uniform = [&](double low, double high) {
    return low + (high - low) * static_cast<double>(random() >> 11) * 0x1p-53;
  };
  long double exp_error = 0, log_error = 0, near_one_error = 0, pow_error = 0;
  for (int i = 0; i < 200000; ++i) {
    const double x = uniform(-708, 709.7);
    exp_error = std::max(exp_error, RelativeError(Exp(x), std::exp(static_cast<long double>(x))));
    const double y = Exp(uniform(-700, 700));
    log_error = std::max(log_error, RelativeError(Log(y), std::log(static_cast<long double>(y))));
    const double z = 1.0 + uniform(-0.5, 0.5) * Exp(uniform(-30, 0));
    if (z != 1.0) {
      near_one_error =
          std::max(near_one_error, RelativeError(Log(z), std::log(static_cast<long double>(z))));
    }
    const double base = uniform(0.001, 100), power = uniform(-20, 20);
    const long double want =
        std::pow(static_cast<long double>(base), static_cast<long double>(power));
    const long double scale = 1 + std::fabs(power * std::log(static_cast<long double>(base)));
    pow_error = std::max(pow_error, RelativeError(Pow(base, power), want) / scale);
  }
  CHECK(static_cast<double>(exp_error) < 4e-16);
  CHECK(static_cast<double>(log_error) < 4e-16);
  CHECK(static_cast<double>(near_one_error) < 4e-16);
  CHECK(static_cast<double>(pow_error) < 3e-16);
}

TEST_CASE("Exp, Log and Pow at the borders") {
  CHECK(Exp(0.0) == 1.0);
  CHECK(Exp(-1000.0) == 0.0);
  CHECK(Exp(-kInf) == 0.0);
  CHECK(Exp(1000.0) == kInf);
  CHECK(Exp(709.78) < kInf);
  CHECK(std::isnan(Exp(std::nan(""))));
  CHECK(Log(1.0) == 0.0);
  CHECK(Log(0.0) == -kInf);
  CHECK(Log(kInf) == kInf);
  CHECK(std::isnan(Log(-1.0)));
  CHECK(std::isnan(Log(std::nan(""))));
  CHECK(std::fabs(Log(5e-324) + 744.4400719213812) < 1e-12);
  CHECK(Pow(2.0, 10.0) == doctest::Approx(1024.0).epsilon(1e-14));
  CHECK(Pow(0.0, 2.0) == 0.0);
  CHECK(Pow(0.0, 0.0) == 1.0);
  CHECK(Pow(7.0, 0.0) == 1.0);
}

TEST_CASE("ExpDifferences is within 0.504 ulp of float and 0 below FLT_MIN") {
  std::mt19937 random(2);
  long double worst = 0;
  std::vector<float> x(1001);
  for (int round = 0; round < 300; ++round) {
    const float range = round % 2 == 0 ? 87.0f : 3.0f;
    for (float& v : x) v = -range * static_cast<float>(random() >> 8) * 0x1p-24f;
    std::vector<float> e = x;
    ExpDifferences(0.0f, e.data(), e.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const long double want = std::exp(static_cast<long double>(x[i]));
      const long double ulp =
          std::nextafter(static_cast<float>(want), 2.0f) - static_cast<float>(want);
      worst = std::max(worst, std::fabs(static_cast<long double>(e[i]) - want) / ulp);
    }
  }
  CHECK(static_cast<double>(worst) < 0.504);
  float edge[] = {5.0f, 4.0f, -82.0f, -82.4f, -1000.0f, -3e38f};
  ExpDifferences(5.0f, edge, 6);
  CHECK(edge[0] == 1.0f);
  CHECK(edge[1] == static_cast<float>(std::exp(-1.0L)));
  CHECK(edge[2] > std::numeric_limits<float>::min());
  CHECK(edge[3] == 0.0f);
  CHECK(edge[4] == 0.0f);
  CHECK(edge[5] == 0.0f);
}

// Bits computed once; they must not depend on compiler, optimization or machine.
TEST_CASE("Exp and Log have fixed bits") {
  uint64_t hash = 0;
  for (int i = 1; i < 20000; ++i) {
    const double x = static_cast<double>(i) * 0x1.3p-6;
    for (const double y : {Exp(x - 200.0), Log(x), Pow(x, 0.37)}) {
      hash = (hash ^ std::bit_cast<uint64_t>(y)) * 0x100000001B3u;
      hash ^= hash >> 29;
    }
    float f = static_cast<float>(-x);
    ExpDifferences(0.0f, &f, 1);
    hash = (hash ^ std::bit_cast<uint32_t>(f)) * 0x100000001B3u;
  }
  CHECK(hash == 4619958142137306506u);
}

}  // namespace lutra
