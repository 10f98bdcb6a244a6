// What products on tiles of bf16 are, said again in plain code: kernels/amx_bf16.h and TDPBF16PS of the ISA.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lutra::testing {

inline float FromBf16(uint16_t v) { return std::bit_cast<float>(uint32_t{v} << 16); }

// Nearest, ties to even; by distances, not by bits.
inline float RoundToBf16(float v) {
  if (!std::isfinite(v)) return v;
  const uint32_t bits = std::bit_cast<uint32_t>(v) & 0xFFFF0000u;
  const double low = std::bit_cast<float>(bits);
  float up = std::bit_cast<float>(bits + 0x10000u);  // away from zero
  const double next = std::isinf(up) ? std::copysign(0x1p128, v) : double{up};
  const double below = std::fabs(v - low), above = std::fabs(next - v);
  const bool odd = (bits >> 16 & 1) != 0;
  return above < below || (above == below && odd) ? up : static_cast<float>(low);
}

inline float FlushDenormal(float v) {
  return std::fabs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v;
}

// a * b + c with one rounding, to 24 bits and any exponent, then zero where that is denormal. a and b have 8 bits.
inline float FlushedFma(float a, float b, float c) {
  const double p = double{FlushDenormal(a)} * double{FlushDenormal(b)}, w = FlushDenormal(c);
  const double s = p + w;
  if (!std::isfinite(s)) return static_cast<float>(s);
  // s + e is the sum; rounded to odd it keeps what the rounding to 24 bits wants to know.
  const double bb = s - p, e = (p - (s - bb)) + (w - bb);
  double odd = s;
  if (e != 0 && (std::bit_cast<uint64_t>(s) & 1) == 0)
    odd = std::nextafter(s, e > 0 ? HUGE_VAL : -HUGE_VAL);
  if (std::fabs(s) > 0x1p-100) return static_cast<float>(odd);
  const float scaled = static_cast<float>(odd * 0x1p100);  // exact, and above the denormal numbers
  return std::fabs(scaled) < 0x1p-26f ? std::copysign(0.0f, scaled)
                                      : static_cast<float>(double{scaled} * 0x1p-100);
}

// c plus n (at most 32) products: one operation of the tiles.
inline float Bf16Dot(const float* x, const float* w, size_t n, float c) {
  float sums[2] = {};
  for (size_t k = 0; k < n; ++k) sums[k % 2] = FlushedFma(x[k], w[k], sums[k % 2]);
  const float pair = FlushDenormal(sums[0] + sums[1]);
  return FlushDenormal(FlushDenormal(c) + pair);
}

// A row times a token, both rounded already.
inline float Bf16Product(const float* w, const float* x, size_t n_cols) {
  float sum = 0;
  for (size_t k = 0; k < n_cols; k += 32)
    sum = Bf16Dot(x + k, w + k, std::min<size_t>(32, n_cols - k), sum);
  return sum;
}

}  // namespace lutra::testing
