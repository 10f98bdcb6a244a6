// Fast products of F16 and BF16 rows on tiles, against their definition and against the exact ones.
#include "kernels/amx_bf16.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/base/cpu.h"
#include "kernels/dequantize.h"
#include "kernels/formats/float_formats.h"
#include "kernels/ops.h"
#include "kernels/weights.h"
#include "tests/kernels/bf16_model.h"
#include "tests/kernels/simd_util.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

using testing::ForSimd;
using testing::RandomFloats;
using testing::SameBitsOrNan;

struct FastPrefill {
  FastPrefill() { SetPrefill("fast"); }
  ~FastPrefill() { SetPrefill("exact"); }
};

std::vector<std::string> SimdWithBf16Tiles() {
  std::vector<std::string> names;
  for (const std::string& name : SimdToTest()) {
    if (name == "amx_emulated" || (name == "amx" && CpuAmx().bf16)) names.push_back(name);
  }
  return names;
}

// Rows of the type from floats; BF16 cut off.
std::vector<uint8_t> Rows(uint32_t id, const std::vector<float>& values) {
  std::vector<uint8_t> bytes(values.size() * 2);
  if (id == F16::kInfo.type_id) {
    F32ToF16(values.data(), values.size(), reinterpret_cast<uint16_t*>(bytes.data()));
  } else {
    for (size_t i = 0; i < values.size(); ++i) {
      const auto v = static_cast<uint16_t>(std::bit_cast<uint32_t>(values[i]) >> 16);
      std::memcpy(&bytes[2 * i], &v, 2);
    }
  }
  return bytes;
}

// [n_tokens, n_rows] through the public product; x [n_tokens, x_stride].
std::vector<float> Multiply(uint32_t id, const std::vector<uint8_t>& rows, size_t n_rows,
                            size_t n_cols, const std::vector<float>& x, size_t x_stride,
                            size_t n_tokens, int n_threads) {
  ThreadPool pool(n_threads);
  std::vector<float> y(n_tokens * n_rows, -1.0f);
  MatrixInput input(n_tokens, n_cols);
  input.Set(x.data(), x_stride, n_tokens, n_cols);
  const Matrix w(*FindTensorType(id), rows.data(), n_rows, n_cols, pool);
  const Product product{&w, y.data(), n_rows};
  pool.Region([&] { MultiplyAll({&product, 1}, input, pool); });
  return y;
}

// What the definition says, [n_tokens, n_rows].
std::vector<float> Defined(uint32_t id, const std::vector<uint8_t>& rows, size_t n_rows,
                           size_t n_cols, const std::vector<float>& x, size_t x_stride,
                           size_t n_tokens) {
  std::vector<float> w(n_rows * n_cols), xs(n_cols), y;
  FindDequantizer(id)(rows.data(), w.size(), w.data());
  for (float& v : w) v = testing::RoundToBf16(v);
  for (size_t t = 0; t < n_tokens; ++t) {
    for (size_t k = 0; k < n_cols; ++k) xs[k] = testing::RoundToBf16(x[t * x_stride + k]);
    for (size_t r = 0; r < n_rows; ++r)
      y.push_back(testing::Bf16Product(&w[r * n_cols], xs.data(), n_cols));
  }
  return y;
}

void CheckSame(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  size_t wrong = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!SameBitsOrNan(a[i], b[i]) && wrong++ == 0) FAIL_CHECK("at ", i, ": ", a[i], ", ", b[i]);
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("Fast F16 and BF16 products equal their definition at every tail, on any threads") {
  FastPrefill fast;
  std::mt19937 rng(1);
  ForSimd(SimdWithBf16Tiles(), [&] {
    const auto check = [&](size_t n_rows, size_t n_cols, size_t n_tokens) {
      for (const uint32_t id : {F16::kInfo.type_id, Bf16::kInfo.type_id}) {
        INFO("type ", id, ", ", n_rows, " rows, ", n_cols, " columns, ", n_tokens, " tokens");
        REQUIRE((FindTileBf16MatMul(id) != nullptr));
        const auto rows = Rows(id, RandomFloats(n_rows * n_cols, rng));
        const size_t x_stride = n_cols + rng() % 5;
        const auto x = RandomFloats(n_tokens * x_stride, rng);
        const auto y = Multiply(id, rows, n_rows, n_cols, x, x_stride, n_tokens, 2);
        CheckSame(y, Defined(id, rows, n_rows, n_cols, x, x_stride, n_tokens));
        if (n_rows > 128)
          CheckSame(y, Multiply(id, rows, n_rows, n_cols, x, x_stride, n_tokens, 1));
      }
    };
    for (size_t n_tokens = 17; n_tokens <= 66; ++n_tokens)
      check(1 + n_tokens % 35, 1 + n_tokens * 7 % 80, n_tokens);
    for (const size_t n_rows : {1, 15, 16, 17, 32, 33, 48, 64, 65, 127, 128, 129, 145, 300})
      check(n_rows, 96, 17 + n_rows % 54);
    for (const size_t n_cols : {1, 2, 31, 32, 33, 63, 255, 256, 257, 300, 512, 600})
      check(40, n_cols, 35);
    check(17, 40, 530);  // more than a pass
  });
}

TEST_CASE(
    "Fast F16 and BF16 products are near the exact ones; few tokens, F32 and exact are not "
    "rounded") {
  std::mt19937 rng(2);
  const size_t n_rows = 37, n_cols = 333, n_tokens = 20;
  const auto values = RandomFloats(n_rows * n_cols, rng);
  const auto x = RandomFloats(n_tokens * n_cols, rng);
  ForSimd(SimdWithBf16Tiles(), [&] {
    for (const uint32_t id : {F32::kInfo.type_id, F16::kInfo.type_id, Bf16::kInfo.type_id}) {
      INFO("type ", id);
      std::vector<uint8_t> rows(values.size() * 4);
      std::memcpy(rows.data(), values.data(), rows.size());
      if (id != F32::kInfo.type_id) rows = Rows(id, values);
      const auto run = [&](const char* prefill, size_t n) {
        SetPrefill(prefill);
        const auto y = Multiply(id, rows, n_rows, n_cols, x, n_cols, n, 1);
        SetPrefill("exact");
        return y;
      };
      std::vector<float> exact(n_tokens * n_rows);
      FloatMatMul(id, rows.data(), 0, n_rows, n_cols, x.data(), n_cols, 0, n_tokens, exact.data(),
                  n_rows);
      CheckSame(run("exact", n_tokens), exact);
      CheckSame(run("fast", 16), {exact.begin(), exact.begin() + 16 * n_rows});
      const auto fast = run("fast", n_tokens);
      if (id == F32::kInfo.type_id) {
        CheckSame(fast, exact);
        continue;
      }
      CHECK(fast != exact);
      std::vector<float> w(n_rows * n_cols);
      FindDequantizer(id)(rows.data(), w.size(), w.data());
      // 8 bits round by 2^-8 of a number at most; float sums by 2^-24 a step, 17 of them in a chain and one a 32 columns.
      const double both = id == F16::kInfo.type_id ? 2 * 0x1p-8 + 0x1p-16 : 0x1p-8;
      const double bound = both + 0x1p-24 * (19.0 + n_cols / 32.0 + 1) * 2;
      double greatest = 0;
      for (size_t t = 0; t < n_tokens; ++t) {
        for (size_t r = 0; r < n_rows; ++r) {
          double sum = 0, magnitude = 0;
          for (size_t k = 0; k < n_cols; ++k) {
            const double p = double{w[r * n_cols + k]} * double{x[t * n_cols + k]};
            sum += p;
            magnitude += std::fabs(p);
          }
          greatest = std::max(greatest, std::fabs(fast[t * n_rows + r] - sum) / magnitude);
        }
      }
      CHECK(greatest <= bound);
      CHECK(greatest > 0x1p-20);  // rounded it is
    }
  });
}

TEST_CASE("Fast F16 and BF16 products: infinities and NaNs stay in their rows and tokens") {
  FastPrefill fast;
  std::mt19937 rng(3);
  const size_t n_rows = 20, n_cols = 70, n_tokens = 18;
  ForSimd(SimdWithBf16Tiles(), [&] {
    for (const uint32_t id : {F16::kInfo.type_id, Bf16::kInfo.type_id}) {
      auto rows = Rows(id, RandomFloats(n_rows * n_cols, rng));
      auto x = RandomFloats(n_tokens * n_cols, rng);
      const auto clean = Multiply(id, rows, n_rows, n_cols, x, n_cols, n_tokens, 1);
      const bool f16 = id == F16::kInfo.type_id;
      const auto set = [&](size_t row, size_t col, int bits) {
        const auto v = static_cast<uint16_t>(bits);
        std::memcpy(&rows[(row * n_cols + col) * 2], &v, 2);
      };
      set(2, 5, f16 ? 0x7C00 : 0x7F80);
      set(3, 69, f16 ? 0xFFFF : 0xFFFF);  // NaNs with all bits set, and with the least one
      set(19, 64, f16 ? 0x7C01 : 0x7F81);
      x[4 * n_cols + 7] = NAN;
      x[17 * n_cols + 69] = -HUGE_VALF;
      x[9 * n_cols + 3] = 3.4e38f;  // more than bf16 holds
      const auto y = Multiply(id, rows, n_rows, n_cols, x, n_cols, n_tokens, 1);
      CheckSame(y, Defined(id, rows, n_rows, n_cols, x, n_cols, n_tokens));
      for (size_t t = 0; t < n_tokens; ++t) {
        for (size_t r = 0; r < n_rows; ++r) {
          const float v = y[t * n_rows + r];
          if (r == 3 || r == 19 || t == 4) {
            CHECK(std::isnan(v));
          } else if (r == 2 || t == 17 || t == 9) {
            CHECK(!std::isfinite(v));
          } else {
            CHECK(v == clean[t * n_rows + r]);
          }
        }
      }
    }
  });
}

}  // namespace lutra
