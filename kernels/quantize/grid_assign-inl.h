// The codebook formats: four or eight weights together are a point of a grid, mostly with signs beside it.
//
// Every point is compared, under the weights' importances. That takes few instructions a point for 16 vectors at once, because a distance
// is the sum of two halves that are computed once for all patterns of a half. Scales are compared by distances rounded to fewer bits; the
// points that are stored are the nearest.
#if defined(LUTRA_GRID_ASSIGN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_GRID_ASSIGN_INL_H_
#undef LUTRA_GRID_ASSIGN_INL_H_
#else
#define LUTRA_GRID_ASSIGN_INL_H_
#endif

#include "kernels/formats/grids.h"
#include "kernels/quantize/codebooks.h"
#include "kernels/quantize/find_encoder-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

template <class F>
struct GridAssign {
  using C = Codebook<F>;
  static constexpr size_t kGroup = F::kGroup;
  static constexpr size_t kDims = C::kDims;
  static constexpr bool kPlainIndexes = false;
  static constexpr bool kBothSigns = false;
  static constexpr bool kSlow = true;
  static constexpr float kEnd = C::kLevels[C::kLevels.size() - 1];
  static constexpr float kOtherEnd = kEnd;  // of scales of the other sign: there are none
  // Few levels are used best where the largest weights are cut off.
  static constexpr ScaleRange kFreeRange = C::kLevels[0] < 0        ? ScaleRange{0.7f, 2.4f, 9}
                                           : C::kLevels.size() == 3 ? ScaleRange{0.6f, 1.35f, 6}
                                                                    : ScaleRange{0.7f, 1.2f, 6};

  // One vector of kDims weights: what is looked for.
  struct Vector {
    VQ u[kDims];  // x / scale, signs folded away where the format has signs
    VQ w[kDims];
    VQI signs;  // bit i: weight i is negative
  };

  // Fills vectors [k, k + n) where n vectors share an even number of minus signs (or n is 1).
  static constexpr size_t kSignVectors = C::kSigns == Signs::kEven ? 8 / kDims : 1;
  static HWY_INLINE void Load(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, size_t k,
                              VQ inv, VQ shift, Vector* out) {
    const QF d;
    const QI di;
    VQI odd = hn::Zero(di);
    VQ least = hn::Set(d, 3e38f);
    for (size_t j = 0; j < kSignVectors; ++j) {
      out[j].signs = hn::Zero(di);
      for (size_t i = 0; i < kDims; ++i) {
        const size_t at = ((k + j) * kDims + i) * kStride;
        const VQ u = hn::Mul(hn::LoadU(d, x + at), inv);
        out[j].w[i] = hn::LoadU(d, w + at);
        if constexpr (C::kSigns == Signs::kNone) {
          out[j].u[i] = hn::Sub(u, shift);
        } else {
          out[j].u[i] = hn::Abs(u);
          const VQI bit =
              hn::IfThenElseZero(hn::RebindMask(di, hn::Lt(u, hn::Zero(d))), hn::Set(di, 1 << i));
          out[j].signs = hn::Or(out[j].signs, bit);
          if constexpr (C::kSigns == Signs::kEven) {
            odd = hn::Xor(odd, hn::VecFromMask(di, hn::RebindMask(di, hn::Lt(u, hn::Zero(d)))));
            least = hn::Min(least, hn::Mul(out[j].w[i], out[j].u[i]));
          }
        }
      }
    }
    if constexpr (C::kSigns == Signs::kEven) {
      // The sign that costs least changes.
      auto repair = hn::Ne(odd, hn::Zero(di));
      for (size_t j = 0; j < kSignVectors; ++j) {
        for (size_t i = 0; i < kDims; ++i) {
          const auto here =
              hn::And(hn::RebindMask(d, repair), hn::Le(hn::Mul(out[j].w[i], out[j].u[i]), least));
          out[j].u[i] = hn::IfThenElse(here, hn::Neg(out[j].u[i]), out[j].u[i]);
          out[j].signs = hn::Xor(out[j].signs,
                                 hn::IfThenElseZero(hn::RebindMask(di, here), hn::Set(di, 1 << i)));
          repair = hn::AndNot(hn::RebindMask(di, here), repair);
        }
      }
    }
  }

  // The nearest point; its cost.
  static HWY_INLINE VQI Search(const Vector& v, VQ* cost) {
    const QF d;
    const QI di;
    constexpr size_t kN = C::kLevels.size();
    HWY_ALIGN float halves[2][C::kHalves * kQLanes];
    for (size_t h = 0; h < 2; ++h) {
      size_t n = 1;  // sums so far
      hn::Store(hn::Zero(d), d, halves[h]);
      for (size_t i = h * kDims / 2; i < (h + 1) * kDims / 2; ++i, n *= kN) {
        for (size_t l = kN; l-- > 0;) {  // the first level last: it overwrites
          const VQ r = hn::Sub(v.u[i], hn::Set(d, C::kLevels[l]));
          const VQ c = hn::Mul(hn::Mul(v.w[i], r), r);
          for (size_t k = 0; k < n; ++k)
            hn::Store(hn::Add(hn::Load(d, halves[h] + k * kQLanes), c), d,
                      halves[h] + (k + n * l) * kQLanes);
        }
      }
    }
    const CodebookPoint* points = C::Points().data();
    VQ best = hn::Set(d, 3e38f);
    VQI at = hn::Zero(di);
    VQI i = hn::Zero(di);
    const VQI one = hn::Set(di, 1);
    for (size_t p = 0; p < C::kPoints; ++p) {
      const VQ c = hn::Add(hn::Load(d, halves[0] + points[p].first * kQLanes),
                           hn::Load(d, halves[1] + points[p].second * kQLanes));
      const auto better = hn::Lt(c, best);
      best = hn::Min(c, best);
      at = hn::IfThenElse(hn::RebindMask(di, better), i, at);
      i = hn::Add(i, one);
    }
    *cost = best;
    return at;
  }

  // The code of a near point, mostly the nearest: costs are rounded, so that cost and halves of a point fit 31 bits and a comparison
  // is an addition and a minimum. Good enough to compare scales.
  static HWY_INLINE VQI SearchRounded(const Vector& v) {
    const QF d;
    const QI di;
    constexpr size_t kN = C::kLevels.size();
    constexpr int kHalfBits = std::bit_width(C::kHalves - 1);
    constexpr int kIdBits = 2 * kHalfBits;
    // What a coordinate costs at most, in units of the rounding.
    constexpr float kTop = static_cast<float>((1 << (31 - kIdBits)) / static_cast<int>(kDims) - 1);
    constexpr float kSpacing = C::kLevels[1] - C::kLevels[0];
    VQ most = hn::Zero(d);
    for (size_t i = 0; i < kDims; ++i) most = hn::Add(most, v.w[i]);
    const VQ unit = hn::Mul(Inverse(most), hn::Set(d, kTop / (4.0f * kSpacing * kSpacing)));
    HWY_ALIGN int32_t halves[2][C::kHalves * kQLanes];
    for (size_t h = 0; h < 2; ++h) {
      size_t n = 1;
      hn::Store(hn::Zero(di), di, halves[h]);
      for (size_t i = h * kDims / 2; i < (h + 1) * kDims / 2; ++i, n *= kN) {
        VQ costs[kN];
        VQ least = hn::Set(d, 3e38f);
        for (size_t l = 0; l < kN; ++l) {
          const VQ r = hn::Sub(v.u[i], hn::Set(d, C::kLevels[l]));
          costs[l] = hn::Mul(hn::Mul(hn::Mul(v.w[i], unit), r), r);
          least = hn::Min(least, costs[l]);
        }
        for (size_t l = kN; l-- > 0;) {
          const VQ over = hn::Min(hn::Sub(costs[l], least), hn::Set(d, kTop));
          const int32_t id = static_cast<int32_t>(n * l) << (h == 0 ? 0 : kHalfBits);
          const VQI c = hn::Add(hn::ShiftLeft<kIdBits>(hn::ConvertTo(di, RoundInteger(over))),
                                hn::Set(di, id));
          for (size_t k = 0; k < n; ++k)
            hn::Store(hn::Add(hn::Load(di, halves[h] + k * kQLanes), c), di,
                      halves[h] + (k + n * l) * kQLanes);
        }
      }
    }
    const auto& points = C::PointsByFirst();
    VQI best[2] = {hn::Set(di, 0x7FFFFFFF), hn::Set(di, 0x7FFFFFFF)};
    for (size_t h = 0; h < C::kHalves; ++h) {
      const VQI first = hn::Load(di, halves[0] + h * kQLanes);
      const size_t end = points.begin[h + 1];
      size_t p = points.begin[h];
      for (; p + 2 <= end; p += 2) {
        best[0] =
            hn::Min(best[0], hn::Add(first, hn::Load(di, halves[1] + points.seconds[p] * kQLanes)));
        best[1] = hn::Min(
            best[1], hn::Add(first, hn::Load(di, halves[1] + points.seconds[p + 1] * kQLanes)));
      }
      if (p < end)
        best[0] =
            hn::Min(best[0], hn::Add(first, hn::Load(di, halves[1] + points.seconds[p] * kQLanes)));
    }
    const VQI id = hn::Min(best[0], best[1]);
    const VQI mask = hn::Set(di, (1 << kHalfBits) - 1);
    const VQI first = hn::GatherIndex(di, points.codes.data(), hn::And(id, mask));
    const VQI second =
        hn::GatherIndex(di, points.codes.data(), hn::And(hn::ShiftRight<kHalfBits>(id), mask));
    return hn::Or(first, hn::ShiftLeft<C::kCodeBits* static_cast<int>(kDims / 2)>(second));
  }

  // Weight i of a point with this code.
  static HWY_INLINE VQ LevelOf(VQI code, size_t i) {
    const QI di;
    return LookUp<8>(C::kLevelTable.data(),
                     hn::And(hn::ShiftRightSame(code, static_cast<int>(i) * C::kCodeBits),
                             hn::Set(di, (1 << C::kCodeBits) - 1)));
  }

  static HWY_INLINE VQ CostOf(const Vector& v, VQI code) {
    const QF d;
    VQ cost = hn::Zero(d);
    for (size_t i = 0; i < kDims; ++i) {
      const VQ r = hn::Sub(v.u[i], LevelOf(code, i));
      cost = hn::Add(cost, hn::Mul(hn::Mul(v.w[i], r), r));
    }
    return cost;
  }

  // The point, as its place in the grid (kExact) or its code, and its cost. IQ1_M: each vector has its own offset; kOffset is what the
  // second choice adds.
  template <bool kExact>
  static HWY_INLINE VQI Nearest(const Vector& v, VQ* cost) {
    if constexpr (kExact) {
      return Search(v, cost);
    } else {
      const VQI code = SearchRounded(v);
      *cost = CostOf(v, code);
      return code;
    }
  }
  template <bool kExact>
  static HWY_INLINE VQI NearestOfOffsets(Vector v, VQ* cost, VQI* second) {
    const QI di;
    VQI at = Nearest<kExact>(v, cost);
    *second = hn::Zero(di);
    if constexpr (C::kOffset != 0) {
      for (size_t i = 0; i < kDims; ++i)
        v.u[i] = hn::Sub(v.u[i], hn::Set(QF(), static_cast<float>(C::kOffset)));
      VQ other;
      const VQI other_at = Nearest<kExact>(v, &other);
      const auto better = hn::Lt(other, *cost);
      *cost = hn::Min(other, *cost);
      at = hn::IfThenElse(hn::RebindMask(di, better), other_at, at);
      *second = hn::IfThenElseZero(hn::RebindMask(di, better), hn::Set(di, 1));
    }
    return at;
  }

  template <bool kExact, class Visit>
  static HWY_INLINE void ForVectors(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w,
                                    VQ inv, VQ shift, const Visit& visit) {
    for (size_t k = 0; k < kGroup / kDims; k += kSignVectors) {
      Vector v[kSignVectors];
      Load(x, w, k, inv, shift, v);
      for (size_t j = 0; j < kSignVectors; ++j) {
        VQ cost;
        VQI second;
        const VQI at = NearestOfOffsets<kExact>(v[j], &cost, &second);
        visit(k + j, v[j], at, second, cost);
      }
    }
  }

  static void Sums(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv, VQ shift,
                   VQ* a, VQ* b) {
    const QF d;
    const QI di;
    VQ sa = hn::Zero(d), sb = hn::Zero(d);
    ForVectors<false>(
        x, w, inv, shift, [&](size_t k, const Vector& v, VQI code, VQI second, VQ) HWY_ATTR {
          const VQ offset = hn::Add(
              shift, hn::Mul(hn::ConvertTo(d, second), hn::Set(d, static_cast<float>(C::kOffset))));
          for (size_t i = 0; i < kDims; ++i) {
            VQ y = LevelOf(code, i);
            if constexpr (C::kSigns == Signs::kNone) {
              y = hn::Add(y, offset);
            } else {
              const auto minus = hn::Ne(hn::And(v.signs, hn::Set(di, 1 << i)), hn::Zero(di));
              y = hn::IfThenElse(hn::RebindMask(d, minus), hn::Neg(y), y);
            }
            const size_t at_weight = (k * kDims + i) * kStride;
            const VQ wy = hn::Mul(hn::LoadU(d, w + at_weight), y);
            sa = hn::Add(sa, hn::Mul(wy, hn::LoadU(d, x + at_weight)));
            sb = hn::Add(sb, hn::Mul(wy, y));
          }
        });
    *a = sa;
    *b = sb;
  }

  static VQ Loss(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ scale, VQ inv,
                 VQ shift) {
    const QF d;
    VQ loss = hn::Zero(d), all = hn::Zero(d);
    ForVectors<false>(x, w, inv, shift, [&](size_t, const Vector&, VQI, VQI, VQ cost) HWY_ATTR {
      loss = hn::Add(loss, cost);
    });
    for (size_t i = 0; i < kGroup; ++i) {
      const VQ xi = hn::LoadU(d, x + i * kStride);
      all = hn::Add(all, hn::Mul(hn::LoadU(d, w + i * kStride), hn::Mul(xi, xi)));
    }
    return hn::IfThenElse(hn::Eq(inv, hn::Zero(d)), all, hn::Mul(loss, hn::Mul(scale, scale)));
  }

  // Slots of a vector: 0 its point, 1 its signs, 2 whether it has the second offset.
  static void Store(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv, VQ shift,
                    int32_t* HWY_RESTRICT index) {
    const QI di;
    ForVectors<true>(x, w, inv, shift,
                     [&](size_t k, const Vector& v, VQI at, VQI second, VQ) HWY_ATTR {
                       hn::StoreU(at, di, index + k * kDims * kStride);
                       hn::StoreU(v.signs, di, index + (k * kDims + 1) * kStride);
                       hn::StoreU(second, di, index + (k * kDims + 2) * kStride);
                     });
  }

  static void Pack(const BlockPacker<F, false>&, typename F::Block* block, size_t g,
                   const int32_t* index) {
    for (size_t k = 0; k < kGroup / kDims; ++k) {
      const int32_t* slots = index + k * kDims * kStride;
      C::Pack(block, g, k, static_cast<uint32_t>(slots[0]), static_cast<uint32_t>(slots[kStride]),
              slots[2 * kStride] != 0);
    }
  }
};

template <QuantFormat F>
requires requires { Codebook<F>::kPoints; }
struct AssignOf<F> {
  using type = GridAssign<F>;
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // include guard
