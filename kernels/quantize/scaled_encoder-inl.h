// The encoder of formats y = d * scale(group) * level: one float d a block or a row, integer scales a group, levels by an
// Assign policy (level_assign-inl.h and others), perhaps one of two tables a group.
//
// Three steps. (1) Each group alone: the float scale of least loss, over a range of scales that put its largest weight on or near the
// ends of the table; the best fit of each table and sign is remembered by its sums. (2) Values of d that map the largest scale onto the
// ends of the integer range and around, and least-squares refits of the best: the loss of a remembered fit under any scale is known
// without its weights, so many are compared. Under the best, every group takes the integer scale and table of least loss among the
// neighbours of its ideal. (3) The stored d is what d rounds to, so losses are those of the values that will be read. Nothing is lost
// to a rounding that comes after a choice.
#if defined(LUTRA_SCALED_ENCODER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_SCALED_ENCODER_INL_H_
#undef LUTRA_SCALED_ENCODER_INL_H_
#else
#define LUTRA_SCALED_ENCODER_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/quantize/block_packer.h"
#include "kernels/quantize/super_scale.h"
#include "kernels/quantize/level_assign-inl.h"
#include "kernels/quantize/row_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// How hard to search: the ends of the table relative to which the largest weight is tried, and how many positions between.
struct ScaleRange {
  float low, high;
  int steps;
};
template <class F, class Assign>
constexpr ScaleRange FreeRange() {
  if constexpr (requires { Assign::kFreeRange; }) {
    return Assign::kFreeRange;
  } else {
    // Where the scale is the group's only parameter it deserves more care; and without a table a position costs little.
    constexpr int kMore = F::kScaleBits == 0 ? 2 : 1;
    if constexpr (F::kBits <= 2) {
      return {0.45f, 1.35f, 6 * kMore};
    } else if constexpr (F::kBits == 3) {
      return {0.6f, 1.3f, 6 * kMore};
    } else if constexpr (F::kBits == 4) {
      return {0.78f, 1.08f, 5 * kMore};
    } else if constexpr (F::kBits == 5) {
      return {0.87f, 1.05f, 5 * kMore};
    } else {
      return {0.86f, 1.03f, 8 * kMore};
    }
  }
}

template <QuantFormat F, class Assign>
class ScaledEncoder {
  static constexpr size_t kGroup = F::kGroup;
  static constexpr size_t kWeights = F::kInfo.block_weights;
  static constexpr size_t kBlockGroups = kWeights / kGroup;
  static constexpr bool kRowSuper = F::kInfo.row_header_bytes != 0;
  using Packer = BlockPacker<F, Assign::kPlainIndexes>;
  using Super = SuperScale<F>;
  static constexpr size_t kSuperArrays = 5;
  static constexpr ScaleRange kRange = FreeRange<F, Assign>();
  static constexpr size_t kTables = F::kShift != 0 ? 2 : 1;
  static constexpr size_t kSignsTried = Assign::kBothSigns ? 2 : 1;
  // Fits of step 1 that are remembered, on which most values of d are compared: the best of each table and sign; all, where a search
  // of levels is slow.
  static constexpr bool kSlow = requires { Assign::kSlow; };
  static constexpr bool kRemembers = F::kScaleBits != 0;
  // Levels -4 .. 3: a group beside an outlier has an integer scale of 1 or 2, far from its ideal, where its remembered levels say little.
  static constexpr bool kFewLevels = F::kBits == 3 && F::kTable.size() == 0;
  static constexpr size_t kPositions = kRange.steps + (Assign::kBothSigns ? 1 : 0);
  static constexpr size_t kClasses = kTables * kSignsTried;
  static constexpr size_t kFits = !kRemembers ? 0 : kSlow ? kClasses * kPositions + 1 : kClasses;

  // Per group, [n_padded] each.
  struct Lanes {
    float *extreme, *zero_loss;      // the largest weight, with its sign; sum w x^2
    float* free_scale;               // step 1
    float* super;                    // the super-scale under trial
    float *loss, *scale, *shift;     // of the best integer scale (and table) under it
    float *a, *b;                    // sum w x v, sum w v^2 under it, if it is a remembered fit
    float *best_scale, *best_shift;  // of the best super-scale so far
    float *best_a, *best_b;          // under that
    float* fits;                     // [kFits][3, n_padded]: best scale, sum w v^2 and shift
    static constexpr size_t kArrays = 13 + 3 * kFits;
  };

 public:
  static void EncodeRow(const float* x, const float* w, size_t n, int unit, uint8_t* out,
                        QuantizeScratch* scratch) {
    const Packer& packer = Packer::Get();
    const Row row(x, w, n, unit, Lanes::kArrays, scratch);
    const IntegerScales scales(packer.scales());
    const Lanes lanes = Carve(scratch->lanes.data(), row.n_padded);

    FreeScales(row, lanes);
    std::memset(out, 0, F::kInfo.row_header_bytes + n / kWeights * sizeof(typename F::Block));
    auto* header = reinterpret_cast<typename F::RowHeader*>(out);
    auto* blocks = reinterpret_cast<typename F::Block*>(out + F::kInfo.row_header_bytes);
    const size_t n_supers = kRowSuper ? 1 : n / kWeights;
    Grow(&scratch->supers, kSuperArrays * n_supers);
    SearchSupers(row, lanes, scales, row.n_groups / n_supers, n_supers, scratch->supers.data());
    const float* supers = scratch->supers.data();
    if (kRowSuper && supers[0] == 0.0f) return;

    int32_t* index = scratch->index.data();
    row.ForVectors([&](const float* xg, const float* wg, size_t g) HWY_ATTR {
      const QF d;
      const VQ inv = Inverse(hn::LoadU(d, lanes.best_scale + g));
      Assign::Store(xg, wg, inv, hn::LoadU(d, lanes.best_shift + g), index + Row::At(g));
    });
    double loss = 0.0;
    for (size_t k = 0; k < n_supers; ++k) loss += static_cast<double>(supers[n_supers + k]);
    const float gain = LostGain(loss, row.SumOfAll(lanes.zero_loss));
    for (size_t block = 0; block < n / kWeights; ++block) {
      const float d = supers[kRowSuper ? 0 : block];
      if (d == 0.0f) continue;  // zeros
      for (size_t g = 0; g < kBlockGroups; ++g) {
        const size_t group = block * kBlockGroups + g;
        // best_scale is d * integer, rounded: dividing gives the integer back.
        packer.SetScale(&blocks[block], g,
                        static_cast<int>(RoundInteger(lanes.best_scale[group] / d)));
        if constexpr (F::kShift != 0)
          packer.SetShifted(&blocks[block], g, lanes.best_shift[group] != 0.0f);
        Assign::Pack(packer, &blocks[block], g, index + Row::At(group));
      }
      Super::Store(header, &blocks[block], gain * d, unit);
    }
  }

 private:
  using Row = RowLanes<kGroup>;

  // The integers a scale can be: n from low on, step apart.
  struct IntegerScales {
    float low, step;
    size_t n;
    explicit IntegerScales(const std::vector<int>& values)
        : low(static_cast<float>(values[0])),
          step(values.size() > 1 ? static_cast<float>(values[1] - values[0]) : 1.0f),
          n(values.size()) {
      LUTRA_CHECK(values.back() - values[0] == static_cast<int>(step) * static_cast<int>(n - 1));
    }
    float high() const { return low + step * static_cast<float>(n - 1); }
  };

  static Lanes Carve(float* p, size_t n) {
    const auto next = [&] { return std::exchange(p, p + n); };
    return {next(), next(), next(), next(), next(), next(), next(),
            next(), next(), next(), next(), next(), next(), p};
  }

  // Step 1.
  static void FreeScales(const Row& row, const Lanes& lanes) {
    // The end of the table: what the largest weight is mapped to. Both signs are tried.
    constexpr float kEnd = Assign::kEnd;
    row.ForVectors([&](const float* x, const float* w, size_t at) HWY_ATTR {
      const QF d;
      VQ extreme = hn::Zero(d);
      for (size_t i = 0; i < kGroup; ++i) {
        const VQ xi = hn::LoadU(d, x + i * kStride);
        extreme = hn::IfThenElse(hn::Gt(hn::Abs(xi), hn::Abs(extreme)), xi, extreme);
      }
      hn::StoreU(extreme, d, lanes.extreme + at);
      hn::StoreU(ZeroLoss<kGroup>(x, w), d, lanes.zero_loss + at);
      const VQ per_unit = Inverse(Assign::kBothSigns ? extreme : hn::Abs(extreme));
      VQ gains[kClasses], fit_scales[kClasses], fit_b[kClasses];  // the best of each table and sign
      for (size_t k = 0; k < kClasses; ++k) gains[k] = fit_scales[k] = fit_b[k] = hn::Zero(d);
      float* fit = lanes.fits + at;
      const auto remember = [&](VQ scale, VQ b, VQ shift) HWY_ATTR {
        if constexpr (kRemembers) {
          hn::StoreU(scale, d, fit);
          hn::StoreU(b, d, fit + row.n_padded);
          hn::StoreU(shift, d, fit + 2 * row.n_padded);
          fit += 3 * row.n_padded;
        }
      };
      const auto shift_of = [&](size_t c) HWY_ATTR {
        return hn::Set(d, static_cast<float>(static_cast<int>(c / kSignsTried) * F::kShift));
      };
      const auto attempt = [&](VQ inv, VQ shift, size_t c) HWY_ATTR {
        VQ a, b;
        Assign::Sums(x, w, inv, shift, &a, &b);
        // The best scale for these levels is a / b; it lowers the loss by a^2 / b.
        const VQ scale = hn::Mul(a, Inverse(b));
        const VQ gain = hn::Mul(a, scale);
        const auto better = hn::Ge(gain, gains[c]);
        gains[c] = hn::IfThenElse(better, gain, gains[c]);
        fit_scales[c] = hn::IfThenElse(better, scale, fit_scales[c]);
        fit_b[c] = hn::IfThenElse(better, b, fit_b[c]);
        if constexpr (kSlow) remember(scale, b, shift);
      };
      for (size_t c = 0; c < kClasses; ++c) {
        const bool mirrored = Assign::kBothSigns && c % kSignsTried == 1;
        for (size_t k = 0; k < kRange.steps; ++k) {
          const float position = kRange.low + (kRange.high - kRange.low) * static_cast<float>(k) /
                                                  static_cast<float>(kRange.steps - 1);
          attempt(hn::Mul(hn::Set(d, mirrored ? -kEnd * position : kEnd * position), per_unit),
                  shift_of(c), c);
        }
        if constexpr (Assign::kBothSigns)
          attempt(hn::Mul(hn::Set(d, mirrored ? Assign::kOtherEnd : kEnd), per_unit), shift_of(c),
                  c);
      }
      VQ best = hn::Zero(d), best_scale = hn::Zero(d), best_shift = hn::Zero(d);
      const auto choose = [&]() HWY_ATTR {
        best = gains[0];
        best_scale = fit_scales[0];
        best_shift = shift_of(0);
        for (size_t c = 1; c < kClasses; ++c) {
          const auto better = hn::Gt(gains[c], best);
          best = hn::IfThenElse(better, gains[c], best);
          best_scale = hn::IfThenElse(better, fit_scales[c], best_scale);
          best_shift = hn::IfThenElse(better, shift_of(c), best_shift);
        }
      };
      if constexpr (kSlow) {  // only the best
        choose();
        VQ a, b;
        Assign::Sums(x, w, Inverse(best_scale), best_shift, &a, &b);
        const VQ scale = hn::Mul(a, Inverse(b));
        best_scale = hn::IfThenElse(hn::Gt(hn::Mul(a, scale), best), scale, best_scale);
        remember(scale, b, best_shift);
      } else {
        for (size_t c = 0; c < kClasses; ++c) attempt(Inverse(fit_scales[c]), shift_of(c), c);
        choose();
        for (size_t c = 0; c < kClasses; ++c) remember(fit_scales[c], fit_b[c], shift_of(c));
      }
      hn::StoreU(best_scale, d, lanes.free_scale + at);
    });
  }

  // Under lanes.super: of the n_around integer scales (and both tables) around the ideal ones, the one of least loss, a group. Ideal is the
  // scale of step 1, and as many of its mirrors, which put the extreme weight on another level.
  static void TryAround(const Row& row, const Lanes& lanes, const IntegerScales& scales,
                        size_t n_around, size_t n_mirrors) {
    static constexpr float kMirrors[] = {1.0f, -1.0f, 4.0f / 3.0f, -4.0f / 3.0f};
    const float last_first = static_cast<float>(scales.n - n_around);
    row.ForVectors([&](const float* x, const float* w, size_t at) HWY_ATTR {
      const QF d;
      const VQ super = hn::LoadU(d, lanes.super + at);
      const VQ ideal = hn::Mul(hn::LoadU(d, lanes.free_scale + at), Inverse(super));
      VQ best = hn::Set(d, 3e38f), best_scale = hn::Zero(d), best_shift = hn::Zero(d);
      for (size_t m = 0; m < n_mirrors; ++m) {
        const VQ position =
            hn::Mul(hn::Sub(hn::Mul(ideal, hn::Set(d, kMirrors[m])), hn::Set(d, scales.low)),
                    hn::Set(d, 1.0f / scales.step));
        const VQ near =
            hn::Min(hn::Max(position, hn::Zero(d)), hn::Set(d, static_cast<float>(scales.n)));
        const VQ below =
            RoundInteger(hn::Sub(near, hn::Set(d, 0.5f * static_cast<float>(n_around - 1))));
        const VQ first = hn::Min(hn::Max(below, hn::Zero(d)), hn::Set(d, last_first));
        for (size_t j = 0; j < n_around; ++j) {
          const VQ integer = hn::Add(
              hn::Mul(hn::Add(first, hn::Set(d, static_cast<float>(j))), hn::Set(d, scales.step)),
              hn::Set(d, scales.low));
          const VQ scale = hn::Mul(super, integer);
          const VQ inv = Inverse(scale);
          for (size_t t = 0; t < kTables; ++t) {
            const VQ shift = hn::Set(d, static_cast<float>(static_cast<int>(t) * F::kShift));
            const VQ loss = Assign::Loss(x, w, scale, inv, shift);
            const auto better = hn::Lt(loss, best);
            best = hn::IfThenElse(better, loss, best);
            best_scale = hn::IfThenElse(better, scale, best_scale);
            best_shift = hn::IfThenElse(better, shift, best_shift);
          }
        }
      }
      hn::StoreU(best, d, lanes.loss + at);
      hn::StoreU(best_scale, d, lanes.scale + at);
      hn::StoreU(best_shift, d, lanes.shift + at);
    });
  }

  // The same among the fits of step 1, each under the integer scale nearest to its own; and lanes.a, lanes.b.
  static void TryRemembered(const Row& row, const Lanes& lanes, const IntegerScales& scales) {
    const QF d;
    const VQ low = hn::Set(d, scales.low), step = hn::Set(d, scales.step),
             inv_step = hn::Set(d, 1.0f / scales.step);
    const VQ last = hn::Set(d, static_cast<float>(scales.n - 1));
    for (size_t at = 0; at < row.n_padded; at += kQLanes) {
      const VQ super = hn::LoadU(d, lanes.super + at);
      const VQ inv_super = Inverse(super);
      VQ best = hn::Set(d, 3e38f);
      VQ best_scale = hn::Zero(d), best_shift = hn::Zero(d), best_a = hn::Zero(d),
         best_b = hn::Zero(d);
      const float* fit = lanes.fits + at;
      for (size_t t = 0; t < kFits; ++t, fit += 3 * row.n_padded) {
        const VQ ideal = hn::LoadU(d, fit);
        const VQ b = hn::LoadU(d, fit + row.n_padded);
        const VQ near = hn::Mul(hn::Sub(hn::Mul(ideal, inv_super), low), inv_step);
        const VQ position = RoundInteger(hn::Min(hn::Max(near, hn::Zero(d)), last));
        const VQ scale = hn::Mul(super, hn::Add(hn::Mul(position, step), low));
        const VQ loss = hn::Mul(hn::Mul(b, scale),
                                hn::Sub(scale, hn::Add(ideal, ideal)));  // less that of zeros
        const auto better = hn::Lt(loss, best);
        best = hn::IfThenElse(better, loss, best);
        best_scale = hn::IfThenElse(better, scale, best_scale);
        best_shift = hn::IfThenElse(better, hn::LoadU(d, fit + 2 * row.n_padded), best_shift);
        best_a = hn::IfThenElse(better, hn::Mul(ideal, b), best_a);
        best_b = hn::IfThenElse(better, b, best_b);
      }
      hn::StoreU(hn::Add(best, hn::LoadU(d, lanes.zero_loss + at)), d, lanes.loss + at);
      hn::StoreU(best_scale, d, lanes.scale + at);
      hn::StoreU(best_shift, d, lanes.shift + at);
      hn::StoreU(best_a, d, lanes.a + at);
      hn::StoreU(best_b, d, lanes.b + at);
    }
  }

  static void SumsOfBest(const Row& row, const Lanes& lanes) {
    row.ForVectors([&](const float* x, const float* w, size_t at) HWY_ATTR {
      const QF d;
      VQ a, b;
      Assign::Sums(x, w, Inverse(hn::LoadU(d, lanes.best_scale + at)),
                   hn::LoadU(d, lanes.best_shift + at), &a, &b);
      hn::StoreU(a, d, lanes.best_a + at);
      hn::StoreU(b, d, lanes.best_b + at);
    });
  }

  // Steps 2 and 3, for n_supers runs of super_groups groups: best_scale, best_shift, d in supers[0, n_supers) (0: zeros), then their
  // losses. supers has room for kSuperArrays - 2 more values each.
  static void SearchSupers(const Row& row, const Lanes& lanes, const IntegerScales& scales,
                           size_t super_groups, size_t n_supers, float* supers) {
    float* best_loss = supers + n_supers;
    float* trial = supers + 2 * n_supers;
    float* extreme = supers + 3 * n_supers;         // the largest free scale, signed
    float* extreme_weight = supers + 4 * n_supers;  // the largest weight
    std::fill(lanes.best_scale, lanes.best_scale + row.n_padded, 0.0f);
    std::fill(lanes.best_shift, lanes.best_shift + row.n_padded, 0.0f);
    std::fill(lanes.super, lanes.super + row.n_padded, 0.0f);
    for (size_t s = 0; s < n_supers; ++s) {
      supers[s] = 0.0f;
      float m = 0.0f, x = 0.0f;
      for (size_t g = s * super_groups; g < (s + 1) * super_groups; ++g) {
        if (std::abs(lanes.free_scale[g]) > std::abs(m)) m = lanes.free_scale[g];
        if (std::abs(lanes.extreme[g]) > std::abs(x)) x = lanes.extreme[g];
      }
      best_loss[s] = SumOf(lanes.zero_loss, s * super_groups, super_groups);
      extreme[s] = m;
      extreme_weight[s] = Assign::kBothSigns ? x : std::abs(x);
    }

    // What the largest scale is mapped to; then (from n_scale_ends on) what the largest weight is: the ends of the integer range
    // times the ends of the table. The second kind matters where outliers are on their own: d is then as small as it can be.
    float ends[12];
    size_t n_ends = 0;
    const float low = scales.low, high = scales.high();
    if (scales.n == 1) {
      for (const float e : {1.0f, 0.5f, 2.0f}) {
        ends[n_ends++] = e * high;
        if (F::kSuper != SuperKind::kBf16) break;  // only powers of two need more
      }
    } else {
      for (const float e : {0.85f, 0.92f, 0.96f, 1.0f, 1.04f, 1.1f, 1.2f})
        ends[n_ends++] = e * (low < -high ? low : high);
      if (low < -high) ends[n_ends++] = high;
    }
    const size_t n_scale_ends = n_ends;
    if (scales.n > 1) {
      ends[n_ends++] = high * Assign::kEnd;
      if (Assign::kBothSigns) ends[n_ends++] = high * Assign::kOtherEnd;
      if (Assign::kBothSigns && low < 0.0f && low != -high) {
        ends[n_ends++] = low * Assign::kEnd;
        ends[n_ends++] = low * Assign::kOtherEnd;
      }
    }
    const size_t n_remembered = kRemembers ? n_ends + 2 : 0;
    const size_t n_refits = kRemembers ? 1 : 2;
    const size_t n_trials = std::max(n_ends, n_remembered) + n_refits;
    const bool both_signs = scales.low < 0 && scales.n > 1;
    for (size_t k = 0; k < n_trials; ++k) {
      const bool refit = k >= n_ends;
      const bool remembered = k < n_remembered && !(kFewLevels && k >= n_scale_ends && k < n_ends);
      if (refit && (kFewLevels || k > n_remembered)) SumsOfBest(row, lanes);
      bool any = false;
      for (size_t s = 0; s < n_supers; ++s) {
        double d = 0.0;
        if (!refit) {
          d = static_cast<double>(k < n_scale_ends ? extreme[s] : extreme_weight[s]) /
              static_cast<double>(ends[k]);
        } else if (supers[s] != 0.0f) {
          d = Refit(lanes, supers[s], s * super_groups, super_groups);
        }
        trial[s] = d == 0.0 ? 0.0f : Super::Round(d, row.unit);
        any = any || trial[s] != 0.0f;
      }
      if (!any) continue;
      for (size_t s = 0; s < n_supers; ++s)
        std::fill_n(lanes.super + s * super_groups, super_groups, trial[s]);
      if (remembered) {
        TryRemembered(row, lanes, scales);
      } else {
        const size_t n_around = kSlow ? 2 : refit && scales.n > 100 ? 7 : 3;
        const bool mirror = both_signs && refit && scales.n <= 100;
        TryAround(row, lanes, scales, std::min(n_around, scales.n),
                  mirror ? (kFewLevels ? 4 : 2) : 1);
      }
      for (size_t s = 0; s < n_supers; ++s) {
        if (trial[s] == 0.0f) continue;
        const float loss = SumOf(lanes.loss, s * super_groups, super_groups);
        if (!(loss < best_loss[s])) continue;
        best_loss[s] = loss;
        supers[s] = trial[s];
        for (size_t g = s * super_groups; g < (s + 1) * super_groups; ++g) {
          lanes.best_scale[g] = lanes.scale[g];
          lanes.best_shift[g] = lanes.shift[g];
          if (!remembered) continue;
          lanes.best_a[g] = lanes.a[g];
          lanes.best_b[g] = lanes.b[g];
        }
      }
    }
  }

  // The d of least loss for the levels and integer scales chosen under `super`.
  static double Refit(const Lanes& lanes, float super, size_t begin, size_t n) {
    double a = 0.0, b = 0.0;
    for (size_t g = begin; g < begin + n; ++g) {
      const double scale = static_cast<double>(RoundInteger(lanes.best_scale[g] / super));
      a += scale * static_cast<double>(lanes.best_a[g]);
      b += scale * scale * static_cast<double>(lanes.best_b[g]);
    }
    return b > 0.0 ? a / b : 0.0;
  }
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // include guard
