// The part of the AMX product that knows no format: decoded blocks times all tokens.
//
// Order of the work, for a group of up to 128 rows:
//   for each block of 256 columns: decode the group once (128 x 256 in two planes: 64 KiB, stays in L2), then
//     for each 64 rows (32 KiB, L1)   for each 32 tokens (8 KiB)   for each 16 rows: an item.
// An item is 4 C tiles: 2 tiles of tokens x (high, low) of 16 rows, or x 32 rows where one plane suffices; a step of 64 columns loads 2 A
// and 2 B tiles for 4 multiplications, which keeps loads (32 cycles of a step) below the multiplications (64).
//   Why 128 rows: all activations pass once a group; at 2048 columns and 512 tokens they are 1 MiB, more than L2 leaves, so a narrow
//   group would wait for L3 (64 rows: about 8 bytes a cycle, near what a core gets; 128: 4). With 256 the partial results, 512 KiB for
//   512 tokens, and the blocks no longer fit L2 together; a prototype fell from 1.49 to 1.1 TOPS there.
//   Why the C tiles are stored late: sums leave the tiles when the *next* item's first step wants their registers, and are scaled, a
//   quarter a step, between its multiplications: stores and float work run beside the tile unit. Stored together after an item they
//   cost 17 ns each time (prototype), as much as a fifth of its multiplications.
//   One hot 4 KiB buffer takes the sums; results lie as [panel][token][16 rows], 64 bytes an access, at no power-of-two distance.
// These cycle counts are the instructions' published rates, not measurements of this code.
#include "kernels/amx_matmul.h"
#include "kernels/amx_tiles.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/amx_multiply.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"  // for every target: its guard counts them

#if HWY_TARGET == HWY_AVX3_DL
#include <algorithm>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
namespace {

using DI16 = hn::Repartition<int16_t, DI>;

constexpr size_t kGroupPanels = kTilePanels;
constexpr size_t kHotPanels = 4;
constexpr size_t kTokens = 512;     // of one pass over a block
constexpr size_t kTileTokens = 32;  // of an item: two tiles
static_assert(Q8View::kSlackTokens >= kTileTokens);

struct AmxShape {
  int planes;
  int unit;
  bool bias;
};

// Partial results of a group: [panel][token][row].
using Partial = float[kTokens + kTileTokens][kPanelRows];

// An item whose sums are in the tiles or on their way to the results.
struct Item {
  const AmxBlock* block;
  Partial* y;       // of the block's panel
  size_t token;     // in y
  size_t n_tokens;  // 16 or 32; 0: none
  size_t unit;
  const float* d;       // [token][256 / unit]
  const int16_t* sums;  // [token][16]
};

// C tile 2 * i + j: tokens 16 i ..; j: high and low, or the item's first and second panel.
struct Sums {
  alignas(64) int32_t tile[4][16][16];
};

// y += scaled sums of the kCount tokens from `begin` of the item, all of one tile.
template <AmxShape kShape, size_t kCount>
HWY_INLINE void FinishTokens(const Item& item, const Sums& sums, size_t begin) {
  const DI di;
  const DF df;
  const DI16 d16;
  constexpr size_t kUnits = 256 / static_cast<size_t>(kShape.unit);
  constexpr size_t kPairs = static_cast<size_t>(kShape.unit) / 32;
  constexpr size_t kPanels = kShape.planes == 1 ? 2 : 1;
  const float* HWY_RESTRICT d = item.d + begin * kUnits + item.unit;
  const int16_t* HWY_RESTRICT token_sums = item.sums + begin * 16 + 2 * item.unit * kPairs;
  for (size_t j = 0; j < kPanels; ++j) {
    const AmxBlock& w = item.block[j];
    const int32_t* HWY_RESTRICT c = sums.tile[begin / 16 * 2 + j][begin % 16];
    float* HWY_RESTRICT y = item.y[j][item.token + begin];
    const VF super = hn::Load(df, w.supers[item.unit]);
    VF bias_super = hn::Zero(df);
    VI biases[kPairs];
    if constexpr (kShape.bias) {
      bias_super = hn::Load(df, w.bias_supers[item.unit]);
      LUTRA_UNROLL(8)
      for (size_t i = 0; i < kPairs; ++i)
        biases[i] =
            hn::Load(di, reinterpret_cast<const int32_t*>(w.biases[item.unit * kPairs + i]));
    }
    LUTRA_UNROLL(4)
    for (size_t t = 0; t < kCount; ++t) {
      VI sum = hn::Load(di, c + t * 16);
      if constexpr (kShape.planes == 2)
        sum = hn::Add(hn::ShiftLeft<8>(sum), hn::Load(di, c + 256 + t * 16));
      const VF dt = hn::Set(df, d[t * kUnits]);
      VF out = hn::MulAdd(hn::Mul(super, dt), hn::ConvertTo(df, sum), hn::Load(df, y + t * 16));
      if constexpr (kShape.bias) {
        VI bias[2] = {hn::Zero(di), hn::Zero(di)};
        VI unused = bias[0];
        LUTRA_UNROLL(8)
        for (size_t i = 0; i < kPairs; ++i) {
          int32_t two;
          std::memcpy(&two, token_sums + t * 16 + 2 * i, 4);
          const auto pair = hn::BitCast(d16, hn::Set(di, two));
          bias[i % 2] = hn::ReorderWidenMulAccumulate(di, hn::BitCast(d16, biases[i]), pair,
                                                      bias[i % 2], unused);
        }
        out =
            hn::MulAdd(hn::Mul(bias_super, dt), hn::ConvertTo(df, hn::Add(bias[0], bias[1])), out);
      }
      hn::Store(out, df, y + t * 16);
    }
  }
}

// Piece `piece` of kPieces of the item's tokens.
template <AmxShape kShape, size_t kPieces>
HWY_INLINE void Finish(const Item& item, const Sums& sums, size_t piece) {
  if (item.n_tokens == kTileTokens) {
    constexpr size_t kCount = kTileTokens / kPieces;
    FinishTokens<kShape, HWY_MIN(kCount, 16)>(item, sums, piece * kCount);
    if constexpr (kCount > 16) FinishTokens<kShape, 16>(item, sums, 16);
  } else if (item.n_tokens != 0) {
    FinishTokens<kShape, 16 / kPieces>(item, sums, piece * (16 / kPieces));
  }
}

template <class Tiles, AmxShape kShape>
class BlockProduct {
 public:
  // Tiles must be configured with kConfig.
  static constexpr size_t kStep = kShape.unit == 256 ? 64 : 32;  // columns
  static constexpr TileConfig kConfig = MakeTileConfig(kStep / 4);

  // y += panels x tokens [token, token + n_tokens) of block b of x. With one plane panels go in pairs: there is one more block and y.
  static HWY_NOINLINE void Run(Tiles& tiles, const AmxBlock* blocks, size_t n_panels,
                               const Q8View& x, size_t b, size_t token, size_t n_tokens,
                               size_t n_units, Partial* y) {
    constexpr size_t kUnits = 256 / static_cast<size_t>(kShape.unit);
    constexpr size_t kPanels = kShape.planes == 1 ? 2 : 1;
    Sums sums;
    Item before{};
    for (size_t hot = 0; hot < n_panels; hot += kHotPanels) {
      const size_t hot_end = HWY_MIN(hot + kHotPanels, n_panels);
      for (size_t t = 0; t < n_tokens; t += kTileTokens) {
        const size_t at = b * x.n_tokens + token + t;
        const bool two = n_tokens - t > 16;
        for (size_t panel = hot; panel < hot_end; panel += kPanels) {
          for (size_t u = 0; u < n_units; ++u) {
            const Item item{blocks + panel,    y + panel,       t, two ? kTileTokens : 16, u,
                            x.d + at * kUnits, x.sums + at * 16};
            const int8_t* a = x.q + at * 256 + u * static_cast<size_t>(kShape.unit);
            if (two) {
              Multiply<true>(tiles, item, a, before, sums);
            } else {
              Multiply<false>(tiles, item, a, before, sums);
            }
            before = item;
          }
        }
      }
    }
    Flush<0>(tiles, before, sums);
    Flush<2>(tiles, before, sums);
    Finish<kShape, 1>(before, sums, 0);
  }

 private:
  static constexpr size_t kSteps = static_cast<size_t>(kShape.unit) / kStep;
  static constexpr size_t kTileBytes = kStep * 16;

  // C tiles kC and kC + 1 of the item to memory.
  template <int kC>
  static HWY_INLINE void Flush(Tiles& tiles, const Item& item, Sums& sums) {
    if (item.n_tokens > 8 * kC) {
      tiles.template Store<kC>(sums.tile[kC], 64);
      tiles.template Store<kC + 1>(sums.tile[kC + 1], 64);
    }
  }

  template <int kC, int kA>
  static HWY_INLINE void Dots(Tiles& tiles) {
    tiles.template DotSigned<kC, kA, 6>();
    if constexpr (kShape.planes == 2) {
      tiles.template DotUnsigned<kC + 1, kA, 7>();
    } else {
      tiles.template DotSigned<kC + 1, kA, 7>();
    }
  }

  template <bool kTwo>
  static HWY_INLINE void Multiply(Tiles& tiles, const Item& item, const int8_t* a,
                                  const Item& before, Sums& sums) {
    // One plane: the same unit of the next panel; two: the low plane behind the high one.
    constexpr size_t kSecond = kShape.planes == 1 ? sizeof(AmxBlock) : kTileBytes;
    const uint8_t* b =
        item.block->tiles + item.unit * kSteps * static_cast<size_t>(kShape.planes) * kTileBytes;
    LUTRA_UNROLL(4)
    for (size_t s = 0; s < kSteps; ++s) {
      tiles.template Load<4>(a + s * kStep, 256);
      tiles.template Load<6>(b, 64);
      tiles.template Load<7>(b + kSecond, 64);
      if (s == 0) {
        Flush<0>(tiles, before, sums);
        tiles.template Zero<0>();
        tiles.template Zero<1>();
      }
      Dots<0, 4>(tiles);
      if constexpr (kTwo) tiles.template Load<5>(a + s * kStep + 16 * 256, 256);
      if (s == 0) {
        Flush<2>(tiles, before, sums);
        if constexpr (kTwo) {
          tiles.template Zero<2>();
          tiles.template Zero<3>();
        }
      }
      if constexpr (kTwo) Dots<2, 5>(tiles);
      b += static_cast<size_t>(kShape.planes) * kTileBytes;
      Finish<kShape, kSteps>(before, sums, s);
    }
  }
};

template <class Tiles, AmxShape kShape>
void MatMulShape(const AmxFormat& f, const PanelMatrix& w, const Q8View& x, size_t panel_begin,
                 size_t panel_end, float* y, size_t y_stride) {
  using Product = BlockProduct<Tiles, kShape>;
  constexpr size_t kUnits = 256 / static_cast<size_t>(kShape.unit);
  AmxBlock blocks[kGroupPanels];
  alignas(64) Partial partial[kGroupPanels];
  Tiles tiles;
  tiles.Configure(Product::kConfig);
  const size_t n_all_units = x.n_cols / static_cast<size_t>(kShape.unit);
  for (size_t token = 0; token < x.n_tokens; token += kTokens) {
    const size_t n_tokens = HWY_MIN(kTokens, x.n_tokens - token);
    for (size_t panel = panel_begin; panel < panel_end; panel += kGroupPanels) {
      const size_t n_panels = HWY_MIN(kGroupPanels, panel_end - panel);
      for (size_t i = 0; i < n_panels; ++i)
        std::memset(partial[i], 0, n_tokens * sizeof partial[i][0]);
      // The absent half of a pair.
      if (n_panels % 2 != 0)
        std::memset(static_cast<void*>(&blocks[n_panels]), 0, sizeof(AmxBlock));
      for (size_t b = 0; b * kUnits < n_all_units; ++b) {
        const size_t n_units = HWY_MIN(kUnits, n_all_units - b * kUnits);
        for (size_t i = 0; i < n_panels; ++i)
          f.decode(w.panels + (panel + i) * w.panel_bytes, w.table, b, n_units, blocks[i]);
        Product::Run(tiles, blocks, n_panels, x, b, token, n_tokens, n_units, partial);
      }
      for (size_t t = 0; t < n_tokens; ++t) {
        for (size_t i = 0; i < n_panels; ++i) {
          const size_t row = (panel + i) * kPanelRows;
          std::memcpy(y + (token + t) * y_stride + row, partial[i][t],
                      HWY_MIN(kPanelRows, w.n_rows - row) * sizeof(float));
        }
      }
    }
  }
  tiles.Release();
}

template <class Tiles>
void MatMul(const AmxFormat& f, const PanelMatrix& w, const Q8View& x, size_t panel_begin,
            size_t panel_end, float* y, size_t y_stride) {
  const auto run = [&]<int kPlanes, int kUnit>() {
    if (f.bias) {
      MatMulShape<Tiles, AmxShape{kPlanes, kUnit, true}>(f, w, x, panel_begin, panel_end, y,
                                                         y_stride);
    } else {
      MatMulShape<Tiles, AmxShape{kPlanes, kUnit, false}>(f, w, x, panel_begin, panel_end, y,
                                                          y_stride);
    }
  };
  if (f.unit == 32) {
    run.template operator()<1, 32>();
  } else if (f.planes == 1) {
    run.template operator()<1, 256>();
  } else {
    run.template operator()<2, 256>();
  }
}

}  // namespace

void AmxMatMulTarget(const AmxFormat& f, const PanelMatrix& w, const Q8View& x, size_t panel_begin,
                     size_t panel_end, float* y, size_t y_stride) {
  MatMul<AmxTiles>(f, w, x, panel_begin, panel_end, y, y_stride);
}
void AmxMatMulEmulatedTarget(const AmxFormat& f, const PanelMatrix& w, const Q8View& x,
                             size_t panel_begin, size_t panel_end, float* y, size_t y_stride) {
  MatMul<EmulatedTiles>(f, w, x, panel_begin, panel_end, y, y_stride);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET == HWY_AVX3_DL

#if HWY_ONCE && HWY_ARCH_X86_64 && (HWY_TARGETS & HWY_AVX3_DL)
namespace lutra {

void AmxMatMul(const AmxFormat& f, const PanelMatrix& w, const Q8View& x, size_t panel_begin,
               size_t panel_end, float* y, size_t y_stride) {
  N_AVX3_DL::AmxMatMulTarget(f, w, x, panel_begin, panel_end, y, y_stride);
}
void AmxMatMulEmulated(const AmxFormat& f, const PanelMatrix& w, const Q8View& x,
                       size_t panel_begin, size_t panel_end, float* y, size_t y_stride) {
  N_AVX3_DL::AmxMatMulEmulatedTarget(f, w, x, panel_begin, panel_end, y, y_stride);
}

}  // namespace lutra
#endif
