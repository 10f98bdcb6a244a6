#include "kernels/attention.h"

#include <cmath>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"
#include "kernels/float_dots-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// scores[h, j] = scale * q[h] . k[j] for the n positions of a page.
template <class T>
HWY_INLINE void Scores(const T* k, size_t n, const AttentionArgs& a, float* HWY_RESTRICT scores) {
  const auto scale = hn::Set(DF(), a.scale);
  DotRows<T>(k, 0, n, a.head_dim_k, a.q, a.head_dim_k, 0, a.n_heads, scores, kKvPage);
  for (size_t h = 0; h < a.n_heads; ++h) {
    float* row = scores + h * kKvPage;
    for (size_t j = 0; j < kKvPage; j += kLanes) {
      hn::Store(hn::Mul(hn::Load(DF(), row + j), scale), DF(), row + j);  // beyond n: garbage, not used
    }
  }
}

// Turns the scores of one head into weights e^(s - max), 0 beyond n. Returns the factor for what was summed before.
HWY_INLINE float Weights(float* HWY_RESTRICT s, size_t n, float& max, float& total) {
  float page_max = s[0];
  for (size_t j = 1; j < n; ++j) page_max = s[j] > page_max ? s[j] : page_max;
  const float new_max = page_max > max ? page_max : max;
  const float alpha = hn::GetLane(Exp(hn::Set(DF(), max - new_max)));
  Sum16 sum = ZeroSum();
  for (size_t j = n; j < kKvPage; ++j) s[j] = -std::numeric_limits<float>::infinity();
  for (size_t j = 0; j < kKvPage; j += 16) {
    for (size_t p = 0; p < kParts; ++p) {
      float* at = s + j + p * kLanes;
      const auto e = Exp(hn::Sub(hn::Load(DF(), at), hn::Set(DF(), new_max)));
      hn::Store(e, DF(), at);
      sum.v[p] = hn::Add(sum.v[p], e);
    }
  }
  total = total * alpha + Reduce(sum);
  max = new_max;
  return alpha;
}

// out[h] = out[h] * alpha[h] + sum_j weight[h, j] * v[j], position by position, for kHeads heads.
template <class T, size_t kHeads>
HWY_INLINE void Values(const T* HWY_RESTRICT v, size_t n, size_t dim, const float* HWY_RESTRICT weights,
                       const float* HWY_RESTRICT alpha, float* HWY_RESTRICT out) {
  size_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    VF sum[kHeads];
    LUTRA_UNROLL(4)
    for (size_t h = 0; h < kHeads; ++h) {
      sum[h] = hn::Mul(hn::LoadU(DF(), out + h * dim + i), hn::Set(DF(), alpha[h]));
    }
    for (size_t j = 0; j < n; ++j) {
      const VF value = LoadWeights(v + j * dim + i);
      LUTRA_UNROLL(4)
      for (size_t h = 0; h < kHeads; ++h) {
        sum[h] = Fma(hn::Set(DF(), weights[h * kKvPage + j]), value, sum[h]);
      }
    }
    LUTRA_UNROLL(4)
    for (size_t h = 0; h < kHeads; ++h) hn::StoreU(sum[h], DF(), out + h * dim + i);
  }
  if (i < dim) {
    const size_t left = dim - i;
    for (size_t h = 0; h < kHeads; ++h) {
      HWY_ALIGN float tail[16] = {};
      for (size_t c = 0; c < left; ++c) tail[c] = out[h * dim + i + c];
      VF sum = hn::Mul(hn::Load(DF(), tail), hn::Set(DF(), alpha[h]));
      for (size_t j = 0; j < n; ++j) {
        HWY_ALIGN T values[16] = {};
        for (size_t c = 0; c < left; ++c) values[c] = v[j * dim + i + c];
        sum = Fma(hn::Set(DF(), weights[h * kKvPage + j]), LoadWeights(values), sum);
      }
      hn::Store(sum, DF(), tail);
      for (size_t c = 0; c < left; ++c) out[h * dim + i + c] = tail[c];
    }
  }
}

template <class T>
void AttendTyped(const AttentionArgs& a) {
  HWY_ALIGN float scores[4 * kKvPage] = {};
  // Four query heads at a time: what they share is read once, and the scores stay in cache.
  for (size_t first = 0; first < a.n_heads; first += 4) {
    AttentionArgs part = a;
    part.n_heads = HWY_MIN(size_t{4}, a.n_heads - first);
    part.q = a.q + first * a.head_dim_k;
    part.out = a.out + first * a.head_dim_v;
    const size_t n_out = part.n_heads * a.head_dim_v;
    for (size_t i = 0; i < n_out; ++i) part.out[i] = 0.0f;
    float max[4], total[4], alpha[4];
    for (size_t h = 0; h < 4; ++h) {
      max[h] = -std::numeric_limits<float>::infinity();
      total[h] = 0.0f;
    }
    for (size_t begin = 0; begin < a.n_positions; begin += kKvPage) {
      const uint8_t* page = a.pages[begin / kKvPage];
      const size_t n = HWY_MIN(kKvPage, a.n_positions - begin);
      Scores<T>(reinterpret_cast<const T*>(page + a.k_offset), n, part, scores);
      for (size_t h = 0; h < part.n_heads; ++h) {
        alpha[h] = Weights(scores + h * kKvPage, n, max[h], total[h]);
      }
      const T* v = reinterpret_cast<const T*>(page + a.v_offset);
      if (part.n_heads == 4) {
        Values<T, 4>(v, n, a.head_dim_v, scores, alpha, part.out);
      } else {
        for (size_t h = 0; h < part.n_heads; ++h) {
          Values<T, 1>(v, n, a.head_dim_v, scores + h * kKvPage, alpha + h, part.out + h * a.head_dim_v);
        }
      }
    }
    for (size_t h = 0; h < part.n_heads; ++h) {
      const float inverse = 1.0f / total[h];
      for (size_t i = 0; i < a.head_dim_v; ++i) part.out[h * a.head_dim_v + i] *= inverse;
    }
  }
}

void AttendTarget(const AttentionArgs& a) {
  if (a.type == KvType::kF32) {
    AttendTyped<float>(a);
  } else {
    AttendTyped<hwy::float16_t>(a);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
HWY_EXPORT(AttendTarget);
void Attend(const AttentionArgs& args) {
  LUTRA_DCHECK(args.n_positions > 0 && args.n_heads <= kMaxHeadsPerKv);
  HWY_DYNAMIC_DISPATCH(AttendTarget)(args);
}
}  // namespace lutra
#endif
