// Attention over pages: equal to the scalar definition bit for bit on every SIMD choice, near double within a bound computed from
// the norms, and independent of how tokens and segments are cut.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "kernels/attention_exact.h"
#include "kernels/base/aligned.h"
#include "kernels/ops.h"
#include "tests/kernels/simd_util.h"

namespace lutra {
namespace {

using testing::ForEachSimd;
using testing::ForEachSimdAndTiles;
using testing::RandomFloats;
using testing::SameBitsOrNan;

constexpr double kU = 0x1p-24;
constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kQ8};
std::string Name(KvType type) {
  return type == KvType::kF32 ? "f32" : type == KvType::kF16 ? "f16" : "q8";
}

// One KV head's keys and values in pages of their own, each allocated alone so that a read past one is seen.
struct Cache {
  Cache(KvType type, size_t dk, size_t dv, size_t n_positions)
      : layout(type, dk, dv), n(n_positions) {
    for (size_t begin = 0; begin < n; begin += kKvPage) {
      pages.emplace_back(kOffset + layout.bytes);
      std::memset(pages.back().data(), 0xFF, pages.back().size());  // NaN where nothing was stored
      pointers.push_back(pages.back().data());
    }
  }
  void Store(size_t at, const float* k, const float* v) {
    StoreKv(layout, at % kKvPage, k, v, pointers[at / kKvPage] + kOffset);
  }
  void StoreAll(const std::vector<float>& k, const std::vector<float>& v) {
    for (size_t at = 0; at < n; ++at) Store(at, &k[at * layout.dk], &v[at * layout.dv]);
  }
  AttentionArgs Args(size_t first, size_t n_tokens, size_t n_heads, const float* q,
                     float* out) const {
    return {&layout,
            pointers.data(),
            kOffset,
            first,
            n_tokens,
            n_heads,
            1.0f / std::sqrt(static_cast<float>(layout.dk)),
            q,
            n_heads * layout.dk,
            out,
            n_heads * layout.dv};
  }

  static constexpr size_t kOffset = 64;
  KvHeadLayout layout;
  size_t n;
  std::vector<AlignedArray<uint8_t>> pages;
  std::vector<uint8_t*> pointers;
};

// Tokens [first, first + n_tokens) in blocks of at most `most` tokens that do not cross a page.
template <class Call>
void InBlocks(size_t first, size_t n_tokens, size_t most, Call call) {
  for (size_t at = first; at < first + n_tokens;) {
    const size_t n = std::min({most, first + n_tokens - at, kKvPage - at % kKvPage});
    call(at, n);
    at += n;
  }
}

// The last n_tokens of the cache's positions as queries, on every SIMD choice, against the definition.
void CheckExact(const Cache& cache, size_t n_heads, size_t n_tokens, const std::vector<float>& q) {
  const size_t dk = cache.layout.dk, dv = cache.layout.dv;
  INFO(Name(cache.layout.type), " dk ", dk, " dv ", dv, " heads ", n_heads, " tokens ", n_tokens,
       " positions ", cache.n);
  const size_t first = cache.n - n_tokens;
  std::vector<float> expected(n_tokens * n_heads * dv), got(expected.size());
  for (size_t i = 0; i < n_tokens * n_heads; ++i) {
    ExactAttention(cache.Args(first + i / n_heads, 1, 1, &q[i * dk], nullptr), &expected[i * dv]);
  }
  const auto check = [&] {
    size_t wrong = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      if (SameBitsOrNan(got[i], expected[i])) continue;
      if (wrong++ == 0)
        FAIL_CHECK("query ", i / dv, " column ", i % dv, ": ", got[i], ", not ", expected[i]);
    }
    CHECK(wrong == 0);
  };
  ForEachSimdAndTiles([&] {
    for (const size_t most : {size_t{1}, size_t{3}, AttentionTokens(n_heads), size_t{128}}) {
      INFO("blocks of ", most);
      std::fill(got.begin(), got.end(), -1.0f);
      InBlocks(first, n_tokens, most, [&](size_t at, size_t n) {
        Attend(cache.Args(at, n, n_heads, &q[(at - first) * n_heads * dk],
                          &got[(at - first) * n_heads * dv]));
      });
      check();
    }
    INFO("segment by segment");
    std::fill(got.begin(), got.end(), -1.0f);
    InBlocks(first, n_tokens, 5, [&](size_t at, size_t n) {
      const AttentionArgs args = cache.Args(at, n, n_heads, &q[(at - first) * n_heads * dk],
                                            &got[(at - first) * n_heads * dv]);
      const size_t n_segments = NumSegments(args.n_pages());
      AlignedArray<float> states(n_segments * n * n_heads * StateFloats(cache.layout));
      for (size_t s = n_segments; s-- > 0;) AttendSegment(args, s, states.data());
      MergeSegments(args, states.data());
    });
    check();
  });
}

void CheckRandom(KvType type, size_t dk, size_t dv, size_t n_heads, size_t n_positions,
                 size_t n_tokens, std::mt19937& rng, float k_scale = 1.0f) {
  Cache cache(type, dk, dv, n_positions);
  cache.StoreAll(RandomFloats(n_positions * dk, rng, k_scale), RandomFloats(n_positions * dv, rng));
  CheckExact(cache, n_heads, n_tokens, RandomFloats(n_tokens * n_heads * dk, rng));
}

// The definition against double, over what is stored.
void CheckNear(KvType type, size_t dk, size_t dv, size_t n_positions, float k_scale,
               std::mt19937& rng) {
  INFO(Name(type), " dk ", dk, " dv ", dv, " positions ", n_positions, " keys times ", k_scale);
  Cache cache(type, dk, dv, n_positions);
  const auto k = RandomFloats(n_positions * dk, rng, k_scale),
             v = RandomFloats(n_positions * dv, rng);
  cache.StoreAll(k, v);
  const auto q = RandomFloats(dk, rng);
  const AttentionArgs args = cache.Args(n_positions - 1, 1, 1, q.data(), nullptr);
  std::vector<float> y(dv);
  ExactAttention(args, y.data());

  const bool q8 = type == KvType::kQ8;
  const auto stored = [&](bool of_v, size_t j, size_t i) {
    return static_cast<double>(KvElement(cache.layout, cache.pointers[j / kKvPage] + Cache::kOffset,
                                         of_v, j % kKvPage, i));
  };
  // What the query is to the stored keys: itself, or transformed and quantized.
  std::vector<double> query(q.begin(), q.end());
  if (q8) {
    std::vector<float> row = q;
    std::vector<int8_t> ints(dk);
    HadamardRow(row.data(), dk);
    const double scale = static_cast<double>(QuantizeHeadRow(row.data(), dk, ints.data()));
    for (size_t i = 0; i < dk; ++i)
      query[i] = ints[i] * scale / static_cast<double>(HadamardBlock(dk));
  }
  std::vector<double> s(n_positions), exact(dv);
  double q_norm = 0, k_norm = 0, max = -HUGE_VAL, total = 0, v_max = 0;
  for (const double x : query) q_norm += x * x;
  for (size_t j = 0; j < n_positions; ++j) {
    double dot = 0, norm = 0;
    for (size_t i = 0; i < dk; ++i) {
      dot += query[i] * stored(false, j, i);
      norm += stored(false, j, i) * stored(false, j, i);
    }
    s[j] = dot * static_cast<double>(args.scale);
    k_norm = std::max(k_norm, norm);
    max = std::max(max, s[j]);
  }
  double spread = 0;
  for (const double x : s) spread = std::max(spread, max - x);
  for (size_t j = 0; j < n_positions; ++j) {
    s[j] = std::exp(s[j] - max);
    total += s[j];
    for (size_t i = 0; i < dv; ++i) {
      exact[i] += s[j] * stored(true, j, i);
      v_max = std::max(v_max, std::fabs(stored(true, j, i)));
    }
  }
  // A score is off by its dot product's roundings (Cauchy and Schwarz; at most dk of them, in order), four more and those of
  // score - max; a weight by twice that and 2^x; the sums of weights and values by one rounding a position or page.
  const double score_error = static_cast<double>(args.scale) * std::sqrt(q_norm * k_norm) *
                             (static_cast<double>(dk) + 8) * kU;
  const double weight_error = 2 * score_error + (std::min(spread, 50.0) * 4 + 12) * kU;
  double bound =
      v_max * (2 * weight_error + (static_cast<double>(n_positions) + 32) * kU) +
      v_max * static_cast<double>(n_positions) * 0x1p-63;  // weights below 2^-64 count as that
  // q8: a weight is rounded to 1/255 or 1/65535 of its page's greatest. Where that is a byte, at least 8 times the greatest weight
  // has been summed by the end of the segment.
  if (q8) bound += v_max * kKvPage * 0.5 * std::max(1.0 / 65535, total >= 8 ? 1.0 / 255 / 8 : 0.0);
  size_t wrong = 0;
  for (size_t i = 0; i < dv; ++i)
    wrong += !(std::fabs(static_cast<double>(y[i]) - exact[i] / total) <= bound);
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("Attention equals its definition for any head size, head count and number of pages") {
  std::mt19937 rng(31);
  for (const KvType type : kTypes) {
    for (const size_t dim : {1, 20, 32, 64, 80, 96, 128, 192, 256}) {
      for (const size_t n_positions : {1, 2, 3, 127, 128, 129, 300})
        CheckRandom(type, dim, dim, 3, n_positions, std::min<size_t>(n_positions, 5), rng);
    }
    for (size_t n_heads = 1; n_heads <= 9; ++n_heads) {
      CheckRandom(type, 64, 64, n_heads, 260, 17, rng);
      CheckRandom(type, 20, 20, n_heads, 17, 17, rng);
    }
    CheckRandom(type, 192, 128, 2, 150, 150, rng);  // keys and values of different size
    CheckRandom(type, 20, 33, 5, 150, 30, rng);
    CheckRandom(type, 8, 8, 70, 140, 2, rng);
    CheckRandom(type, 1024, 1024, 2, 140, 3, rng);
    CheckRandom(type, 64, 64, 4, 600, 20, rng, 40.0f);  // scores of +-100: most weights vanish
    CheckRandom(type, 64, 64, 4, 600, 20, rng, 0.01f);  // nearly equal weights
  }
}

TEST_CASE("Attention of many queries together, as tiles take them, equals its definition") {
  std::mt19937 rng(40);
  for (const size_t dim : {1, 4, 7, 48, 60, 64, 68, 80, 96, 112, 124, 128, 192, 256, 320, 512}) {
    CheckRandom(KvType::kQ8, dim, dim, 3, 200, 11, rng);  // 33 queries in two pages
    CheckRandom(KvType::kQ8, dim, dim, 16, 40, 2, rng);
  }
  for (const size_t dv : {16, 17, 33, 64, 65, 100, 128, 144})
    CheckRandom(KvType::kQ8, 64, dv, 4, 300, 16, rng);
  for (size_t n_queries = 16; n_queries <= 66; n_queries += n_queries % 16 < 2 ? 1 : 7)
    CheckRandom(KvType::kQ8, 32, 32, n_queries, 130, 2, rng);
  for (const size_t n_positions : {16, 63, 64, 65, 127, 128, 129, 191, 193, 256})
    CheckRandom(KvType::kQ8, 64, 64, 1, n_positions, 16, rng);
  CheckRandom(KvType::kQ8, 32, 48, 4, 8 * kKvPage + 20, 18, rng);  // two segments
  CheckRandom(KvType::kQ8, 32, 48, 4, 17 * kKvPage, 16, rng, 10.0f);
}

TEST_CASE("Attention equals its definition over several segments") {
  std::mt19937 rng(32);
  static_assert(NumSegments(1) == 1 && NumSegments(8) == 1 && NumSegments(9) == 2 &&
                NumSegments(128) == 16);
  static_assert(NumSegments(129) <= kMaxSegments && SegmentPages(129) == 9 &&
                NumSegments(100000) <= kMaxSegments);
  for (const KvType type : kTypes) {
    CheckRandom(type, 32, 32, 2, 8 * kKvPage, 3, rng);
    CheckRandom(type, 32, 32, 2, 8 * kKvPage + 1, 3, rng);
    CheckRandom(type, 32, 32, 2, 20 * kKvPage + 77, 6, rng);
    CheckRandom(type, 16, 16, 1, 140 * kKvPage + 5, 1, rng);
  }
}

TEST_CASE("Attention is near double over what the cache holds") {
  std::mt19937 rng(33);
  for (const KvType type : kTypes) {
    for (const size_t dim : {1, 20, 64, 80, 128, 192}) {
      for (const size_t n_positions : {1, 2, 127, 128, 129, 300})
        CheckNear(type, dim, dim, n_positions, 1.0f, rng);
    }
    CheckNear(type, 192, 128, 150, 1.0f, rng);
    CheckNear(type, 64, 64, 600, 40.0f, rng);
    CheckNear(type, 64, 64, 2500, 0.1f, rng);
  }
}

TEST_CASE("The q8 cache holds rows to half a step of their greatest element") {
  std::mt19937 rng(34);
  for (const size_t dim : {1, 20, 64, 80, 128, 256}) {
    const size_t block = HadamardBlock(dim);
    Cache cache(KvType::kQ8, dim, dim, 130);
    const auto k = RandomFloats(130 * dim, rng, 3.0f), v = RandomFloats(130 * dim, rng);
    cache.StoreAll(k, v);
    for (const size_t at : {0, 1, 63, 64, 127, 128, 129}) {
      // The transform, from its definition: element i of block b is the sum over j of (-1)^popcount(i & j) x_j.
      std::vector<double> rotated(dim);
      double k_max = 0, v_max = 0;
      for (size_t i = 0; i < dim; ++i) {
        for (size_t j = 0; j < block; ++j) {
          const double x = static_cast<double>(k[at * dim + i / block * block + j]);
          rotated[i] += std::popcount((i % block) & j) % 2 != 0 ? -x : x;
        }
        k_max = std::max(k_max, std::fabs(rotated[i]));
        v_max = std::max(v_max, std::fabs(static_cast<double>(v[at * dim + i])));
      }
      size_t wrong = 0;
      const uint8_t* head = cache.pointers[at / kKvPage] + Cache::kOffset;
      for (size_t i = 0; i < dim; ++i) {
        const double k_error =
            static_cast<double>(KvElement(cache.layout, head, false, at % kKvPage, i)) - rotated[i];
        const double v_error =
            static_cast<double>(KvElement(cache.layout, head, true, at % kKvPage, i)) -
            static_cast<double>(v[at * dim + i]);
        const double step = (1 + 0x1p-7) / 127 / 2 * (1 + 1e-4);  // the scale is rounded up to bf16
        wrong += !(std::fabs(k_error) <= k_max * step) + !(std::fabs(v_error) <= v_max * step);
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("Storing gives the same bytes on every SIMD choice and touches its position only") {
  std::mt19937 rng(35);
  for (const KvType type : kTypes) {
    for (const size_t dim : {1, 20, 64, 80, 96, 256}) {
      INFO(Name(type), " dim ", dim);
      const auto k = RandomFloats(dim, rng, 100.0f), v = RandomFloats(dim, rng, 1e-3f);
      std::vector<uint8_t> first;
      ForEachSimd([&] {
        Cache cache(type, dim, dim, 1);
        cache.Store(0, k.data(), v.data());
        cache.Store(77, v.data(), k.data());
        const uint8_t* head = cache.pointers[0] + Cache::kOffset;
        const std::vector<uint8_t> bytes(head, head + cache.layout.bytes);
        if (first.empty()) first = bytes;
        CHECK(bytes == first);
        cache.Store(78, k.data(), k.data());
        cache.Store(76, k.data(), k.data());
        std::vector<float> before, after;
        Cache again(type, dim, dim, 1);
        again.Store(0, k.data(), v.data());
        again.Store(77, v.data(), k.data());
        for (const size_t at : {0, 77}) {
          for (size_t i = 0; i < dim; ++i) {
            for (const bool of_v : {false, true}) {
              before.push_back(
                  KvElement(again.layout, again.pointers[0] + Cache::kOffset, of_v, at, i));
              after.push_back(KvElement(cache.layout, head, of_v, at, i));
            }
          }
        }
        CHECK(before == after);
      });
    }
  }
}

TEST_CASE("The largest keys, queries and values do not overflow the integers") {
  std::mt19937 rng(36);
  for (const size_t dim : {32, 64, 80, 128, 256, 1024}) {
    for (const bool alternate : {false, true}) {
      const size_t n = 300;
      // K and Q are transformed: a row whose transform is +-c everywhere is H times a row of signs, whose own transform is constant
      // up to the block. Unit vectors do the same: every element of the transform is +-1, that is +-127.
      std::vector<float> k(n * dim), v(n * dim), q(16 * dim);
      const size_t block = HadamardBlock(dim);
      for (size_t j = 0; j < n; ++j) {
        for (size_t i = 0; i < dim; ++i) {
          k[j * dim + i] = i % block == 0 ? (alternate && j % 2 != 0 ? -1.0f : 1.0f) : 0.0f;
          v[j * dim + i] =
              alternate ? (rng() % 2 != 0 ? -3.0f : 3.0f) : (i % 2 != 0 ? -3.0f : 3.0f);
        }
      }
      for (size_t i = 0; i < q.size(); ++i)
        q[i] = i % block == 0 ? (i / dim % 2 != 0 ? -1e-3f : 1e-3f) : 0.0f;
      Cache cache(KvType::kQ8, dim, dim, n);
      cache.StoreAll(k, v);
      for (size_t i = 0; i < dim; ++i) {
        CHECK(std::fabs(KvElement(cache.layout, cache.pointers[0] + Cache::kOffset, false, 0, i)) >
              0.99f);
      }
      CheckExact(cache, 2, 8, q);
      if (!alternate) {  // all values equal: so is the result, within the rounding of the weights
        std::vector<float> out(dim);
        Attend(cache.Args(n - 1, 1, 1, q.data(), out.data()));
        for (size_t i = 0; i < dim; ++i)
          CHECK(std::fabs(out[i]) == doctest::Approx(3.0).epsilon(0.02));
      }
    }
  }
}

TEST_CASE("Attention to one position is its value") {
  std::mt19937 rng(37);
  for (const KvType type : kTypes) {
    Cache cache(type, 16, 16, 1);
    const auto k = RandomFloats(16, rng), v = RandomFloats(16, rng), q = RandomFloats(16, rng);
    cache.StoreAll(k, v);
    std::vector<float> out(16);
    Attend(cache.Args(0, 1, 1, q.data(), out.data()));
    for (size_t i = 0; i < 16; ++i) {
      const float stored = KvElement(cache.layout, cache.pointers[0] + Cache::kOffset, true, 0, i);
      CHECK(out[i] == doctest::Approx(stored).epsilon(type == KvType::kQ8 ? 1e-4 : 1e-6));
    }
  }
}

TEST_CASE("What is not finite reaches those that attend to it, and nobody else") {
  std::mt19937 rng(38);
  const float bad_numbers[] = {std::numeric_limits<float>::quiet_NaN(), HUGE_VALF, -HUGE_VALF};
  for (const KvType type : kTypes) {
    for (const float bad : bad_numbers) {
      for (const bool in_v : {false, true}) {
        INFO(Name(type), " ", bad, std::string(in_v ? " in a value" : " in a key"));
        const size_t n = 200, bad_at = 190, n_tokens = 20, n_heads = 2, dim = 32;
        auto k = RandomFloats(n * dim, rng), v = RandomFloats(n * dim, rng);
        (in_v ? v : k)[bad_at * dim + 7] = bad;
        const auto q = RandomFloats(n_tokens * n_heads * dim, rng);
        Cache cache(type, dim, dim, n);
        cache.StoreAll(k, v);
        std::vector<float> out(n_tokens * n_heads * dim);
        ForEachSimd([&] {
          InBlocks(n - n_tokens, n_tokens, 128, [&](size_t at, size_t m) {
            const size_t i = at - (n - n_tokens);
            Attend(cache.Args(at, m, n_heads, &q[i * n_heads * dim], &out[i * n_heads * dim]));
          });
          size_t wrong = 0;
          for (size_t t = 0; t < n_tokens; ++t) {
            for (size_t i = 0; i < n_heads * dim; ++i) {
              const float y = out[t * n_heads * dim + i];
              const bool sees = n - n_tokens + t >= bad_at;
              if (!sees) wrong += !std::isfinite(y);
              // q8: the whole row is lost. Float values: their own column, with an infinite value's sign.
              if (sees && type == KvType::kQ8) wrong += !std::isnan(y);
              if (sees && type != KvType::kQ8 && in_v) wrong += std::isfinite(y) != (i % dim != 7);
            }
          }
          CHECK(wrong == 0);
        });
        if (type == KvType::kQ8) CheckExact(cache, n_heads, n_tokens, q);
      }
    }
    // A query that is not finite, among others.
    Cache cache(type, 32, 32, 40);
    cache.StoreAll(RandomFloats(40 * 32, rng), RandomFloats(40 * 32, rng));
    auto q = RandomFloats(4 * 32, rng);
    q[32 + 3] = HUGE_VALF;
    CheckExact(cache, 4, 1, q);
  }
}

}  // namespace lutra
