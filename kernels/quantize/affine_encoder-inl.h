// The encoder of formats y = d * scale(group) * q + bias_super * bias(group) with q = 0, 1, ..: two floats a block, two integers
// a group (or none: the floats are the group's own).
//
// The steps are those of scaled_encoder-inl.h, with two unknowns: (1) each group's own scale s and offset m, y = s q - m, from
// clipped ranges and least-squares refits; (2) d and dmin from the largest of those, compared with the levels of step 1; then refits
// by least squares over the block, every group taking the pair of integers of least loss among the neighbours of its ideal pair.
#if defined(LUTRA_AFFINE_ENCODER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_AFFINE_ENCODER_INL_H_
#undef LUTRA_AFFINE_ENCODER_INL_H_
#else
#define LUTRA_AFFINE_ENCODER_INL_H_
#endif

#include "kernels/quantize/scaled_encoder-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

template <QuantFormat F>
class AffineEncoder {
  static constexpr size_t kGroup = F::kGroup;
  static constexpr size_t kWeights = F::kInfo.block_weights;
  static constexpr size_t kGroups = kWeights / kGroup;
  static constexpr float kTop = static_cast<float>((1 << F::kBits) - 1);
  static constexpr bool kIntegers = F::kScaleBits != 0;  // integers a group, else the floats alone
  // A minimum is stored and subtracted: offsets cannot be negative. The others add a float of any sign.
  static constexpr bool kSubtracted = requires(typename F::Block b) { b.dmin; };
  using Packer = BlockPacker<F>;

  struct Lanes {
    float* zero_loss;  // sum w x^2
    float *free_scale, *free_offset;
    float *super_scale, *super_offset;  // under trial
    float *loss, *scale, *offset;       // of the best integers under them
    float *best_scale, *best_offset;
    float *sq, *sqq, *sxq, *sw, *sx;  // sums of w q, w q^2, w x q, w, w x
    static constexpr size_t kArrays = 15;
  };
  using Row = RowLanes<kGroup>;
  struct Pair {
    float scale = 0.0f, offset = 0.0f;
  };

 public:
  static void EncodeRow(const float* x, const float* w, size_t n, int unit, uint8_t* out,
                        QuantizeScratch* scratch) {
    const Packer& packer = Packer::Get();
    const Row row(x, w, n, unit, Lanes::kArrays, scratch);
    const Lanes lanes = Carve(scratch->lanes.data(), row.n_padded);

    FreeFits(row, lanes);
    std::fill(lanes.super_scale, lanes.super_scale + row.n_padded, 0.0f);
    std::fill(lanes.super_offset, lanes.super_offset + row.n_padded, 0.0f);
    std::fill(lanes.best_scale, lanes.best_scale + row.n_padded, 0.0f);
    std::fill(lanes.best_offset, lanes.best_offset + row.n_padded, 0.0f);
    const size_t n_blocks = n / kWeights;
    Grow(&scratch->supers, 5 * n_blocks);
    Pair* supers = reinterpret_cast<Pair*>(scratch->supers.data());
    SearchSupers(row, lanes, n_blocks, packer.scales().back(), packer.max_bias(), supers);

    int32_t* index = scratch->index.data();
    row.ForVectors([&](const float* xg, const float*, size_t g) HWY_ATTR {
      const QF d;
      const VQ inv = Inverse(hn::LoadU(d, lanes.best_scale + g));
      const VQ offset = hn::LoadU(d, lanes.best_offset + g);
      for (size_t i = 0; i < kGroup; ++i) {
        const VQ q = Level(hn::LoadU(d, xg + i * kStride), inv, offset);
        hn::StoreU(hn::ConvertTo(QI(), q), QI(), index + Row::At(g) + i * kStride);
      }
    });
    std::memset(out, 0, n_blocks * sizeof(typename F::Block));
    auto* blocks = reinterpret_cast<typename F::Block*>(out);
    const float* losses = reinterpret_cast<const float*>(supers + n_blocks);
    double loss = 0.0;
    for (size_t b = 0; b < n_blocks; ++b) loss += static_cast<double>(losses[b]);
    const float gain = LostGain(loss, row.SumOfAll(lanes.zero_loss));
    for (size_t b = 0; b < n_blocks; ++b) {
      const Pair super = supers[b];
      if (super.scale == 0.0f && super.offset == 0.0f) continue;
      for (size_t g = 0; g < kGroups; ++g) {
        const size_t group = b * kGroups + g;
        if constexpr (kIntegers) {
          if (super.scale != 0.0f)
            packer.SetScale(&blocks[b], g,
                            static_cast<int>(RoundInteger(lanes.best_scale[group] / super.scale)));
          if (super.offset != 0.0f)
            packer.SetBias(&blocks[b], g,
                           static_cast<int>(RoundInteger(lanes.best_offset[group] / super.offset)));
        }
        const int32_t* q = index + Row::At(group);
        for (size_t i = 0; i < kGroup; ++i)
          packer.SetIndex(&blocks[b], g * kGroup + i, q[i * kStride]);
      }
      StoreLe16(blocks[b].d, Half(gain * super.scale, unit));
      if constexpr (kSubtracted) {
        StoreLe16(blocks[b].dmin, Half(gain * super.offset, unit));
      } else {
        StoreLe16(blocks[b].m, Half(-gain * super.offset, unit));
      }
    }
  }

 private:
  static Lanes Carve(float* p, size_t n) {
    const auto next = [&] { return std::exchange(p, p + n); };
    return {next(), next(), next(), next(), next(), next(), next(), next(),
            next(), next(), next(), next(), next(), next(), next()};
  }

  static uint16_t Half(float v, int unit) {
    return NearestF16(static_cast<float>(static_cast<double>(v) * PowerOf2(unit)));
  }
  // The value nearest to v that an f16 holds, in units of 2^unit; 0 if it would be far above what weights need.
  static float Round(double v, int unit) {
    if (!std::isfinite(v)) return 0.0f;
    const uint16_t h = NearestF16(static_cast<float>(v * PowerOf2(unit)));
    const double held = static_cast<double>(F16ToF32(h)) * PowerOf2(-unit);
    return std::abs(held) > 16.0 ? 0.0f : static_cast<float>(held);
  }
  // As Round, but not 0: the smallest value instead, if that is of any use.
  static float RoundUp(double v, int unit) {
    const float r = Round(v, unit);
    if (r != 0.0f || v == 0.0) return r;
    const double least = 0x1p-24 * PowerOf2(-unit);
    return least > 16.0 ? 0.0f : static_cast<float>(least);
  }

  static HWY_INLINE VQ Level(VQ x, VQ inv, VQ offset) {
    const QF d;
    const VQ u = hn::Mul(hn::Add(x, offset), inv);
    return RoundInteger(hn::Min(hn::Max(u, hn::Zero(d)), hn::Set(d, kTop)));
  }

  // Sums over a group of w q, w q^2 and w x q, q being the levels.
  struct LevelSums {
    VQ q, qq, xq;
  };
  static HWY_INLINE LevelSums SumsOf(const float* x, const float* w, VQ inv, VQ offset) {
    const QF d;
    LevelSums sums{hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    for (size_t i = 0; i < kGroup; ++i) {
      const VQ xi = hn::LoadU(d, x + i * kStride);
      const VQ q = Level(xi, inv, offset);
      const VQ wq = hn::Mul(hn::LoadU(d, w + i * kStride), q);
      sums.q = hn::Add(sums.q, wq);
      sums.qq = hn::Add(sums.qq, hn::Mul(wq, q));
      sums.xq = hn::Add(sums.xq, hn::Mul(wq, xi));
    }
    return sums;
  }

  static HWY_INLINE void Store(const LevelSums& sums, const Lanes& lanes, size_t at) {
    const QF d;
    hn::StoreU(sums.q, d, lanes.sq + at);
    hn::StoreU(sums.qq, d, lanes.sqq + at);
    hn::StoreU(sums.xq, d, lanes.sxq + at);
  }

  // s^2 Sqq + m^2 Sw - 2 s Sxq + 2 m Sx - 2 s m Sq: the loss under scale s and offset m, less that of zeros.
  static HWY_INLINE VQ LossOf(const LevelSums& sums, VQ sw, VQ sx, VQ s, VQ m) {
    const VQ two = hn::Set(QF(), 2.0f);
    return hn::Add(hn::Mul(s, hn::Sub(hn::Mul(s, sums.qq),
                                      hn::Mul(two, hn::Add(sums.xq, hn::Mul(m, sums.q))))),
                   hn::Mul(m, hn::Add(hn::Mul(m, sw), hn::Mul(two, sx))));
  }

  // Step 1.
  static void FreeFits(const Row& row, const Lanes& lanes) {
    // How far the range is drawn in at each end, as a part of it.
    constexpr float kClip2[] = {-0.06f, 0.0f, 0.07f, 0.14f, 0.21f, 0.28f};
    constexpr float kClip4[] = {-0.02f, 0.01f, 0.04f, 0.07f, 0.1f, 0.14f};
    constexpr float kClip5[] = {-0.01f, 0.005f, 0.02f, 0.04f, 0.07f, 0.1f};
    row.ForVectors([&](const float* x, const float* w, size_t at) HWY_ATTR {
      const QF d;
      const VQ zero = hn::Zero(d);
      VQ low = hn::LoadU(d, x), high = low, sw = zero, sx = zero;
      for (size_t i = 0; i < kGroup; ++i) {
        const VQ xi = hn::LoadU(d, x + i * kStride);
        const VQ wi = hn::LoadU(d, w + i * kStride);
        low = hn::Min(low, xi);
        high = hn::Max(high, xi);
        sw = hn::Add(sw, wi);
        sx = hn::Add(sx, hn::Mul(wi, xi));
      }
      hn::StoreU(ZeroLoss<kGroup>(x, w), d, lanes.zero_loss + at);
      hn::StoreU(sw, d, lanes.sw + at);
      hn::StoreU(sx, d, lanes.sx + at);
      if constexpr (kSubtracted) {
        low = hn::Min(low, zero);
        high = hn::Max(high, zero);
      }
      const VQ range = hn::Sub(high, low);
      VQ best = hn::Set(d, 3e38f), best_scale = zero, best_offset = zero;
      LevelSums best_sums{zero, zero, zero};
      const auto attempt = [&](VQ scale, VQ offset) HWY_ATTR {
        const VQ inv = Inverse(scale);
        const LevelSums sums = SumsOf(x, w, inv, offset);
        const auto [sq, sqq, sxq] = sums;
        // Least squares for x = s q - m; without m where that would be negative and must not.
        const VQ inv_det = Inverse(hn::Sub(hn::Mul(sqq, sw), hn::Mul(sq, sq)));
        VQ s = hn::Mul(hn::Sub(hn::Mul(sxq, sw), hn::Mul(sx, sq)), inv_det);
        VQ m = hn::Mul(hn::Sub(hn::Mul(sxq, sq), hn::Mul(sx, sqq)), inv_det);
        // All weights at one level, or nearly so: keep the scale that was tried.
        const auto flat = hn::Or(hn::Eq(inv_det, zero), hn::Le(s, zero));
        s = hn::IfThenElse(flat, scale, s);
        m = hn::IfThenElse(flat, offset, m);
        if constexpr (kSubtracted) {
          const auto negative = hn::Lt(m, zero);
          m = hn::IfThenElse(negative, zero, m);
          s = hn::IfThenElse(negative, hn::Mul(sxq, Inverse(sqq)), s);
        }
        const VQ loss = LossOf(sums, sw, sx, s, m);
        const auto better = hn::Lt(loss, best);
        best_sums.q = hn::IfThenElse(better, sq, best_sums.q);
        best_sums.qq = hn::IfThenElse(better, sqq, best_sums.qq);
        best_sums.xq = hn::IfThenElse(better, sxq, best_sums.xq);
        best = hn::IfThenElse(better, loss, best);
        best_scale = hn::IfThenElse(better, s, best_scale);
        best_offset = hn::IfThenElse(better, m, best_offset);
      };
      const auto clipped = [&](float lower, float upper) HWY_ATTR {
        VQ lo = hn::Add(low, hn::Mul(range, hn::Set(d, lower)));
        const VQ hi = hn::Sub(high, hn::Mul(range, hn::Set(d, upper)));
        if constexpr (kSubtracted) lo = hn::Min(lo, zero);
        attempt(hn::Mul(hn::Sub(hi, lo), hn::Set(d, 1.0f / kTop)), hn::Neg(lo));
      };
      const auto grid = [&](const auto& clips) HWY_ATTR {
        for (const float lower : clips) {
          for (const float upper : clips) clipped(lower, upper);
        }
      };
      if constexpr (F::kBits <= 2) {
        grid(kClip2);
      } else if constexpr (F::kBits == 4) {
        grid(kClip4);
      } else {
        grid(kClip5);
      }
      for (int k = 0; k < 3; ++k) attempt(best_scale, best_offset);
      hn::StoreU(best_scale, d, lanes.free_scale + at);
      hn::StoreU(best_offset, d, lanes.free_offset + at);
      Store(best_sums, lanes, at);
    });
  }

  // v / step, at least 0 and at most max, to the nearest integer.
  static HWY_INLINE VQ Nearest(VQ v, VQ step, float max) {
    const QF d;
    return RoundInteger(hn::Min(hn::Max(hn::Mul(v, Inverse(step)), hn::Zero(d)), hn::Set(d, max)));
  }

  // Under lanes.super_*: the pair of integers of least loss among the neighbours of the ideal pair, a group. kRemembered: with the levels
  // of step 1, else with those nearest under the pair.
  template <bool kRemembered>
  static void TryAround(const Row& row, const Lanes& lanes, float max_scale, float max_bias) {
    row.ForVectors([&](const float* x, const float* w, size_t at) HWY_ATTR {
      const QF d;
      const VQ super_scale = hn::LoadU(d, lanes.super_scale + at);
      const VQ super_offset = hn::LoadU(d, lanes.super_offset + at);
      VQ best = hn::Set(d, 3e38f), best_scale = hn::Zero(d), best_offset = hn::Zero(d);
      const auto attempt = [&](VQ scale, VQ offset) HWY_ATTR {
        VQ loss = hn::Zero(d);
        if constexpr (kRemembered) {
          const LevelSums sums{hn::LoadU(d, lanes.sq + at), hn::LoadU(d, lanes.sqq + at),
                               hn::LoadU(d, lanes.sxq + at)};
          loss = hn::Add(
              LossOf(sums, hn::LoadU(d, lanes.sw + at), hn::LoadU(d, lanes.sx + at), scale, offset),
              hn::LoadU(d, lanes.zero_loss + at));
        } else {
          const VQ inv = Inverse(scale);
          for (size_t i = 0; i < kGroup; ++i) {
            const VQ xi = hn::LoadU(d, x + i * kStride);
            const VQ r = hn::Add(hn::Sub(xi, hn::Mul(scale, Level(xi, inv, offset))), offset);
            loss = hn::Add(loss, hn::Mul(hn::Mul(hn::LoadU(d, w + i * kStride), r), r));
          }
        }
        const auto better = hn::Lt(loss, best);
        best = hn::IfThenElse(better, loss, best);
        best_scale = hn::IfThenElse(better, scale, best_scale);
        best_offset = hn::IfThenElse(better, offset, best_offset);
      };
      if constexpr (!kIntegers) {
        attempt(super_scale, super_offset);
      } else {
        const VQ s = Nearest(hn::LoadU(d, lanes.free_scale + at), super_scale, max_scale);
        const VQ m = Nearest(hn::LoadU(d, lanes.free_offset + at), super_offset, max_bias);
        const auto around = [&](VQ v, int by, float max) HWY_ATTR {
          return hn::Min(hn::Max(hn::Add(v, hn::Set(d, static_cast<float>(by))), hn::Zero(d)),
                         hn::Set(d, max));
        };
        for (int ds = -1; ds <= 1; ++ds) {
          for (int dm = -1; dm <= 1; ++dm) {
            attempt(hn::Mul(super_scale, around(s, ds, max_scale)),
                    hn::Mul(super_offset, around(m, dm, max_bias)));
          }
        }
      }
      hn::StoreU(best, d, lanes.loss + at);
      hn::StoreU(best_scale, d, lanes.scale + at);
      hn::StoreU(best_offset, d, lanes.offset + at);
    });
  }

  static void SumsOfBest(const Row& row, const Lanes& lanes) {
    row.ForVectors([&](const float* x, const float* w, size_t at) HWY_ATTR {
      const QF d;
      const VQ inv = Inverse(hn::LoadU(d, lanes.best_scale + at));
      const VQ offset = hn::LoadU(d, lanes.best_offset + at);
      Store(SumsOf(x, w, inv, offset), lanes, at);
    });
  }

  static void SearchSupers(const Row& row, const Lanes& lanes, size_t n_blocks, int max_scale,
                           int max_bias, Pair* supers) {
    float* best_loss = reinterpret_cast<float*>(supers + n_blocks);
    Pair* trial = supers + n_blocks + (n_blocks + 1) / 2;
    for (size_t b = 0; b < n_blocks; ++b) {
      supers[b] = {};
      best_loss[b] = SumOf(lanes.zero_loss, b * kGroups, kGroups);
    }
    // The largest scale and offset of the block are mapped to these parts of the integer range.
    constexpr Pair kEnds[] = {{1.0f, 1.0f},   {0.97f, 1.0f}, {1.0f, 0.97f}, {1.04f, 1.04f},
                              {0.94f, 0.94f}, {1.08f, 1.0f}, {1.0f, 1.08f}};
    constexpr size_t kEnd = kIntegers ? std::size(kEnds) : 1;
    constexpr size_t kRemembered = kIntegers ? kEnd + 1 : 0;  // trials with the levels of step 1
    constexpr size_t kRefits = 2;
    for (size_t k = 0; k < std::max(kEnd, kRemembered) + kRefits; ++k) {
      const bool refit = k >= kEnd;
      if (refit && k > kRemembered) SumsOfBest(row, lanes);
      for (size_t b = 0; b < n_blocks; ++b) {
        const size_t begin = b * kGroups;
        if (refit) {
          trial[b] = Refit(lanes, supers[b], begin, row.unit);
        } else {
          float scale = 0.0f, offset = 0.0f;
          for (size_t g = begin; g < begin + kGroups; ++g) {
            scale = std::max(scale, lanes.free_scale[g]);
            if (std::abs(lanes.free_offset[g]) > std::abs(offset)) offset = lanes.free_offset[g];
          }
          trial[b].scale =
              RoundUp(static_cast<double>(scale) /
                          (static_cast<double>(max_scale) * static_cast<double>(kEnds[k].scale)),
                      row.unit);
          trial[b].offset =
              Round(static_cast<double>(offset) /
                        (static_cast<double>(max_bias) * static_cast<double>(kEnds[k].offset)),
                    row.unit);
        }
        std::fill_n(lanes.super_scale + begin, kGroups, trial[b].scale);
        std::fill_n(lanes.super_offset + begin, kGroups, trial[b].offset);
      }
      if (k < kRemembered) {
        TryAround<true>(row, lanes, static_cast<float>(max_scale), static_cast<float>(max_bias));
      } else {
        TryAround<false>(row, lanes, static_cast<float>(max_scale), static_cast<float>(max_bias));
      }
      for (size_t b = 0; b < n_blocks; ++b) {
        const float loss = SumOf(lanes.loss, b * kGroups, kGroups);
        if (!(loss < best_loss[b])) continue;
        best_loss[b] = loss;
        supers[b] = trial[b];
        for (size_t g = b * kGroups; g < (b + 1) * kGroups; ++g) {
          lanes.best_scale[g] = lanes.scale[g];
          lanes.best_offset[g] = lanes.offset[g];
        }
      }
    }
  }

  // d and dmin of least loss for the levels and integers chosen under `super`.
  static Pair Refit(const Lanes& lanes, Pair super, size_t begin, int unit) {
    double sqq = 0.0, sq = 0.0, sw = 0.0, sxq = 0.0, sx = 0.0;
    for (size_t g = begin; g < begin + kGroups; ++g) {
      const double s = super.scale == 0.0f
                           ? 0.0
                           : static_cast<double>(RoundInteger(lanes.best_scale[g] / super.scale));
      const double m = super.offset == 0.0f
                           ? 0.0
                           : static_cast<double>(RoundInteger(lanes.best_offset[g] / super.offset));
      sqq += s * s * static_cast<double>(lanes.sqq[g]);
      sq += s * m * static_cast<double>(lanes.sq[g]);
      sw += m * m * static_cast<double>(lanes.sw[g]);
      sxq += s * static_cast<double>(lanes.sxq[g]);
      sx += m * static_cast<double>(lanes.sx[g]);
    }
    const double det = sqq * sw - sq * sq;
    double d, offset;
    if (sw > 0.0 && det > 1e-9 * sqq * sw) {
      d = (sxq * sw - sx * sq) / det;
      offset = (sxq * sq - sx * sqq) / det;
    } else {
      d = sqq > 0.0 ? sxq / sqq : 0.0;
      offset = 0.0;
    }
    if (d < 0.0 || (kSubtracted && offset < 0.0)) return super;
    return {RoundUp(d, unit), Round(offset, unit)};
  }
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // include guard
