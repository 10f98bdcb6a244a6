// Rotary embedding against the formulas in double, and sin and cos against long double.
#include "kernels/rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/kernels/simd_util.h"

namespace lutra {
namespace {

using testing::RandomFloats;
using testing::SameBits;
using testing::SameOnEverySimd;

constexpr double kPi = 3.14159265358979323846;
constexpr double kU = 0x1p-24;

// The angle of a pair by the formulas (Peng et al. 2023 for YaRN), without any rounding to float.
double ExactAngle(const RopeParams& p, int32_t pos, size_t i) {
  const double n_rot = static_cast<double>(p.n_rot), base = static_cast<double>(p.freq_base);
  double theta = pos * std::pow(base, -2.0 * static_cast<double>(i) / n_rot);
  if (!p.freq_factors.empty()) theta /= static_cast<double>(p.freq_factors[i]);
  const double scaled = theta * static_cast<double>(p.freq_scale);
  if (!p.yarn) return scaled;
  const auto dim = [&](double turns) {
    return n_rot * std::log(p.n_ctx_orig / (turns * 2 * kPi)) / (2 * std::log(base));
  };
  const double low = std::max(0.0, std::floor(dim(32)));
  const double high = std::min(n_rot - 1, std::ceil(dim(1)));
  const double keep =
      1 - std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
  return scaled * (1 - keep) + theta * keep;
}

std::vector<RopeParams> Variants() {
  std::vector<RopeParams> all;
  std::mt19937 rng(21);
  for (const RopeKind kind : {RopeKind::kAdjacent, RopeKind::kHalves}) {
    for (const size_t n_rot : {2, 6, 16, 20, 64, 80, 128, 192}) {
      RopeParams p;
      p.kind = kind;
      p.n_rot = n_rot;
      all.push_back(p);
      p.freq_base = 500000.0f;
      p.freq_factors.resize(n_rot / 2);
      for (float& f : p.freq_factors) f = 1.0f + static_cast<float>(rng() % 700) / 100.0f;
      all.push_back(p);
      p.freq_factors.clear();
      p.freq_scale = 0.25f;
      all.push_back(p);
      p.yarn = true;
      p.n_ctx_orig = 4096;
      p.magnitude = 0.1f * std::log(4.0f) + 1.0f;
      all.push_back(p);
    }
  }
  return all;
}

}  // namespace

TEST_CASE("Rope angles: near the formulas, within the recurrence's rounding") {
  for (const RopeParams& p : Variants()) {
    INFO("n_rot ", p.n_rot, " yarn ", p.yarn, " scale ", p.freq_scale, " factors ",
         p.freq_factors.size());
    const Rope rope(p);
    REQUIRE(rope.n_pairs() == p.n_rot / 2);
    std::vector<float> c(p.n_rot / 2), s(p.n_rot / 2);
    size_t wrong = 0;
    for (const int32_t pos : {0, 1, 2, 17, 300, 4095, 4096, 30000, 131071}) {
      rope.Angles(pos, c.data(), s.data());
      for (size_t i = 0; i < c.size(); ++i) {
        const double angle = ExactAngle(p, pos, i);
        const double m = static_cast<double>(p.magnitude);
        // Two roundings a step of the recurrence (its factor is rounded too), six after it; the
        // ramp weighs both angles.
        const double theta =
            pos * std::pow(static_cast<double>(p.freq_base),
                           -2.0 * static_cast<double>(i) / static_cast<double>(p.n_rot));
        const double bound = m * (theta * (2.0 * static_cast<double>(i) + 6) * kU + 2 * kU);
        wrong += !(std::fabs(c[i] - m * std::cos(angle)) <= bound);
        wrong += !(std::fabs(s[i] - m * std::sin(angle)) <= bound);
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE(
    "Rope angles follow the float recurrence that models were measured with, at long positions "
    "too") {
  RopeParams p;
  p.n_rot = 128;
  const Rope rope(p);
  std::vector<float> c(64), s(64);
  const float step = static_cast<float>(std::pow(10000.0, -2.0 / 128));
  for (const int32_t pos : {1000, 30000, 131071, (1 << 24) - 1}) {
    rope.Angles(pos, c.data(), s.data());
    float theta = static_cast<float>(pos);
    for (size_t i = 0; i < 64; ++i, theta *= step) {
      CHECK(std::fabs(static_cast<double>(c[i]) - std::cos(static_cast<double>(theta))) <= kU);
      CHECK(std::fabs(static_cast<double>(s[i]) - std::sin(static_cast<double>(theta))) <= kU);
    }
  }
}

TEST_CASE("Rope turns its pairs and nothing else, with the same bits everywhere") {
  std::mt19937 rng(22);
  for (const RopeParams& p : Variants()) {
    for (const size_t extra :
         {size_t{0}, size_t{13}}) {  // partial rotation: the rest of the head stays
      INFO("n_rot ", p.n_rot, " kind ", static_cast<int>(p.kind), " extra ", extra);
      const Rope rope(p);
      const size_t n = p.n_rot / 2;
      const auto head = RandomFloats(p.n_rot + extra, rng);
      std::vector<float> c(n), s(n);
      const auto y = SameOnEverySimd([&] {
        rope.Angles(1234, c.data(), s.data());
        std::vector<float> out = head;
        rope.Rotate(c.data(), s.data(), out.data());
        out.insert(out.end(), c.begin(), c.end());
        out.insert(out.end(), s.begin(), s.end());
        return out;
      });
      size_t wrong = 0;
      for (size_t i = 0; i < n; ++i) {
        const bool adjacent = p.kind == RopeKind::kAdjacent;
        const size_t at_a = adjacent ? 2 * i : i, at_b = adjacent ? 2 * i + 1 : i + n;
        const double a = head[at_a], b = head[at_b], ci = c[i], si = s[i];
        const double bound =
            2 * kU * (std::fabs(a) + std::fabs(b)) * static_cast<double>(p.magnitude);
        wrong += !(std::fabs(y[at_a] - (a * ci - b * si)) <= bound);
        wrong += !(std::fabs(y[at_b] - (a * si + b * ci)) <= bound);
      }
      CHECK(wrong == 0);
      for (size_t i = p.n_rot; i < head.size(); ++i) CHECK(SameBits(y[i], head[i]));
    }
  }
}

TEST_CASE("Rope without rotating elements leaves heads alone") {
  const Rope rope(RopeParams{});
  CHECK(rope.n_pairs() == 0);
  float head[2] = {1.0f, 2.0f};
  rope.Angles(5, nullptr, nullptr);
  rope.Rotate(nullptr, nullptr, head);
  CHECK(head[0] == 1.0f);
  CHECK(head[1] == 2.0f);
}

TEST_CASE("SinCos: within 1e-15 of long double for |x| < 2^27") {
  std::mt19937_64 rng(23);
  std::vector<double> xs = {0.0,    -0.0, kPi / 4, kPi / 2, kPi,        3 * kPi / 2,
                            1e-300, 1e-8, 0x1p20,  0x1p24,  0x1p27 - 1, -0x1p26};
  for (int exponent = -30; exponent < 27; ++exponent) {
    for (int i = 0; i < 2000; ++i) {
      const double mantissa = 1 + static_cast<double>(rng() >> 12) * 0x1p-52;
      const double x = std::ldexp(mantissa, exponent);
      xs.insert(xs.end(), {x, -x, static_cast<double>(static_cast<float>(x))});
    }
  }
  for (int k = 1; k < 100000; k += 7) xs.push_back(k * (kPi / 2));  // where the reduction cancels
  double worst = 0, worst_x = 0;
  for (const double x : xs) {
    double s, c;
    SinCos(x, &s, &c);
    const long double lx = x;
    const double error =
        static_cast<double>(std::max(std::fabs(s - std::sin(lx)), std::fabs(c - std::cos(lx))));
    if (!(error <= worst)) worst = error, worst_x = x;
  }
  INFO("worst at ", worst_x);
  CHECK(worst <= 1e-15);
  for (const double x : {0x1p27, -0x1p27, 1e300, HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    double s, c;
    SinCos(x, &s, &c);
    CHECK(std::isnan(s));
    CHECK(std::isnan(c));
  }
}

}  // namespace lutra
