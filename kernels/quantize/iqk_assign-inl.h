// The IQK formats whose weights are not chosen one by one: pairs (IQ2_KL), and fours of even parity (IQ4_KSS).
#if defined(LUTRA_IQK_ASSIGN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_IQK_ASSIGN_INL_H_
#undef LUTRA_IQK_ASSIGN_INL_H_
#else
#define LUTRA_IQK_ASSIGN_INL_H_
#endif

#include "kernels/formats/iq2_kl.h"
#include "kernels/formats/iq4_kss.h"
#include "kernels/quantize/find_encoder-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// IQ2_KL: the pair of levels of least w1 (u1 - v1)^2 + w2 (u2 - v2)^2, by comparing all 32.
struct PairAssign {
  static constexpr size_t kGroup = Iq2Kl::kGroup;
  static constexpr bool kPlainIndexes = false;
  static constexpr float kEnd = -63.0f;
  static constexpr float kOtherEnd = 47.0f;
  static constexpr bool kBothSigns = true;
  static constexpr bool kSlow = true;
  static constexpr ScaleRange kFreeRange = {0.5f, 1.3f, 14};

  // The first or second level of each pair.
  template <size_t kWhich>
  static constexpr std::array<float, 32> kLevels = [] {
    std::array<float, 32> levels{};
    for (size_t k = 0; k < 32; ++k)
      levels[k] = static_cast<float>(iqk::kTable3[iqk::kPairs[k][kWhich]]);
    return levels;
  }();

  // The best pair for weights at x, x + kStride; its cost in units of scale^2.
  static HWY_INLINE VQI Best(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv,
                             VQ* cost) {
    const QF d;
    const QI di;
    VQ of_level[2][8];
    LUTRA_UNROLL(2)
    for (size_t k = 0; k < 2; ++k) {
      const VQ u = hn::Mul(hn::LoadU(d, x + k * kStride), inv);
      const VQ wk = hn::LoadU(d, w + k * kStride);
      LUTRA_UNROLL(8)
      for (size_t t = 0; t < 8; ++t) {
        const VQ r = hn::Sub(u, hn::Set(d, static_cast<float>(iqk::kTable3[t])));
        of_level[k][t] = hn::Mul(hn::Mul(wk, r), r);
      }
    }
    VQ best = hn::Add(of_level[0][iqk::kPairs[0][0]], of_level[1][iqk::kPairs[0][1]]);
    VQI at = hn::Zero(di);
    LUTRA_UNROLL(31)
    for (int t = 1; t < 32; ++t) {
      const VQ c = hn::Add(of_level[0][iqk::kPairs[t][0]], of_level[1][iqk::kPairs[t][1]]);
      const auto better = hn::Lt(c, best);
      best = hn::Min(c, best);
      at = hn::IfThenElse(hn::RebindMask(di, better), hn::Set(di, t), at);
    }
    *cost = best;
    return at;
  }

  static HWY_INLINE void Sums(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv, VQ,
                              VQ* a, VQ* b) {
    const QF d;
    VQ sa = hn::Zero(d), sb = hn::Zero(d);
    for (size_t i = 0; i < kGroup; i += 2) {
      VQ cost;
      const VQI at = Best(x + i * kStride, w + i * kStride, inv, &cost);
      for (size_t k = 0; k < 2; ++k) {
        const VQ v = LookUp<32>(k == 0 ? kLevels<0>.data() : kLevels<1>.data(), at);
        const VQ wv = hn::Mul(hn::LoadU(d, w + (i + k) * kStride), v);
        sa = hn::Add(sa, hn::Mul(wv, hn::LoadU(d, x + (i + k) * kStride)));
        sb = hn::Add(sb, hn::Mul(wv, v));
      }
    }
    *a = sa;
    *b = sb;
  }

  static HWY_INLINE VQ Loss(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ scale,
                            VQ inv, VQ) {
    const QF d;
    VQ loss = hn::Zero(d), all = hn::Zero(d);
    for (size_t i = 0; i < kGroup; i += 2) {
      VQ cost;
      Best(x + i * kStride, w + i * kStride, inv, &cost);
      loss = hn::Add(loss, cost);
      for (size_t k = 0; k < 2; ++k) {
        const VQ xi = hn::LoadU(d, x + (i + k) * kStride);
        all = hn::Add(all, hn::Mul(hn::LoadU(d, w + (i + k) * kStride), hn::Mul(xi, xi)));
      }
    }
    // Under a scale of 0 everything reads as 0.
    return hn::IfThenElse(hn::Eq(inv, hn::Zero(d)), all, hn::Mul(loss, hn::Mul(scale, scale)));
  }

  static void Store(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv, VQ,
                    int32_t* HWY_RESTRICT index) {
    for (size_t i = 0; i < kGroup; i += 2) {
      VQ cost;
      hn::StoreU(Best(x + i * kStride, w + i * kStride, inv, &cost), QI(), index + i * kStride);
    }
  }

  static void Pack(const BlockPacker<Iq2Kl, false>&, Iq2Kl::Block* block, size_t g,
                   const int32_t* index) {
    for (size_t p = 0; p < kGroup / 2; ++p) {
      const uint32_t pair = static_cast<uint32_t>(index[2 * p * kStride]);
      uint8_t& low = block->qs[16 * (g / 2) + p];
      low = static_cast<uint8_t>(low | (pair & 15) << (4 * (g % 2)));
      block->qh[p] = static_cast<uint8_t>(block->qh[p] | (pair >> 4) << g);
    }
  }
};

// IQ4_KSS: of four indexes together an even number of bits is set. Every weight has a nearest level with an even and one with
// an odd number of bits; the cheapest choice of four takes the nearer ones, and where that makes the sum odd, the other one
// for the weight that minds least.
struct ParityAssign {
  static constexpr size_t kGroup = Iq4Kss::kGroup;
  static constexpr bool kPlainIndexes = false;
  static constexpr float kEnd = -127.0f;
  static constexpr float kOtherEnd = 113.0f;
  static constexpr bool kBothSigns = true;
  static constexpr bool kSlow = true;
  static constexpr ScaleRange kFreeRange = {0.78f, 1.08f, 6};

  template <bool kOdd>
  struct Half {
    static constexpr std::array<int8_t, 8> kSome = [] {
      std::array<int8_t, 8> some{};
      size_t n = 0;
      for (uint32_t i = 0; i < 16; ++i) {
        if ((std::popcount(i) & 1) == kOdd) some[n++] = iqk::kTable4[i];
      }
      return some;
    }();
    static constexpr std::array<int32_t, 16> kIndexes = [] {
      std::array<int32_t, 16> indexes{};
      size_t n = 0;
      for (uint32_t i = 0; i < 16; ++i) {
        if ((std::popcount(i) & 1) == kOdd) indexes[n++] = static_cast<int32_t>(i);
      }
      return indexes;
    }();
    static constexpr LevelTables<8> kTables{kSome};
    static constexpr size_t kSize = 8;
    static constexpr size_t kDepth = 3;
    static constexpr auto kValues = kTables.values;
    static constexpr auto kBoundaries = kTables.boundaries;
  };

  // Where the four weights of word k are in the group.
  static constexpr size_t At(size_t k, size_t j) { return 2 * k + j / 2 + 16 * (j % 2); }

  // The levels of four weights (and their indexes, if wanted).
  template <bool kIndexes>
  static HWY_INLINE void Four(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, size_t k,
                              VQ inv, VQ shift, VQ* v, VQI* index) {
    const QF d;
    const QI di;
    VQ other[4], regret[4];
    VQI other_index[4];
    VQI odd = hn::Zero(di);
    VQ least = hn::Set(d, 3e38f);
    for (size_t j = 0; j < 4; ++j) {
      const VQ u = hn::Sub(hn::Mul(hn::LoadU(d, x + At(k, j) * kStride), inv), shift);
      const VQI e = NearestPosition<Half<false>>(u, hn::Zero(di));
      const VQI o = NearestPosition<Half<true>>(u, hn::Zero(di));
      const VQ ve = LookUp<8>(Half<false>::kValues.data(), e);
      const VQ vo = LookUp<8>(Half<true>::kValues.data(), o);
      const VQ re = hn::Sub(u, ve), ro = hn::Sub(u, vo);
      const VQ ce = hn::Mul(re, re), co = hn::Mul(ro, ro);
      const auto take_odd = hn::Lt(co, ce);
      const auto take_odd_i = hn::RebindMask(di, take_odd);
      v[j] = hn::Add(hn::IfThenElse(take_odd, vo, ve), shift);
      other[j] = hn::Add(hn::IfThenElse(take_odd, ve, vo), shift);
      if constexpr (kIndexes) {
        const VQI ie = hn::BitCast(
            di, LookUp<8>(reinterpret_cast<const float*>(Half<false>::kIndexes.data()), e));
        const VQI io = hn::BitCast(
            di, LookUp<8>(reinterpret_cast<const float*>(Half<true>::kIndexes.data()), o));
        index[j] = hn::IfThenElse(take_odd_i, io, ie);
        other_index[j] = hn::IfThenElse(take_odd_i, ie, io);
      }
      odd = hn::Xor(odd, hn::VecFromMask(di, take_odd_i));
      regret[j] = hn::Mul(hn::LoadU(d, w + At(k, j) * kStride), hn::Abs(hn::Sub(ce, co)));
      least = hn::Min(least, regret[j]);
    }
    auto repair = hn::RebindMask(d, hn::Ne(odd, hn::Zero(di)));
    for (size_t j = 0; j < 4; ++j) {
      const auto here = hn::And(repair, hn::Le(regret[j], least));
      v[j] = hn::IfThenElse(here, other[j], v[j]);
      if constexpr (kIndexes)
        index[j] = hn::IfThenElse(hn::RebindMask(di, here), other_index[j], index[j]);
      repair = hn::AndNot(here, repair);
    }
  }

  static HWY_INLINE void Sums(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv,
                              VQ shift, VQ* a, VQ* b) {
    const QF d;
    VQ sa = hn::Zero(d), sb = hn::Zero(d);
    for (size_t k = 0; k < 8; ++k) {
      VQ v[4];
      Four<false>(x, w, k, inv, shift, v, nullptr);
      for (size_t j = 0; j < 4; ++j) {
        const VQ wv = hn::Mul(hn::LoadU(d, w + At(k, j) * kStride), v[j]);
        sa = hn::Add(sa, hn::Mul(wv, hn::LoadU(d, x + At(k, j) * kStride)));
        sb = hn::Add(sb, hn::Mul(wv, v[j]));
      }
    }
    *a = sa;
    *b = sb;
  }

  static HWY_INLINE VQ Loss(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ scale,
                            VQ inv, VQ shift) {
    const QF d;
    VQ loss = hn::Zero(d);
    for (size_t k = 0; k < 8; ++k) {
      VQ v[4];
      Four<false>(x, w, k, inv, shift, v, nullptr);
      for (size_t j = 0; j < 4; ++j) {
        const VQ r = hn::Sub(hn::LoadU(d, x + At(k, j) * kStride), hn::Mul(scale, v[j]));
        loss = hn::Add(loss, hn::Mul(hn::Mul(hn::LoadU(d, w + At(k, j) * kStride), r), r));
      }
    }
    return loss;
  }

  static void Store(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv, VQ shift,
                    int32_t* HWY_RESTRICT index) {
    for (size_t k = 0; k < 8; ++k) {
      VQ v[4];
      VQI q[4];
      Four<true>(x, w, k, inv, shift, v, q);
      for (size_t j = 0; j < 4; ++j) hn::StoreU(q[j], QI(), index + At(k, j) * kStride);
    }
  }

  static void Pack(const BlockPacker<Iq4Kss, false>&, Iq4Kss::Block* block, size_t g,
                   const int32_t* index) {
    for (size_t k = 0; k < 8; ++k) {
      uint32_t t = 0;
      for (size_t j = 0; j < 4; ++j)
        t |= static_cast<uint32_t>(index[At(k, j) * kStride]) << (4 * j);
      for (int shift = 1; shift < 16; shift *= 2)
        t ^= t >> shift;  // the inverse of t ^ (t >> 1); bit 0 becomes 0
      uint8_t* word = block->words + 16 * g + 2 * k;
      StoreLe16(word, static_cast<uint16_t>(LoadLe<uint16_t>(word) | (t & 0xFFFE)));
    }
  }
};

template <>
struct AssignOf<Iq2Kl> {
  using type = PairAssign;
};
template <>
struct AssignOf<Iq4Kss> {
  using type = ParityAssign;
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // include guard
