// Loops that measure limits must do the work they claim.
#include "kernels/roofline.h"

#include <vector>

#include "kernels/base/aligned.h"
#include "kernels/base/cpu.h"
#include "tests/kernels/simd_util.h"
#include "tests/test_util.h"

namespace lutra {

TEST_CASE(
    "Every peak loop that the CPU has counts its operations, and its result depends on the "
    "operands and the rounds") {
  AlignedArray<uint8_t> a(kPeakOperandBytes), b(kPeakOperandBytes);
  for (const PeakKernel& kernel : PeakKernels()) {
    INFO(std::string(kernel.name), " ", std::string(kernel.instruction));
    if (!kernel.available()) {
      MESSAGE("this CPU has no ", std::string(kernel.instruction), ": skipped");
      continue;
    }
    FillPeakOperands(kernel.kind, 1, a.data());
    FillPeakOperands(kernel.kind, 2, b.data());
    int32_t x = 0, again = 0, other = 0, longer = 0;
    const uint64_t ops = kernel.run(a.data(), 50, &x);
    CHECK(ops > 0);
    CHECK(kernel.run(a.data(), 50, &again) == ops);
    CHECK(kernel.run(a.data(), 100, &longer) == 2 * ops);
    kernel.run(b.data(), 50, &other);
    CHECK(x == again);
    CHECK(x != other);
    CHECK(x != longer);
  }
}

TEST_CASE("An int8 loop's first round is the sum of products it says") {
  // 4 x 5 tile, one round: sum over i, j of dot4 sums of a_i (unsigned) and b_j (signed), wrapped.
  AlignedArray<uint8_t> a(kPeakOperandBytes);
  FillPeakOperands(PeakKind::kInt8, 3, a.data());
  for (const PeakKernel& kernel : PeakKernels()) {
    const std::string name = kernel.name;
    if (!kernel.available() || kernel.kind != PeakKind::kInt8 ||
        (name != "avx512-vnni" && name != "avx-vnni"))
      continue;
    INFO(name);
    const size_t width = name == "avx512-vnni" ? 64 : 32;
    const size_t rows = name == "avx512-vnni" ? 4 : 3, cols = name == "avx512-vnni" ? 5 : 4;
    uint32_t sum = 0;
    for (size_t i = 0; i < rows; ++i) {
      for (size_t j = 0; j < cols; ++j) {
        for (size_t k = 0; k < width; ++k) {
          sum += static_cast<uint32_t>(static_cast<int>(a[i * width + k]) *
                                       static_cast<int8_t>(a[(rows + j) * width + k]));
        }
      }
    }
    int32_t got = 0;
    CHECK(kernel.run(a.data(), 1, &got) == 2 * rows * cols * width);
    CHECK(got == static_cast<int32_t>(sum));
  }
}

TEST_CASE("A streaming read sees every byte") {
  constexpr size_t kBytes = 16384;
  AlignedArray<uint8_t> data(kBytes);
  FillPeakOperands(PeakKind::kInt8, 1, data.data());
  const uint64_t sum = StreamRead(data.data(), kBytes);
  for (size_t at = 0; at < kBytes; at += 61) {
    data[at] ^= 1;
    CHECK(StreamRead(data.data(), kBytes) != sum);
    data[at] ^= 1;
  }
  CHECK(StreamRead(data.data(), kBytes) == sum);
}

TEST_CASE("AMX is used only where the CPU has it and the system allows it") {
  const AmxSupport amx = CpuAmx();
  if (!amx.int8) CHECK_FALSE(RequestAmx());
  CHECK(RequestAmx() == RequestAmx());
}

}  // namespace lutra
