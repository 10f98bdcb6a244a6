// Every listed format against the published facts, a second decoder's output and its own traits.
#include <bit>
#include <cctype>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

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
  INFO(std::string(F::kInfo.name));
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

// ---- Against a second decoder's output on rows of every kind (shared/golden/quant, see the README
// there). ----

namespace {

struct GoldenRun {
  std::vector<uint8_t> bytes;  // [rows, row_bytes]
  std::vector<float> values;   // [rows, cols]
};
struct Golden {
  uint32_t type_id, rows, cols, row_bytes;
  std::vector<GoldenRun> runs;
};

Golden ReadGolden(const std::string& path) {
  const std::vector<uint8_t> file = testing::ReadBytes(path);
  uint32_t head[5];
  REQUIRE(file.size() >= sizeof(head));
  std::memcpy(head, file.data(), sizeof(head));
  Golden g{head[0], head[1], head[2], head[3], {}};
  const size_t bytes = size_t{g.rows} * g.row_bytes, values = size_t{g.rows} * g.cols;
  const size_t n_runs = head[4] & 1 ? 1 : 2;
  REQUIRE(file.size() == sizeof(head) + n_runs * (bytes + 4 * values));
  const uint8_t* p = file.data() + sizeof(head);
  for (size_t r = 0; r < n_runs; ++r) {
    GoldenRun run{{p, p + bytes}, std::vector<float>(values)};
    std::memcpy(run.values.data(), p + bytes, 4 * values);
    p += bytes + 4 * values;
    g.runs.push_back(std::move(run));
  }
  return g;
}

// The file of a format: the golden files spell the k-quants q4_K, all else in lower case.
std::string GoldenPath(const std::string& shared, const char* name) {
  std::string file = name;
  const bool k_quant = file[0] == 'Q' && file.size() > 2 && file.substr(file.size() - 2) == "_K";
  for (char& c : file) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (k_quant) file.back() = 'K';
  return shared + "/golden/quant/" + file + ".bin";
}

// Decoded values and the golden ones, of both runs, in a row-by-row visit: visit(row bytes, n,
// ours, theirs).
template <class F, class Visit>
void VisitGolden(Visit&& visit) {
  LUTRA_REQUIRE_SHARED(shared);
  const std::string path = GoldenPath(shared, F::kInfo.name);
  if (!std::ifstream(path).good()) {
    MESSAGE("SKIPPED: no golden file for " << std::string(F::kInfo.name));
    return;
  }
  const Golden golden = ReadGolden(path);
  const TensorTypeInfo* type = FindTensorType(F::kInfo.type_id);
  REQUIRE(type != nullptr);
  REQUIRE(golden.type_id == type->id);
  REQUIRE(golden.row_bytes == RowBytes(*type, golden.cols));
  std::vector<float> ours(golden.cols);
  for (const GoldenRun& run : golden.runs) {
    for (uint32_t r = 0; r < golden.rows; ++r) {
      const uint8_t* row = run.bytes.data() + size_t{r} * golden.row_bytes;
      FindDequantizer(type->id)(row, golden.cols, ours.data());
      visit(row, golden.cols, ours.data(), run.values.data() + size_t{r} * golden.cols);
    }
  }
}

// IQ6_K: the other decoder evaluates a cubic where our definition has its rounding, at most 0.488
// away.
constexpr float kIq6KRounding = 0.4885f;
// IQ1_BN, IQ2_BN: the other decoder's rows are known to be wrong (it forgets the scale).
template <class F>
constexpr bool kGoldenValuesAreWrong = std::is_same_v<F, Iq1Bn> || std::is_same_v<F, Iq2Bn>;

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a format decodes quantized rows bit for bit", F, golden_rows) {
  INFO(std::string(F::kInfo.name));
  if constexpr (!kGoldenValuesAreWrong<F>) {
    VisitGolden<F>([](const uint8_t* row, size_t n, const float* ours, const float* theirs) {
      size_t n_different = 0;
      if constexpr (std::is_same_v<F, Iq6K>) {
        for (size_t i = 0; i < n; ++i) {
          Iq6K::Block b;
          std::memcpy(&b, row + i / 256 * sizeof(b), sizeof(b));
          const float unit = Iq6K::Super({}, b) * static_cast<float>(Iq6K::Scale(b, i % 256 / 16));
          n_different += std::abs(ours[i] - theirs[i]) > kIq6KRounding * std::abs(unit);
        }
      } else {
        (void)row;
        // Equal bits, but for the sign of zero: integers have none (IQ3_KT's sign bits do).
        for (size_t i = 0; i < n; ++i) {
          n_different += std::bit_cast<uint32_t>(ours[i]) != std::bit_cast<uint32_t>(theirs[i]) &&
                         (ours[i] != 0.0f || theirs[i] != 0.0f);
        }
      }
      CHECK(n_different == 0);
    });
  }
}
TEST_CASE_TEMPLATE_APPLY(golden_rows, Concat<AllFormats, FloatFormats>);

// ---- The traits are what kernels and packers trust: they must be true of any bytes. ----

namespace {

bool FitsF16(float x) {
  if (!std::isfinite(x)) return true;
  const bool fine_enough = std::abs(x) < 0x1p-14f ? std::nearbyint(x * 0x1p24f) == x * 0x1p24f
                                                  : (std::bit_cast<uint32_t>(x) & 0x1FFF) == 0;
  return std::abs(x) <= 65504.0f && fine_enough;
}

// True if the (finite) float survives in the form that F::kSuper names.
template <class F>
bool SuperFits(float x) {
  if constexpr (F::kSuper == SuperKind::kF16) return FitsF16(x);
  if constexpr (F::kSuper == SuperKind::kBf16) return (std::bit_cast<uint32_t>(x) & 0xFFFF) == 0;
  return true;
}

// One block of any bytes; the checks are counted, not asserted one by one: there are millions.
template <class F>
void CheckTraitsOn(const typename F::RowHeader& row, const typename F::Block& block) {
  constexpr size_t kWeights = F::kInfo.block_weights;
  const float super = F::Super(row, block), bias_super = F::BiasSuper(row, block);
  // MXFP4's largest scales times 12 are beyond float: such weights cannot come from a model.
  const bool sane = std::abs(super) < 0x1p100f && std::isfinite(bias_super);
  size_t bad_index = 0, bad_lane = 0, bad_value = 0, bad_scale = 0, bad_bias = 0;
  int64_t lanes = 0, indexes = 0;  // largest sums of products with activations of +-127
  for (size_t i = 0; i < kWeights; ++i) {
    const int index = F::Index(block, i), lane = Lane<F>(block, i);
    const int scale = F::Scale(block, i / F::kGroup);
    bad_index += index < 0 || index >= 1 << F::kBits;
    bad_lane += lane < -128 || lane > 127;
    bad_value += sane && !std::isfinite(Value<F>(row, block, i));
    lanes += int64_t{127} * std::abs(scale * lane);
    indexes += int64_t{127} * std::abs(scale * index);
  }
  for (size_t g = 0; g < kWeights / F::kGroup; ++g) {
    bad_scale += F::Scale(block, g) < -128 || F::Scale(block, g) > 127;
    bad_bias += F::Bias(block, g) < 0 || F::Bias(block, g) > 63;
  }
  CHECK(bad_index == 0);
  CHECK(bad_lane == 0);
  CHECK(bad_value == 0);
  CHECK(bad_scale == 0);
  CHECK(bad_bias == 0);
  CHECK(lanes < int64_t{1} << 31);
  CHECK(indexes < int64_t{1} << 31);
  CHECK((std::isnan(super) || SuperFits<F>(super)));
}

template <class T>
T FillBytes(auto&& next_byte) {
  T t;
  if constexpr (!std::is_empty_v<T>) {
    uint8_t bytes[sizeof(T)];
    for (uint8_t& byte : bytes) byte = next_byte();
    std::memcpy(&t, bytes, sizeof(T));
  }
  return t;
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a format's traits are true of any bytes", F, traits) {
  INFO(std::string(F::kInfo.name));
  static_assert(sizeof(typename F::Block) == F::kInfo.block_bytes);
  static_assert(std::is_empty_v<typename F::RowHeader>
                    ? F::kInfo.row_header_bytes == 0
                    : F::kInfo.row_header_bytes == sizeof(typename F::RowHeader));
  static_assert(F::kGroup == 16 || F::kGroup == 32);
  static_assert(F::kInfo.block_weights % 32 == 0);
  static_assert((F::kActivations == Activations::kQ8x32) == (F::kInfo.block_weights < 256));
  static_assert((F::kSuper == SuperKind::kRow) == (F::kInfo.row_header_bytes != 0));
  static_assert(F::kTable.size() == 0 || F::kTable.size() == size_t{1} << F::kBits);
  static_assert(F::kTable.size() == 0 || F::kZero == 0);
  static_assert(F::kTable.size() != 0 || F::kShift == 0);
  for (const int lane : F::kTable) CHECK((lane + F::kShift <= 127));
  for (const int constant : {0x00, 0xFF, 0x55, 0xAA}) {
    const auto next = [&] { return static_cast<uint8_t>(constant); };
    CheckTraitsOn<F>(FillBytes<typename F::RowHeader>(next), FillBytes<typename F::Block>(next));
  }
  std::mt19937 random(F::kInfo.type_id);
  const auto next = [&] { return static_cast<uint8_t>(random() >> 11); };
  for (int n = 0; n < 1000; ++n) {
    const auto row = FillBytes<typename F::RowHeader>(next);
    const auto block = FillBytes<typename F::Block>(next);
    CheckTraitsOn<F>(row, block);
    if constexpr (F::kSuper == SuperKind::kRow) {
      const auto other = FillBytes<typename F::Block>(next);
      CHECK(std::bit_cast<uint32_t>(F::Super(row, block)) ==
            std::bit_cast<uint32_t>(F::Super(row, other)));
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(traits, AllFormats);

TEST_CASE("F16 bits become the float that the fields of binary16 say, all 65536 of them") {
  size_t n_wrong = 0;
  for (uint32_t h = 0; h < 65536; ++h) {
    const float x = F16ToF32(static_cast<uint16_t>(h));
    const int exponent = static_cast<int>(h >> 10 & 31), fraction = static_cast<int>(h & 1023);
    if (exponent == 31 && fraction != 0) {
      n_wrong += !std::isnan(x);
    } else {
      double expected = exponent == 31  ? std::numeric_limits<double>::infinity()
                        : exponent == 0 ? std::ldexp(fraction, -24)
                                        : std::ldexp(1024 + fraction, exponent - 25);
      if (h & 0x8000) expected = -expected;
      n_wrong += static_cast<double>(x) != expected || std::signbit(x) != ((h & 0x8000) != 0);
    }
  }
  CHECK(n_wrong == 0);
}

TEST_CASE("float rows are converted element by element, at any address") {
  const uint8_t f32[] = {0xFF, 0x00, 0x00, 0x80, 0x3F, 0x00, 0x00, 0x20, 0xC0};
  const uint8_t f16[] = {0xFF, 0x00, 0x3C, 0x01, 0x80};
  const uint8_t bf16[] = {0xFF, 0x80, 0x3F, 0x20, 0xC0};
  float y[2];
  FindDequantizer(F32::kInfo.type_id)(f32 + 1, 2, y);
  CHECK((y[0] == 1.0f && y[1] == -2.5f));
  FindDequantizer(F16::kInfo.type_id)(f16 + 1, 2, y);
  CHECK((y[0] == 1.0f && y[1] == -0x1p-24f));
  FindDequantizer(Bf16::kInfo.type_id)(bf16 + 1, 2, y);
  CHECK((y[0] == 1.0f && y[1] == -2.5f));
}

TEST_CASE("a tensor type is readable exactly if there is a dequantizer for it") {
  size_t n_readable = 0;
  uint32_t previous = 0;
  for (const TensorTypeInfo& type : AllTensorTypes()) {
    INFO(std::string(type.name));
    CHECK((type.id > previous || n_readable == 0));  // ascending, F32 = 0 first
    previous = type.id;
    n_readable += type.readable;
    CHECK(type.readable == (FindDequantizer(type.id) != nullptr));
    CHECK(FindTensorType(type.id) == &type);
    CHECK(RetiredOrForeignTypeName(type.id) == nullptr);
  }
  CHECK(n_readable == std::tuple_size_v<AllFormats> + std::tuple_size_v<FloatFormats>);
}

TEST_CASE("rows have the published sizes") {
  const auto row_bytes = [](uint32_t id) { return RowBytes(*FindTensorType(id), 4096); };
  CHECK(row_bytes(Iq4Ks::kInfo.type_id) == 2180);
  CHECK(row_bytes(Iq5Ks::kInfo.type_id) == 2692);
  CHECK(row_bytes(Iq4Kss::kInfo.type_id) == 2052);
  CHECK(row_bytes(Iq2Ks::kInfo.type_id) == 1122);
  CHECK(row_bytes(Iq3Ks::kInfo.type_id) == 1634);
  CHECK(row_bytes(Iq2Kl::kInfo.type_id) == 1378);
  CHECK(row_bytes(Iq1Kt::kInfo.type_id) == 900);
  CHECK(row_bytes(Iq2Kt::kInfo.type_id) == 1092);
  CHECK(row_bytes(Iq3Kt::kInfo.type_id) == 1604);
  CHECK(row_bytes(Iq4Kt::kInfo.type_id) == 2052);
  CHECK(row_bytes(Iq1Bn::kInfo.type_id) == 834);
  CHECK(row_bytes(Iq2Bn::kInfo.type_id) == 1028);
  CHECK(row_bytes(151) == 4104);  // Q8_KV: known, not readable
}

TEST_CASE("ids that we cannot read still have a name") {
  CHECK(FindTensorType(339) == nullptr);
  CHECK(std::string(RetiredOrForeignTypeName(339)) == "IQ4_K_R4 (row-interleaved)");
  CHECK(std::string(RetiredOrForeignTypeName(4)) == "Q4_2 (retired)");
  CHECK(FindTensorType(60000) == nullptr);
  CHECK(RetiredOrForeignTypeName(60000) == nullptr);
  CHECK((FindDequantizer(339) == nullptr));
  CHECK((FindDequantizer(24) == nullptr));  // I8: a known size, no decoder
}

}  // namespace lutra
