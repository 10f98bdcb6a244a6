// Every format x SIMD choice x shape equals the scalar definition, bit for bit.
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <set>

#include "kernels/amx_matmul.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "kernels/dequantize.h"
#include "kernels/dispatch.h"
#include "kernels/exact.h"
#include "kernels/formats/all.h"
#include "kernels/panel_matmul.h"
#include "kernels/weights.h"
#include "tests/kernels/simd_util.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

using testing::ForEachSimd;
using testing::ForEachSimdAndTiles;
using testing::ForSimd;
using testing::RandomFloats;
using testing::SameBits;

// Random rows of a type: any bytes, except that scales which are floats must be finite and of ordinary size.
std::vector<uint8_t> RandomRows(const TensorTypeInfo& type, size_t n_rows, size_t n_cols,
                                std::mt19937& rng, int fill = -1) {
  std::vector<uint8_t> bytes(n_rows * RowBytes(type, n_cols));
  for (uint8_t& b : bytes) b = fill >= 0 ? static_cast<uint8_t>(fill) : static_cast<uint8_t>(rng());
  std::vector<float> values(n_cols);
  const DequantizeFn dequantize = FindDequantizer(type.id);
  for (size_t r = 0; r < n_rows; ++r) {
    uint8_t* row = bytes.data() + r * RowBytes(type, n_cols);
    // Redraw 16-bit words that make a value infinite or huge: wherever the format keeps its float scales.
    for (int tries = 0;; ++tries) {
      REQUIRE(tries < 10000);
      dequantize(row, n_cols, values.data());
      size_t bad = n_cols;
      for (size_t i = 0; i < n_cols && bad == n_cols; ++i) {
        if (!(std::fabs(values[i]) < 1e12f)) bad = i;
      }
      if (bad == n_cols) break;
      const size_t block = bad / type.block_weights * type.block_bytes + type.row_header_bytes;
      for (size_t i = 0; i < type.row_header_bytes; ++i)
        row[i] = static_cast<uint8_t>(rng() & 0x3B);
      for (size_t i = 0; i < type.block_bytes; ++i)
        row[block + i] = static_cast<uint8_t>(rng() & 0x3B);
    }
  }
  return bytes;
}

// Multiplies on `n_threads` threads and compares every element with the definition.
void CheckMatrix(const TensorTypeInfo& type, const std::vector<uint8_t>& rows, size_t n_rows,
                 size_t n_cols, const std::vector<float>& x, size_t n_tokens, int n_threads) {
  ThreadPool pool(n_threads);
  std::vector<float> y(n_tokens * n_rows, -1.0f);
  MatrixInput input(n_tokens, n_cols);
  input.Set(x.data(), n_cols, n_tokens, n_cols);
  Matrix w;
  pool.Region([&] {
    w = Matrix(type, rows.data(), n_rows, n_cols, pool);
    const Product product{&w, y.data(), n_rows};
    MultiplyAll({&product, 1}, input, pool);
  });
  const size_t unit = w.input_kind() == InputKind::kQ8x256 ? 256 : 32;
  std::vector<int8_t> q(n_cols);
  std::vector<float> d(n_cols / unit);
  std::vector<int16_t> sums(n_cols / 16);
  std::vector<float> expected(n_rows);
  size_t wrong = 0;
  for (size_t t = 0; t < n_tokens; ++t) {
    QuantizeRowReference(x.data() + t * n_cols, n_cols, unit, q.data(), d.data(), sums.data());
    const Q8View view{q.data(), d.data(), sums.data(), nullptr, n_cols, unit, 1};
    REQUIRE(ExactMatVec(type.id, rows.data(), n_rows, view, expected.data()));
    for (size_t r = 0; r < n_rows; ++r) {
      if (SameBits(y[t * n_rows + r], expected[r])) continue;
      if (wrong++ == 0)
        FAIL_CHECK("token ", t, " row ", r, ": ", y[t * n_rows + r], " is not ", expected[r]);
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("Quantized activations: SIMD equals the definition on every target") {
  std::mt19937 rng(1);
  for (const size_t unit : {size_t{32}, size_t{256}}) {
    std::vector<float> x = RandomFloats(2048, rng);
    for (size_t i = 256; i < 512; ++i) x[i] = 0;
    for (size_t i = 512; i < 768; ++i) x[i] *= 1e-32f;  // below the smallest scale
    for (size_t i = 768; i < 1024; ++i) x[i] *= 1e30f;
    x[1030] = std::numeric_limits<float>::infinity();
    x[1290] = std::numeric_limits<float>::quiet_NaN();
    for (size_t i = 1536; i < 1792; ++i)
      x[i] = (i % 2 ? 0.5f : 127.0f);  // exact halves: ties to even
    std::vector<int8_t> q0(2048), q1(2048);
    std::vector<float> d0(64), d1(64);
    std::vector<int16_t> a0(128), a1(128);
    QuantizeRowReference(x.data(), 2048, unit, q0.data(), d0.data(), a0.data());
    ForEachSimd([&] {
      QuantizeRow(x.data(), 2048, unit, q1.data(), d1.data(), a1.data());
      CHECK(q0 == q1);
      for (size_t i = 0; i < 2048 / unit; ++i) CHECK(SameBits(d0[i], d1[i]));
      CHECK(a0 == a1);
    });
    CHECK(std::isnan(d0[1030 / unit]));
    CHECK(q0[1536] == 127);
  }
}

TEST_CASE_TEMPLATE_DEFINE("Products equal the scalar definition bit for bit", F, matmul_exact) {
  const TensorTypeInfo& type = *FindTensorType(F::kInfo.type_id);
  INFO("format ", type.name);
  std::mt19937 rng(type.id);
  ForEachSimd([&] {
    for (const auto& [n_rows, n_cols, n_tokens] : {std::tuple<size_t, size_t, size_t>{1, 256, 1},
                                                   {16, 512, 1},
                                                   {17, 256, 2},
                                                   {37, 768, 3},
                                                   {5, 256, 5},
                                                   {64, 512, 15},
                                                   {100, 1024, 8},
                                                   {33, 256, 23},
                                                   {600, 256, 1},
                                                   {600, 256, 9},
                                                   {47, 512, 70},
                                                   {31, 768, 13},
                                                   {49, 512, 7},
                                                   {33, 768, 4},
                                                   {80, 256, 64},
                                                   {64, 512, 66},
                                                   {32, 256, 69},
                                                   {35, 768, 67}}) {
      const auto rows = RandomRows(type, n_rows, n_cols, rng);
      CheckMatrix(type, rows, n_rows, n_cols, RandomFloats(n_tokens * n_cols, rng), n_tokens, 2);
    }
    if (F::kActivations == Activations::kQ8x32) {
      for (const size_t n_cols : {size_t{type.block_weights}, size_t{192}, size_t{320}}) {
        const auto rows = RandomRows(type, 19, n_cols, rng);
        CheckMatrix(type, rows, 19, n_cols, RandomFloats(3 * n_cols, rng), 3, 1);
        CheckMatrix(type, rows, 19, n_cols, RandomFloats(11 * n_cols, rng), 11, 1);
      }
    }
  });
}
TEST_CASE_TEMPLATE_APPLY(matmul_exact, AllFormats);

TEST_CASE_TEMPLATE_DEFINE("Worst-case lanes and activations neither overflow nor saturate", F,
                          matmul_worst) {
  const TensorTypeInfo& type = *FindTensorType(F::kInfo.type_id);
  std::mt19937 rng(7);
  ForEachSimd([&] {
    for (const int fill : {0x00, 0x3B, 0xBB, 0x0F, 0xF0, 0x7F, 0xFF}) {
      const auto rows = RandomRows(type, 16, 512, rng, fill);
      const auto row_bytes = static_cast<std::ptrdiff_t>(RowBytes(type, 256));
      for (const int pattern : {0, 1, 2}) {
        std::vector<float> x(512);
        for (size_t i = 0; i < x.size(); ++i) {
          x[i] = pattern == 0 ? 127.0f : pattern == 1 ? -127.0f : (i % 2 ? 127.0f : -127.0f);
        }
        CheckMatrix(type, rows, 16, 512, x, 1, 1);
        std::vector<float> many;
        for (int t = 0; t < 9; ++t) many.insert(many.end(), x.begin(), x.end());
        CheckMatrix(type, rows, 16, 512, many, 9, 1);
        // Blocks of many tokens: the first half of the first row, twice.
        std::vector<uint8_t> first;
        for (int r = 0; r < 2; ++r)
          first.insert(first.end(), rows.begin(), rows.begin() + row_bytes);
        many.clear();
        for (size_t t = 0; t <= kMostExactTokens; ++t)
          many.insert(many.end(), x.begin(), x.begin() + 256);
        CheckMatrix(type, first, 2, 256, many, kMostExactTokens + 1, 1);
      }
    }
  });
}
TEST_CASE_TEMPLATE_APPLY(matmul_worst, AllFormats);

TEST_CASE("More tokens than one pass over a decoded block takes") {
  std::mt19937 rng(9);
  for (const uint32_t id : {Iq4K::kInfo.type_id, Q4K::kInfo.type_id, Q4_0::kInfo.type_id}) {
    const TensorTypeInfo& type = *FindTensorType(id);
    ForEachSimdAndTiles([&] {
      CheckMatrix(type, RandomRows(type, 33, 256, rng), 33, 256, RandomFloats(519 * 256, rng), 519,
                  2);
    });
  }
}

TEST_CASE(
    "Products agree with a float product of the dequantized weights within the activations' "
    "rounding") {
  std::mt19937 rng(5);
  ForEachFormat<AllFormats>([&]<class F>() {
    const TensorTypeInfo& type = *FindTensorType(F::kInfo.type_id);
    INFO("format ", type.name);
    const size_t n_cols = 1024, n_rows = 16;
    const auto rows = RandomRows(type, n_rows, n_cols, rng);
    const auto x = RandomFloats(n_cols, rng);
    ThreadPool pool(1);
    MatrixInput input(1, n_cols);
    input.Set(x.data(), n_cols, 1, n_cols);
    const Matrix w(type, rows.data(), n_rows, n_cols, pool);
    std::vector<float> y(n_rows), values(n_cols);
    const Product product{&w, y.data(), n_rows};
    MultiplyAll({&product, 1}, input, pool);
    for (size_t r = 0; r < n_rows; ++r) {
      FindDequantizer(type.id)(rows.data() + r * RowBytes(type, n_cols), n_cols, values.data());
      double exact = 0, bound = 0;
      for (size_t k = 0; k < n_cols; ++k) {
        exact += static_cast<double>(values[k]) * x[k];
        // Rounding to a grid of amax / 127 with amax < 5: at most half a step each.
        bound += std::fabs(static_cast<double>(values[k])) * 0.5 * 5.0 / 127;
      }
      CHECK(std::fabs(y[r] - exact) <= bound + 1e-6 * std::fabs(exact));
    }
  });
}

TEST_CASE(
    "Float matrices: the same bits on every target, thread count and batch; close to double") {
  std::mt19937 rng(3);
  for (const uint32_t id : {0u, 1u, 30u}) {
    const TensorTypeInfo& type = *FindTensorType(id);
    for (const auto& [n_rows, n_cols, n_tokens] : {std::tuple<size_t, size_t, size_t>{1, 1, 1},
                                                   {5, 7, 2},
                                                   {6, 64, 3},
                                                   {33, 100, 5},
                                                   {8, 256, 1},
                                                   {16, 15, 7},
                                                   {37, 1100, 50},
                                                   {19, 512, 101},
                                                   {6, 1041, 6},
                                                   {9, 2048, 13},
                                                   {5, 8211, 10}}) {
      std::vector<uint8_t> bytes(n_rows * n_cols * type.block_bytes);
      std::normal_distribution<float> normal;
      for (size_t i = 0; i < n_rows * n_cols; ++i) {
        const float v = normal(rng);
        const uint32_t bits = std::bit_cast<uint32_t>(v);
        // f16 bits of random normal numbers: sign, small exponent, mantissa.
        const uint16_t half = static_cast<uint16_t>((rng() & 0x83FF) | ((rng() % 18) << 10));
        const uint16_t bf16 = static_cast<uint16_t>(bits >> 16);
        if (id == 0) std::memcpy(&bytes[4 * i], &v, 4);
        if (id == 1) std::memcpy(&bytes[2 * i], &half, 2);
        if (id == 30) std::memcpy(&bytes[2 * i], &bf16, 2);
      }
      const auto x = RandomFloats(n_tokens * n_cols, rng);
      std::vector<float> values(n_cols);
      std::vector<std::vector<float>> results;
      ForEachSimd([&] {
        std::vector<float> y(n_rows * n_tokens);
        FloatMatMul(id, bytes.data(), 0, n_rows, n_cols, x.data(), n_cols, 0, n_tokens, y.data(),
                    n_rows);
        results.push_back(y);
        for (size_t r = 0; r < n_rows; ++r) {  // one row and token at a time
          for (size_t t = 0; t < n_tokens; ++t) {
            FloatMatMul(id, bytes.data(), r, r + 1, n_cols, x.data(), n_cols, t, t + 1, y.data(),
                        n_rows);
          }
        }
        results.push_back(y);
      });
      size_t n_different = 0;
      for (const auto& y : results) {
        for (size_t i = 0; i < y.size(); ++i) n_different += !SameBits(y[i], results[0][i]);
      }
      CHECK(n_different == 0);
      size_t n_undefined = 0;
      for (size_t r = 0; r < n_rows; ++r) {
        FindDequantizer(id)(bytes.data() + r * RowBytes(type, n_cols), n_cols, values.data());
        for (size_t t = 0; t < n_tokens; ++t) {
          double exact = 0, magnitude = 0;
          float sums[16] = {};  // the definition: 16 partial sums, then halves
          for (size_t k = 0; k < (n_cols + 15) / 16 * 16; ++k) {
            const bool padded = k >= n_cols;
            sums[k % 16] = std::fma(padded ? 0.0f : values[k], padded ? 0.0f : x[t * n_cols + k],
                                    sums[k % 16]);
          }
          for (size_t half = 8; half > 0; half /= 2) {
            for (size_t i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
          }
          n_undefined += !SameBits(sums[0], results[0][t * n_rows + r]);
          for (size_t k = 0; k < n_cols; ++k) {
            exact += static_cast<double>(values[k]) * x[t * n_cols + k];
            magnitude += std::fabs(static_cast<double>(values[k]) * x[t * n_cols + k]);
          }
          CHECK(std::fabs(results[0][t * n_rows + r] - exact) <= 1e-6 * magnitude);
        }
      }
      CHECK(n_undefined == 0);
    }
  }
}

TEST_CASE("Float matrices: an infinite or undefined f16 weight is one on every target") {
  constexpr size_t kCols = 100, kRows = 6;
  for (const uint16_t special : {0x7C00, 0xFC00, 0x7E01}) {
    std::vector<uint16_t> w(kRows * kCols, 0x3C00);
    for (size_t r = 0; r < kRows; ++r) w[r * kCols + 17 * r] = special;
    const std::vector<float> x(kCols, 0.5f);
    ForEachSimd([&] {
      std::vector<float> y(kRows);
      FloatMatMul(1, reinterpret_cast<const uint8_t*>(w.data()), 0, kRows, kCols, x.data(), kCols,
                  0, 1, y.data(), kRows);
      for (const float v : y)
        CHECK(testing::SameBitsOrNan(v, special == 0x7C00   ? HUGE_VALF
                                        : special == 0xFC00 ? -HUGE_VALF
                                                            : NAN));
    });
  }
}

TEST_CASE("Fast prefill is near the exact result, and only with many tokens") {
  struct Restore {
    ~Restore() { SetPrefill("exact"); }
  } restore;
  constexpr size_t kMany = kMostExactTokens + 5;
  std::mt19937 rng(11);
  ForEachFormat<AllFormats>([&]<class F>() {
    const TensorTypeInfo& type = *FindTensorType(F::kInfo.type_id);
    INFO("format ", type.name);
    const size_t n_rows = 33, n_cols = 512;
    const auto rows = RandomRows(type, n_rows, n_cols, rng);
    const auto x = RandomFloats(kMany * n_cols, rng);
    ThreadPool pool(1);
    const auto run = [&](const char* prefill, size_t n_tokens) {
      SetPrefill(prefill);
      std::vector<float> y(n_tokens * n_rows);
      MatrixInput input(n_tokens, n_cols);
      input.Set(x.data(), n_cols, n_tokens, n_cols);
      const Matrix w(type, rows.data(), n_rows, n_cols, pool);
      const Product product{&w, y.data(), n_rows};
      MultiplyAll({&product, 1}, input, pool);
      return y;
    };
    const auto exact = run("exact", kMany);
    std::vector<float> bounds;
    std::vector<float> values(n_cols);
    for (size_t r = 0; r < n_rows; ++r) {
      FindDequantizer(type.id)(rows.data() + r * RowBytes(type, n_cols), n_cols, values.data());
      // A weight moves by at most half a step of its 256's greatest / 127 (and a little), biases do not move.
      double greatest = 0;
      for (const float v : values) greatest = std::max(greatest, std::fabs(static_cast<double>(v)));
      for (size_t t = 0; t < kMany; ++t) {
        double bound = 0;
        for (size_t k = 0; k < n_cols; ++k)
          bound += std::fabs(x[t * n_cols + k]) * greatest * 2 / 127;
        bounds.push_back(static_cast<float>(bound));
      }
    }
    // Where weights are rounded, the same way.
    std::vector<float> rounded;
    ForEachSimdAndTiles([&] {
      CHECK(run("fast", kMostExactTokens) == run("exact", kMostExactTokens));
      const auto fast = run("fast", kMany);
      if (fast == exact) return;
      if (rounded.empty()) rounded = fast;
      CHECK(fast == rounded);
      for (size_t r = 0; r < n_rows; ++r) {
        for (size_t t = 0; t < kMany; ++t)
          CHECK(std::fabs(fast[t * n_rows + r] - exact[t * n_rows + r]) <= bounds[r * kMany + t]);
      }
    });
  });
  CHECK_THROWS_WITH_AS(SetPrefill("slow"), doctest::Contains("exact or fast"), Error);
}

TEST_CASE("SIMD choice: unknown names are refused with the list") {
  CHECK_THROWS_WITH_AS(SetSimd("mmx"),
                       doctest::Contains(("auto " + AvailableSimd().front()).c_str()), Error);
  try {
    SetSimd("mmx");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("emulated") == std::string::npos);  // for tests only
  }
}

#if defined(__x86_64__)
TEST_CASE("SIMD choice: AMX can be forbidden") {
  CHECK_THROWS_WITH_AS(SetSimd("amx", false), doctest::Contains("--no-amx"), Error);
  SetSimd("auto", false);
  CHECK(SimdName() != "amx");
  CHECK((FindTilePanelMatMul(Q4K::kInfo.type_id) == nullptr));
  SetSimd("auto");
  CHECK(SimdName() == AvailableSimd().back());
  if (!CpuHasAmxInt8())
    CHECK_THROWS_WITH_AS(SetSimd("amx"), doctest::Contains("has no 'amx'"), Error);
}
#endif

// What the tile registers of the machine would do is tests/kernels/amx_test.cc's; here the product on top of them.
TEST_CASE_TEMPLATE_DEFINE("Tiles: products equal the definition at every tail of tokens and rows",
                          F, matmul_tiles) {
  const TensorTypeInfo& type = *FindTensorType(F::kInfo.type_id);
  INFO("format ", type.name);
  std::mt19937 rng(type.id + 100);
  std::vector<std::string> names;
  for (const std::string& name : SimdToTest()) {
    if (name.find("amx") != std::string::npos) names.push_back(name);
  }
  ForSimd(names, [&] {
    REQUIRE((FindTilePanelMatMul(type.id) != nullptr));
    const auto check = [&](size_t n_rows, size_t n_cols, size_t n_tokens) {
      INFO(n_rows, " rows, ", n_cols, " columns, ", n_tokens, " tokens");
      CheckMatrix(type, RandomRows(type, n_rows, n_cols, rng), n_rows, n_cols,
                  RandomFloats(n_tokens * n_cols, rng), n_tokens, 2);
    };
    for (size_t n_tokens = 17; n_tokens <= 70; ++n_tokens)
      check(1 + n_tokens % 19, 256 + n_tokens % 2 * 256, n_tokens);
    for (const size_t n_rows : {1, 15, 16, 17, 33, 64, 65, 127, 128, 129, 145, 255, 600})
      check(n_rows, 512, 17 + n_rows % 54);
    check(40, 2048, 40);
    if (F::kActivations == Activations::kQ8x32) {
      for (const size_t n_cols : {size_t{type.block_weights}, size_t{192}, size_t{320}})
        check(35, n_cols, 37);
    }
    for (const int fill : {0x00, 0x3B, 0xBB, 0x0F, 0xF0, 0x7F, 0xFF}) {
      const auto rows = RandomRows(type, 16, 512, rng, fill);
      std::vector<float> x(33 * 512);
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t token = i / 512;
        x[i] = token % 3 == 0 ? 127.0f : token % 3 == 1 ? -127.0f : (i % 2 ? 127.0f : -127.0f);
      }
      CheckMatrix(type, rows, 16, 512, x, 33, 1);
    }
  });
}
TEST_CASE_TEMPLATE_APPLY(matmul_tiles, AllFormats);

}  // namespace lutra
