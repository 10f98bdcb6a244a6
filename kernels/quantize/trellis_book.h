// What a trellis format can store for a group of weights, ordered for searching: all points of its generator in clusters of near
// neighbours, each with its centre, so that a search looks at the centres first and then into a few clusters.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/base/aligned.h"
#include "kernels/formats/iq1_kt.h"
#include "kernels/formats/iq2_kt.h"
#include "kernels/formats/iq3_kt.h"
#include "kernels/formats/iq4_kt.h"
#include "kernels/quantize/super_scale.h"

namespace lutra {

// Points stand in tiles of 16, by pairs of coordinates: tile[coordinate / 2][point][coordinate % 2].
inline constexpr size_t kTilePoints = 16;
inline constexpr int kTrellisUnit = 32;  // coordinates are stored in units of 1/32

// How a format uses the generator, and how it stores what a search found.
//   kDims weights a point, kPoints points in each of kSets sets; a scale's group of 32 chooses a set.
//   kMagnitudes: signs are beside the points.
//   kTiles tiles a cluster; a search looks into kSurely to kVisits (at most 32) clusters.
//   kReaches: what the largest weight of a group is scaled to by the scales that are searched for the group alone; values reach to 126.
//   Pack: point k of the block's group g of 32.
template <class F>
struct TrellisFormat;

template <>
struct TrellisFormat<Iq1Kt> {
  static constexpr size_t kDims = 8, kPoints = 8192, kSets = 1, kTiles = 2, kVisits = 32,
                          kSurely = 12;
  static constexpr bool kMagnitudes = false;
  static constexpr float kReaches[] = {74, 93, 116};
  static void Pack(Iq1Kt::Block* b, size_t g, size_t k, uint32_t code, uint32_t, size_t) {
    const size_t i = 4 * g + k;
    b->ql[i] = static_cast<uint8_t>(code);
    b->qh[i % 16] = static_cast<uint8_t>(b->qh[i % 16] | (code >> 8 & 15) << (4 * (i / 16)));
    b->sh[g] = static_cast<uint8_t>(b->sh[g] | (code >> 12) << (4 + k));
  }
};

template <>
struct TrellisFormat<Iq2Kt> {
  static constexpr size_t kDims = 8, kPoints = 65536, kSets = 1, kTiles = 4, kVisits = 32,
                          kSurely = 12;
  static constexpr bool kMagnitudes = false;
  static constexpr float kReaches[] = {74, 93, 116};
  static void Pack(Iq2Kt::Block* b, size_t g, size_t k, uint32_t code, uint32_t, size_t) {
    StoreLe16(b->index + 2 * (4 * g + k), static_cast<uint16_t>(code));
  }
};

template <>
struct TrellisFormat<Iq3Kt> {
  static constexpr size_t kDims = 8, kPoints = 65536, kSets = 1, kTiles = 4, kVisits = 32,
                          kSurely = 16;
  static constexpr bool kMagnitudes = true;
  static constexpr float kReaches[] = {66, 78, 92, 108, 126};
  static void Pack(Iq3Kt::Block* b, size_t g, size_t k, uint32_t code, uint32_t signs, size_t) {
    StoreLe16(b->index + 2 * (4 * g + k), static_cast<uint16_t>(code));
    for (size_t i = 0; i < 8; ++i) {
      uint8_t& plane = b->qh[8 * k + i];
      plane = static_cast<uint8_t>(plane | (signs >> i & 1) << g);
    }
  }
};

template <>
struct TrellisFormat<Iq4Kt> {
  static constexpr size_t kDims = 4, kPoints = 32768, kSets = 2, kTiles = 4, kVisits = 32,
                          kSurely = 12;
  static constexpr bool kMagnitudes = false;
  static constexpr float kReaches[] = {66, 78, 92, 108, 126};
  static void Pack(Iq4Kt::Block* b, size_t g, size_t k, uint32_t code, uint32_t, size_t set) {
    const size_t i = 8 * g + k;
    b->ql[i] = static_cast<uint8_t>(code);
    b->qh[i % 32] = static_cast<uint8_t>(b->qh[i % 32] | (code >> 8 & 15) << (4 * (i / 32)));
    uint8_t* word = b->words + 4 * g;
    const uint32_t bits =
        LoadLe<uint32_t>(word) | (code >> 12) << (8 + 3 * k) | static_cast<uint32_t>(set);
    std::memcpy(word, &bits, 4);
  }
};

template <class F>
class TrellisBook {
 public:
  using Shape = TrellisFormat<F>;
  static constexpr size_t kDims = Shape::kDims;
  static constexpr size_t kTileSize = kTilePoints * kDims;
  static constexpr size_t kClusterPoints = Shape::kTiles * kTilePoints;
  static constexpr size_t kClusters = Shape::kPoints / kClusterPoints;

  // Thread-safe; made at the first call.
  static const TrellisBook& Get(size_t set) {
    static const std::array<TrellisBook, Shape::kSets> books = [] {
      std::array<TrellisBook, Shape::kSets> b;
      for (size_t s = 0; s < Shape::kSets; ++s) b[s].Build(s);
      return b;
    }();
    return books[set];
  }

  const int16_t* points() const { return points_.data(); }    // [kClusters, kTiles] tiles
  const int16_t* centres() const { return centres_.data(); }  // [kClusters / 16] tiles
  const int16_t* extents() const {
    return extents_.data();
  }  // of each centre's cluster, in the same places
  const uint16_t* codes() const {
    return codes_.data();
  }  // of each point: the index that is stored
  const uint16_t* cluster_of() const { return cluster_of_.data(); }  // of each centre

  // Weight k of the point with this code.
  static int Value(size_t set, uint32_t code, size_t k) {
    const int value = trellis::Value(code + static_cast<uint32_t>(set * Shape::kPoints), k);
    return Shape::kMagnitudes ? std::abs(value) : value;
  }

 private:
  using Point = std::array<int8_t, kDims>;

  static void Put(AlignedArray<int16_t>* tiles, size_t i, const Point& point) {
    int16_t* tile = tiles->data() + i / kTilePoints * kTileSize;
    for (size_t k = 0; k < kDims; ++k)
      tile[(k / 2 * kTilePoints + i % kTilePoints) * 2 + k % 2] =
          static_cast<int16_t>(kTrellisUnit * point[k]);
  }

  void Build(size_t set) {
    std::vector<Point> points(Shape::kPoints);
    for (uint32_t i = 0; i < Shape::kPoints; ++i) {
      for (size_t k = 0; k < kDims; ++k) points[i][k] = static_cast<int8_t>(Value(set, i, k));
    }
    codes_.resize(Shape::kPoints);
    std::iota(codes_.begin(), codes_.end(), uint16_t{0});
    Split(points, codes_);
    points_ = AlignedArray<int16_t>(Shape::kPoints * kDims);
    extents_ = AlignedArray<int16_t>(kClusters * kDims);
    centres_ = AlignedArray<int16_t>(kClusters * kDims);
    cluster_of_.resize(kClusters);
    for (size_t c = 0; c < kClusters; ++c) {
      const auto codes = codes_.begin() + static_cast<ptrdiff_t>(c * kClusterPoints);
      std::sort(codes, codes + kClusterPoints);
      std::array<int, kDims> sum{};
      for (size_t i = 0; i < kClusterPoints; ++i) {
        const Point& point = points[codes[static_cast<ptrdiff_t>(i)]];
        for (size_t k = 0; k < kDims; ++k) sum[k] += point[k];
        Put(&points_, c * kClusterPoints + i, point);
      }
      Point centre, extent;
      constexpr int kN = static_cast<int>(kClusterPoints);
      for (size_t k = 0; k < kDims; ++k) {
        centre[k] = static_cast<int8_t>((sum[k] + 128 * kN + kN / 2) / kN - 128);
        int apart = 0;
        for (size_t i = 0; i < kClusterPoints; ++i)
          apart += std::abs(points[codes[static_cast<ptrdiff_t>(i)]][k] - centre[k]);
        extent[k] = static_cast<int8_t>(5 * apart / (4 * kN));  // nearly the standard deviation
      }
      // Neighbours into different lanes: a search keeps the best two of each.
      const size_t lane = (c ^ c / 16 ^ c / 256) % 16;
      const size_t at = c / 16 * 16 + lane;
      Put(&centres_, at, centre);
      Put(&extents_, at, extent);
      cluster_of_[at] = static_cast<uint16_t>(c);
    }
  }

  // Halves the codes at the median of the coordinate that varies most, until they are clusters.
  static void Split(const std::vector<Point>& points, std::span<uint16_t> codes) {
    if (codes.size() <= kClusterPoints) return;
    size_t widest = 0;
    int64_t most = -1;
    for (size_t k = 0; k < kDims; ++k) {
      int64_t sum = 0, squares = 0;
      for (const uint16_t code : codes) {
        const int64_t v = points[code][k];
        sum += v;
        squares += v * v;
      }
      const int64_t spread = squares * static_cast<int64_t>(codes.size()) - sum * sum;
      if (spread > most) {
        most = spread;
        widest = k;
      }
    }
    const size_t half = codes.size() / 2;
    std::nth_element(codes.begin(), codes.begin() + static_cast<ptrdiff_t>(half), codes.end(),
                     [&](uint16_t a, uint16_t b) {
                       return points[a][widest] != points[b][widest]
                                  ? points[a][widest] < points[b][widest]
                                  : a < b;
                     });
    Split(points, codes.first(half));
    Split(points, codes.subspan(half));
  }

  AlignedArray<int16_t> points_, centres_, extents_;
  std::vector<uint16_t> codes_, cluster_of_;
};

}  // namespace lutra
