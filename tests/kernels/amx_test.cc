// What stands for the tile registers on machines without them, and the bytes of their configuration, against the ISA's definition.
#include "kernels/amx_tiles.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/amx_matmul.h"
#include "kernels/base/cpu.h"
#include "kernels/formats/all.h"
#include "tests/kernels/bf16_model.h"
#include "tests/kernels/simd_util.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

// C [16][16] += A [16][4 * quads] x B [quads][16][4] straight from the sum.
template <class A, class B>
std::vector<int32_t> Product(const std::vector<A>& a, const std::vector<B>& b, size_t quads,
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
  std::vector<uint8_t> a_unsigned(a.size());
  std::memcpy(a_unsigned.data(), a.data(), a.size());
  tiles.template Zero<3>();
  tiles.template DotUnsignedSigned<3, 4, 6>();
  tiles.template Store<3>(out.data(), c_stride);
  check(Product(a_unsigned, b_signed, quads, std::vector<int32_t>(256)));
  tiles.Release();
}

// C [16][16] += A [16][2 * pairs] x B [pairs][16][2] by DotBf16 and by the definition. numbers(): bf16.
template <class Tiles, class Numbers>
void CheckBf16Tiles(size_t pairs, const Numbers& numbers, std::mt19937& rng) {
  std::vector<uint16_t> a(16 * 2 * pairs), b(pairs * 32);
  std::vector<float> c(256), out(256), x(2 * pairs), w(2 * pairs);
  for (uint16_t& v : a) v = numbers();
  for (uint16_t& v : b) v = numbers();
  for (float& v : c)
    v = std::bit_cast<float>(uint32_t{numbers()} << 16 | static_cast<uint16_t>(rng()));
  Tiles tiles;
  tiles.Configure(MakeTileConfig(pairs));
  tiles.template Load<4>(a.data(), 4 * pairs);
  tiles.template Load<7>(b.data(), 64);
  tiles.template Load<2>(c.data(), 64);
  tiles.template DotBf16<2, 4, 7>();
  tiles.template Store<2>(out.data(), 64);
  tiles.Release();
  size_t wrong = 0;
  for (size_t m = 0; m < 16; ++m) {
    for (size_t n = 0; n < 16; ++n) {
      for (size_t k = 0; k < 2 * pairs; ++k) {
        x[k] = testing::FromBf16(a[m * 2 * pairs + k]);
        w[k] = testing::FromBf16(b[(k / 2 * 16 + n) * 2 + k % 2]);
      }
      const float expected = testing::Bf16Dot(x.data(), w.data(), 2 * pairs, c[m * 16 + n]);
      if (testing::SameBitsOrNan(out[m * 16 + n], expected)) continue;
      if (wrong++ == 0) FAIL_CHECK(out[m * 16 + n], " is not ", expected, ", c ", c[m * 16 + n]);
    }
  }
  CHECK(wrong == 0);
}

template <class Tiles>
void CheckBf16Tiles(std::mt19937& rng) {
  std::normal_distribution<float> normal;
  const auto numbers = [&](int exponent) {
    return [&rng, &normal, exponent] {
      return static_cast<uint16_t>(std::bit_cast<uint32_t>(std::ldexp(normal(rng), exponent)) >>
                                   16);
    };
  };
  for (const size_t pairs : {size_t{16}, size_t{8}}) {
    for (int i = 0; i < 4; ++i) CheckBf16Tiles<Tiles>(pairs, numbers(0), rng);
    // Products and sums about the least normal number, and with denormal operands.
    for (const int exponent : {-57, -60, -61, -62, -63, -64, -66, -70, -126, -128, 63, 127})
      CheckBf16Tiles<Tiles>(pairs, numbers(exponent), rng);
    CheckBf16Tiles<Tiles>(
        pairs, [&] { return static_cast<uint16_t>(rng()); }, rng);  // NaNs
    // Few numbers of few bits: sums cancel to zeros of both signs, to the least normal number and just below it.
    const uint16_t few[] = {0x0000, 0x8000, 0x2000, 0xA000, 0x1F80, 0x9F80, 0x1FFF,
                            0x9FFF, 0x2001, 0x0080, 0x8080, 0x007F, 0x3F80, 0xBF80};
    for (int i = 0; i < 40; ++i)
      CheckBf16Tiles<Tiles>(
          pairs, [&] { return few[rng() % std::size(few)]; }, rng);
    // Sums of 2^-126 and -1.5 * 2^-151, which is the least normal number in 24 bits, and of others near it.
    const uint16_t near[] = {0x2000, 0xA000, 0x1A40, 0x9A40, 0x1980, 0x9980, 0x1900, 0x9A00};
    const auto sparse = [&] {
      return rng() % 4 != 0 ? uint16_t{0} : near[rng() % std::size(near)];
    };
    for (int i = 0; i < 40; ++i) CheckBf16Tiles<Tiles>(pairs, sparse, rng);
  }
}

}  // namespace

TEST_CASE("Tiles of bf16 compute what the instruction is defined to") {
  // The model by itself: 1 - 2^-24 of the least normal number rounds up to it, a little less does not.
  const float least = std::numeric_limits<float>::min();
  CHECK(testing::FlushedFma(0.0f, 0.0f, least) == least);
  CHECK(testing::FlushedFma(-0x1p-76f, 0x1p-76f, least) == least);
  CHECK(testing::FlushedFma(-0x1p-76f, 0x1p-75f, least) == least);    // a tie: to even
  CHECK(testing::FlushedFma(-0x1.02p-76f, 0x1p-75f, least) == 0.0f);  // 2^-126 - 2^-150 in 24 bits
  CHECK(testing::FlushedFma(0x1p-76f, 0x1p-50f, 0.0f) == least);
  CHECK(testing::SameBits(testing::FlushedFma(-0x1p-76f, 0x1p-51f, 0.0f), -0.0f));
  std::mt19937 rng(12);
  CheckBf16Tiles<EmulatedTiles>(rng);
#if defined(__x86_64__)
  if (CpuHasAmxInt8() && CpuAmx().bf16) CheckBf16Tiles<AmxTiles>(rng);
#endif
}

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
