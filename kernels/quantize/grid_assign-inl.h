// The codebook formats: four or eight weights together are a point of a grid, mostly with signs beside it.
//
// The search is exact: every point is compared, under the weights' importances. It costs about four instructions a point for 16
// vectors at once, because a distance is the sum of two halves that are computed once for all patterns of a half.
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
  static constexpr float kEnd = C::kLevels[C::kLevels.size() - 1];
  static constexpr float kOtherEnd = kEnd;  // of scales of the other sign: there are none
  // Few levels are used best where the largest weights are cut off.
  static constexpr ScaleRange kFreeRange = C::kLevels[0] < 0 ? ScaleRange{0.7f, 2.4f, 14} : C::kLevels.size() == 3 ? ScaleRange{0.6f, 1.35f, 10} : ScaleRange{0.7f, 1.2f, 9};

  // One vector of kDims weights: what is looked for.
  struct Vector {
    VQ u[kDims];  // x / scale, signs folded away where the format has signs
    VQ w[kDims];
    VQI signs;    // bit i: weight i is negative
  };

  // Fills vectors [k, k + n) where n vectors share an even number of minus signs (or n is 1).
  static constexpr size_t kSignVectors = C::kSigns == Signs::kEven ? 8 / kDims : 1;
  static HWY_INLINE void Load(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, size_t k, VQ inv, VQ shift, Vector* out) {
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
          const VQI bit = hn::IfThenElseZero(hn::RebindMask(di, hn::Lt(u, hn::Zero(d))), hn::Set(di, 1 << i));
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
          const auto here = hn::And(hn::RebindMask(d, repair), hn::Le(hn::Mul(out[j].w[i], out[j].u[i]), least));
          out[j].u[i] = hn::IfThenElse(here, hn::Neg(out[j].u[i]), out[j].u[i]);
          out[j].signs = hn::Xor(out[j].signs, hn::IfThenElseZero(hn::RebindMask(di, here), hn::Set(di, 1 << i)));
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
    constexpr size_t kPairs = kN * kN;
    HWY_ALIGN float pairs[kDims / 2][kPairs * kQLanes];
    for (size_t p = 0; p < kDims / 2; ++p) {
      VQ of[2][kN];
      for (size_t k = 0; k < 2; ++k) {
        for (size_t l = 0; l < kN; ++l) {
          const VQ r = hn::Sub(v.u[2 * p + k], hn::Set(d, C::kLevels[l]));
          of[k][l] = hn::Mul(hn::Mul(v.w[2 * p + k], r), r);
        }
      }
      for (size_t b = 0; b < kN; ++b) {
        for (size_t a = 0; a < kN; ++a) hn::Store(hn::Add(of[0][a], of[1][b]), d, pairs[p] + (a + kN * b) * kQLanes);
      }
    }
    const float* halves[2] = {pairs[0], pairs[1]};
    HWY_ALIGN float fours[2][kDims == 8 ? kPairs * kPairs * kQLanes : 1];
    if constexpr (kDims == 8) {
      for (size_t h = 0; h < 2; ++h) {
        for (size_t b = 0; b < kPairs; ++b) {
          const VQ second = hn::Load(d, pairs[2 * h + 1] + b * kQLanes);
          for (size_t a = 0; a < kPairs; ++a) {
            hn::Store(hn::Add(hn::Load(d, pairs[2 * h] + a * kQLanes), second), d, fours[h] + (a + kPairs * b) * kQLanes);
          }
        }
        halves[h] = fours[h];
      }
    }
    const CodebookPoint* points = C::Points().data();
    VQ best = hn::Set(d, 3e38f);
    VQI at = hn::Zero(di);
    VQI i = hn::Zero(di);
    const VQI one = hn::Set(di, 1);
    for (size_t p = 0; p < C::kPoints; ++p) {
      const VQ c = hn::Add(hn::Load(d, halves[0] + points[p].first * kQLanes), hn::Load(d, halves[1] + points[p].second * kQLanes));
      const auto better = hn::Lt(c, best);
      best = hn::Min(c, best);
      at = hn::IfThenElse(hn::RebindMask(di, better), i, at);
      i = hn::Add(i, one);
    }
    *cost = best;
    return at;
  }

  // IQ1_M: each vector has its own offset; kOffset is what the second choice adds.
  static HWY_INLINE VQI SearchOffsets(Vector v, VQ* cost, VQI* second) {
    const QI di;
    VQI at = Search(v, cost);
    *second = hn::Zero(di);
    if constexpr (C::kOffset != 0) {
      for (size_t i = 0; i < kDims; ++i) v.u[i] = hn::Sub(v.u[i], hn::Set(QF(), static_cast<float>(C::kOffset)));
      VQ other;
      const VQI other_at = Search(v, &other);
      const auto better = hn::Lt(other, *cost);
      *cost = hn::Min(other, *cost);
      at = hn::IfThenElse(hn::RebindMask(di, better), other_at, at);
      *second = hn::IfThenElseZero(hn::RebindMask(di, better), hn::Set(di, 1));
    }
    return at;
  }

  template <class Visit>
  static HWY_INLINE void ForVectors(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv, VQ shift, const Visit& visit) {
    for (size_t k = 0; k < kGroup / kDims; k += kSignVectors) {
      Vector v[kSignVectors];
      Load(x, w, k, inv, shift, v);
      for (size_t j = 0; j < kSignVectors; ++j) {
        VQ cost;
        VQI second;
        const VQI at = SearchOffsets(v[j], &cost, &second);
        visit(k + j, v[j], at, second, cost);
      }
    }
  }

  static void Sums(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv, VQ shift, VQ* a, VQ* b) {
    const QF d;
    const QI di;
    VQ sa = hn::Zero(d), sb = hn::Zero(d);
    ForVectors(x, w, inv, shift, [&](size_t k, const Vector& v, VQI at, VQI second, VQ) HWY_ATTR {
      const VQI code = hn::GatherIndex(di, C::Codes().data(), at);
      const VQ offset = hn::Add(shift, hn::Mul(hn::ConvertTo(d, second), hn::Set(d, static_cast<float>(C::kOffset))));
      for (size_t i = 0; i < kDims; ++i) {
        const VQI level = hn::And(hn::ShiftRightSame(code, static_cast<int>(i) * C::kCodeBits), hn::Set(di, (1 << C::kCodeBits) - 1));
        VQ y = LookUp<8>(C::kLevelTable.data(), level);
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

  static VQ Loss(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ scale, VQ inv, VQ shift) {
    const QF d;
    VQ loss = hn::Zero(d), all = hn::Zero(d);
    ForVectors(x, w, inv, shift, [&](size_t, const Vector&, VQI, VQI, VQ cost) HWY_ATTR { loss = hn::Add(loss, cost); });
    for (size_t i = 0; i < kGroup; ++i) {
      const VQ xi = hn::LoadU(d, x + i * kStride);
      all = hn::Add(all, hn::Mul(hn::LoadU(d, w + i * kStride), hn::Mul(xi, xi)));
    }
    return hn::IfThenElse(hn::Eq(inv, hn::Zero(d)), all, hn::Mul(loss, hn::Mul(scale, scale)));
  }

  // Slots of a vector: 0 its point, 1 its signs, 2 whether it has the second offset.
  static void Store(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv, VQ shift, int32_t* HWY_RESTRICT index) {
    const QI di;
    ForVectors(x, w, inv, shift, [&](size_t k, const Vector& v, VQI at, VQI second, VQ) HWY_ATTR {
      hn::StoreU(at, di, index + k * kDims * kStride);
      hn::StoreU(v.signs, di, index + (k * kDims + 1) * kStride);
      hn::StoreU(second, di, index + (k * kDims + 2) * kStride);
    });
  }

  static void Pack(const BlockPacker<F, false>&, typename F::Block* block, size_t g, const int32_t* index) {
    for (size_t k = 0; k < kGroup / kDims; ++k) {
      const int32_t* slots = index + k * kDims * kStride;
      C::Pack(block, g, k, static_cast<uint32_t>(slots[0]), static_cast<uint32_t>(slots[kStride]), slots[2 * kStride] != 0);
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
