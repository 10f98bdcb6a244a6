// The operations of AMX that products need, twice: the machine's tile registers and an emulation that follows the ISA's definition
// (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TDPBSSD, TDPBSUD,
// TDPBUSD, TDPBF16PS). The products (kernels/amx_multiply.cc, kernels/amx_bf16.cc, kernels/attention_tiles-inl.h) are templates over these two classes, so what is tested on any
// machine is the code that runs on the tiles, all but the lines of assembly below.
//
// Eight tiles of at most 16 rows x 64 bytes. Tile numbers are part of the instructions, hence template arguments.
#pragma once

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/base/check.h"

namespace lutra {

// The operand of LDTILECFG, palette 1.
struct TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];  // "colsb"; tiles 0..7, the rest 0
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64 && offsetof(TileConfig, row_bytes) == 16 &&
              offsetof(TileConfig, rows) == 48);

// Tiles for C [16][16] int32 += A [16][4 * quads] x B [quads][16][4] bytes, or float += bf16 with pairs for quads: C in 0..3, A in 4 and 5,
// B in 6 and 7; quads: 16 or 8.
constexpr TileConfig MakeTileConfig(size_t quads) {
  TileConfig c{};
  c.palette = 1;
  for (size_t i = 0; i < 8; ++i) {
    const bool is_a = i == 4 || i == 5;
    c.rows[i] = static_cast<uint8_t>(i < 6 ? 16 : quads);
    c.row_bytes[i] = static_cast<uint16_t>(is_a ? 4 * quads : 64);
  }
  return c;
}

#if defined(__x86_64__)
// The real ones. Assembly instead of intrinsics because the intrinsics of g++ 12 do not say which memory they read: it then drops stores in
// front of them (into the configuration, into decoded weights). It also needs no compiler flags, and tile numbers may be template
// arguments. Only after CpuHasAmxInt8().
class AmxTiles {
 public:
  void Configure(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
  // To be called when done: tiles in use make every context switch dearer.
  void Release() { asm volatile("tilerelease"); }
  template <int kTile>
  void Zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  // Rows `stride` bytes apart.
  template <int kTile>
  void Load(const void* p, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  void Store(void* p, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  // C += A x B: A signed; B signed, or unsigned; or A unsigned and B signed.
  template <int kC, int kA, int kB>
  void DotSigned() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
  template <int kC, int kA, int kB>
  void DotUnsigned() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
  template <int kC, int kA, int kB>
  void DotUnsignedSigned() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
  // C float += A x B, pairs of bf16; see EmulatedTiles. Only where CpuAmx().bf16.
  template <int kC, int kA, int kB>
  void DotBf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
};
#endif

// The definition, for tests on machines without tiles. What would be an exception of the processor is a failed check.
class EmulatedTiles {
 public:
  void Configure(const TileConfig& config) {
    LUTRA_CHECK(config.palette == 1 && config.start_row == 0);
    for (const uint8_t r : config.reserved) LUTRA_CHECK(r == 0);
    for (size_t i = 0; i < 16; ++i) {
      LUTRA_CHECK(config.rows[i] <= 16 && config.row_bytes[i] <= 64);
      LUTRA_CHECK((config.rows[i] == 0) == (config.row_bytes[i] == 0));
      LUTRA_CHECK(i < 8 || config.rows[i] == 0);
    }
    config_ = config;
    std::memset(tiles_, 0, sizeof tiles_);
  }
  void Release() { config_ = TileConfig{}; }
  template <int kTile>
  void Zero() {
    Zero(kTile);
  }
  template <int kTile>
  void Load(const void* p, size_t stride) {
    Load(kTile, p, stride);
  }
  template <int kTile>
  void Store(void* p, size_t stride) {
    Store(kTile, p, stride);
  }
  template <int kC, int kA, int kB>
  void DotSigned() {
    static_assert(kC != kA && kC != kB && kA != kB);
    Dot<int8_t, int8_t>(kC, kA, kB);
  }
  template <int kC, int kA, int kB>
  void DotUnsigned() {
    static_assert(kC != kA && kC != kB && kA != kB);
    Dot<int8_t, uint8_t>(kC, kA, kB);
  }
  template <int kC, int kA, int kB>
  void DotUnsignedSigned() {
    static_assert(kC != kA && kC != kB && kA != kB);
    Dot<uint8_t, int8_t>(kC, kA, kB);
  }
  template <int kC, int kA, int kB>
  void DotBf16() {
    static_assert(kC != kA && kC != kB && kA != kB);
    DotBf16(kC, kA, kB);
  }

 private:
  void Check(int tile) const { LUTRA_CHECK(config_.palette == 1 && config_.rows[tile] != 0); }
  // Out of line, so that this class costs little to compile.
  [[gnu::noinline]] void Zero(int tile) {
    Check(tile);
    std::memset(tiles_[tile], 0, sizeof tiles_[tile]);
  }
  [[gnu::noinline]] void Load(int tile, const void* p, size_t stride) {
    Zero(tile);
    for (size_t r = 0; r < config_.rows[tile]; ++r) {
      std::memcpy(tiles_[tile][r], static_cast<const uint8_t*>(p) + r * stride,
                  config_.row_bytes[tile]);
    }
  }
  [[gnu::noinline]] void Store(int tile, void* p, size_t stride) const {
    Check(tile);
    for (size_t r = 0; r < config_.rows[tile]; ++r) {
      std::memcpy(static_cast<uint8_t*>(p) + r * stride, tiles_[tile][r], config_.row_bytes[tile]);
    }
  }
  void CheckDot(int c, int a, int b) const {
    Check(c);
    Check(a);
    Check(b);
    LUTRA_CHECK(config_.row_bytes[a] % 4 == 0 && config_.row_bytes[b] % 4 == 0 &&
                config_.row_bytes[c] % 4 == 0);
    LUTRA_CHECK(config_.rows[a] == config_.rows[c] && config_.row_bytes[a] / 4 == config_.rows[b] &&
                config_.row_bytes[b] == config_.row_bytes[c]);
  }
  template <class A, class B>
  [[gnu::noinline]] void Dot(int c, int a, int b) {
    CheckDot(c, a, b);
    for (size_t m = 0; m < config_.rows[c]; ++m) {
      uint32_t sums[16];  // the instruction does not saturate: modulo 2^32
      std::memcpy(sums, tiles_[c][m], 64);
      for (size_t k = 0; k < config_.rows[b]; ++k) {
        A x[4];
        B w[64];
        std::memcpy(x, tiles_[a][m] + 4 * k, 4);
        std::memcpy(w, tiles_[b][k], 64);
        for (size_t n = 0; n < 16; ++n) {
          sums[n] += static_cast<uint32_t>(x[0] * w[4 * n] + x[1] * w[4 * n + 1] +
                                           x[2] * w[4 * n + 2] + x[3] * w[4 * n + 3]);
        }
      }
      std::memcpy(tiles_[c][m], sums, config_.row_bytes[c]);
    }
  }

  static float Flush(float v) { return std::fabs(v) < FLT_MIN ? std::copysign(0.0f, v) : v; }
  // Denormal operands and results are zeros; a result is denormal if it is after rounding to 24 bits of any exponent.
  static float FlushedFma(float a, float b, float c) {
    const float sum = std::fma(a, b, c);
    // Denormals have fewer bits: what they round up to FLT_MIN may be less with all 24. Such sums are exact in double.
    const bool tiny = std::fabs(sum) <= FLT_MIN &&
                      std::fabs(std::fma(double{a}, double{b}, double{c})) < 0x1p-126 - 0x1p-151;
    return tiny ? std::copysign(0.0f, sum) : sum;
  }
  // The sums of even and odd k of a tile row are chains of their own, added before C is.
  [[gnu::noinline]] void DotBf16(int c, int a, int b) {
    CheckDot(c, a, b);
    const auto floats = [](float* to, const uint8_t* from, size_t n) {
      for (size_t i = 0; i < n; ++i) {
        uint16_t v;
        std::memcpy(&v, from + 2 * i, 2);
        to[i] = Flush(std::bit_cast<float>(uint32_t{v} << 16));
      }
    };
    float w[16][32];
    for (size_t k = 0; k < config_.rows[b]; ++k) floats(w[k], tiles_[b][k], 32);
    for (size_t m = 0; m < config_.rows[c]; ++m) {
      float x[32], sums[16], pairs[32] = {};
      floats(x, tiles_[a][m], 32);
      std::memcpy(sums, tiles_[c][m], 64);
      for (size_t k = 0; k < config_.rows[b]; ++k) {
        for (size_t i = 0; i < 32; ++i) pairs[i] = FlushedFma(x[2 * k + i % 2], w[k][i], pairs[i]);
      }
      for (size_t n = 0; n < 16; ++n)
        sums[n] = Flush(Flush(sums[n]) + Flush(pairs[2 * n] + pairs[2 * n + 1]));
      std::memcpy(tiles_[c][m], sums, config_.row_bytes[c]);
    }
  }

  TileConfig config_{};
  alignas(64) uint8_t tiles_[8][16][64];
};

}  // namespace lutra
