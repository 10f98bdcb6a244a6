// The encoder of the trellis formats: y = d * level(group) * value, one float d a row, integer levels a group of 32, and a point of
// the generator (trellis_book.h) for every four or eight weights.
//
// (1) Each group alone: points for a few scales of either sign (and each set of points), and the least-squares scale of each. (2) d:
// the loss of a row under any d is known without a search if the points stay those of (1), so many are compared. (3) Under d, each
// group searches points anew for the levels that promise most; d is refitted by least squares.
#include "kernels/formats/all.h"
#include "kernels/quantize/row_encoder.h"
#include "kernels/quantize/targets.h"
#include "kernels/quantize/trellis_book.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantize/trellis_encoder.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "kernels/quantize/block_packer.h"
#include "kernels/quantize/row_lanes-inl.h"
#include "kernels/quantize/super_scale.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// A search compares sums of w (v - u)^2 in integers, w as a part of 2^15.
template <class F>
class TrellisSearch {
  using Shape = TrellisFormat<F>;
  using Book = TrellisBook<F>;
  static constexpr size_t kDims = Shape::kDims;
  static constexpr size_t kVisits = Shape::kVisits, kSurely = Shape::kSurely;
  using D16 = hn::CappedTag<int16_t, 2 * kTilePoints>;
  using D32 = hn::Repartition<int32_t, D16>;
  using V16 = hn::Vec<D16>;
  using V32 = hn::Vec<D32>;
  static constexpr size_t kLanes = HWY_MAX_LANES_D(D32);

 public:
  static constexpr float kUnit = kTrellisUnit;
  static constexpr float kFurthest =
      250.0f;  // |u|: squares of differences then fit 32 bits, eight together
  static constexpr float kWeightTop = 32767.0f;

  // Clusters in the order in which they promise a near point.
  struct Clusters {
    size_t clusters[2 * kTilePoints];
    int32_t costs[2 * kTilePoints];  // a guess of the least cost of a point there
  };

  // Of u (in units of 1 / kUnit).
  static void Choose(const Book& book, const int16_t* HWY_RESTRICT w, const int16_t* HWY_RESTRICT u,
                     Clusters* chosen) {
    const D16 d16;
    const hn::RebindToUnsigned<D16> du16;
    const D32 d;
    V16 wv[kDims / 2], uv[kDims / 2];
    Broadcast(w, wv);
    Broadcast(u, uv);
    // The best two centres of each lane. A key is a cost and the lane it is from, so that no two are equal.
    HWY_ALIGN int32_t keys[2 * kTilePoints], tiles[2 * kTilePoints];
    for (size_t p = 0; p < kTilePoints; p += kLanes) {
      V32 first = hn::Set(d, std::numeric_limits<int32_t>::max()), second = first;
      V32 first_at = hn::Zero(d), second_at = first_at;
      V32 at = hn::Zero(d);
      for (size_t c = 0; c < Book::kClusters / kTilePoints; ++c) {
        const int16_t* centre = book.centres() + c * Book::kTileSize + 2 * p;
        const int16_t* extent = book.extents() + c * Book::kTileSize + 2 * p;
        V32 x = hn::Zero(d);
        LUTRA_UNROLL(4)
        for (size_t k = 0; k < kDims / 2; ++k) {
          // The nearest point is nearer than the centre, by about the cluster's extent.
          const V16 r = hn::Abs(hn::Sub(hn::Load(d16, centre + k * 2 * kTilePoints), uv[k]));
          const V16 e = hn::Load(d16, extent + k * 2 * kTilePoints);
          const V16 near =
              hn::BitCast(d16, hn::SaturatedSub(hn::BitCast(du16, r), hn::BitCast(du16, e)));
          x = hn::Add(x, hn::WidenMulPairwiseAdd(d, hn::MulFixedPoint15(near, wv[k]), near));
        }
        const auto best = hn::Lt(x, first);
        const auto next = hn::Lt(x, second);
        second_at = hn::IfThenElse(best, first_at, hn::IfThenElse(next, at, second_at));
        second = hn::Min(second, hn::Max(first, x));
        first_at = hn::IfThenElse(best, at, first_at);
        first = hn::Min(first, x);
        at = hn::Add(at, hn::Set(d, 1));
      }
      const V32 lane = hn::Iota(d, static_cast<int32_t>(p));
      const V32 lanes = hn::Set(d, 2 * kTilePoints - 1);
      hn::Store(hn::Or(hn::AndNot(lanes, first), lane), d, keys + p);
      hn::Store(hn::Or(hn::AndNot(lanes, second), hn::Add(lane, hn::Set(d, kTilePoints))), d,
                keys + kTilePoints + p);
      hn::Store(first_at, d, tiles + p);
      hn::Store(second_at, d, tiles + kTilePoints + p);
    }
    HWY_ALIGN int32_t ranks[2 * kTilePoints];
    for (size_t p = 0; p < 2 * kTilePoints; p += kLanes) {
      const V32 key = hn::Load(d, keys + p);
      V32 rank = hn::Zero(d);
      for (size_t j = 0; j < 2 * kTilePoints; ++j) {
        rank = hn::Sub(rank, hn::VecFromMask(d, hn::Lt(hn::Set(d, keys[j]), key)));
      }
      hn::Store(rank, d, ranks + p);
    }
    for (size_t j = 0; j < 2 * kTilePoints; ++j) {
      chosen->clusters[ranks[j]] =
          book.cluster_of()[static_cast<size_t>(tiles[j]) * kTilePoints + j % kTilePoints];
      chosen->costs[ranks[j]] = keys[j];
    }
  }

  // The place in book.codes() of the point nearest to u: of those in the first kSurely clusters, and in as many more as promise a
  // nearer one than was found there.
  static size_t Nearest(const Book& book, const int16_t* HWY_RESTRICT w,
                        const int16_t* HWY_RESTRICT u, const Clusters& chosen) {
    V16 wv[kDims / 2], uv[kDims / 2];
    Broadcast(w, wv);
    Broadcast(u, uv);
    const D16 d16;
    const D32 d;
    HWY_ALIGN int32_t costs[kTilePoints], found[kTilePoints];
    std::fill(costs, costs + kTilePoints, std::numeric_limits<int32_t>::max());
    std::fill(found, found + kTilePoints, 0);
    const auto look = [&](size_t begin, size_t end) HWY_ATTR {
      int32_t least = std::numeric_limits<int32_t>::max();
      for (size_t p = 0; p < kTilePoints; p += kLanes) {
        V32 best = hn::Load(d, costs + p);
        V32 best_at = hn::Load(d, found + p);
        for (size_t v = begin; v < end; ++v) {
          const size_t first = chosen.clusters[v] * Shape::kTiles;
          LUTRA_UNROLL(4)
          for (size_t t = first; t < first + Shape::kTiles; ++t) {
            const int16_t* tile = book.points() + t * Book::kTileSize + 2 * p;
            V32 x = hn::Zero(d);
            LUTRA_UNROLL(4)
            for (size_t k = 0; k < kDims / 2; ++k) {
              const V16 r = hn::Sub(hn::Load(d16, tile + k * 2 * kTilePoints), uv[k]);
              x = hn::Add(x, hn::WidenMulPairwiseAdd(d, hn::MulFixedPoint15(r, wv[k]), r));
            }
            best_at = hn::IfThenElse(hn::Lt(x, best), hn::Set(d, static_cast<int32_t>(t)), best_at);
            best = hn::Min(best, x);
          }
        }
        hn::Store(best, d, costs + p);
        hn::Store(best_at, d, found + p);
        least = std::min(least, hn::ReduceMin(d, best));
      }
      return least;
    };
    const int32_t enough = look(0, kSurely);
    size_t n = kSurely;
    for (size_t j = kSurely; j < kVisits; ++j) n += chosen.costs[j] < enough ? 1 : 0;
    if (n > kSurely) look(kSurely, n);
    int64_t least = std::numeric_limits<int64_t>::max();
    for (size_t l = 0; l < kTilePoints; ++l) {
      least = std::min(
          least, int64_t{costs[l]} * static_cast<int64_t>(kTilePoints) + static_cast<int64_t>(l));
    }
    const size_t lane = static_cast<size_t>(least) % kTilePoints;
    return static_cast<size_t>(found[lane]) * kTilePoints + lane;
  }

 private:
  static HWY_INLINE void Broadcast(const int16_t* HWY_RESTRICT x, V16* HWY_RESTRICT pairs) {
    LUTRA_UNROLL(4)
    for (size_t k = 0; k < kDims / 2; ++k) {
      int32_t pair;
      std::memcpy(&pair, x + 2 * k, 4);
      pairs[k] = hn::BitCast(D16(), hn::Set(D32(), pair));
    }
  }
};

template <class F>
class TrellisEncoder {
  using Shape = TrellisFormat<F>;
  using Book = TrellisBook<F>;
  using Search = TrellisSearch<F>;
  using Packer = BlockPacker<F, false>;
  using Super = SuperScale<F>;
  static constexpr size_t kGroup = F::kGroup;
  static constexpr size_t kWeights = F::kInfo.block_weights;
  static constexpr size_t kBlockGroups = kWeights / kGroup;
  static constexpr size_t kPoints = kGroup / Shape::kDims;  // of a group
  static constexpr size_t kSigns = Shape::kMagnitudes ? 1 : 2;
  static constexpr size_t kSteps = std::size(Shape::kReaches);
  static constexpr size_t kVariants = Shape::kSets * kSigns;
  static constexpr size_t kTrials = kVariants * kSteps;
  static constexpr size_t kChoices = 2;  // levels a group searches points for
  static constexpr float kSpread =
      0.49f;  // of a reach: what the root mean square is scaled to at most
  static constexpr size_t kShared = 3;  // neighbouring scales that look into the same clusters

  // A group's weights, as a search wants them.
  struct Group {
    float x[kGroup], w[kGroup];
    int16_t weights[kGroup];
    uint32_t signs;
  };
  // Points for a group, and the sums w x v and w v^2 of their values.
  struct Fit {
    float a = 0.0f, b = 0.0f;
    uint16_t codes[kPoints] = {};
    size_t set = 0;
    int level = 0;
    // The loss under scale s, less that of zeros.
    float Loss(float s) const { return s * (s * b - 2.0f * a); }
  };
  struct Row {
    const float *x, *w;
    size_t n_groups, n_padded;
    const std::vector<int>* levels;
    float *a, *b;  // [kTrials, n_padded]
    Fit* best;     // [n_groups]
  };

 public:
  static void EncodeRow(const float* x, const float* w, size_t n, int unit, uint8_t* out,
                        QuantizeScratch* scratch) {
    const Packer& packer = Packer::Get();
    Row row{};
    row.x = x;
    row.w = w;
    row.n_groups = n / kGroup;
    row.n_padded = (row.n_groups + kChunk - 1) / kChunk * kChunk;
    row.levels = &packer.scales();
    Grow(&scratch->lanes, 2 * kTrials * row.n_padded);
    Grow(&scratch->index, row.n_groups * sizeof(Fit) / sizeof(int32_t));
    row.a = scratch->lanes.data();
    row.b = row.a + kTrials * row.n_padded;
    row.best = reinterpret_cast<Fit*>(scratch->index.data());
    std::fill(row.a, row.a + 2 * kTrials * row.n_padded, 0.0f);

    FreeFits(row);
    std::memset(out, 0, F::kInfo.row_header_bytes + n / kWeights * sizeof(typename F::Block));
    float d = Super::Round(BestSuper(row), unit);
    std::fill(row.best, row.best + row.n_groups, Fit());
    if (d == 0.0f) return;
    ChooseLevels(row, d);
    d = Super::Round(Refit(row), unit);
    if (d == 0.0f) return;
    auto* header = reinterpret_cast<typename F::RowHeader*>(out);
    auto* blocks = reinterpret_cast<typename F::Block*>(out + F::kInfo.row_header_bytes);
    Super::Store(header, blocks, d, unit);
    for (size_t i = 0; i < row.n_groups; ++i) {
      typename F::Block* block = &blocks[i / kBlockGroups];
      const size_t g = i % kBlockGroups;
      const Fit& fit = row.best[i];
      packer.SetScale(block, g, fit.level);
      for (size_t k = 0; k < kPoints; ++k) {
        uint32_t signs = 0;
        for (size_t j = 0; j < Shape::kDims; ++j)
          signs |= static_cast<uint32_t>(std::signbit(x[i * kGroup + k * Shape::kDims + j])) << j;
        Shape::Pack(block, g, k, fit.codes[k], signs, fit.set);
      }
    }
  }

 private:
  static void Load(const Row& row, size_t i, Group* group) {
    for (size_t k = 0; k < kGroup; ++k) {
      const float x = row.x[i * kGroup + k];
      group->x[k] = Shape::kMagnitudes ? std::abs(x) : x;
      group->w[k] = row.w[i * kGroup + k];
    }
    for (size_t p = 0; p < kGroup; p += Shape::kDims) {
      const float* w = group->w + p;
      const float top = Search::kWeightTop / *std::max_element(w, w + Shape::kDims);
      for (size_t k = 0; k < Shape::kDims; ++k) {
        group->weights[p + k] = static_cast<int16_t>(std::max(w[k] * top, 1.0f));
      }
    }
  }

  // The weights in units of a scale of 1 / inv, as a search wants them.
  static void Scaled(const Group& group, float inv, int16_t* HWY_RESTRICT u) {
    const QF d;
    const hn::Rebind<int16_t, QF> d16;
    const VQ scale = hn::Set(d, inv * Search::kUnit);
    const VQ top = hn::Set(d, Search::kFurthest * Search::kUnit);
    for (size_t k = 0; k < kGroup; k += kQLanes) {
      const VQ scaled = hn::Mul(hn::LoadU(d, group.x + k), scale);
      const VQ clamped = hn::Min(hn::Max(scaled, hn::Neg(top)), top);
      hn::StoreU(hn::DemoteTo(d16, hn::ConvertTo(QI(), RoundInteger(clamped))), d16, u + k);
    }
  }

  // Clusters for each of the group's points.
  static void ChooseClusters(const Group& group, float inv, size_t set,
                             typename Search::Clusters* chosen) {
    int16_t u[kGroup];
    Scaled(group, inv, u);
    for (size_t k = 0; k < kGroup; k += Shape::kDims)
      Search::Choose(Book::Get(set), group.weights + k, u + k, &chosen[k / Shape::kDims]);
  }

  // Points of these clusters for the weights as they are under a scale of 1 / inv.
  static void FindPoints(const Group& group, float inv, size_t set,
                         const typename Search::Clusters* chosen, Fit* fit) {
    int16_t u[kGroup];
    Scaled(group, inv, u);
    const Book& book = Book::Get(set);
    fit->set = set;
    float a = 0.0f, b = 0.0f;
    for (size_t p = 0; p < kPoints; ++p) {
      const size_t first = p * Shape::kDims;
      const uint16_t code =
          book.codes()[Search::Nearest(book, group.weights + first, u + first, chosen[p])];
      fit->codes[p] = code;
      for (size_t k = 0; k < Shape::kDims; ++k) {
        const float v = static_cast<float>(Book::Value(set, code, k));
        const float wv = group.w[first + k] * v;
        a += wv * group.x[first + k];
        b += wv * v;
      }
    }
    fit->a = a;
    fit->b = b;
  }

  // Trial t is of variant t % kVariants: a set of points, and a sign of the scale.
  static size_t SetOf(size_t t) { return t / kSigns % Shape::kSets; }

  // Step 1: row.a, row.b.
  static void FreeFits(const Row& row) {
    for (size_t i = 0; i < row.n_groups; ++i) {
      Group group;
      Load(row, i, &group);
      float xx = 0.0f, ww = 0.0f, amax = 0.0f;
      for (size_t k = 0; k < kGroup; ++k) {
        xx += group.w[k] * group.x[k] * group.x[k];
        ww += group.w[k];
        amax = std::max(amax, std::abs(group.x[k]));
      }
      if (!(xx > 1e-30f)) continue;  // nothing worth a search
      const float rms = std::sqrt(xx / ww);
      const float per_reach = std::min(1.0f / amax, kSpread / rms);
      for (size_t variant = 0; variant < kVariants; ++variant) {
        const float unit = variant % kSigns == 0 ? per_reach : -per_reach;
        typename Search::Clusters chosen[kPoints];
        for (size_t step = 0; step < kSteps; ++step) {
          if (step % kShared == 0) {
            ChooseClusters(group, unit * Shape::kReaches[std::min(step + kShared / 2, kSteps - 1)],
                           SetOf(variant), chosen);
          }
          Fit fit;
          FindPoints(group, unit * Shape::kReaches[step], SetOf(variant), chosen, &fit);
          const size_t t = step * kVariants + variant;
          row.a[t * row.n_padded + i] = fit.a;
          row.b[t * row.n_padded + i] = fit.b;
        }
      }
    }
  }

  // The level nearest to v.
  static VQ NearestLevel(const std::vector<int>& levels, VQ v) {
    const QF d;
    const float low = static_cast<float>(levels.front()), high = static_cast<float>(levels.back());
    if (levels.back() - levels.front() == static_cast<int>(levels.size()) - 1) {
      return RoundInteger(hn::Min(hn::Max(v, hn::Set(d, low)), hn::Set(d, high)));
    }
    VQ level = hn::Set(d, low);
    for (size_t k = 1; k < levels.size(); ++k) {
      const float below = static_cast<float>(levels[k - 1]), above = static_cast<float>(levels[k]);
      level =
          hn::IfThenElse(hn::Gt(v, hn::Set(d, 0.5f * (below + above))), hn::Set(d, above), level);
    }
    return level;
  }

  // The loss of the row under d with the points of step 1, less that of zeros.
  static float LossOf(const Row& row, float super) {
    const QF d;
    HWY_ALIGN float sums[kChunk];
    const VQ inv_super = hn::Set(d, 1.0f / super);
    for (size_t p = 0; p < kChunk; p += kQLanes) {
      VQ sum = hn::Zero(d);
      for (size_t i = p; i < row.n_padded; i += kChunk) {
        VQ best = hn::Set(d, 3e38f);
        for (size_t t = 0; t < kTrials; ++t) {
          const VQ a = hn::LoadU(d, row.a + t * row.n_padded + i);
          const VQ b = hn::LoadU(d, row.b + t * row.n_padded + i);
          const VQ ideal = hn::Div(a, hn::Max(b, hn::Set(d, 1e-30f)));
          const VQ s =
              hn::Mul(hn::Set(d, super), NearestLevel(*row.levels, hn::Mul(ideal, inv_super)));
          best = hn::Min(best, hn::Mul(s, hn::Sub(hn::Mul(s, b), hn::Add(a, a))));
        }
        sum = hn::Add(sum, best);
      }
      hn::StoreU(sum, d, sums + p);
    }
    float loss = 0.0f;
    for (const float s : sums) loss += s;
    return loss;
  }

  // Step 2.
  static float BestSuper(const Row& row) {
    float most = 0.0f;
    for (size_t i = 0; i < row.n_groups; ++i) {
      float gain = 0.0f, scale = 0.0f;
      for (size_t t = 0; t < kTrials; ++t) {
        const float a = row.a[t * row.n_padded + i], b = row.b[t * row.n_padded + i];
        if (!(b > 0.0f) || !(a * (a / b) > gain)) continue;
        gain = a * (a / b);
        scale = std::abs(a / b);
      }
      most = std::max(most, scale);
    }
    if (most == 0.0f) return 0.0f;
    const float end = static_cast<float>(std::max(-row.levels->front(), row.levels->back()));
    float best = most / end, loss = std::numeric_limits<float>::max();
    const auto attempt = [&](float d) {
      const float l = LossOf(row, d);
      if (!(l < loss)) return;
      loss = l;
      best = d;
    };
    for (float part = 0.8f; part < 3.0f; part *= 1.09f) attempt(most / (end * part));
    const float near = best;
    for (const float f : {0.94f, 0.96f, 0.98f, 1.02f, 1.04f, 1.06f}) attempt(near * f);
    return best;
  }

  struct Choice {
    float loss = std::numeric_limits<float>::max();
    size_t set = 0;
    int level = 0;
  };
  // Into an ascending list without repetitions.
  static void Insert(const Choice& choice, std::span<Choice> list) {
    size_t at = list.size();
    for (size_t k = 0; k < list.size(); ++k) {
      if (list[k].set != choice.set || list[k].level != choice.level) continue;
      if (list[k].loss <= choice.loss) return;
      at = k;
    }
    if (at == list.size()) --at;
    if (list[at].loss <= choice.loss) return;
    for (; at > 0 && list[at - 1].loss > choice.loss; --at) list[at] = list[at - 1];
    list[at] = choice;
  }

  // Step 3: for each group the most promising levels (and sets), points for them, and the best of those: row.best.
  static void ChooseLevels(const Row& row, float super) {
    const std::vector<int>& levels = *row.levels;
    for (size_t i = 0; i < row.n_groups; ++i) {
      Group group;
      Load(row, i, &group);
      Choice choices[kChoices];
      for (size_t t = 0; t < kTrials; ++t) {
        const float a = row.a[t * row.n_padded + i], b = row.b[t * row.n_padded + i];
        const float ideal = b > 0.0f ? a / b / super : 0.0f;
        const auto above =
            std::lower_bound(levels.begin(), levels.end(), ideal,
                             [](int l, float v) { return static_cast<float>(l) < v; });
        for (int side = 0; side < 2; ++side) {
          if (side == 0 ? above == levels.end() : above == levels.begin()) continue;
          const int level = side == 0 ? *above : *(above - 1);
          const float s = super * static_cast<float>(level);
          Choice choice{s * (s * b - 2.0f * a), SetOf(t), level};
          Insert(choice, choices);
        }
      }
      Fit& best = row.best[i];
      float least = std::numeric_limits<float>::max();
      for (const Choice& choice : choices) {
        if (choice.loss == std::numeric_limits<float>::max()) continue;
        const float s = super * static_cast<float>(choice.level);
        const float inv = s == 0.0f ? 0.0f : 1.0f / s;
        typename Search::Clusters chosen[kPoints];
        ChooseClusters(group, inv, choice.set, chosen);
        Fit fit;
        FindPoints(group, inv, choice.set, chosen, &fit);
        fit.level = choice.level;
        const float loss = fit.Loss(s);
        if (!(loss < least)) continue;
        least = loss;
        best = fit;
      }
    }
  }

  // The d of least loss for the points and levels chosen, with what is lost given back.
  static double Refit(const Row& row) {
    double a = 0.0, b = 0.0, zero_loss = 0.0;
    for (size_t i = 0; i < row.n_groups; ++i) {
      const double level = row.best[i].level;
      a += level * static_cast<double>(row.best[i].a);
      b += level * level * static_cast<double>(row.best[i].b);
      float xx = 0.0f;
      for (size_t k = i * kGroup; k < (i + 1) * kGroup; ++k) xx += row.w[k] * row.x[k] * row.x[k];
      zero_loss += static_cast<double>(xx);
    }
    if (!(b > 0.0)) return 0.0;
    return a / b * static_cast<double>(LostGain(zero_loss - a * a / b, zero_loss));
  }
};

EncodeRowFn FindTrellisEncoderTarget(uint32_t type_id) {
  EncodeRowFn found = nullptr;
  ForEachFormat<TrellisFormats>([&]<class F>() {
    if (F::kInfo.type_id == type_id) found = TrellisEncoder<F>::EncodeRow;
  });
  return found;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
namespace {
HWY_EXPORT(FindTrellisEncoderTarget);
}
EncodeRowFn FindTrellisEncoder(uint32_t type_id) {
  return HWY_DYNAMIC_DISPATCH(FindTrellisEncoderTarget)(type_id);
}
}  // namespace lutra
#endif
