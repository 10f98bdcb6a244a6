// Many tokens x packed panels on AMX tiles, exact to the bit (kernels/exact.h). Sums of 64 products leave a tile before anybody can apply
// the scales of 16 or 32 weights, so the weights that meet the tiles are w = scale * lane, which fits int16, in two bytes:
//   w = 256 * high + low, high int8, low uint8;   S = 256 * sum(high * a) + sum(low * a)
// where w fits int8 for all a format can hold, one plane and one pass.
// kernels/amx_decode.cc is per format, kernels/amx_multiply.cc is not.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/panel.h"
#include "kernels/panel_matmul.h"

namespace lutra {

// 256 columns of one panel. The size is no power of two, so panels beside each other do not compete for the same cache sets.
struct AmxBlock {
  // Tiles in the order of their use: [256 / step][planes][step / 4 quads][16 rows][4 columns]; step is 64 columns, 32 if the unit is.
  // Two planes: high, then low.
  alignas(64) uint8_t tiles[2 * 256 * kPanelRows];
  alignas(64) float supers[8][kPanelRows];  // [unit]
  alignas(64) float bias_supers[8][kPanelRows];
  alignas(64) int16_t biases[8][kPanelRows][2];  // of columns 32 p .. 32 p + 15 and the next 16
};

// What the multiplying code must know of a format.
struct AmxFormat {
  int planes;  // 1 or 2
  int unit;    // 256 or 32 (then one plane)
  bool bias;
  // Units [0, n_units) of block `block` of a panel; table as in PanelMatrix.
  void (*decode)(const uint8_t* panel, const uint8_t* table, size_t block, size_t n_units,
                 AmxBlock& to);
};

// True if scale * (u - offset) fits int8 for every value that the kind can hold.
constexpr bool FitsInt8(const PanelKind& k) {
  if (k.scale_bits == 0) return k.shift == 0;  // lanes are int8
  if (k.table || k.scale_bits == 8) return false;
  const int least = -k.offset, greatest = (1 << k.bits) - 1 - k.offset + k.shift;
  bool fits = true;
  for (const int scale : {-k.scale_zero, 15 - k.scale_zero}) {
    for (const int lane : {least, greatest})
      fits = fits && scale * lane >= -128 && scale * lane <= 127;
  }
  return fits;
}

// As PanelMatMulFn. On tiles: only where CpuHasAmxInt8(). Both: only where AVX3_DL is.
void AmxMatMul(const AmxFormat& f, const PanelMatrix& w, const Q8View& x, size_t panel_begin,
               size_t panel_end, float* y, size_t y_stride);
void AmxMatMulEmulated(const AmxFormat& f, const PanelMatrix& w, const Q8View& x,
                       size_t panel_begin, size_t panel_end, float* y, size_t y_stride);

// The kernel of a format for more than kTileMinTokens tokens (fewer are faster without tiles) if the SIMD choice in use
// (kernels/dispatch.h) has tiles, else nullptr. It likes kTilePanels panels at a time.
PanelMatMulFn FindTilePanelMatMul(uint32_t type_id);
inline constexpr size_t kTileMinTokens = 16;
inline constexpr size_t kTilePanels = 8;

// The kernel of a format, nullptr if the id is no quantized format or the build has no such code.
PanelMatMulFn FindAmxPanelMatMul(uint32_t type_id, bool emulated);

}  // namespace lutra
