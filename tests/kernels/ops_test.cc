// Norms, activation functions and half floats: near double arithmetic within bounds computed from
// the operation counts, exact where they must be, and the same bits on every SIMD choice.
#include "kernels/ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/kernels/simd_util.h"

namespace lutra {
namespace {

using testing::ForEachSimd;
using testing::RandomFloats;
using testing::SameBits;
using testing::SameBitsOrNan;
using testing::SameOnEverySimd;

constexpr double kU = 0x1p-24;  // largest relative error of one float operation
constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();
// Around every vector width, and model widths.
constexpr size_t kSizes[] = {1,  2,  3,  4,  5,  7,  8,   9,   15,   16,  17,
                             20, 31, 33, 63, 64, 80, 100, 255, 2048, 4099};

// Roundings on the way of one term of a sum of n over 16 lanes.
double SumRoundings(size_t n) { return static_cast<double>((n + 15) / 16 + 4); }

float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }

// |x| of the 31744 finite halves of one sign, ascending, by the definition of binary16.
const std::vector<double>& HalfValues() {
  static const std::vector<double> values = [] {
    std::vector<double> v;
    for (int h = 0; h < 0x7C00; ++h) {
      const int exponent = h >> 10, mantissa = h & 1023;
      v.push_back(exponent == 0 ? std::ldexp(mantissa, -24)
                                : std::ldexp(1024 + mantissa, exponent - 25));
    }
    return v;
  }();
  return values;
}

// Round to nearest, ties to the even mantissa, by searching the table.
uint16_t NearestHalf(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double a = std::fabs(static_cast<double>(x));
  const std::vector<double>& values = HalfValues();
  if (a >= 65520.0) return static_cast<uint16_t>(sign | 0x7C00);  // half way from 65504 to 65536
  const auto above = std::upper_bound(values.begin(), values.end(), a);
  size_t h = static_cast<size_t>(above - values.begin()) - 1;
  if (above != values.end()) {
    const double down = a - values[h], up = *above - a;
    if (up < down || (up == down && h % 2 == 1)) ++h;
  }
  return static_cast<uint16_t>(sign | h);
}

void CheckToHalf(const std::vector<float>& x) {
  std::vector<uint16_t> expected(x.size()), out(x.size());
  for (size_t i = 0; i < x.size(); ++i) expected[i] = NearestHalf(x[i]);
  ForEachSimd([&] {
    F32ToF16(x.data(), x.size(), out.data());
    size_t wrong = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      if (out[i] != expected[i] && wrong++ == 0) {
        FAIL_CHECK(x[i], " became ", out[i], ", nearest is ", expected[i]);
      }
    }
    CHECK(wrong == 0);
  });
}

}  // namespace

TEST_CASE("RmsNorm: near double, the same bits everywhere, in place or not") {
  std::mt19937 rng(11);
  for (const size_t n : kSizes) {
    for (const float scale : {1.0f, 1e-12f, 1e12f}) {
      INFO("n ", n, " scale ", scale);
      const auto x = RandomFloats(n, rng, scale), w = RandomFloats(n, rng);
      const float eps = 1e-5f;
      const auto y = SameOnEverySimd([&] {
        std::vector<float> out(n), in_place = x;
        RmsNorm(x.data(), w.data(), n, eps, out.data());
        RmsNorm(in_place.data(), w.data(), n, eps, in_place.data());
        CHECK(std::memcmp(out.data(), in_place.data(), n * sizeof(float)) == 0);
        return out;
      });
      double sum = 0;
      for (const float v : x) sum += static_cast<double>(v) * v;
      const double factor = 1 / std::sqrt(sum / static_cast<double>(n) + static_cast<double>(eps));
      // The root halves the sum's relative error; four more roundings follow the sum.
      const double bound = (SumRoundings(n) / 2 + 5) * kU;
      size_t wrong = 0;
      for (size_t i = 0; i < n; ++i) {
        const double exact = x[i] * factor * w[i];
        wrong += !(std::fabs(y[i] - exact) <= bound * std::fabs(exact) + 1e-44);
      }
      CHECK(wrong == 0);
    }
  }
  std::vector<float> zero(40, 0.0f), one(40, 1.0f), out(40);
  RmsNorm(zero.data(), one.data(), 40, 1e-6f, out.data());
  for (const float v : out) CHECK(SameBits(v, 0.0f));
  zero[17] = kNan;
  RmsNorm(zero.data(), one.data(), 40, 1e-6f, out.data());
  for (const float v : out) CHECK(std::isnan(v));
}

TEST_CASE("Add rounds once") {
  std::mt19937 rng(12);
  for (const size_t n : kSizes) {
    const auto x = RandomFloats(n, rng), y = RandomFloats(n, rng, 3.0f);
    const auto sum = SameOnEverySimd([&] {
      std::vector<float> out = x;
      Add(y.data(), n, out.data());
      return out;
    });
    for (size_t i = 0; i < n; ++i) CHECK(SameBits(sum[i], x[i] + y[i]));
  }
}

TEST_CASE("AddScaled is the correctly rounded fused multiply-add, where the CPU has none too") {
  std::mt19937 rng(13);
  std::vector<float> scales, xs, ys;
  const auto random_float = [&] {
    for (;;) {
      const float f = FromBits(static_cast<uint32_t>(rng()));
      if (!std::isnan(f)) return f;
    }
  };
  // Ordinary numbers, any numbers and near-cancellation.
  for (int i = 0; i < 20000; ++i) {
    const float a = static_cast<float>(rng() >> 8) * 0x1p-23f,
                b = static_cast<float>(rng() >> 8) * 0x1p-23f;
    scales.insert(scales.end(), {a, random_float(), a});
    ys.insert(ys.end(), {b, random_float(), b});
    xs.insert(xs.end(), {a - b, random_float(), -(a * b)});
  }
  // Half a unit of x, less a bit so small that a double cannot hold it beside x: rounding first to
  // double makes it a tie, which then goes to the even neighbour, right or wrong.
  for (int i = 0; i < 20000; ++i) {
    const float e = std::ldexp(1.0f, -18 - static_cast<int>(rng() % 6));
    scales.push_back(1.0f + e);
    ys.push_back(rng() % 2 ? 0.5f - 0.5f * e : 0.5f * e - 0.5f);  // the product: (1 - e^2) / 2
    const float x = 0x1p23f + static_cast<float>(rng() >> 9);     // a unit is 1
    xs.push_back(rng() % 2 ? x : -x);
  }
  const float special[] = {0.0f,
                           -0.0f,
                           1.0f,
                           -1.0f,
                           kInf,
                           -kInf,
                           kNan,
                           FromBits(1),
                           FromBits(0x80000001),
                           FromBits(0x007FFFFF),
                           FromBits(0x00800000),
                           FromBits(0x7F7FFFFF),
                           FromBits(0xFF7FFFFF),
                           0x1p-75f,
                           -0x1p-75f,
                           0x1p-126f,
                           0x1p64f,
                           0x1.000002p63f,
                           0x1.fffffep-64f,
                           1.0f + 0x1p-23f,
                           1.0f - 0x1p-24f,
                           0x1p24f,
                           0x1p25f,
                           3.0f};
  for (const float a : special) {
    for (const float b : special) {
      for (const float c : special) {
        scales.push_back(a);
        ys.push_back(b);
        xs.push_back(c);
      }
    }
  }
  size_t ties = 0;
  for (size_t i = 0; i < xs.size(); ++i) {  // what rounding twice would get wrong
    const float twice = static_cast<float>(static_cast<double>(scales[i]) * ys[i] + xs[i]);
    ties += !SameBitsOrNan(twice, std::fma(scales[i], ys[i], xs[i]));
  }
  CHECK(ties > 1000);
  ForEachSimd([&] {
    size_t wrong = 0;
    for (size_t i = 0; i < xs.size(); ++i) {
      const size_t n = 1 + i % 5;  // tails too
      float x[5], y[5];
      for (size_t j = 0; j < n; ++j) x[j] = xs[i], y[j] = ys[i];
      AddScaled(y, scales[i], n, x);
      const float expected = std::fma(scales[i], ys[i], xs[i]);
      for (size_t j = 0; j < n; ++j) {
        if (SameBitsOrNan(x[j], expected)) continue;
        if (wrong++ == 0)
          FAIL_CHECK("fma(", scales[i], ", ", ys[i], ", ", xs[i], ") is ", expected, ", not ",
                     x[j]);
      }
    }
    CHECK(wrong == 0);
    for (const size_t n : {size_t{16}, size_t{33}}) {
      std::vector<float> x(xs.begin(), xs.begin() + static_cast<ptrdiff_t>(n)),
          y(ys.begin(), ys.begin() + static_cast<ptrdiff_t>(n));
      AddScaled(y.data(), 0.7f, n, x.data());
      for (size_t j = 0; j < n; ++j) CHECK(SameBitsOrNan(x[j], std::fma(0.7f, ys[j], xs[j])));
    }
  });
}

TEST_CASE("SiluMul: near double over the whole range, the same bits everywhere") {
  std::mt19937 rng(14);
  std::vector<float> gate = RandomFloats(3000, rng, 4.0f);
  for (float g = -120.0f; g < 120.0f; g += 0.37f) gate.push_back(g);
  for (const float g :
       {0.0f, -0.0f, 86.9f, 87.1f, 88.1f, -86.9f, -87.1f, -88.1f, 1e30f, -1e30f, 1e-40f})
    gate.push_back(g);
  const auto up = RandomFloats(gate.size(), rng);
  const auto y = SameOnEverySimd([&] {
    std::vector<float> out(gate.size()), in_place = gate;
    SiluMul(gate.data(), up.data(), gate.size(), out.data());
    SiluMul(in_place.data(), up.data(), gate.size(), in_place.data());
    CHECK(std::memcmp(out.data(), in_place.data(), out.size() * sizeof(float)) == 0);
    return out;
  });
  size_t wrong = 0;
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i];
    const double exact = g / (1 + std::exp(-g)) * up[i];
    // e^-g about two roundings, then three; below -87 the function is less than 2e-36 and need only
    // be small.
    const double bound =
        8 * kU * std::fabs(exact) + (g < -86 ? std::fabs(g * up[i]) * 1e-37 : 0) + 1e-44;
    if (std::fabs(y[i] - exact) <= bound) continue;
    if (wrong++ == 0) FAIL_CHECK("SiLU(", gate[i], ") * ", up[i], " is ", exact, ", not ", y[i]);
  }
  CHECK(wrong == 0);
  for (const size_t n : kSizes) {  // what lies behind the end stays
    std::vector<float> out(n + 1, 7.0f), g = RandomFloats(n, rng), u = RandomFloats(n, rng);
    SiluMul(g.data(), u.data(), n, out.data());
    CHECK(out[n] == 7.0f);
  }
  float nan = kNan, one = 1.0f, result = 0;
  SiluMul(&nan, &one, 1, &result);
  CHECK(std::isnan(result));
}

TEST_CASE("Softmax: near double, sums to one, the same bits everywhere") {
  std::mt19937 rng(15);
  for (const size_t n : kSizes) {
    for (const float scale : {0.01f, 1.0f, 30.0f, 1e5f}) {
      INFO("n ", n, " scale ", scale);
      const auto x = RandomFloats(n, rng, scale);
      const auto y = SameOnEverySimd([&] {
        std::vector<float> out = x;
        Softmax(n, out.data());
        return out;
      });
      const double max = *std::max_element(x.begin(), x.end());
      double total = 0, sum = 0;
      for (const float v : x) total += std::exp(v - max);
      size_t wrong = 0;
      for (size_t i = 0; i < n; ++i) {
        const double exact = std::exp(x[i] - max) / total;
        // x - max is rounded, which e^x turns into a relative error of the size of the difference.
        const double relative = (std::min(max - x[i], 90.0) + SumRoundings(n) + 8) * kU;
        wrong += !(std::fabs(y[i] - exact) <= relative * exact + 2e-38);
        sum += y[i];
      }
      CHECK(wrong == 0);
      CHECK(std::fabs(sum - 1) <= (SumRoundings(n) + 4) * kU);
    }
  }
  std::vector<float> x = {1.0f, kNan, 2.0f};
  Softmax(3, x.data());
  for (const float v : x) CHECK(std::isnan(v));
  x = {kInf, 0.0f};
  Softmax(2, x.data());
  CHECK(std::isnan(x[0]));
  x = {-kInf, 0.0f, -kInf};
  Softmax(3, x.data());
  CHECK(x == std::vector<float>{0.0f, 1.0f, 0.0f});
  Softmax(0, nullptr);
}

TEST_CASE("Sigmoid: near double, the same bits everywhere") {
  std::vector<float> x = {0.0f, -0.0f, 1e30f, -1e30f, kInf, -kInf};
  for (float v = -100; v < 100; v += 0.013f) x.push_back(v);
  const auto y = SameOnEverySimd([&] {
    std::vector<float> out;
    for (const float v : x) out.push_back(Sigmoid(v));
    return out;
  });
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = 1 / (1 + std::exp(-static_cast<double>(x[i])));
    CHECK(std::fabs(y[i] - exact) <= 6 * kU * exact + 1e-38);
  }
  CHECK(std::isnan(Sigmoid(kNan)));
}

TEST_CASE("F16ToF32 is exact for all 65536 halves, at every place of a vector") {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  ForEachSimd([&] {
    std::vector<float> out(65536);
    for (const size_t first : {size_t{0}, size_t{1}, size_t{7}}) {
      F16ToF32(halves.data() + first, 65536 - first, out.data() + first);
      size_t wrong = 0;
      for (size_t h = first; h < 65536; ++h) {
        const size_t magnitude = h & 0x7FFF;
        if (magnitude > 0x7C00) {
          wrong += !std::isnan(out[h]);
        } else {
          const double value = magnitude == 0x7C00 ? HUGE_VAL : HalfValues()[magnitude];
          wrong += !SameBits(out[h], static_cast<float>(h < 0x8000 ? value : -value));
        }
      }
      CHECK(wrong == 0);
    }
  });
}

TEST_CASE(
    "F32ToF16 rounds to nearest even: every half, every tie, their neighbours, random numbers") {
  std::vector<float> x = {kInf,     -kInf,           65504.0f,       65519.996f, 65520.0f,
                          65536.0f, 1e38f,           FromBits(1),    0.0f,       -0.0f,
                          0x1p-25f, 0x1.000002p-25f, 0x1.fffffep-26f};
  const std::vector<double>& values = HalfValues();
  for (size_t h = 0; h + 1 < values.size(); ++h) {
    for (const double v : {values[h], (values[h] + values[h + 1]) / 2}) {  // both are floats
      const float f = static_cast<float>(v);
      for (const float g : {f, std::nextafterf(f, 1e9f), std::nextafterf(f, -1e9f)})
        x.insert(x.end(), {g, -g});
    }
  }
  std::mt19937 rng(16);
  for (int i = 0; i < 300000; ++i) {
    const float f = FromBits(static_cast<uint32_t>(rng()));
    if (!std::isnan(f)) x.push_back(f);
  }
  CheckToHalf(x);
  for (size_t n = 1; n < 40; ++n) CheckToHalf(RandomFloats(n, rng));
  ForEachSimd([&] {
    const std::vector<float> nans(19, kNan);
    std::vector<uint16_t> out(19);
    F32ToF16(nans.data(), nans.size(), out.data());
    for (const uint16_t h : out) CHECK((h & 0x7FFF) > 0x7C00);
  });
}

}  // namespace lutra
