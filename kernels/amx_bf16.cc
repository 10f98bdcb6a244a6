// Weights are A tiles [16 rows][32 columns], activations B tiles, sums C tiles [16 rows][16 tokens]: so rows of weights lie in a tile as they
// lie in the file, and what must be transposed is the activations, once a product, and the results, once.
//
// Order of the work, as in kernels/amx_multiply.cc, for a group of up to 128 rows and 512 tokens:
//   for each block of 256 columns: round the group once (64 KiB, stays in L2), then
//     for each 64 rows (32 KiB, L1)   for each 32 tokens (16 KiB)   for each 32 rows: an item.
// An item is 4 C tiles, 2 of rows x 2 of tokens; a step of 32 columns loads 2 A and 2 B tiles for 4 multiplications. Sums rest in memory
// between blocks (which changes no bit: a tile's results are floats), 256 KiB for a group; they are stored when the next item's
// first step wants their registers.
#include "kernels/amx_bf16.h"

#include <algorithm>

#include "kernels/amx_tiles.h"
#include "kernels/base/check.h"
#include "kernels/formats/float_formats.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/amx_bf16.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"
#include "kernels/float_dots-inl.h"  // for every target: their guards count them

#if HWY_TARGET == HWY_AVX3_DL
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
namespace {

constexpr size_t kTileRows = 16, kTileTokens = Bf16View::kTileTokens;
constexpr size_t kStepCols = 32;
constexpr size_t kBlockCols = Bf16View::kBlockCols, kBlockSteps = kBlockCols / kStepCols;
constexpr size_t kTileNumbers = kTileRows * kStepCols;
constexpr size_t kGroupPanels = 8, kHotPanels = 4;  // of 16 rows
constexpr size_t kPassTiles = 32;                   // of tokens

using D32 = hn::Repartition<uint32_t, DF>;
using V32 = hn::Vec<D32>;

// 256 columns of 16 rows.
struct WeightBlock {
  alignas(64) uint16_t tiles[kBlockSteps][kTileRows][kStepCols];
};

// Sums of a panel: [tile of tokens][row][token].
using Sums = float[kPassTiles][kTileRows][kTileTokens];

// 32 numbers as bf16.
template <class T>
HWY_INLINE V32 Round(const T* p) {
  const hn::Repartition<hwy::bfloat16_t, DF> d;
  return hn::BitCast(D32(), hn::OrderedDemote2To(d, LoadWeights(p), LoadWeights(p + 16)));
}
HWY_INLINE V32 Round(const hwy::bfloat16_t* p) {
  return hn::LoadU(D32(), reinterpret_cast<const uint32_t*>(p));
}
// The first n of 32, then zeros.
template <class T>
HWY_INLINE V32 RoundTail(const T* p, size_t n) {
  HWY_ALIGN T padded[kStepCols];
  hwy::ZeroBytes<sizeof(padded)>(padded);
  std::memcpy(padded, p, n * sizeof(T));
  return Round(padded);
}

// v[i] lane j <-> v[j] lane i.
HWY_INLINE void Transpose(V32 (&v)[16]) {
  const D32 d;
  const hn::Repartition<uint64_t, D32> d64;
  V32 u[16];
  const auto low = [&](V32 a, V32 b) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveLower(d64, hn::BitCast(d64, a), hn::BitCast(d64, b)));
  };
  const auto high = [&](V32 a, V32 b) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveUpper(d64, hn::BitCast(d64, a), hn::BitCast(d64, b)));
  };
  // In 16 bytes: u[4 g + j] holds, for each block of 4 lanes, lane j of vectors 4 g .. 4 g + 3.
  LUTRA_UNROLL(4)
  for (size_t g = 0; g < 16; g += 4) {
    const V32 low01 = hn::InterleaveLower(d, v[g], v[g + 1]);
    const V32 low23 = hn::InterleaveLower(d, v[g + 2], v[g + 3]);
    const V32 high01 = hn::InterleaveUpper(d, v[g], v[g + 1]);
    const V32 high23 = hn::InterleaveUpper(d, v[g + 2], v[g + 3]);
    u[g] = low(low01, low23);
    u[g + 1] = high(low01, low23);
    u[g + 2] = low(high01, high23);
    u[g + 3] = high(high01, high23);
  }
  // Blocks: even ones of two vectors, odd ones, then halves.
  alignas(64) static constexpr uint32_t kEven[16] = {0, 1, 2,  3,  16, 17, 18, 19,
                                                     8, 9, 10, 11, 24, 25, 26, 27};
  const auto even = hn::SetTableIndices(d, kEven);
  const auto odd = hn::IndicesFromVec(d, hn::Add(hn::Load(d, kEven), hn::Set(d, 4u)));
  LUTRA_UNROLL(4)
  for (size_t j = 0; j < 4; ++j) {
    const V32 even01 = hn::TwoTablesLookupLanes(d, u[j], u[4 + j], even);
    const V32 even23 = hn::TwoTablesLookupLanes(d, u[8 + j], u[12 + j], even);
    const V32 odd01 = hn::TwoTablesLookupLanes(d, u[j], u[4 + j], odd);
    const V32 odd23 = hn::TwoTablesLookupLanes(d, u[8 + j], u[12 + j], odd);
    v[j] = hn::ConcatLowerLower(d, even23, even01);
    v[4 + j] = hn::ConcatLowerLower(d, odd23, odd01);
    v[8 + j] = hn::ConcatUpperUpper(d, even23, even01);
    v[12 + j] = hn::ConcatUpperUpper(d, odd23, odd01);
  }
}

// n_cols columns (of a block) of n_rows rows (of a panel), the rest zero up to the end of the last tile.
template <class T>
HWY_NOINLINE void RoundBlock(const T* w, size_t stride, size_t n_rows, size_t n_cols,
                             WeightBlock& to) {
  for (size_t r = 0; r < kTileRows; ++r) {
    size_t k = 0;
    const auto put = [&](V32 v) HWY_ATTR {
      hn::Store(v, D32(), reinterpret_cast<uint32_t*>(to.tiles[k / kStepCols][r]));
    };
    if (r >= n_rows) {
      for (; k < n_cols; k += kStepCols) put(hn::Zero(D32()));
      continue;
    }
    const T* const row = w + r * stride;
    for (; k + kStepCols <= n_cols; k += kStepCols) put(Round(row + k));
    if (k < n_cols) put(RoundTail(row + k, n_cols - k));
  }
}

// One or two panels x one or two tiles of tokens, whose sums are in the tiles: panel i, tokens j in tile 2 * i + j.
struct Item {
  const WeightBlock* w;
  Sums* sums;  // of the first panel
  size_t tile;
  size_t n_panels, n_tiles;
};

template <class Tiles, int kPanel>
HWY_INLINE void Flush(Tiles& tiles, const Item& item) {
  if (kPanel >= item.n_panels) return;
  float(*const to)[kTileRows][kTileTokens] = item.sums[kPanel] + item.tile;
  tiles.template Store<2 * kPanel>(to[0], 64);
  if (item.n_tiles == 2) tiles.template Store<2 * kPanel + 1>(to[1], 64);
}

template <class Tiles, int kPanel, bool kTwoTiles>
HWY_INLINE void Begin(Tiles& tiles, const Item& item, bool first) {
  const float(*const from)[kTileRows][kTileTokens] = item.sums[kPanel] + item.tile;
  if (first) {
    tiles.template Zero<2 * kPanel>();
    if constexpr (kTwoTiles) tiles.template Zero<2 * kPanel + 1>();
  } else {
    tiles.template Load<2 * kPanel>(from[0], 64);
    if constexpr (kTwoTiles) tiles.template Load<2 * kPanel + 1>(from[1], 64);
  }
}

// n_steps x 32 columns of an item; x: its tokens' tiles. `first`: sums begin at zero.
template <class Tiles, bool kTwoPanels, bool kTwoTiles>
HWY_INLINE void Multiply(Tiles& tiles, const Item& item, const uint16_t* x, size_t n_steps,
                         bool first, const Item& before) {
  const WeightBlock* const w = item.w;
  for (size_t s = 0; s < n_steps; ++s) {
    tiles.template Load<4>(w[0].tiles[s], 64);
    tiles.template Load<6>(x + s * kTileNumbers, 64);
    if constexpr (kTwoTiles) tiles.template Load<7>(x + (kBlockSteps + s) * kTileNumbers, 64);
    if (s == 0) {
      Flush<Tiles, 0>(tiles, before);
      Begin<Tiles, 0, kTwoTiles>(tiles, item, first);
    }
    tiles.template DotBf16<0, 4, 6>();
    if constexpr (kTwoTiles) tiles.template DotBf16<1, 4, 7>();
    if constexpr (kTwoPanels) tiles.template Load<5>(w[1].tiles[s], 64);
    if (s == 0) {
      Flush<Tiles, 1>(tiles, before);
      if constexpr (kTwoPanels) Begin<Tiles, 1, kTwoTiles>(tiles, item, first);
    }
    if constexpr (kTwoPanels) {
      tiles.template DotBf16<2, 5, 6>();
      if constexpr (kTwoTiles) tiles.template DotBf16<3, 5, 7>();
    }
  }
}

// sums += the group's block x tiles [tile, tile + n_tiles) of block b of x.
template <class Tiles>
HWY_NOINLINE void RunBlock(Tiles& tiles, const WeightBlock* blocks, size_t n_panels,
                           const Bf16View& x, size_t b, size_t tile, size_t n_tiles, Sums* sums) {
  const size_t n_cols = HWY_MIN(kBlockCols, x.n_cols - b * kBlockCols);
  const size_t n_steps = (n_cols + kStepCols - 1) / kStepCols;
  const uint16_t* const tokens = x.tiles + (b * x.n_tiles() + tile) * (kBlockSteps * kTileNumbers);
  Item before{};
  for (size_t hot = 0; hot < n_panels; hot += kHotPanels) {
    const size_t hot_end = HWY_MIN(hot + kHotPanels, n_panels);
    for (size_t t = 0; t < n_tiles; t += 2) {
      const uint16_t* const at = tokens + t * (kBlockSteps * kTileNumbers);
      for (size_t panel = hot; panel < hot_end; panel += 2) {
        const Item item{blocks + panel, sums + panel, t, HWY_MIN(size_t{2}, hot_end - panel),
                        HWY_MIN(size_t{2}, n_tiles - t)};
        if (item.n_panels == 2 && item.n_tiles == 2) {
          Multiply<Tiles, true, true>(tiles, item, at, n_steps, b == 0, before);
        } else if (item.n_panels == 2) {
          Multiply<Tiles, true, false>(tiles, item, at, n_steps, b == 0, before);
        } else if (item.n_tiles == 2) {
          Multiply<Tiles, false, true>(tiles, item, at, n_steps, b == 0, before);
        } else {
          Multiply<Tiles, false, false>(tiles, item, at, n_steps, b == 0, before);
        }
        before = item;
      }
    }
  }
  Flush<Tiles, 0>(tiles, before);
  Flush<Tiles, 1>(tiles, before);
}

// Sums [row][token] of n_tokens tokens to y [token][row], n_rows rows.
HWY_NOINLINE void CopyOut(const float (*sums)[kTileTokens], size_t n_rows, size_t n_tokens,
                          float* y, size_t y_stride) {
  const DF df;
  V32 v[16];
  LUTRA_UNROLL(16)
  for (size_t r = 0; r < 16; ++r) v[r] = hn::BitCast(D32(), hn::Load(df, sums[r]));
  Transpose(v);
  HWY_ALIGN float by_token[kTileTokens][kTileRows];
  LUTRA_UNROLL(16)
  for (size_t t = 0; t < 16; ++t) hn::Store(hn::BitCast(df, v[t]), df, by_token[t]);
  for (size_t t = 0; t < n_tokens; ++t)
    hn::StoreN(hn::Load(df, by_token[t]), df, y + t * y_stride, n_rows);
}

template <class Tiles, class T>
void MatMul(const uint8_t* bytes, size_t row_begin, size_t row_end, const Bf16View& x, float* y,
            size_t y_stride) {
  const T* const w = reinterpret_cast<const T*>(bytes);
  WeightBlock blocks[kGroupPanels];
  alignas(64) Sums sums[kGroupPanels];
  Tiles tiles;
  tiles.Configure(MakeTileConfig(kStepCols / 2));
  for (size_t tile = 0; tile < x.n_tiles(); tile += kPassTiles) {
    const size_t n_tiles = HWY_MIN(kPassTiles, x.n_tiles() - tile);
    for (size_t row = row_begin; row < row_end; row += kGroupPanels * kTileRows) {
      const size_t n_rows = HWY_MIN(kGroupPanels * kTileRows, row_end - row);
      const size_t n_panels = (n_rows + kTileRows - 1) / kTileRows;
      for (size_t b = 0; b < x.n_blocks(); ++b) {
        const size_t col = b * kBlockCols;
        for (size_t i = 0; i < n_panels; ++i) {
          RoundBlock(w + (row + i * kTileRows) * x.n_cols + col, x.n_cols,
                     HWY_MIN(kTileRows, n_rows - i * kTileRows),
                     HWY_MIN(kBlockCols, x.n_cols - col), blocks[i]);
        }
        RunBlock(tiles, blocks, n_panels, x, b, tile, n_tiles, sums);
      }
      for (size_t t = 0; t < n_tiles; ++t) {
        const size_t token = (tile + t) * kTileTokens;
        for (size_t i = 0; i < n_panels; ++i) {
          CopyOut(sums[i][t], HWY_MIN(kTileRows, n_rows - i * kTileRows),
                  HWY_MIN(kTileTokens, x.n_tokens - token),
                  y + token * y_stride + row + i * kTileRows, y_stride);
        }
      }
    }
  }
  tiles.Release();
}

}  // namespace

// n_tokens x n_cols (at most 16 x 256) of x as tiles.
void RoundTokensTarget(const float* x, size_t x_stride, size_t n_tokens, size_t n_cols,
                       uint16_t* to) {
  const D32 d;
  for (size_t k = 0; k < n_cols; k += kStepCols) {
    V32 v[16];
    LUTRA_UNROLL(16)
    for (size_t t = 0; t < 16; ++t) {
      const float* const at = x + t * x_stride + k;
      v[t] = t >= n_tokens             ? hn::Zero(d)
             : n_cols - k >= kStepCols ? Round(at)
                                       : RoundTail(at, n_cols - k);
    }
    Transpose(v);
    LUTRA_UNROLL(16)
    for (size_t p = 0; p < 16; ++p)
      hn::Store(v[p], d, reinterpret_cast<uint32_t*>(to + k * kTileTokens) + p * kTileTokens);
  }
}

Bf16MatMulFn FindAmxBf16Target(uint32_t type_id, bool emulated) {
  if (type_id == F16::kInfo.type_id)
    return emulated ? &MatMul<EmulatedTiles, hwy::float16_t> : &MatMul<AmxTiles, hwy::float16_t>;
  if (type_id == Bf16::kInfo.type_id)
    return emulated ? &MatMul<EmulatedTiles, hwy::bfloat16_t> : &MatMul<AmxTiles, hwy::bfloat16_t>;
  return nullptr;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET == HWY_AVX3_DL

#if HWY_ONCE
namespace lutra {

namespace {
constexpr size_t PartNumbers() { return Bf16View::kBlockCols * Bf16View::kTileTokens; }
size_t Numbers(size_t n_tokens, size_t n_cols) {
  const Bf16View shape{nullptr, n_cols, n_tokens};
  return shape.n_blocks() * shape.n_tiles() * PartNumbers();
}
}  // namespace

Bf16Activations::Bf16Activations(size_t max_tokens, size_t max_cols)
    : tiles_(Numbers(max_tokens, max_cols)) {}

size_t Bf16Activations::PlannedBytes(size_t max_tokens, size_t max_cols) {
  return Numbers(max_tokens, max_cols) * sizeof(uint16_t);
}

void Bf16Activations::Reshape(size_t n_tokens, size_t n_cols) {
  LUTRA_CHECK(Numbers(n_tokens, n_cols) <= tiles_.size());
  n_tokens_ = n_tokens;
  n_cols_ = n_cols;
}

void Bf16Activations::SetPart([[maybe_unused]] size_t part, [[maybe_unused]] const float* x,
                              [[maybe_unused]] size_t x_stride) {
#if HWY_ARCH_X86_64 && (HWY_TARGETS & HWY_AVX3_DL)
  const size_t n_tiles = view().n_tiles();
  const size_t col = part / n_tiles * Bf16View::kBlockCols;
  const size_t token = part % n_tiles * Bf16View::kTileTokens;
  LUTRA_DCHECK(col < n_cols_);
  N_AVX3_DL::RoundTokensTarget(
      x + token * x_stride + col, x_stride, std::min(Bf16View::kTileTokens, n_tokens_ - token),
      std::min(Bf16View::kBlockCols, n_cols_ - col), tiles_.data() + part * PartNumbers());
#endif
}

Bf16MatMulFn FindAmxBf16MatMul([[maybe_unused]] uint32_t type_id, [[maybe_unused]] bool emulated) {
#if HWY_ARCH_X86_64 && (HWY_TARGETS & HWY_AVX3_DL)
  return N_AVX3_DL::FindAmxBf16Target(type_id, emulated);
#else
  return nullptr;
#endif
}

}  // namespace lutra
#endif  // HWY_ONCE
