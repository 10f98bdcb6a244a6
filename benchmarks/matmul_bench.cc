// Products of every format on every SIMD choice of this CPU, one thread.
//
//   matmul_bench --benchmark_filter='IQ4_K/avx3_dl/512'
//
// Names are FORMAT/SIMD/TOKENS. Counters: GOP/s (two operations a multiply-add), GB/s (packed weights read), and their shares of what
// the CPU does at best: `dot%` of the 8-bit dot products that the chosen SIMD can issue, `mem%` of a streaming read (both measured at start, in this
// process, on random data). Few tokens walk 256 MiB of weights, so that they come from memory; many tokens use one matrix of 8 M.
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/formats/all.h"
#include "kernels/formats/float_formats.h"
#include "kernels/weights.h"

namespace lutra {
namespace {

constexpr size_t kCols = 4096;
constexpr size_t kRows = 2048;

// Random blocks whose float scales are small and finite: 16-bit words with exponents around 2^-7.
std::vector<uint8_t> RandomRows(const TensorTypeInfo& type, size_t n_rows) {
  std::mt19937_64 rng(type.id);
  std::vector<uint8_t> bytes(n_rows * RowBytes(type, kCols));
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    uint64_t r = rng();
    if (type.block_weights == 1)
      r &= type.block_bytes == 4 ? 0xBFFFFFFFBFFFFFFF : 0xBFFFBFFFBFFFBFFF;  // floats below 2
    std::memcpy(bytes.data() + i, &r, 8);
  }
  return bytes;
}

struct Setup {
  ThreadPool pool{1};
  std::vector<std::vector<uint8_t>> rows;  // float matrices refer to them
  std::vector<Matrix> matrices;
  std::vector<float> x, y;
  std::unique_ptr<MatrixInput> input;
};

Setup& SetupFor(const TensorTypeInfo& type, const std::string& simd, size_t n_tokens) {
  static std::string key;
  static std::unique_ptr<Setup> setup;
  const std::string wanted = std::string(type.name) + simd + std::to_string(n_tokens);
  if (key == wanted) return *setup;
  key = wanted;
  setup.reset();
  SetSimd(simd);
  setup = std::make_unique<Setup>();
  setup->rows.push_back(RandomRows(type, kRows));
  const size_t copies = n_tokens > 16 ? 1 : 1 + (size_t{256} << 20) / setup->rows[0].size();
  for (size_t i = 0; i < copies; ++i) {
    const Matrix& m =
        setup->matrices.emplace_back(type, setup->rows.back().data(), kRows, kCols, setup->pool);
    if (m.references_rows()) setup->rows.push_back(setup->rows[0]);
  }
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  setup->x.resize(n_tokens * kCols);
  for (float& v : setup->x) v = normal(rng);
  setup->y.resize(n_tokens * kRows);
  setup->input = std::make_unique<MatrixInput>(n_tokens, kCols);
  setup->input->Set(setup->x.data(), kCols, n_tokens, kCols);
  setup->input->Prepare(setup->matrices[0].input_kind(), setup->pool);
  return *setup;
}

void Multiply(benchmark::State& state, const TensorTypeInfo* type, std::string simd,
              size_t n_tokens) {
  Setup& s = SetupFor(*type, simd, n_tokens);
  size_t i = 0;
  for (auto _ : state) {
    const Product product{&s.matrices[i], s.y.data(), kRows};
    MultiplyAll({&product, 1}, *s.input, s.pool);
    i = (i + 1) % s.matrices.size();
  }
  const double n = static_cast<double>(state.iterations());
  const double operations = 2.0 * kRows * kCols * static_cast<double>(n_tokens);
  state.counters["GOP/s"] = benchmark::Counter(n * operations * 1e-9, benchmark::Counter::kIsRate);
  const Matrix& m = s.matrices[0];
  const size_t bytes = m.references_rows() ? kRows * RowBytes(*type, kCols) : m.packed_bytes();
  state.counters["GB/s"] =
      benchmark::Counter(n * static_cast<double>(bytes) * 1e-9, benchmark::Counter::kIsRate);
}

void Pack(benchmark::State& state, const TensorTypeInfo* type) {
  SetSimd("auto");
  ThreadPool pool(1);
  const auto rows = RandomRows(*type, kRows);
  for (auto _ : state) {
    const Matrix m(*type, rows.data(), kRows, kCols, pool);
    benchmark::DoNotOptimize(m.packed_bytes());
  }
  const double n = static_cast<double>(state.iterations());
  state.counters["Gweights/s"] =
      benchmark::Counter(n * kRows * kCols * 1e-9, benchmark::Counter::kIsRate);
}

}  // namespace
}  // namespace lutra

int main(int argc, char** argv) {
  using namespace lutra;
  for (const std::string& simd : AvailableSimd()) {
    ForEachFormat<Concat<AllFormats, FloatFormats>>([&]<class F>() {
      const TensorTypeInfo* type = FindTensorType(F::kInfo.type_id);
      for (const size_t n_tokens : {1, 2, 4, 8, 12, 16, 20, 32, 512}) {
        const std::string name =
            std::string(type->name) + "/" + simd + "/" + std::to_string(n_tokens);
        benchmark::RegisterBenchmark(name.c_str(), Multiply, type, simd, n_tokens)
            ->Unit(benchmark::kMillisecond);
      }
    });
  }
  ForEachFormat<AllFormats>([&]<class F>() {
    const TensorTypeInfo* type = FindTensorType(F::kInfo.type_id);
    benchmark::RegisterBenchmark((std::string(type->name) + "/pack").c_str(), Pack, type)
        ->Unit(benchmark::kMillisecond);
  });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
