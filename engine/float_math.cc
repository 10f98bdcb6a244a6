#include "engine/float_math.h"

#include <bit>
#include <cfloat>
#include <cstdint>
#include <limits>

namespace lutra {
namespace {

static_assert(FLT_EVAL_METHOD == 0, "excess precision would change the bits");

constexpr double kLog2E = 0x1.71547652b82fep+0;
// ln 2 in two parts: the high one has 20 zero bits at its end, so that n * kLn2Hi is exact for |n|
// < 2^11.
constexpr double kLn2Hi = 0x1.62e42fee00000p-1;
constexpr double kLn2Lo = 0x1.a39ef35793c76p-33;
constexpr double kRound = 0x1.8p52;  // adding and subtracting it rounds to an integer

double PowerOfTwo(int64_t n) { return std::bit_cast<double>((n + 1023) << 52); }

}  // namespace

double Exp(double x) {
  if (x != x) return x;
  if (x > 709.782712893384) return std::numeric_limits<double>::infinity();
  if (x < -708.396) return 0.0;
  const double n = (x * kLog2E + kRound) - kRound;
  const double r =
      (x - n * kLn2Hi) - n * kLn2Lo;  // |r| <= 0.3466: the next term, r^14/14!, is 4e-18
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r * r + r + 1.0;
  const int64_t i = static_cast<int64_t>(n);
  const int64_t half = i / 2;  // 2^1024 is no double, and n may be 1024
  return p * PowerOfTwo(half) * PowerOfTwo(i - half);
}

double Log(double x) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  if (x == 0.0) return -kInf;
  if (!(x > 0.0)) return std::numeric_limits<double>::quiet_NaN();
  if (x == kInf) return x;
  int64_t exponent = 0;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    exponent = -54;
  }
  uint64_t bits = std::bit_cast<uint64_t>(x);
  exponent += static_cast<int64_t>(bits >> 52) - 1023;
  bits = (bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u;
  double m = std::bit_cast<double>(bits);
  if (m > 0x1.6a09e667f3bcdp+0) {  // sqrt(2): m in (0.707, 1.414]
    m *= 0.5;
    ++exponent;
  }
  const double f = m - 1.0;
  const double s = f / (2.0 + f);  // |s| <= 0.1716: the next term, s^22/23, is 1e-18
  const double z = s * s;
  double p = 1.0 / 21.0;
  p = p * z + 1.0 / 19.0;
  p = p * z + 1.0 / 17.0;
  p = p * z + 1.0 / 15.0;
  p = p * z + 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  // 2s = f - s*f exactly, which keeps the leading term f free of the division's rounding.
  const double n = static_cast<double>(exponent);
  const double tail = s * (2.0 * z * p - f);
  return n * kLn2Hi + (f + (tail + n * kLn2Lo));
}

double Pow(double x, double y) {
  if (y == 0.0) return 1.0;
  if (x == 0.0) return y > 0.0 ? 0.0 : std::numeric_limits<double>::infinity();
  return Exp(y * Log(x));
}

namespace {

// Two lanes, as every x86-64 and AArch64 has; compilers do not vectorise such a loop by themselves.
// Each lane does what a scalar program would.
using Doubles = double __attribute__((vector_size(16)));
using Ints = uint64_t __attribute__((vector_size(16)));

// e^x for x <= 0; 0 for x below ln FLT_MIN. In double to float precision: one product by ln 2 is
// enough (error 1e-14), and so are the terms to r^8/8! (the next one is 2e-10). They are summed in
// pairs: the chain of one after the other would take twice as long as the additions themselves.
inline Doubles ExpNonPositive(Doubles x) {
  const Ints keep = reinterpret_cast<Ints>(x >= -87.33654);
  x = reinterpret_cast<Doubles>(reinterpret_cast<Ints>(x) & keep);
  const Doubles shifted = x * kLog2E + kRound;
  const Doubles r = x - (shifted - kRound) * (kLn2Hi + kLn2Lo);
  const Doubles r2 = r * r;
  const Doubles r4 = r2 * r2;
  const Doubles p01 = r + 1.0;
  const Doubles p23 = r * (1.0 / 6.0) + 0.5;
  const Doubles p45 = r * (1.0 / 120.0) + 1.0 / 24.0;
  const Doubles p67 = r * (1.0 / 5040.0) + 1.0 / 720.0;
  const Doubles p48 = p45 + r2 * p67 + r4 * (1.0 / 40320.0);
  const Doubles p = p01 + r2 * p23 + r4 * p48;
  // The integer k sits in the low bits of `shifted`; moved into the exponent it multiplies by 2^k
  // (-126 <= k <= 0).
  const Ints scaled = reinterpret_cast<Ints>(p) + (reinterpret_cast<Ints>(shifted) << 52);
  return reinterpret_cast<Doubles>(scaled & keep);
}

}  // namespace

void ExpDifferences(float max, float* x, size_t n) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const Doubles a = {static_cast<double>(x[i] - max), static_cast<double>(x[i + 1] - max)};
    const Doubles b = {static_cast<double>(x[i + 2] - max), static_cast<double>(x[i + 3] - max)};
    const Doubles ea = ExpNonPositive(a), eb = ExpNonPositive(b);
    x[i] = static_cast<float>(ea[0]);
    x[i + 1] = static_cast<float>(ea[1]);
    x[i + 2] = static_cast<float>(eb[0]);
    x[i + 3] = static_cast<float>(eb[1]);
  }
  for (; i < n; ++i) {
    const Doubles d = {static_cast<double>(x[i] - max), 0.0};
    x[i] = static_cast<float>(ExpNonPositive(d)[0]);
  }
}

double SumFloats(const float* x, size_t n) {
  // Four sums side by side: one alone would wait for each addition.
  double sum[4] = {};
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t j = 0; j < 4; ++j) sum[j] += static_cast<double>(x[i + j]);
  }
  for (; i < n; ++i) sum[i % 4] += static_cast<double>(x[i]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

double SumExpDifferences(float max, const float* x, size_t n) {
  constexpr size_t kChunk = 256;
  float e[kChunk];
  double sum = 0.0;
  for (size_t begin = 0; begin < n; begin += kChunk) {
    const size_t count = n - begin < kChunk ? n - begin : kChunk;
    for (size_t i = 0; i < count; ++i) e[i] = x[begin + i] > FLT_MAX ? FLT_MAX : x[begin + i];
    ExpDifferences(max, e, count);
    sum += SumFloats(e, count);
  }
  return sum;
}

}  // namespace lutra
