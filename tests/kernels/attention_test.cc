// Attention over pages against double, within a bound computed from the norms; the same bits on
// every SIMD choice.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "kernels/ops.h"
#include "tests/kernels/simd_util.h"

namespace lutra {
namespace {

using testing::RandomFloats;
using testing::SameBits;
using testing::SameOnEverySimd;

constexpr double kU = 0x1p-24;

// One KV head's keys and values in pages of their own, each allocated alone so that a read past one
// is seen.
struct Cache {
  Cache(KvType type, size_t dk, size_t dv, size_t n_positions, std::mt19937& rng, float k_scale)
      : k(RandomFloats(n_positions * dk, rng, k_scale)), v(RandomFloats(n_positions * dv, rng)) {
    const size_t bytes = KvTypeBytes(type);
    v_offset = k_offset + kKvPage * dk * bytes;
    for (size_t begin = 0; begin < n_positions; begin += kKvPage) {
      pages.emplace_back(v_offset + kKvPage * dv * bytes,
                         uint8_t{0xFF});  // NaN where nothing was stored
      pointers.push_back(pages.back().data());
      for (size_t at = begin; at < std::min(n_positions, begin + kKvPage); ++at) {
        Store(type, &k[at * dk], dk, pointers.back() + k_offset + (at - begin) * dk * bytes);
        Store(type, &v[at * dv], dv, pointers.back() + v_offset + (at - begin) * dv * bytes);
      }
    }
  }
  // Stores and reads back, so that k and v hold what attention sees.
  static void Store(KvType type, float* values, size_t n, uint8_t* to) {
    if (type == KvType::kF32) {
      std::memcpy(to, values, n * sizeof(float));
      return;
    }
    std::vector<uint16_t> halves(n);
    F32ToF16(values, n, halves.data());
    F16ToF32(halves.data(), n, values);
    std::memcpy(to, halves.data(), n * 2);
  }

  std::vector<float> k, v;
  size_t k_offset = 64, v_offset;
  std::vector<std::vector<uint8_t>> pages;
  std::vector<uint8_t*> pointers;
};

void CheckAttention(KvType type, size_t dk, size_t dv, size_t n_heads, size_t n_positions,
                    float k_scale, std::mt19937& rng) {
  INFO("f16 ", type == KvType::kF16, " dk ", dk, " dv ", dv, " heads ", n_heads, " positions ",
       n_positions);
  Cache cache(type, dk, dv, n_positions, rng, k_scale);
  const auto q = RandomFloats(n_heads * dk, rng);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dk));
  AttentionArgs args{cache.pointers.data(), cache.k_offset, cache.v_offset, type,    dk,     dv,
                     n_positions,           scale,          q.data(),       n_heads, nullptr};
  const auto y = SameOnEverySimd([&] {
    std::vector<float> out(n_heads * dv, -1.0f), alone(dv);
    args.q = q.data();
    args.n_heads = n_heads;
    args.out = out.data();
    Attend(args);
    // A head's result does not depend on the heads computed with it.
    for (size_t h = 0; h < n_heads; ++h) {
      args.q = q.data() + h * dk;
      args.n_heads = 1;
      args.out = alone.data();
      Attend(args);
      CHECK(std::memcmp(alone.data(), &out[h * dv], dv * sizeof(float)) == 0);
    }
    return out;
  });

  double v_max = 0;
  for (const float v : cache.v) v_max = std::max(v_max, std::fabs(static_cast<double>(v)));
  size_t wrong = 0;
  for (size_t h = 0; h < n_heads; ++h) {
    std::vector<double> s(n_positions), exact(dv);
    double q_norm = 0, k_norm = 0, max = -HUGE_VAL, total = 0;
    for (size_t i = 0; i < dk; ++i) q_norm += static_cast<double>(q[h * dk + i]) * q[h * dk + i];
    for (size_t j = 0; j < n_positions; ++j) {
      double dot = 0, norm = 0;
      for (size_t i = 0; i < dk; ++i) {
        const double k = cache.k[j * dk + i];
        dot += q[h * dk + i] * k;
        norm += k * k;
      }
      s[j] = dot * static_cast<double>(scale);
      k_norm = std::max(k_norm, norm);
      max = std::max(max, s[j]);
    }
    double spread = 0;
    for (const double x : s) spread = std::max(spread, max - x);
    for (size_t j = 0; j < n_positions; ++j) {
      s[j] = std::exp(s[j] - max);
      total += s[j];
      for (size_t i = 0; i < dv; ++i) exact[i] += s[j] * cache.v[j * dv + i];
    }
    // A score is off by its dot product's roundings (Cauchy and Schwarz), two more and those of
    // score - max; a weight by twice that and e^x; the sums of weights and values by one rounding a
    // position or page.
    const double score_error = static_cast<double>(scale) * std::sqrt(q_norm * k_norm) *
                               (static_cast<double>(dk) / 16 + 8) * kU;
    const double weight_error = 2 * score_error + (std::min(spread, 90.0) + 8) * kU;
    const double bound = v_max * (2 * weight_error + (static_cast<double>(n_positions) + 16) * kU);
    for (size_t i = 0; i < dv; ++i)
      wrong += !(std::fabs(y[h * dv + i] - exact[i] / total) <= bound);
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("Attention is near double for any head size, head count and number of pages") {
  std::mt19937 rng(31);
  for (const KvType type : {KvType::kF32, KvType::kF16}) {
    for (const size_t dim : {1, 20, 64, 80, 128, 192}) {
      for (const size_t n_positions : {1, 2, 127, 128, 129, 300})
        CheckAttention(type, dim, dim, 3, n_positions, 1.0f, rng);
    }
    for (size_t n_heads = 1; n_heads <= 9; ++n_heads) {
      CheckAttention(type, 64, 64, n_heads, 200, 1.0f, rng);
      CheckAttention(type, 20, 20, n_heads, 17, 1.0f, rng);
    }
    CheckAttention(type, 192, 128, 2, 150, 1.0f, rng);  // keys and values of different size
    CheckAttention(type, 20, 33, 5, 150, 1.0f, rng);
    CheckAttention(type, 8, 8, kMaxHeadsPerKv, 140, 1.0f, rng);
    CheckAttention(type, 64, 64, 4, 600, 40.0f, rng);  // scores of +-100: most weights vanish
  }
}

TEST_CASE("Attention to one position is its value") {
  std::mt19937 rng(32);
  Cache cache(KvType::kF32, 16, 16, 1, rng, 1.0f);
  const auto q = RandomFloats(16, rng);
  std::vector<float> out(16);
  Attend({cache.pointers.data(), cache.k_offset, cache.v_offset, KvType::kF32, 16, 16, 1, 0.25f,
          q.data(), 1, out.data()});
  for (size_t i = 0; i < 16; ++i) CHECK(SameBits(out[i], cache.v[i]));
}

}  // namespace lutra
