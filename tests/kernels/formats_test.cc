// Every listed format against the published facts, a second decoder's output and its own traits.
#include <cmath>
#include <cstring>
#include <random>

#include "kernels/dequantize.h"
#include "kernels/formats/all.h"
#include "kernels/formats/float_formats.h"
#include "kernels/tensor_type.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

// What a row of 256 weights decodes to where byte p of the row is (167 * p + 13) & 255, then every
// d and row scale is set to 1, every m and dmin to 0.5 and every MXFP4 e to 128. Weights 0, 1, 15,
// 16, 17, 33, 100, 127, 128, 200, 255; the sum of all; the sum of (i + 1) * w[i]. Computed by an
// independent decoder from the published layouts.
struct CheckValues {
  const char* name;
  double weights[11], sum, weighted_sum;
};
constexpr int kCheckedWeights[11] = {0, 1, 15, 16, 17, 33, 100, 127, 128, 200, 255};
constexpr CheckValues kCheckValues[] = {
    {"Q4_0", {3, -6, -4, -3, -8, -8, -7, -3, -5, -1, -3}, -136, -17828},
    {"Q4_1", {9.5, 0.5, 2.5, 10.5, 5.5, 12.5, 9.5, 9.5, 9.5, 9.5, 12.5}, 2096, 269168},
    {"Q5_0", {7, 14, -16, 15, -7, -8, -15, -4, 15, -5, 3}, -168, -12492},
    {"Q5_1", {21.5, 12.5, 14.5, 20.5, 30.5, 4.5, 9.5, 16.5, 21.5, 13.5, 10.5}, 4160, 529912},
    {"Q6_0", {19, 10, 12, 9, -29, -32, -15, 19, 27, -1, 1}, -136, -19172},
    {"Q8_0", {91, 2, 36, -53, 114, 48, -127, 30, 19, -89, -42}, -384, -69120},
    {"Q2_K", {13, 0, 26, -1.5, -5.5, 8.5, -7.5, 23.5, 3, -6, 5.5}, 1857, 231581},
    {"Q3_K", {-3, 12, 6, -28, 112, -81, -50, -56, -30, 0, -76}, -776, -177450},
    {"Q4_K", {530.5, 161.5, 243.5, 530.5, 161.5, 10, 421, 241, 414, 298, 183.5}, 67424, 9093056},
    {"Q5_K",
     {1186.5, 161.5, 243.5, 1186.5, 161.5, -22, 841, 181, 942, 298, 715.5},
     145104,
     19615136},
    {"Q6_K", {-231, -2156, 462, 36, 336, 1212, -1320, -612, 369, 0, 308}, 2488, 246540},
    {"IQ4_NL", {38, -83, -49, -35, -127, -127, -104, -35, -65, -10, -35}, -1625, -215539},
    {"IQ4_XS", {-875, 1325, 2225, -1225, 2225, 530, 1144, 385, -245, -1242, 2392}, 10313, 2548115},
    {"IQ2_K", {-8, -26, 6, -16, -52, -8, -48, -31, 39, -85, -85}, 570, 95810},
    {"IQ2_KS", {56, 182, -42, 56, 182, 220, -242, 88, 72, 16, 91}, 6050, 818402},
    {"IQ2_KL", {325, -575, -1000, 700, 1175, 0, 126, -2, -400, 1071, 529}, 7335, 1720189},
    {"IQ3_K", {-765, 285, 885, 1581, -589, 377, 1275, -377, -70, 189, -680}, -10763, -1767236},
    {"IQ3_KS", {117, -567, -207, 117, -567, 0, -140, 182, -400, -600, 280}, -4804, -535155},
    {"IQ4_K", {-803, 495, 198, -24, -316, -588, -102, -169, 1173, -525, -455}, -3242, -786795},
    {"IQ4_KS", {-4100, 205, 1189, 3813, 205, -47, 2139, 3503, 5900, 323, -2622}, -22772, -1653604},
    {"IQ4_KSS",
     {7239, 635, 5334, 14859, -762, -15621, 11811, 3683, 7239, -15621, 7239},
     -46482,
     -6399403},
    {"IQ5_K", {-1089, 891, 693, 396, -324, -1236, -738, 559, 1649, -1110, -962}, -5479, -1091120},
    {"IQ5_KS", {287, -1968, -1394, 287, -1968, 2350, 899, 3751, 6608, -779, -5313}, -2144, -986521},
    {"IQ6_K", {1827, 10962, -348, -1680, -10080, 594, 8502, 3422, 682, 6375, 5016}, 16731, 735952},
    {"MXFP4", {4, -3, -6, -3, 6, 2, 6, -4, 0, 8, 1}, -18, -3575},
    {"IQ1_S",
     {-1.625, -1.625, 11.375, -1.625, -14.625, 0.875, -1.125, 7.875, 3.375, -7.875, 0.125},
     52,
     2009},
    {"IQ1_M",
     {9.625, -12.375, 9.625, 0.875, 7.875, -3.375, 0.625, 3.375, 0.375, -16.875, -1.875},
     -61,
     -13613},
    {"IQ2_XXS",
     {-29, -29, -29, 29, -155.875, -5, -19, 102.125, -78.125, 7, -80.625},
     -1685.75,
     -196087.5},
    {"IQ2_XS", {-71.875, 23, 23, -3, -16.125, 5, -1, -3, -15, 11, 21}, 1091.25, 95635.125},
    {"IQ2_S",
     {-21.875, -21.875, -21.875, -34.375, 11, -65.625, 53.125, 9, -96.875, 27, 90.625},
     -291,
     15890.875},
    {"IQ3_XXS", {-27, -15, -9, -33, -9, -325.5, 377, 203, -119, -23, -55}, -252.5, 86029.5},
    {"IQ3_S", {-7, -7, -49, -77, 7, -49, 189, 81, -9, 17, -45}, 814, 138290},
    {"IQ1_KT", {-195, -91, -624, 91, -520, 5588, -1246, 1958, 140, 1105, 25}, -119, -912381},
    {"IQ2_KT", {-234, 754, 13, 91, -442, 11684, -890, 5429, -1825, 226, -104}, -61302, -4042270},
    {"IQ3_KT", {-162, 522, 9, -63, 306, 0, 140, -854, 730, 30, 72}, -3537, -646340},
    {"IQ4_KT", {640, -620, -380, 520, 40, 300, -62, -38, 988, -144, -1620}, 27322, 4733282},
    {"IQ1_BN", {1, 0, 1, -1, 0, -1, 1, 1, 0, 0, 1}, 3, -175},
    {"IQ2_BN", {0, -1, 1, 1, -1, 0, 2, 2, 0, 0, 2}, 130, 16655},
    {"TQ1_0", {-1, 1, 1, 0, -1, -1, 1, 0, -1, -1, 0}, -5, -800},
    {"TQ2_0", {0, -1, 1, 0, -1, 0, 1, 0, 0, 1, -1}, 126, 16765},
};

void SetF16(uint8_t* p, uint16_t bits) { std::memcpy(p, &bits, 2); }

template <class F>
void SetScalesToOne(std::vector<uint8_t>& row) {
  if constexpr (F::kInfo.row_header_bytes == 2) {
    SetF16(row.data(), 0x3C00);
  } else if constexpr (F::kInfo.row_header_bytes == 4) {
    const float one = 1.0f;
    std::memcpy(row.data(), &one, 4);
  }
  for (size_t at = F::kInfo.row_header_bytes; at < row.size(); at += F::kInfo.block_bytes) {
    typename F::Block b;
    std::memcpy(&b, row.data() + at, sizeof(b));
    if constexpr (requires { b.d; }) SetF16(b.d, 0x3C00);
    if constexpr (requires { b.m; }) SetF16(b.m, 0x3800);
    if constexpr (requires { b.dmin; }) SetF16(b.dmin, 0x3800);
    if constexpr (requires { b.e; }) b.e[0] = 0x80;
    if constexpr (requires { b.sc; }) {  // IQ1_M: an f16 in the top nibbles of four words
      for (size_t k = 0; k < 4; ++k) {
        const int nibble[4] = {0, 0, 0xC, 3};
        b.sc[2 * k + 1] = static_cast<uint8_t>((b.sc[2 * k + 1] & 15) | nibble[k] << 4);
      }
    }
    std::memcpy(row.data() + at, &b, sizeof(b));
  }
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a format decodes the published check values", F, check_values) {
  INFO(F::kInfo.name);
  std::vector<uint8_t> row(F::kInfo.row_header_bytes +
                           256 / F::kInfo.block_weights * F::kInfo.block_bytes);
  for (size_t p = 0; p < row.size(); ++p) row[p] = static_cast<uint8_t>(167 * p + 13);
  SetScalesToOne<F>(row);
  std::vector<float> w(256);
  FindDequantizer(F::kInfo.type_id)(row.data(), w.size(), w.data());
  const CheckValues* expected = nullptr;
  for (const CheckValues& c : kCheckValues) {
    if (std::strcmp(c.name, F::kInfo.name) == 0) expected = &c;
  }
  REQUIRE(expected != nullptr);
  double sum = 0, weighted_sum = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    sum += w[i];
    weighted_sum += static_cast<double>(i + 1) * w[i];
  }
  for (int k = 0; k < 11; ++k) {
    CHECK(static_cast<double>(w[static_cast<size_t>(kCheckedWeights[k])]) == expected->weights[k]);
  }
  CHECK(sum == expected->sum);
  CHECK(weighted_sum == expected->weighted_sum);
}
TEST_CASE_TEMPLATE_APPLY(check_values, AllFormats);

}  // namespace lutra
