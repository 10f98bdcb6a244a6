// Shared by the kernel and model tests: every SIMD choice, comparison of bits, random numbers.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "tests/test_util.h"

namespace lutra::testing {

// Runs body once for each of these SIMD choices, then restores the best.
template <class Body>
void ForSimd(const std::vector<std::string>& names, Body body) {
  struct Restore {
    ~Restore() { SetSimd("auto"); }
  } restore;
  for (const std::string& name : names) {
    SetSimd(name);
    INFO("simd ", name);
    body();
  }
}

// Every choice of this CPU.
template <class Body>
void ForEachSimd(Body body) {
  ForSimd(AvailableSimd(), body);
}
// And emulated tiles, which only products of many tokens use.
template <class Body>
void ForEachSimdAndTiles(Body body) {
  ForSimd(SimdToTest(), body);
}

inline bool SameBits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}
// As SameBits, but any NaN equals any other: their payloads mean nothing.
inline bool SameBitsOrNan(float a, float b) {
  return SameBits(a, b) || (std::isnan(a) && std::isnan(b));
}

inline std::vector<float> RandomFloats(size_t n, std::mt19937& rng, float scale = 1.0f) {
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng) * scale;
  return x;
}

// Computes a vector of floats on every SIMD choice; all must be the same bits. Returns it.
template <class Compute>
std::vector<float> SameOnEverySimd(Compute compute) {
  std::vector<float> first;
  bool is_first = true;
  ForEachSimd([&] {
    const std::vector<float> now = compute();
    if (is_first) first = now;
    is_first = false;
    REQUIRE(now.size() == first.size());
    size_t wrong = 0;
    for (size_t i = 0; i < now.size(); ++i) {
      if (SameBitsOrNan(now[i], first[i])) continue;
      if (wrong++ == 0) FAIL_CHECK("at ", i, ": ", now[i], ", but ", first[i], " on the baseline");
    }
    CHECK(wrong == 0);
  });
  return first;
}

}  // namespace lutra::testing
