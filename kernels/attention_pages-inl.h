// The products of attention with one page, per target: scores of 1, 2 or 4 queries with all positions, and the weighted sums of
// values. See attention.h for the definition and kv_cache.h for the layout.
//
// q8 on AVX-512 with VNNI, instructions per 64 multiply-adds: one vpdpbusd; its operands come from a quarter of a load of K (four
// queries use it) and a quarter of a broadcast (four vectors of positions or columns use it).
#if defined(LUTRA_ATTENTION_PAGES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_ATTENTION_PAGES_INL_H_
#undef LUTRA_ATTENTION_PAGES_INL_H_
#else
#define LUTRA_ATTENTION_PAGES_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/attention_exact.h"
#include "kernels/dot4-inl.h"
#include "kernels/fixed_order-inl.h"
#include "kernels/float_dots-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

using DU32 = hn::RebindToUnsigned<DF>;
using DU8 = hn::Repartition<uint8_t, DI>;
using DI8 = hn::Repartition<int8_t, DI>;
using DU16 = hn::Repartition<uint16_t, DI>;
using DI16 = hn::Repartition<int16_t, DI>;
using VU8 = hn::Vec<DU8>;
using VI8 = hn::Vec<DI8>;
using D4 = hn::Full128<float>;  // four queries' numbers beside each other
using V4 = hn::Vec<D4>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Vectors of positions or columns that a tile of four queries takes: 4 * 4 accumulators of 32 registers, 4 * 2 of 16.
constexpr size_t kWide = kLanes == 16 ? 4 : 2;
// Queries of a tile: one on the old targets, for the sake of build time.
constexpr size_t kMostQueries = HWY_NATIVE_FMA ? 4 : 1;

template <class D, class V = hn::Vec<D>>
HWY_INLINE V FmaOf([[maybe_unused]] D d, V a, V b, V c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  return Fma(a, b, c);                             // four lanes, as all vectors are here
#endif
}

// ExactExp2 of max(x, -64).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp2(D d, V x) {
  const V least = hn::Set(d, kExp2Least);
#if HWY_ARCH_X86
  x = hn::Max(least, x);  // in this order NaN stays
#else
  x = hn::IfThenElse(hn::Lt(x, least), least, x);  // Max may take the number
#endif
  const auto magic = hn::Set(d, kRoundMagic);
  const V t = hn::Add(x, magic);
  const V r = hn::Sub(x, hn::Sub(t, magic));
  V p = hn::Set(d, kExp2Poly[4]);
  p = FmaOf(d, p, r, hn::Set(d, kExp2Poly[3]));
  p = FmaOf(d, p, r, hn::Set(d, kExp2Poly[2]));
  p = FmaOf(d, p, r, hn::Set(d, kExp2Poly[1]));
  p = FmaOf(d, p, r, hn::Set(d, kExp2Poly[0]));
  p = FmaOf(d, p, r, hn::Set(d, 1.0f));
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::Add(hn::BitCast(du, p), hn::ShiftLeft<23>(hn::BitCast(du, t))));
}

// Four vectors of four, each folded to one number, beside each other: (v0 + v2) + (v1 + v3), as Reduce does.
template <class Op>
HWY_INLINE V4 FoldFour(V4 a, V4 b, V4 c, V4 d, Op op) {
  const D4 d4;
  const V4 ab = op(hn::InterleaveLower(d4, a, b), hn::InterleaveUpper(d4, a, b));
  const V4 cd = op(hn::InterleaveLower(d4, c, d), hn::InterleaveUpper(d4, c, d));
  return op(hn::ConcatLowerLower(d4, cd, ab), hn::ConcatUpperUpper(d4, cd, ab));
}
// A vector folded by halves to four numbers.
template <class Op>
HWY_INLINE V4 FoldTo4(VF v, Op op) {
  const D4 d4;
#if HWY_MAX_BYTES >= 64
  const hn::Half<DF> d8;
  const auto v8 = op(hn::LowerHalf(d8, v), hn::UpperHalf(d8, v));
  return op(hn::LowerHalf(d4, v8), hn::UpperHalf(d4, v8));
#elif HWY_MAX_BYTES == 32
  return op(hn::LowerHalf(d4, v), hn::UpperHalf(d4, v));
#else
  (void)d4;
  (void)op;
  return v;
#endif
}
HWY_INLINE V4 MaxTo4(VF v) {
  return FoldTo4(v, [](auto a, auto b) HWY_ATTR { return hn::Max(a, b); });
}
HWY_INLINE V4 SumTo4(const Sum16& s) {
  const auto add = [](auto a, auto b) HWY_ATTR { return hn::Add(a, b); };
#if HWY_MAX_BYTES >= 64
  return FoldTo4(s.v[0], add);
#elif HWY_MAX_BYTES == 32
  return FoldTo4(hn::Add(s.v[0], s.v[1]), add);
#else
  return add(hn::Add(s.v[0], s.v[2]), hn::Add(s.v[1], s.v[3]));
#endif
}

// ---- integer products ----

// acc += sums of 4 products of u8 and i8 numbers. Two ways; `Number` is what a query's or weights' four numbers are kept as.
//
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
// One instruction: vpdpbusd.
struct DotQuads {
  static constexpr size_t kInts = 1;  // int32 numbers that hold four of a query's
  using Wide = VU8;
  static HWY_INLINE Wide Unsigned(VU8 v) { return v; }
  static HWY_INLINE VI8 Signed(VI8 v) { return v; }
  static HWY_INLINE void StoreQuery(const int8_t* q, size_t n_quads, int32_t* to) {
    std::memcpy(to, q, 4 * n_quads);
  }
  static HWY_INLINE VI MulAcc(VI acc, VU8 u, VI8 s) { return Vpdpbusd(acc, u, s); }
  // K or V lanes x the four numbers at p, in all lanes.
  static HWY_INLINE VI8 Query(const int32_t* p) { return hn::BitCast(DI8(), hn::Set(DI(), *p)); }
  static HWY_INLINE VI Scores(VI acc, Wide k, VI8 q) { return MulAcc(acc, k, q); }
  static HWY_INLINE VU8 Weights(const uint8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return hn::BitCast(DU8(), hn::Set(DI(), four));
  }
  static HWY_INLINE VI Values(VI acc, VI8 v, VU8 w) { return MulAcc(acc, w, v); }
};
#endif

// Even and odd bytes apart as 16-bit numbers: vpmaddwd cannot saturate, where vpmaddubsw would.
struct DotPairs {
  static constexpr size_t kInts = 2;
  struct Wide {
    hn::Vec<DI16> even, odd;
  };
  static HWY_INLINE Wide Unsigned(VU8 v) {
    const auto v16 = hn::BitCast(DU16(), v);
    return {hn::BitCast(DI16(), hn::And(v16, hn::Set(DU16(), uint16_t{0xFF}))),
            hn::BitCast(DI16(), hn::ShiftRight<8>(v16))};
  }
  static HWY_INLINE Wide Signed(VI8 v) {
    const auto v16 = hn::BitCast(DI16(), v);
    return {hn::ShiftRight<8>(hn::ShiftLeft<8>(v16)), hn::ShiftRight<8>(v16)};
  }
  static HWY_INLINE void StoreQuery(const int8_t* q, size_t n_quads, int32_t* to) {
    for (size_t i = 0; i < n_quads; ++i) {
      const int16_t four[4] = {q[4 * i], q[4 * i + 2], q[4 * i + 1], q[4 * i + 3]};
      std::memcpy(to + 2 * i, four, 8);
    }
  }
  static HWY_INLINE VI MulAcc(VI acc, const Wide& x, const Wide& y) {
    return hn::Add(acc, hn::Add(hn::WidenMulPairwiseAdd(DI(), x.even, y.even),
                                hn::WidenMulPairwiseAdd(DI(), x.odd, y.odd)));
  }
  static HWY_INLINE Wide Query(const int32_t* p) {
    return {hn::BitCast(DI16(), hn::Set(DI(), p[0])), hn::BitCast(DI16(), hn::Set(DI(), p[1]))};
  }
  static HWY_INLINE VI Scores(VI acc, const Wide& k, const Wide& q) { return MulAcc(acc, k, q); }
  static HWY_INLINE Wide Weights(const uint8_t* p) {
    uint32_t four;
    std::memcpy(&four, p, 4);
    return {hn::BitCast(DI16(), hn::Set(DI(), static_cast<int32_t>(four & 0x00FF00FFu))),
            hn::BitCast(DI16(), hn::Set(DI(), static_cast<int32_t>(four >> 8 & 0x00FF00FFu)))};
  }
  static HWY_INLINE VI Values(VI acc, const Wide& v, const Wide& w) { return MulAcc(acc, v, w); }
};

// p * factor rounded to an integer, as one byte or two.
template <bool kTwoBytes>
HWY_INLINE void RoundWeights(VF p, const float* HWY_RESTRICT factor, uint8_t* HWY_RESTRICT low,
                             uint8_t* HWY_RESTRICT high) {
  const hn::Rebind<uint8_t, DF> d8;
  const auto bits =
      hn::BitCast(DU32(), Fma(p, hn::Load(DF(), factor), hn::Set(DF(), kIntegerMagic)));
  hn::StoreU(hn::TruncateTo(d8, bits), d8, low);
  if constexpr (kTwoBytes) hn::StoreU(hn::TruncateTo(d8, hn::ShiftRight<8>(bits)), d8, high);
}

// ---- pages ----

// What the products with a page need: pointers into the head's part, and the queries as the type wants them.
struct PageView {
  const KvHeadLayout* layout;
  const uint8_t* head;
  // What is wanted soon, relative to what is read now: while K is read, and while V is. 0 for nothing (what is read itself).
  ptrdiff_t ahead_of_k, ahead_of_v;
};

// Pages lie far apart, so the processor's own prefetching starts anew with each; a token alone would wait for memory half its time.
HWY_INLINE void PrefetchLine(const void* p, ptrdiff_t ahead) {
  hwy::Prefetch(reinterpret_cast<const uint8_t*>(reinterpret_cast<uintptr_t>(p) +
                                                 static_cast<uintptr_t>(ahead)));
}
template <size_t kVectorBytes, size_t kVectors>
HWY_INLINE void PrefetchLines(const void* p, ptrdiff_t ahead) {
  LUTRA_UNROLL(4)
  for (size_t i = 0; i < kVectorBytes * kVectors; i += 64)
    PrefetchLine(static_cast<const uint8_t*>(p) + i, ahead);
}

template <class T>
struct FloatPage {
  static constexpr bool kIsQ8 = false;
  using Query = const float*;

  // t [R, kKvPage] = q . k_j for the positions [0, n rounded up to 64); max4 [R, 4]: the greatest of each, in four parts.
  template <size_t R>
  static HWY_INLINE void Scores(const PageView& page, const Query* q, const int32_t*, size_t n,
                                float* HWY_RESTRICT t, float (*HWY_RESTRICT max4)[4]) {
    VF max[R];
    for (size_t r = 0; r < R; ++r) max[r] = hn::Set(DF(), -kInfinity);
    const size_t dk = page.layout->dk;
    for (size_t first = 0; first < n; first += 64) {
      const T* half = reinterpret_cast<const T*>(page.head) + first * dk;
      for (size_t at = 0; at < 64; at += kWide * kLanes) {
        VF acc[R][kWide];
        LUTRA_UNROLL(4)
        for (size_t r = 0; r < R; ++r) {
          LUTRA_UNROLL(4)
          for (size_t p = 0; p < kWide; ++p) acc[r][p] = hn::Zero(DF());
        }
        const T* HWY_RESTRICT k = half + at;
        for (size_t i = 0; i < dk; ++i, k += 64) {
          PrefetchLines<kLanes * sizeof(T), kWide>(k, page.ahead_of_k);
          VF ks[kWide];
          LUTRA_UNROLL(4)
          for (size_t p = 0; p < kWide; ++p) ks[p] = LoadWeights(k + p * kLanes);
          LUTRA_UNROLL(4)
          for (size_t r = 0; r < R; ++r) {
            const VF qs = hn::Set(DF(), q[r][i]);
            LUTRA_UNROLL(4)
            for (size_t p = 0; p < kWide; ++p) acc[r][p] = Fma(qs, ks[p], acc[r][p]);
          }
        }
        LUTRA_UNROLL(4)
        for (size_t r = 0; r < R; ++r) {
          LUTRA_UNROLL(4)
          for (size_t p = 0; p < kWide; ++p) {
            max[r] = hn::Max(max[r], acc[r][p]);
            hn::Store(acc[r][p], DF(), t + r * kKvPage + first + at + p * kLanes);
          }
        }
      }
    }
    for (size_t r = 0; r < R; ++r) hn::Store(MaxTo4(max[r]), D4(), max4[r]);
  }

  // o [R, v_width] = o * a + b * sum_j p_j v_j.
  template <size_t R, size_t D>
  static HWY_INLINE void Columns(const PageView& page, size_t column, const float* HWY_RESTRICT p,
                                 size_t n, const float* a, const float* b, float* HWY_RESTRICT o) {
    const size_t width = page.layout->v_width;
    const T* HWY_RESTRICT v = reinterpret_cast<const T*>(page.head + page.layout->v) + column;
    VF acc[R][D];
    LUTRA_UNROLL(4)
    for (size_t r = 0; r < R; ++r) {
      LUTRA_UNROLL(4)
      for (size_t d = 0; d < D; ++d) acc[r][d] = hn::Zero(DF());
    }
    for (size_t j = 0; j < n; ++j, v += width) {
      PrefetchLines<kLanes * sizeof(T), D>(v, page.ahead_of_v);
      VF vs[D];
      LUTRA_UNROLL(4)
      for (size_t d = 0; d < D; ++d) vs[d] = LoadWeights(v + d * kLanes);
      LUTRA_UNROLL(4)
      for (size_t r = 0; r < R; ++r) {
        const VF w = hn::Set(DF(), p[r * kKvPage + j]);
        LUTRA_UNROLL(4)
        for (size_t d = 0; d < D; ++d) acc[r][d] = Fma(w, vs[d], acc[r][d]);
      }
    }
    LUTRA_UNROLL(4)
    for (size_t r = 0; r < R; ++r) {
      LUTRA_UNROLL(4)
      for (size_t d = 0; d < D; ++d) {
        float* at = o + r * width + column + d * kLanes;
        hn::Store(
            Fma(acc[r][d], hn::Set(DF(), b[r]), hn::Mul(hn::Load(DF(), at), hn::Set(DF(), a[r]))),
            DF(), at);
      }
    }
  }
  template <size_t R>
  static HWY_INLINE void Values(const PageView& page, const float* p, size_t n, const float* a,
                                const float* b, float* o) {
    size_t column = 0;
    for (; column + kWide * kLanes <= page.layout->v_width; column += kWide * kLanes) {
      Columns<R, kWide>(page, column, p, n, a, b, o);
    }
    for (; column < page.layout->v_width; column += kLanes)
      Columns<R, 1>(page, column, p, n, a, b, o);
  }
};

// Weights of a tile as bytes: value = 256 * high + low, or low alone.
struct ByteWeights {
  HWY_ALIGN uint8_t low[4 * kKvPage];
  HWY_ALIGN uint8_t high[4 * kKvPage];
  bool any_high;
};

template <class Dot>
struct Q8Page {
  static constexpr bool kIsQ8 = true;
  using Query = const int32_t*;

  template <size_t R>
  static HWY_INLINE void Scores(const PageView& page, const Query* q, const int32_t* bias, size_t n,
                                float* HWY_RESTRICT t, float (*HWY_RESTRICT max4)[4]) {
    VF max[R];
    for (size_t r = 0; r < R; ++r) max[r] = hn::Set(DF(), -kInfinity);
    const size_t quads = (page.layout->dk + 3) / 4;
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(page.head + page.layout->k_scales);
    for (size_t first = 0; first < n; first += 64) {
      const uint8_t* half = page.head + first * quads * 4;
      for (size_t at = 0; at < 64; at += kWide * kLanes) {
        VI acc[R][kWide];
        LUTRA_UNROLL(4)
        for (size_t r = 0; r < R; ++r) {
          LUTRA_UNROLL(4)
          for (size_t p = 0; p < kWide; ++p) acc[r][p] = hn::Set(DI(), bias[r]);
        }
        const uint8_t* HWY_RESTRICT k = half + 4 * at;
        for (size_t i = 0; i < quads; ++i, k += 256) {
          PrefetchLines<4 * kLanes, kWide>(k, page.ahead_of_k);
          typename Dot::Wide ks[kWide];
          LUTRA_UNROLL(4)
          for (size_t p = 0; p < kWide; ++p)
            ks[p] = Dot::Unsigned(hn::LoadU(DU8(), k + 4 * p * kLanes));
          LUTRA_UNROLL(4)
          for (size_t r = 0; r < R; ++r) {
            const auto qs = Dot::Query(q[r] + Dot::kInts * i);
            LUTRA_UNROLL(4)
            for (size_t p = 0; p < kWide; ++p) acc[r][p] = Dot::Scores(acc[r][p], ks[p], qs);
          }
        }
        LUTRA_UNROLL(4)
        for (size_t p = 0; p < kWide; ++p) {
          const size_t j = first + at + p * kLanes;
          const VF scale = Scales(scales + j);
          LUTRA_UNROLL(4)
          for (size_t r = 0; r < R; ++r) {
            const VF s = hn::Mul(hn::ConvertTo(DF(), acc[r][p]), scale);
            max[r] = hn::Max(max[r], s);
            hn::Store(s, DF(), t + r * kKvPage + j);
          }
        }
      }
    }
    for (size_t r = 0; r < R; ++r) hn::Store(MaxTo4(max[r]), D4(), max4[r]);
  }

  static HWY_INLINE VF Scales(const uint16_t* p) {
    const hn::Rebind<uint16_t, DF> d16;
    return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(DU32(), hn::LoadU(d16, p))));
  }

  // V: the greatest scale of n values.
  static HWY_INLINE float GreatestScale(const PageView& page, size_t n) {
    const DU32 du;
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(page.head + page.layout->v_scales);
    // Scales are not negative: their bits order like the numbers, NaN above all.
    auto max = hn::Zero(du);
    for (size_t j = 0; j < n; j += kLanes) {
      auto s = hn::BitCast(du, Scales(scales + j));
      if (j + kLanes > n) s = hn::IfThenElseZero(hn::FirstN(du, n - j), s);
      max = hn::Max(max, s);
    }
    return hn::GetLane(hn::BitCast(DF(), hn::MaxOfLanes(du, max)));
  }

  // factor [kKvPage]: min(v_scale_j * (r / V), r), 0 from n on.
  static HWY_NOINLINE void WeightFactors(const PageView& page, size_t n, float greatest, float r,
                                         float* HWY_RESTRICT factor) {
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(page.head + page.layout->v_scales);
    const auto most = hn::Set(DF(), r);
    const auto by = hn::Set(DF(), greatest > 0.0f ? r / greatest : 0.0f);
    for (size_t j = 0; j < kKvPage; j += kLanes) {
      VF f = hn::Min(hn::Mul(Scales(scales + j), by), most);
      if (j + kLanes > n)
        f = j < n ? hn::IfThenElseZero(hn::FirstN(DF(), n - j), f) : hn::Zero(DF());
      hn::Store(f, DF(), factor + j);
    }
  }

  template <size_t R, size_t D>
  static HWY_INLINE void Columns(const PageView& page, size_t column, const ByteWeights& w,
                                 size_t n, const float* a, const float* b, float* HWY_RESTRICT o) {
    const size_t block = column / 64 * 64;
    const size_t stride = 4 * page.layout->block_columns(block);
    const uint8_t* HWY_RESTRICT from =
        page.head + page.layout->v_columns(block) + 4 * (column - block);
    const size_t n_quads = (n + 3) / 4;
    VI acc[R][D];
    LUTRA_UNROLL(4)
    for (size_t r = 0; r < R; ++r) {
      LUTRA_UNROLL(4)
      for (size_t d = 0; d < D; ++d) acc[r][d] = hn::Zero(DI());
    }
    const auto add = [&](const uint8_t* HWY_RESTRICT bytes) HWY_ATTR {
      const uint8_t* HWY_RESTRICT v = from;
      for (size_t i = 0; i < n_quads; ++i, v += stride) {
        PrefetchLines<4 * kLanes, D>(v, page.ahead_of_v);
        decltype(Dot::Signed(VI8())) vs[D];
        LUTRA_UNROLL(4)
        for (size_t d = 0; d < D; ++d) {
          vs[d] =
              Dot::Signed(hn::LoadU(DI8(), reinterpret_cast<const int8_t*>(v) + 4 * d * kLanes));
        }
        LUTRA_UNROLL(4)
        for (size_t r = 0; r < R; ++r) {
          const auto ws = Dot::Weights(bytes + r * kKvPage + 4 * i);
          LUTRA_UNROLL(4)
          for (size_t d = 0; d < D; ++d) acc[r][d] = Dot::Values(acc[r][d], vs[d], ws);
        }
      }
    };
    if (w.any_high) {
      add(w.high);
      LUTRA_UNROLL(4)
      for (size_t r = 0; r < R; ++r) {
        LUTRA_UNROLL(4)
        for (size_t d = 0; d < D; ++d) acc[r][d] = hn::ShiftLeft<8>(acc[r][d]);
      }
    }
    add(w.low);
    LUTRA_UNROLL(4)
    for (size_t r = 0; r < R; ++r) {
      LUTRA_UNROLL(4)
      for (size_t d = 0; d < D; ++d) {
        float* at = o + r * page.layout->v_width + column + d * kLanes;
        const VF old = hn::Mul(hn::Load(DF(), at), hn::Set(DF(), a[r]));
        hn::Store(Fma(hn::ConvertTo(DF(), acc[r][d]), hn::Set(DF(), b[r]), old), DF(), at);
      }
    }
  }
  // o [R, v_width] = o * a + b * sum_j w_j v_j.
  template <size_t R>
  static HWY_INLINE void Values(const PageView& page, const ByteWeights& w, size_t n,
                                const float* a, const float* b, float* o) {
    size_t column = 0;
    for (; column + kWide * kLanes <= page.layout->v_width; column += kWide * kLanes) {
      Columns<R, kWide>(page, column, w, n, a, b, o);
    }
    for (; column < page.layout->v_width; column += kLanes)
      Columns<R, 1>(page, column, w, n, a, b, o);
  }
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_ATTENTION_PAGES_INL_H_
