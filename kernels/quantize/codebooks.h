// What the codebook encoder needs to know of each codebook format: its grid, levels, rule of signs, and where a vector is stored.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/formats/grids.h"
#include "kernels/formats/iq1_m.h"
#include "kernels/formats/iq1_s.h"
#include "kernels/formats/iq2_s.h"
#include "kernels/formats/iq2_xs.h"
#include "kernels/formats/iq2_xxs.h"
#include "kernels/formats/iq3_s.h"
#include "kernels/formats/iq3_xxs.h"
#include "kernels/quantize/super_scale.h"

namespace lutra {

enum class Signs { kNone, kFree, kEven };  // kEven: an even number of minus signs in eight weights

// The two halves of a point, each a number in base kLevels.size().
struct CodebookPoint {
  uint16_t first, second;
};

// Common parts: Grid is the table of kN packed points of kD weights, kBits a weight.
template <const uint16_t* kGrid, size_t kN, size_t kD, int kBitsOfLevel, size_t kNLevels>
struct CodebookBase {
  static constexpr size_t kDims = kD;
  static constexpr size_t kPoints = kN;
  static constexpr int kCodeBits = kBitsOfLevel;
  static constexpr int kOffset = 0;

  static const std::vector<CodebookPoint>& Points() {
    static const std::vector<CodebookPoint> points = [] {
      std::vector<CodebookPoint> p(kN);
      for (size_t k = 0; k < kN; ++k) {
        const auto half = [&](size_t begin) {
          size_t value = 0;
          for (size_t i = kD / 2; i-- > 0;) {
            value = value * kNLevels + (kGrid[k] >> (static_cast<size_t>(kCodeBits) * (begin + i)) &
                                        ((1u << kCodeBits) - 1));
          }
          return static_cast<uint16_t>(value);
        };
        p[k] = {half(0), half(kD / 2)};
      }
      return p;
    }();
    return points;
  }
  static constexpr size_t kHalves = [] {
    size_t n = 1;
    for (size_t i = 0; i < kD / 2; ++i) n *= kNLevels;
    return n;
  }();
  // The points by their first halves: those with first half h have the second halves seconds[begin[h], begin[h + 1]).
  struct ByFirst {
    std::array<uint16_t, kHalves + 1> begin{};
    std::array<uint16_t, kN> seconds{};
    std::array<int32_t, kHalves> codes{};  // of a half: kCodeBits a weight
  };
  static const ByFirst& PointsByFirst() {
    static const ByFirst by_first = [] {
      ByFirst b;
      size_t n = 0;
      for (size_t h = 0; h < kHalves; ++h) {
        b.begin[h] = static_cast<uint16_t>(n);
        for (const CodebookPoint& p : Points()) {
          if (p.first == h) b.seconds[n++] = p.second;
        }
        size_t left = h;
        for (size_t i = 0; i < kD / 2; ++i, left /= kNLevels) {
          b.codes[h] |=
              static_cast<int32_t>(left % kNLevels << (static_cast<size_t>(kCodeBits) * i));
        }
      }
      b.begin[kHalves] = static_cast<uint16_t>(n);
      return b;
    }();
    return by_first;
  }
};

constexpr std::array<float, 16> PadLevels(std::initializer_list<float> levels) {
  std::array<float, 16> table{};
  size_t n = 0;
  for (const float l : levels) table[n++] = l;
  return table;
}

struct TwoBitLevels {
  static constexpr std::array<float, 3> kLevels = {8, 25, 43};
  static constexpr auto kLevelTable = PadLevels({8, 25, 43});
};
struct TernaryLevels {  // in eighths, less an eighth
  static constexpr std::array<float, 3> kLevels = {-9, -1, 7};
  static constexpr auto kLevelTable = PadLevels({-9, -1, 7});
};

template <class F>
struct Codebook;

template <>
struct Codebook<Iq2Xxs> : CodebookBase<grids::kIq2Xxs, 256, 8, 2, 3>, TwoBitLevels {
  static constexpr Signs kSigns = Signs::kEven;
  static void Pack(Iq2Xxs::Block* b, size_t g, size_t k, uint32_t point, uint32_t signs, bool) {
    Iq2Xxs::Record& r = b->records[g];
    r.index[k] = static_cast<uint8_t>(point);
    const uint32_t aux = LoadLe<uint32_t>(r.aux) | (signs & 127) << (7 * k);
    std::memcpy(r.aux, &aux, 4);
  }
};

template <>
struct Codebook<Iq2Xs> : CodebookBase<grids::kIq2Xs, 512, 8, 2, 3>, TwoBitLevels {
  static constexpr Signs kSigns = Signs::kEven;
  static void Pack(Iq2Xs::Block* b, size_t g, size_t k, uint32_t point, uint32_t signs, bool) {
    StoreLe16(b->words + 2 * (2 * g + k), static_cast<uint16_t>(point | (signs & 127) << 9));
  }
};

template <>
struct Codebook<Iq2S> : CodebookBase<grids::kIq2S, 1024, 8, 2, 3>, TwoBitLevels {
  static constexpr Signs kSigns = Signs::kFree;
  static void Pack(Iq2S::Block* b, size_t g, size_t k, uint32_t point, uint32_t signs, bool) {
    const size_t v = 2 * g + k;
    b->qs[v] = static_cast<uint8_t>(point);
    b->qh[v / 4] = static_cast<uint8_t>(b->qh[v / 4] | (point >> 8) << (2 * (v % 4)));
    b->signs[v] = static_cast<uint8_t>(signs);
  }
};

template <>
struct Codebook<Iq3Xxs> : CodebookBase<grids::kIq3Xxs, 256, 4, 3, 8> {
  static constexpr Signs kSigns = Signs::kEven;
  static constexpr std::array<float, 8> kLevels = {4, 12, 20, 28, 36, 44, 52, 62};
  static constexpr auto kLevelTable = PadLevels({4, 12, 20, 28, 36, 44, 52, 62});
  static void Pack(Iq3Xxs::Block* b, size_t g, size_t k, uint32_t point, uint32_t signs, bool) {
    b->qs[8 * g + k] = static_cast<uint8_t>(point);
    const uint32_t field =
        (signs << (4 * (k % 2))) & 127;  // the eighth sign follows from the others
    const uint32_t aux = LoadLe<uint32_t>(b->aux + 4 * g) | field << (7 * (k / 2));
    std::memcpy(b->aux + 4 * g, &aux, 4);
  }
};

template <>
struct Codebook<Iq3S> : CodebookBase<grids::kIq3S, 512, 4, 3, 8> {
  static constexpr Signs kSigns = Signs::kFree;
  static constexpr std::array<float, 8> kLevels = {1, 3, 5, 7, 9, 11, 13, 15};
  static constexpr auto kLevelTable = PadLevels({1, 3, 5, 7, 9, 11, 13, 15});
  static void Pack(Iq3S::Block* b, size_t g, size_t k, uint32_t point, uint32_t signs, bool) {
    const size_t v = 8 * g + k;
    b->qs[v] = static_cast<uint8_t>(point);
    b->qh[g] = static_cast<uint8_t>(b->qh[g] | (point >> 8) << k);
    b->signs[v / 2] = static_cast<uint8_t>(b->signs[v / 2] | signs << (4 * (v % 2)));
  }
};

template <>
struct Codebook<Iq1S> : CodebookBase<grids::kIq1, 2048, 8, 2, 3>, TernaryLevels {
  static constexpr Signs kSigns = Signs::kNone;
  static void Pack(Iq1S::Block* b, size_t g, size_t k, uint32_t point, uint32_t, bool) {
    b->qs[4 * g + k] = static_cast<uint8_t>(point);
    uint8_t* word = b->qh + 2 * g;
    StoreLe16(word, static_cast<uint16_t>(LoadLe<uint16_t>(word) | (point >> 8) << (3 * k)));
  }
};

template <>
struct Codebook<Iq1M> : CodebookBase<grids::kIq1, 2048, 8, 2, 3>, TernaryLevels {
  static constexpr Signs kSigns = Signs::kNone;
  static constexpr int kOffset = 2;
  static void Pack(Iq1M::Block* b, size_t g, size_t k, uint32_t point, uint32_t, bool second) {
    const size_t v = 2 * g + k;
    b->qs[v] = static_cast<uint8_t>(point);
    const uint32_t nibble = point >> 8 | (second ? 0u : 8u);
    b->qh[v / 2] = static_cast<uint8_t>(b->qh[v / 2] | nibble << (4 * (v % 2)));
  }
};

}  // namespace lutra
