#include "kernels/attention.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/amx_tiles.h"
#include "kernels/attention_exact.h"
#include "kernels/base/check.h"
#include "kernels/dispatch.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/attention_pages-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

constexpr size_t kMaxQueries = 64;       // that walk the pages together
constexpr size_t kQueryElements = 8192;  // of which at most so many numbers: 64 queries of 128

// The state of a block of queries, and scratch for a tile of 4 of them. Arrays of queries may be read 3 beyond the last.
struct Block {
  HWY_ALIGN float o[kQueryElements];  // [queries, v_width]
  HWY_ALIGN float max[kMaxQueries + 4], total[kMaxQueries + 4], c[kMaxQueries + 4];
  HWY_ALIGN int32_t q8[2 * kQueryElements / 4];  // [queries, Dot::kInts * quads]
  int32_t bias[kMaxQueries + 4];                 // -128 * sum of q8: K is stored + 128
  HWY_ALIGN float t[2][4 * kKvPage];             // scores, then weights, of two steps
  ByteWeights bytes[2];
  HWY_ALIGN float factors
      [2][kKvPage];  // of one-byte and two-byte weights, of the first factors_n positions of a page
  const uint8_t* factors_head;
  size_t factors_n;
  bool has_factors[2];
  float greatest;  // of their scales
  size_t n;        // queries
};

HWY_INLINE size_t BlockQueries(const KvHeadLayout& l) {
  const size_t elements = std::max(l.v_width, (l.dk + 3) / 4 * 4);
  return std::min(kMaxQueries, kQueryElements / elements);
}

// Queries [first, first + n) of args, numbered token by token.
HWY_INLINE const float* QueryRow(const AttentionArgs& args, size_t i) {
  return args.q + i / args.n_heads * args.q_stride + i % args.n_heads * args.layout->dk;
}
HWY_INLINE float* OutRow(const AttentionArgs& args, size_t i) {
  return args.out + i / args.n_heads * args.out_stride + i % args.n_heads * args.layout->dv;
}

HWY_INLINE void Begin(const AttentionArgs& args, size_t n, Block& b) {
  b.n = n;
  b.factors_head = nullptr;
  std::fill_n(b.c, n + 4, args.scale * kLog2E);
  for (size_t i = 0; i < 4; ++i) b.max[n + i] = b.total[n + i] = 0.0f;
}
HWY_INLINE int32_t SumOf(const int8_t* HWY_RESTRICT x, size_t n) {
  const hn::Rebind<int8_t, DI> d8;
  VI sum = hn::Zero(DI());
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    sum = hn::Add(sum, hn::PromoteTo(DI(), hn::LoadU(d8, x + i)));
  int32_t total = hn::ReduceSum(DI(), sum);
  for (; i < n; ++i) total += x[i];
  return total;
}

template <class Page, class Dot>
HWY_INLINE void QuantizeQueries(const AttentionArgs& args, size_t first, Block& b) {
  const size_t dk = args.layout->dk;
  const size_t quads = (dk + 3) / 4;
  const float per_block = 1.0f / static_cast<float>(HadamardBlock(dk));
  HWY_ALIGN float row[kMaxKvHeadDim];
  HWY_ALIGN int8_t q8[kMaxKvHeadDim];
  for (size_t i = 0; i < b.n; ++i) {
    std::copy_n(QueryRow(args, first + i), dk, row);
    HadamardRow(row, dk);
    std::memset(q8 + dk, 0, 4 * quads - dk);
    b.c[i] = QuantizeHeadRow(row, dk, q8) * args.scale * kLog2E * per_block;
    b.bias[i] = -128 * SumOf(q8, 4 * quads);
    Dot::StoreQuery(q8, quads, b.q8 + i * quads * Dot::kInts);
  }
}

// The greatest of t [n], in four parts.
HWY_NOINLINE void MaxOfFirst(const float* HWY_RESTRICT t, size_t n, float* HWY_RESTRICT max4) {
  VF max = hn::Set(DF(), -kInfinity);
  for (size_t j = 0; j < n; j += kLanes) {
    VF v = hn::Load(DF(), t + j);
    if (j + kLanes > n) v = hn::IfThenElse(hn::FirstN(DF(), n - j), v, hn::Set(DF(), -kInfinity));
    max = hn::Max(max, v);
  }
  hn::Store(MaxTo4(max), D4(), max4);
}

// What becomes of p_j: kept as float in place of t_j, or rounded to one or two bytes.
enum class Keep { kFloat, kByte, kTwoBytes };

// p [kKvPage] of one query from t, 0 from n on. sum4: their sum, still in four parts.
template <Keep kKeep>
HWY_INLINE void OneQueryWeights(float* HWY_RESTRICT t, size_t n, float max, float c,
                                const float* HWY_RESTRICT factor, uint8_t* HWY_RESTRICT low,
                                uint8_t* HWY_RESTRICT high, float* HWY_RESTRICT sum4) {
  const VF m = hn::Set(DF(), max), cs = hn::Set(DF(), c);
  Sum16 sum = ZeroSum();
  const auto keep = [&](size_t j, VF e) HWY_ATTR {
    if constexpr (kKeep == Keep::kFloat) {
      hn::Store(e, DF(), t + j);
    } else {
      RoundWeights<kKeep == Keep::kTwoBytes>(e, factor + j, low + j, high + j);
    }
  };
  if (n == kKvPage) {
#if HWY_NATIVE_FMA
    LUTRA_UNROLL(8)
#endif
    for (size_t j = 0; j < kKvPage; j += 16) {
      for (size_t p = 0; p < kParts; ++p) {
        const VF e = Exp2(DF(), hn::Mul(hn::Sub(hn::Load(DF(), t + j + p * kLanes), m), cs));
        sum.v[p] = hn::Add(sum.v[p], e);
        keep(j + p * kLanes, e);
      }
    }
  } else {
    for (size_t j = 0; j < kKvPage; j += 16) {
      for (size_t p = 0; p < kParts; ++p) {
        const size_t first = j + p * kLanes;
        VF e = hn::Zero(DF());
        if (first < n) {
          e = Exp2(DF(), hn::Mul(hn::Sub(hn::Load(DF(), t + first), m), cs));
          if (first + kLanes > n) e = hn::IfThenElseZero(hn::FirstN(DF(), n - first), e);
        }
        sum.v[p] = hn::Add(sum.v[p], e);
        keep(first, e);
      }
    }
  }
  hn::Store(SumTo4(sum), D4(), sum4);
}

// The same for queries [begin, end) of a tile, which share their factors. One call for all: constants stay in registers.
template <Keep kKeep>
HWY_NOINLINE void Weights(size_t begin, size_t end, float* t, const size_t* n, const float* max,
                          const float* c, const float* factor, uint8_t* low, uint8_t* high,
                          float (*sum4)[4]) {
  for (size_t r = begin; r < end; ++r) {
    OneQueryWeights<kKeep>(t + r * kKvPage, n[r], max[r], c[r], factor, low + r * kKvPage,
                           high + r * kKvPage, sum4[r]);
  }
}

// One tile of queries with one page.
struct Step {
  PageView page;
  size_t i, n_queries;  // queries [i, i + n_queries) of the block: 1, 2 or 4
  size_t n[4];          // positions that each sees
  size_t n_all;         // the most of them
  bool first_page;      // of the walk
  float* t;             // [4, kKvPage]: scores, then weights
  ByteWeights* bytes;
  HWY_ALIGN float max4[4][4];  // greatest scores, in four parts
  HWY_ALIGN float a[4], b[4];  // factors of the old sums and of the page's
};

template <class Page, class Dot, size_t R>
HWY_NOINLINE void ScoreStep(const AttentionArgs& args, size_t first, const Block& b, Step& s) {
  typename Page::Query q[R];
  bool whole = true;
  for (size_t r = 0; r < R; ++r) {
    whole = whole && s.n[r] == kKvPage;
    if constexpr (Page::kIsQ8) {
      q[r] = b.q8 + (s.i + r) * ((args.layout->dk + 3) / 4) * Dot::kInts;
    } else {
      q[r] = QueryRow(args, first + s.i + r);
    }
  }
  Page::template Scores<R>(s.page, q, b.bias + s.i, s.n_all, s.t, s.max4);
  if (!whole) {
    for (size_t r = 0; r < R; ++r) MaxOfFirst(s.t + r * kKvPage, s.n[r], s.max4[r]);
  }
}

// Factors of the weights of n positions of a page, made when first asked for; b.greatest is set to theirs.
template <class Page>
HWY_INLINE const float* Factors(const Step& s, size_t n, bool one_byte, Block& b) {
  if (b.factors_head != s.page.head || b.factors_n != n) {
    b.factors_head = s.page.head;
    b.factors_n = n;
    b.has_factors[0] = b.has_factors[1] = false;
    b.greatest = Page::GreatestScale(s.page, n);
  }
  const size_t kind = one_byte ? 0 : 1;
  if (!b.has_factors[kind])
    Page::WeightFactors(s.page, n, b.greatest, one_byte ? 255.0f : 65535.0f, b.factors[kind]);
  b.has_factors[kind] = true;
  return b.factors[kind];
}

// Merges the page's weights into the states of its queries.
template <class Page, size_t R>
HWY_NOINLINE void WeightStep(Block& b, Step& s) {
  const D4 d4;
  const auto max_op = [](auto x, auto y) HWY_ATTR { return hn::Max(x, y); };
  const auto add_op = [](auto x, auto y) HWY_ATTR { return hn::Add(x, y); };
  const auto four = [&](const float(*v)[4], auto op) HWY_ATTR {
    return FoldFour(hn::Load(d4, v[0]), hn::Load(d4, v[1 % R]), hn::Load(d4, v[2 % R]),
                    hn::Load(d4, v[3 % R]), op);
  };
  const V4 max4 = four(s.max4, max_op);
  HWY_ALIGN float max[4], scaled_total[4], sums[4][4];
  hn::Store(max4, d4, max);
  const V4 c4 = hn::LoadU(d4, b.c + s.i);
  const V4 old = s.first_page ? max4 : hn::LoadU(d4, b.max + s.i);
  const V4 both = hn::Max(old, max4);
  const V4 a4 = Exp2(d4, hn::Mul(hn::Sub(old, both), c4));
  const V4 b4 = Exp2(d4, hn::Mul(hn::Sub(max4, both), c4));
  const V4 old_total = s.first_page ? hn::Zero(d4) : hn::LoadU(d4, b.total + s.i);
  hn::Store(a4, d4, s.a);
  hn::Store(b4, d4, s.b);

  if constexpr (Page::kIsQ8) {
    hn::Store(hn::Mul(old_total, a4), d4, scaled_total);
    bool one_byte[R];
    s.bytes->any_high = false;
    for (size_t r = 0; r < R; ++r) {
      one_byte[r] = scaled_total[r] >= kByteWeights * s.b[r];
      s.bytes->any_high = s.bytes->any_high || !one_byte[r];
    }
    // Neighbours of the same kind go together: mostly all of them.
    for (size_t begin = 0; begin < R;) {
      size_t end = begin + 1;
      while (end < R && one_byte[end] == one_byte[begin] && s.n[end] == s.n[begin]) ++end;
      const float* factors = Factors<Page>(s, s.n[begin], one_byte[begin], b);
      for (size_t r = begin; r < end; ++r)
        s.b[r] = b.greatest * (one_byte[begin] ? 1.0f / 255.0f : 1.0f / 65535.0f) * s.b[r];
      if (one_byte[begin]) {
        Weights<Keep::kByte>(begin, end, s.t, s.n, max, b.c + s.i, factors, s.bytes->low,
                             s.bytes->high, sums);
        if (s.bytes->any_high)
          std::memset(s.bytes->high + begin * kKvPage, 0, (end - begin) * kKvPage);
      } else {
        Weights<Keep::kTwoBytes>(begin, end, s.t, s.n, max, b.c + s.i, factors, s.bytes->low,
                                 s.bytes->high, sums);
      }
      begin = end;
    }
  } else {
    Weights<Keep::kFloat>(0, R, s.t, s.n, max, b.c + s.i, nullptr, s.bytes->low, s.bytes->high,
                          sums);
  }
  const V4 total4 = FmaOf(d4, old_total, a4, hn::Mul(four(sums, add_op), b4));
  if constexpr (R == 4) {
    hn::StoreU(both, d4, b.max + s.i);
    hn::StoreU(total4, d4, b.total + s.i);
  } else {
    HWY_ALIGN float maxes[4], totals[4];
    hn::Store(both, d4, maxes);
    hn::Store(total4, d4, totals);
    std::copy_n(maxes, R, b.max + s.i);
    std::copy_n(totals, R, b.total + s.i);
  }
}

template <class Page, size_t R>
HWY_NOINLINE void ValueStep(Block& b, const Step& s) {
  float* o = b.o + s.i * s.page.layout->v_width;
  if constexpr (Page::kIsQ8) {
    Page::template Values<R>(s.page, *s.bytes, s.n_all, s.a, s.b, o);
  } else {
    Page::template Values<R>(s.page, s.t, s.n_all, s.a, s.b, o);
  }
}

// Calls fn with the tile's size as a constant.
template <class Fn>
HWY_INLINE void WithSize(size_t n_queries, Fn fn) {
  if (kMostQueries >= 4 && n_queries == 4)
    return fn(std::integral_constant<size_t, HWY_MIN(kMostQueries, 4)>());
  if (kMostQueries >= 2 && n_queries == 2)
    return fn(std::integral_constant<size_t, HWY_MIN(kMostQueries, 2)>());
  fn(std::integral_constant<size_t, 1>());
}

// The queries' state over pages [begin, end), from empty. A step's scores, weights and values each wait for the one before; so the
// next step's scores are computed between this one's weights and values, and the processor finds something to do at each border.
template <class Page, class Dot>
HWY_INLINE void WalkPages(const AttentionArgs& args, size_t first, size_t begin, size_t end,
                          Block& b) {
  const size_t last_page = args.first_position / kKvPage;
  std::memset(b.o, 0, b.n * args.layout->v_width * sizeof(float));
  size_t page = begin, query = 0;
  const auto next = [&](Step& s, size_t buffer) HWY_ATTR {
    size_t left = b.n - query;
    // A later token's value must not meet an earlier token's weight of 0, for it may be infinite.
    if (!Page::kIsQ8 && page == last_page)
      left = HWY_MIN(left, args.n_heads - (first + query) % args.n_heads);
    // The first tile of a page brings what comes after: its own values, and the keys of the page after the next step's.
    s.page = {args.layout, args.pages[page] + args.offset, 0, 0};
    if (query == 0) {
      s.page.ahead_of_k = static_cast<ptrdiff_t>(args.layout->v);
      const size_t next_page = HWY_MIN(page + (b.n <= 4 ? 2 : 1), end - 1);
      const uint8_t* next_keys = args.pages[next_page] + args.offset;
      s.page.ahead_of_v =
          static_cast<ptrdiff_t>(reinterpret_cast<uintptr_t>(next_keys) -
                                 reinterpret_cast<uintptr_t>(s.page.head + args.layout->v));
    }
    s.i = query;
    s.n_queries = left >= 4 ? HWY_MIN(kMostQueries, 4) : left >= 2 ? HWY_MIN(kMostQueries, 2) : 1;
    s.n_all = 0;
    for (size_t r = 0; r < s.n_queries; ++r) {
      s.n[r] = HWY_MIN(
          kKvPage, args.first_position + (first + query + r) / args.n_heads + 1 - page * kKvPage);
      s.n_all = HWY_MAX(s.n_all, s.n[r]);
    }
    s.first_page = page == begin;
    s.t = b.t[buffer];
    s.bytes = &b.bytes[buffer];
    query += s.n_queries;
    if (query == b.n) query = 0, ++page;
  };
  const auto score = [&](Step& s) HWY_ATTR {
    WithSize(s.n_queries,
             [&](auto size) HWY_ATTR { ScoreStep<Page, Dot, size()>(args, first, b, s); });
  };
  Step steps[2];
  next(steps[0], 0);
  score(steps[0]);
  for (size_t now = 0;; now = 1 - now) {
    Step& s = steps[now];
    WithSize(s.n_queries, [&](auto size) HWY_ATTR { WeightStep<Page, size()>(b, s); });
    const bool more = page < end;
    if (more) {
      next(steps[1 - now], 1 - now);
      score(steps[1 - now]);
    }
    WithSize(s.n_queries, [&](auto size) HWY_ATTR { ValueStep<Page, size()>(b, s); });
    if (!more) break;
  }
}

// As WalkPages, for blocks of at least kTileQueries.
using WalkFn = void (*)(const AttentionArgs& args, size_t first, size_t begin, size_t end,
                        Block& b);
constexpr size_t kTileQueries = 16;

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_TARGET == HWY_AVX3_DL && HWY_ARCH_X86_64
#include "kernels/attention_tiles-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// A state merged into another of the same query: (max, total, o) <- both. o and from_o [dv].
HWY_INLINE void MergeState(float from_max, float from_total, float c,
                           const float* HWY_RESTRICT from_o, size_t dv, bool is_first, float* max,
                           float* total, float* HWY_RESTRICT o) {
  const D4 d4;
  const float old = is_first ? from_max : *max;
  const float both = hn::GetLane(hn::Max(hn::Set(d4, old), hn::Set(d4, from_max)));
  const float a = hn::GetLane(Exp2(d4, hn::Set(d4, (old - both) * c)));
  const float b = hn::GetLane(Exp2(d4, hn::Set(d4, (from_max - both) * c)));
  const float old_total = is_first ? 0.0f : *total;
  *max = both;
  *total =
      hn::GetLane(FmaOf(d4, hn::Set(d4, old_total), hn::Set(d4, a), hn::Set(d4, from_total * b)));
  for (size_t i = 0; i < dv; i += kLanes) {
    const size_t left = HWY_MIN(dv - i, kLanes);
    const VF before = is_first ? hn::Zero(DF()) : hn::LoadN(DF(), o + i, left);
    const VF now =
        Fma(hn::LoadN(DF(), from_o + i, left), hn::Set(DF(), b), hn::Mul(before, hn::Set(DF(), a)));
    hn::StoreN(now, DF(), o + i, left);
  }
}

HWY_INLINE void Finish(float total, size_t dv, float* HWY_RESTRICT o) {
  const VF inverse = hn::Set(DF(), 1.0f / total);
  for (size_t i = 0; i < dv; i += kLanes) {
    const size_t left = HWY_MIN(dv - i, kLanes);
    hn::StoreN(hn::Mul(hn::LoadN(DF(), o + i, left), inverse), DF(), o + i, left);
  }
}

// segment == kAll: everything, into args.out. Else one segment, into its states.
constexpr size_t kAll = ~size_t{0};

template <class Page, class Dot, WalkFn kWalkOnTiles = nullptr>
HWY_NOINLINE void AttendTyped(const AttentionArgs& args, size_t segment, float* states) {
  const KvHeadLayout& l = *args.layout;
  const size_t n_queries = args.n_tokens * args.n_heads;
  const size_t n_pages = args.n_pages();
  const size_t per_segment = SegmentPages(n_pages);
  const size_t step = BlockQueries(l);
  Block b;
  const auto walk = [&](size_t first, size_t begin, size_t end) HWY_ATTR {
    if (kWalkOnTiles != nullptr && b.n >= kTileQueries)
      return kWalkOnTiles(args, first, begin, end, b);
    WalkPages<Page, Dot>(args, first, begin, end, b);
  };
  for (size_t first = 0; first < n_queries; first += step) {
    Begin(args, HWY_MIN(step, n_queries - first), b);
    if constexpr (Page::kIsQ8) QuantizeQueries<Page, Dot>(args, first, b);
    if (segment != kAll) {
      walk(first, segment * per_segment, HWY_MIN(n_pages, (segment + 1) * per_segment));
      for (size_t i = 0; i < b.n; ++i) {
        float* state = states + (segment * n_queries + first + i) * StateFloats(l);
        state[0] = b.max[i];
        state[1] = b.total[i];
        state[2] = b.c[i];
        std::copy_n(b.o + i * l.v_width, l.v_width, state + kStateHead);
      }
      continue;
    }
    float max[kMaxQueries], total[kMaxQueries];
    for (size_t begin = 0; begin < n_pages; begin += per_segment) {
      walk(first, begin, HWY_MIN(n_pages, begin + per_segment));
      for (size_t i = 0; i < b.n; ++i) {
        MergeState(b.max[i], b.total[i], b.c[i], b.o + i * l.v_width, l.dv, begin == 0, &max[i],
                   &total[i], OutRow(args, first + i));
      }
    }
    for (size_t i = 0; i < b.n; ++i) Finish(total[i], l.dv, OutRow(args, first + i));
  }
}

void AttendTarget(const AttentionArgs& args, size_t segment, float* states,
                  [[maybe_unused]] bool dot4, [[maybe_unused]] SimdTiles tiles) {
  switch (args.layout->type) {
    case KvType::kF32:
      return AttendTyped<FloatPage<float>, void>(args, segment, states);
    case KvType::kF16:
      return AttendTyped<FloatPage<hwy::float16_t>, void>(args, segment, states);
    case KvType::kQ8:
      break;
  }
#if HWY_TARGET == HWY_AVX3_DL && HWY_ARCH_X86_64
  if (tiles == SimdTiles::kAmx)
    return AttendTyped<Q8Page<DotQuads>, DotQuads, &WalkPagesOnTiles<AmxTiles>>(args, segment,
                                                                                states);
  if (tiles == SimdTiles::kEmulated)
    return AttendTyped<Q8Page<DotQuads>, DotQuads, &WalkPagesOnTiles<EmulatedTiles>>(args, segment,
                                                                                     states);
#endif
#if HWY_TARGET <= HWY_AVX3_DL
  AttendTyped<Q8Page<DotQuads>, DotQuads>(args, segment, states);
#else
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if (dot4) return AttendTyped<Q8Page<DotQuads>, DotQuads>(args, segment, states);
#endif
  AttendTyped<Q8Page<DotPairs>, DotPairs>(args, segment, states);
#endif
}

void MergeTarget(const AttentionArgs& args, const float* states) {
  const KvHeadLayout& l = *args.layout;
  const size_t n_queries = args.n_tokens * args.n_heads;
  const size_t n_segments = NumSegments(args.n_pages());
  for (size_t i = 0; i < n_queries; ++i) {
    float max = 0, total = 0;
    for (size_t segment = 0; segment < n_segments; ++segment) {
      const float* state = states + (segment * n_queries + i) * StateFloats(l);
      MergeState(state[0], state[1], state[2], state + kStateHead, l.dv, segment == 0, &max, &total,
                 OutRow(args, i));
    }
    Finish(total, l.dv, OutRow(args, i));
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
namespace {

HWY_EXPORT(AttendTarget);
HWY_EXPORT(MergeTarget);

void Check([[maybe_unused]] const AttentionArgs& args) {
  LUTRA_DCHECK(args.n_tokens > 0 && args.n_heads > 0);
  LUTRA_DCHECK(args.first_position % kKvPage + args.n_tokens <= kKvPage);
}

}  // namespace

void Attend(const AttentionArgs& args) {
  Check(args);
  HWY_DYNAMIC_DISPATCH(AttendTarget)
  (args, HWY_NAMESPACE::kAll, nullptr, SimdHasDot4(), SimdTilesInUse());
}

void AttendSegment(const AttentionArgs& args, size_t segment, float* states) {
  Check(args);
  HWY_DYNAMIC_DISPATCH(AttendTarget)(args, segment, states, SimdHasDot4(), SimdTilesInUse());
}

void MergeSegments(const AttentionArgs& args, const float* states) {
  Check(args);
  HWY_DYNAMIC_DISPATCH(MergeTarget)(args, states);
}

}  // namespace lutra
#endif
