// Attention of one KV head and its query heads, as the decoder calls it, on one thread.
//
//   attention_bench --benchmark_filter='q8/.*/prompt'
//
// Names are TYPE/SIMD/WORK/DIM/HEADS/DEPTH. `prompt`: blocks of tokens at DEPTH, KV in cache, GOP/s counts two operations for each
// multiply-add of the scores and of the values (one byte a weight; the definition takes two bytes where a page has few heavy
// positions). `token`: one token of many KV heads in turn, so that keys and values come from memory; GB/s of KV bytes. `store`:
// positions written. dot% and mem% are shares of the 8-bit dot products (vpdpbusd on registers) and of the streaming reads that one
// thread reaches in this process.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/base/aligned.h"
#include "kernels/dispatch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lutra {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512vnni"))) double DotPeak() {
  __m512i acc[16];
  for (int i = 0; i < 16; ++i) acc[i] = _mm512_set1_epi32(i);
  __m512i a = _mm512_set1_epi32(0x1F2E3D4C);
  const __m512i b = _mm512_set1_epi32(0x5A3B1C7D);
  double best = 0;
  for (int run = 0; run < 20; ++run) {
    const double start = Seconds();
    for (int n = 0; n < 200000; ++n) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
      asm volatile("" : "+v"(a));
    }
    best = std::max(best, 200000.0 * 16 * 128 / (Seconds() - start));
  }
  for (int i = 1; i < 16; ++i) acc[0] = _mm512_add_epi32(acc[0], acc[i]);
  benchmark::DoNotOptimize(acc[0]);
  return best * 1e-9;
}
#endif

// GOP/s, 0 where we do not know how to ask.
double PeakGops() {
  static const double peak = [] {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni")) return DotPeak();
#endif
    return 0.0;
  }();
  return peak;
}

double StreamGbs() {
  static const double rate = [] {
    AlignedArray<uint64_t> data((size_t{512} << 20) / 8);
    std::memset(data.data(), 1, data.size() * 8);
    double best = 0;
    for (int run = 0; run < 3; ++run) {
      const double start = Seconds();
      uint64_t sum[8] = {};
      for (size_t i = 0; i < data.size(); i += 8) {
        for (size_t k = 0; k < 8; ++k) sum[k] += data[i + k];
      }
      benchmark::DoNotOptimize(sum);
      best = std::max(best, static_cast<double>(data.size()) * 8e-9 / (Seconds() - start));
    }
    return best;
  }();
  return rate;
}

struct Setup {
  Setup(KvType type, size_t dim, size_t n_heads_kv, size_t depth)
      : layout(type, dim, dim), n_pages((depth + kKvPage - 1) / kKvPage), heads(n_heads_kv) {
    memory = AlignedArray<uint8_t>(n_pages * heads * layout.bytes);
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<float> k(dim), v(dim);
    for (float& x : k) x = normal(rng);
    for (size_t p = 0; p < n_pages; ++p) pages.push_back(memory.data() + p * heads * layout.bytes);
    for (size_t at = 0; at < n_pages * kKvPage; ++at) {
      for (float& x : k) x = normal(rng);
      for (float& x : v) x = normal(rng);
      StoreKv(layout, at % kKvPage, k.data(), v.data(), pages[at / kKvPage]);
    }
    for (uint8_t* page : pages) {  // all heads the same
      for (size_t h = 1; h < heads; ++h) std::memcpy(page + h * layout.bytes, page, layout.bytes);
    }
  }
  KvHeadLayout layout;
  size_t n_pages, heads;
  AlignedArray<uint8_t> memory;
  std::vector<uint8_t*> pages;
};

std::vector<float> Queries(size_t n) {
  std::mt19937 rng(2);
  std::normal_distribution<float> normal;
  std::vector<float> q(n);
  for (float& x : q) x = normal(rng);
  return q;
}

// One block of tokens at the end of `depth` positions.
void Prompt(benchmark::State& state, KvType type, std::string simd, size_t dim, size_t n_heads,
            size_t depth) {
  SetSimd(simd);
  const size_t n_tokens = AttentionTokens(n_heads);
  const Setup s(type, dim, 1, depth);
  const auto q = Queries(n_tokens * n_heads * dim);
  std::vector<float> out(q.size());
  const AttentionArgs args{&s.layout,
                           s.pages.data(),
                           0,
                           s.n_pages * kKvPage - n_tokens,
                           n_tokens,
                           n_heads,
                           1.0f / std::sqrt(static_cast<float>(dim)),
                           q.data(),
                           n_heads * dim,
                           out.data(),
                           n_heads * dim};
  for (auto _ : state) Attend(args);
  const double gop = static_cast<double>(state.iterations()) * 4e-9 *
                     static_cast<double>(n_tokens * n_heads * dim) *
                     static_cast<double>(s.n_pages * kKvPage);
  state.counters["GOP/s"] = benchmark::Counter(gop, benchmark::Counter::kIsRate);
  state.SetLabel("peak " + std::to_string(static_cast<int>(PeakGops())) + " GOP/s");
  if (PeakGops() > 0)
    state.counters["dot%"] =
        benchmark::Counter(100 * gop / PeakGops(), benchmark::Counter::kIsRate);
}

void Token(benchmark::State& state, KvType type, std::string simd, size_t dim, size_t n_heads,
           size_t depth) {
  SetSimd(simd);
  const size_t one = KvHeadLayout(type, dim, dim).bytes * ((depth + kKvPage - 1) / kKvPage);
  const Setup s(type, dim, std::max<size_t>(1, (size_t{256} << 20) / one), depth);
  const auto q = Queries(n_heads * dim);
  std::vector<float> out(q.size());
  size_t head = 0;
  for (auto _ : state) {
    Attend({&s.layout, s.pages.data(), head * s.layout.bytes, s.n_pages * kKvPage - 1, 1, n_heads,
            1.0f / std::sqrt(static_cast<float>(dim)), q.data(), n_heads * dim, out.data(),
            n_heads * dim});
    head = (head + 1) % s.heads;
  }
  const double gb = static_cast<double>(state.iterations()) * static_cast<double>(one) * 1e-9;
  state.counters["GB/s"] = benchmark::Counter(gb, benchmark::Counter::kIsRate);
  state.SetLabel("stream " + std::to_string(static_cast<int>(StreamGbs())) + " GB/s");
  state.counters["mem%"] = benchmark::Counter(100 * gb / StreamGbs(), benchmark::Counter::kIsRate);
}

void Store(benchmark::State& state, KvType type, std::string simd, size_t dim) {
  SetSimd(simd);
  const Setup s(type, dim, 1, kKvPage);
  const auto x = Queries(2 * dim);
  for (auto _ : state) {
    for (size_t at = 0; at < kKvPage; ++at)
      StoreKv(s.layout, at, x.data(), x.data() + dim, s.pages[0]);
  }
  state.counters["ns/row"] =
      benchmark::Counter(static_cast<double>(state.iterations() * kKvPage) * 1e-9,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

}  // namespace
}  // namespace lutra

int main(int argc, char** argv) {
  using namespace lutra;
  const struct {
    const char* name;
    KvType type;
  } types[] = {{"q8", KvType::kQ8}, {"f16", KvType::kF16}, {"f32", KvType::kF32}};
  for (const auto& [type_name, type] : types) {
    for (const std::string& simd : AvailableSimd()) {
      const std::string prefix = std::string(type_name) + "/" + simd;
      const auto add = [&](const std::string& name, auto fn, auto... args) {
        benchmark::RegisterBenchmark((prefix + name).c_str(), fn, args...)
            ->Unit(benchmark::kMicrosecond);
      };
      for (const size_t dim : {64, 128}) {
        for (const size_t n_heads : {1, 4}) {
          const std::string shape = std::to_string(dim) + "/" + std::to_string(n_heads);
          add("/prompt/" + shape + "/512", Prompt, type, simd, dim, n_heads, size_t{512});
          add("/prompt/" + shape + "/16384", Prompt, type, simd, dim, n_heads, size_t{16384});
          add("/token/" + shape + "/16384", Token, type, simd, dim, n_heads, size_t{16384});
        }
        add("/store/" + std::to_string(dim), Store, type, simd, dim);
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
