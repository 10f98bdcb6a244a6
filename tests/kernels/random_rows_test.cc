// Random rows of every format: any program must be able to compute with them.
#include "kernels/random_rows.h"

#include <cmath>
#include <vector>

#include "kernels/dequantize.h"
#include "kernels/formats/all.h"
#include "kernels/formats/float_formats.h"
#include "kernels/tensor_type.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

constexpr uint64_t kCols = 1024, kRows = 16;

std::vector<uint8_t> Make(const TensorTypeInfo& type, uint64_t seed, uint64_t first, uint64_t n) {
  std::vector<uint8_t> bytes(n * RowBytes(type, kCols));
  FindRandomRows(type.id)(seed, first, n, kCols, 0.0f, 0.02f, bytes.data());
  return bytes;
}

}  // namespace

TEST_CASE(
    "Random rows of every type have finite weights with the spread asked for and a mean near 0") {
  size_t n_types = 0;
  for (const TensorTypeInfo& type : AllTensorTypes()) {
    if (!type.readable) continue;
    ++n_types;
    INFO(std::string(type.name));
    REQUIRE((FindRandomRows(type.id) != nullptr));
    const std::vector<uint8_t> bytes = Make(type, 7, 0, kRows);
    std::vector<float> row(kCols);
    double sum = 0, squares = 0;
    float most = 0;
    for (uint64_t r = 0; r < kRows; ++r) {
      FindDequantizer(type.id)(bytes.data() + r * RowBytes(type, kCols), kCols, row.data());
      for (const float x : row) {
        REQUIRE(std::isfinite(x));
        sum += static_cast<double>(x);
        squares += static_cast<double>(x) * static_cast<double>(x);
        most = std::max(most, std::abs(x));
      }
    }
    const double n = kCols * kRows;
    const double rms = std::sqrt(squares / n);
    CHECK(rms > 0.013);  // a power-of-two scale (MXFP4) may be off by 1.42
    CHECK(rms < 0.029);
    CHECK(std::abs(sum / n) < 0.01);  // two bits of a ternary format include a code for 2
    CHECK(most < 0.2f);
  }
  CHECK(n_types == std::tuple_size_v<AllFormats> + std::tuple_size_v<FloatFormats>);
}

TEST_CASE("A random row depends on the seed and its number alone") {
  for (const char* name : {"F32", "BF16", "Q4_K", "IQ4_KS", "IQ1_M"}) {
    for (const TensorTypeInfo& type : AllTensorTypes()) {
      if (type.name != std::string(name)) continue;
      INFO(std::string(name));
      const uint64_t row_bytes = RowBytes(type, kCols);
      const std::vector<uint8_t> all = Make(type, 1, 0, kRows);
      CHECK(Make(type, 1, 5, 3) ==
            std::vector<uint8_t>(all.begin() + static_cast<ptrdiff_t>(5 * row_bytes),
                                 all.begin() + static_cast<ptrdiff_t>(8 * row_bytes)));
      CHECK(Make(type, 2, 0, kRows) != all);
      CHECK(std::vector<uint8_t>(all.begin(), all.begin() + static_cast<ptrdiff_t>(row_bytes)) !=
            Make(type, 1, 1, 1));
    }
  }
}

}  // namespace lutra
