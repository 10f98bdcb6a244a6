// What stands for the tile registers on machines without them, and the bytes of their configuration, against the ISA's definition.
#include "kernels/amx_tiles.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/amx_matmul.h"
#include "kernels/base/cpu.h"
#include "kernels/formats/all.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

// C [16][16] += A [16][4 * quads] x B [quads][16][4] straight from the sum.
template <class B>
std::vector<int32_t> Product(const std::vector<int8_t>& a, const std::vector<B>& b, size_t quads,
                             std::vector<int32_t> c) {
  for (size_t m = 0; m < 16; ++m) {
    for (size_t n = 0; n < 16; ++n) {
      int64_t sum = c[m * 16 + n];
      for (size_t k = 0; k < 4 * quads; ++k)
        sum += int64_t{a[m * 4 * quads + k]} * b[(k / 4 * 16 + n) * 4 + k % 4];
      c[m * 16 + n] = static_cast<int32_t>(static_cast<uint32_t>(sum));  // modulo 2^32
    }
  }
  return c;
}

template <class Tiles>
void CheckTiles(size_t quads, std::mt19937& rng) {
  // Strides wider than the rows, as activations have them.
  const size_t a_stride = 4 * quads + 64, b_stride = 128, c_stride = 192;
  std::vector<int8_t> a(16 * 4 * quads), b_signed(quads * 64);
  std::vector<uint8_t> b_unsigned(quads * 64);
  std::vector<int32_t> c(256);
  for (int8_t& v : a) v = static_cast<int8_t>(rng());
  for (int8_t& v : b_signed) v = static_cast<int8_t>(rng());
  for (uint8_t& v : b_unsigned) v = static_cast<uint8_t>(rng());
  for (int32_t& v : c) v = static_cast<int32_t>(rng());  // some sums wrap
  a[0] = -128;
  b_signed[0] = -128;
  b_unsigned[0] = 255;
  std::vector<uint8_t> a_memory(16 * a_stride, 0xAA), bs_memory(quads * b_stride, 0xAA),
      bu_memory(quads * b_stride, 0xAA), c_memory(16 * c_stride, 0xAA), out(16 * c_stride, 0x55);
  for (size_t r = 0; r < 16; ++r)
    std::memcpy(&a_memory[r * a_stride], &a[r * 4 * quads], 4 * quads);
  for (size_t r = 0; r < quads; ++r) std::memcpy(&bs_memory[r * b_stride], &b_signed[r * 64], 64);
  for (size_t r = 0; r < quads; ++r) std::memcpy(&bu_memory[r * b_stride], &b_unsigned[r * 64], 64);
  for (size_t r = 0; r < 16; ++r) std::memcpy(&c_memory[r * c_stride], &c[r * 16], 64);

  Tiles tiles;
  const TileConfig config = MakeTileConfig(quads);
  tiles.Configure(config);
  const auto check = [&](const std::vector<int32_t>& expected) {
    for (size_t r = 0; r < 16; ++r) {
      CHECK(std::memcmp(&out[r * c_stride], &expected[r * 16], 64) == 0);
      for (size_t i = 64; i < c_stride; ++i) CHECK(out[r * c_stride + i] == 0x55);
    }
  };
  tiles.template Load<4>(a_memory.data(), a_stride);
  tiles.template Load<6>(bs_memory.data(), b_stride);
  tiles.template Load<7>(bu_memory.data(), b_stride);
  tiles.template Load<0>(c_memory.data(), c_stride);
  tiles.template DotSigned<0, 4, 6>();
  tiles.template Store<0>(out.data(), c_stride);
  check(Product(a, b_signed, quads, c));
  tiles.template DotUnsigned<0, 4, 7>();
  tiles.template Store<0>(out.data(), c_stride);
  check(Product(a, b_unsigned, quads, Product(a, b_signed, quads, c)));
  tiles.template Zero<0>();
  tiles.template DotUnsigned<0, 4, 7>();
  tiles.template Store<0>(out.data(), c_stride);
  check(Product(a, b_unsigned, quads, std::vector<int32_t>(256)));
  tiles.Release();
}

}  // namespace

TEST_CASE("Tiles compute what the instructions are defined to") {
  std::mt19937 rng(11);
  for (const size_t quads : {size_t{16}, size_t{8}}) {
    CheckTiles<EmulatedTiles>(quads, rng);
#if defined(__x86_64__)
    if (CpuHasAmxInt8()) CheckTiles<AmxTiles>(quads, rng);
#endif
  }
}

TEST_CASE("Tile configuration: the 64 bytes that LDTILECFG reads") {
  for (const size_t quads : {size_t{16}, size_t{8}}) {
    const TileConfig config = MakeTileConfig(quads);
    uint8_t bytes[64];
    std::memcpy(bytes, &config, 64);
    CHECK(bytes[0] == 1);  // palette
    CHECK(bytes[1] == 0);  // start row
    for (size_t i = 2; i < 16; ++i) CHECK(bytes[i] == 0);
    for (size_t tile = 0; tile < 16; ++tile) {
      const size_t row_bytes = bytes[16 + 2 * tile] + 256 * bytes[17 + 2 * tile];
      const size_t rows = bytes[48 + tile];
      CHECK(row_bytes == (tile >= 8 ? 0 : tile == 4 || tile == 5 ? 4 * quads : 64));
      CHECK(rows == (tile >= 8 ? 0 : tile >= 6 ? quads : 16));
    }
  }
}

TEST_CASE("One plane only where every scale times lane of a format fits int8") {
  size_t one = 0, two = 0;
  ForEachFormat<AllFormats>([&]<class F>() {
    constexpr PanelKind kKind = KindOf<F>();
    INFO("format ", F::kInfo.name);
    (FitsInt8(kKind) ? one : two)++;
    // Lanes by the format's own table; scales by what their width can hold.
    int least = -F::kZero, greatest = (1 << F::kBits) - 1 - F::kZero;
    if constexpr (F::kTable.size() != 0) {
      least = 127, greatest = -128;
      for (const int8_t v : F::kTable) {
        least = std::min<int>(least, v);
        greatest = std::max<int>(greatest, v + F::kShift);
      }
    }
    const int low = F::kScaleBits == 0 ? 1 : F::kScaleBits == 4 ? -F::kScaleZero : -128;
    const int high = F::kScaleBits == 0 ? 1 : F::kScaleBits == 4 ? 15 - F::kScaleZero : 127;
    int most = 0, fewest = 0;
    for (const int scale : {low, high}) {
      for (const int lane : {least, greatest}) {
        most = std::max(most, scale * lane);
        fewest = std::min(fewest, scale * lane);
      }
    }
    CHECK(fewest >= -32768);
    CHECK(most <= 32767);
    if (FitsInt8(kKind)) CHECK((fewest >= -128 && most <= 127));
    if (!FitsInt8(kKind)) CHECK(F::kActivations == Activations::kQ8x256);
  });
  CHECK(one > 0);
  CHECK(two > 0);
}

}  // namespace lutra
