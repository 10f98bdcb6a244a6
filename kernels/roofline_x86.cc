// The instruction sets of x86, each loop compiled for its own. Raw intrinsics, because what is measured is one instruction; as
// functions with a target attribute, because no file of ours is compiled for a particular CPU.
#include "kernels/roofline.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "kernels/base/cpu.h"
#include "kernels/targets.h"

namespace lutra {
namespace {

// A tile of kA x kB accumulators: kA + kB vectors are loaded for kA * kB multiply-adds, and every round takes the next ones.
// A macro, because a template's lambda or functor would not have the target of the function around it.
#define LUTRA_PEAK_TILE(kA, kB, VECTOR, ZERO, LOAD, MULTIPLY_ADD)                                \
  constexpr size_t kBytes = sizeof(VECTOR);                                                      \
  VECTOR acc[kA][kB];                                                                            \
  LUTRA_UNROLL(8) for (int i = 0; i < kA; ++i) {                                                 \
    LUTRA_UNROLL(8) for (int j = 0; j < kB; ++j) acc[i][j] = ZERO;                               \
  }                                                                                              \
  size_t at = 0;                                                                                 \
  for (size_t r = 0; r < rounds; ++r) {                                                          \
    const uint8_t* p = operands + at;                                                            \
    at = (at + (kA + kB) * kBytes) % (kPeakOperandBytes / 2);                                    \
    VECTOR a[kA];                                                                                \
    LUTRA_UNROLL(8) for (size_t i = 0; i < kA; ++i) a[i] = LOAD(p + i * kBytes);                 \
    LUTRA_UNROLL(8) for (size_t j = 0; j < kB; ++j) {                                            \
      const VECTOR b = LOAD(p + (kA + j) * kBytes);                                              \
      LUTRA_UNROLL(8) for (int i = 0; i < kA; ++i) acc[i][j] = MULTIPLY_ADD(acc[i][j], a[i], b); \
    }                                                                                            \
  }                                                                                              \
  VECTOR sums[kA * kB];                                                                          \
  std::memcpy(sums, acc, sizeof sums);                                                           \
  *sink = Sum(sums, sizeof sums)

int32_t Sum(const void* data, size_t bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes; i += 4) {
    uint32_t v;
    std::memcpy(&v, static_cast<const uint8_t*>(data) + i, 4);
    sum += v;
  }
  return static_cast<int32_t>(sum);
}

// Two operations for each of a vector's multiply-adds.
constexpr uint64_t Operations(size_t rounds, size_t products, size_t vector_bytes,
                              size_t element_bytes) {
  return uint64_t{rounds} * products * (vector_bytes / element_bytes) * 2;
}

#define LUTRA_LOAD256(p) _mm256_load_si256(reinterpret_cast<const __m256i*>(p))
#define LUTRA_LOAD512(p) _mm512_load_si512(reinterpret_cast<const void*>(p))
#define LUTRA_LOAD256PS(p) _mm256_load_ps(reinterpret_cast<const float*>(p))
#define LUTRA_LOAD512PS(p) _mm512_load_ps(reinterpret_cast<const float*>(p))

__attribute__((target("avx2"))) uint64_t Avx2Int8(const uint8_t* operands, size_t rounds,
                                                  int32_t* sink) {
  const __m256i ones = _mm256_set1_epi16(1);
#define LUTRA_STEP(c, a, b) _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones))
  LUTRA_PEAK_TILE(2, 4, __m256i, _mm256_setzero_si256(), LUTRA_LOAD256, LUTRA_STEP);
#undef LUTRA_STEP
  return Operations(rounds, 2 * 4, 32, 1);
}

__attribute__((target("avx2,avxvnni"))) uint64_t AvxVnniInt8(const uint8_t* operands, size_t rounds,
                                                             int32_t* sink) {
#define LUTRA_STEP(c, a, b) _mm256_dpbusd_avx_epi32(c, a, b)
  LUTRA_PEAK_TILE(3, 4, __m256i, _mm256_setzero_si256(), LUTRA_LOAD256, LUTRA_STEP);
#undef LUTRA_STEP
  return Operations(rounds, 3 * 4, 32, 1);
}

__attribute__((target("avx512f,avx512bw"))) uint64_t Avx512Int8(const uint8_t* operands,
                                                                size_t rounds, int32_t* sink) {
  const __m512i ones = _mm512_set1_epi16(1);
#define LUTRA_STEP(c, a, b) _mm512_add_epi32(c, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), ones))
  LUTRA_PEAK_TILE(4, 5, __m512i, _mm512_setzero_si512(), LUTRA_LOAD512, LUTRA_STEP);
#undef LUTRA_STEP
  return Operations(rounds, 4 * 5, 64, 1);
}

__attribute__((target("avx512f,avx512bw,avx512vnni"))) uint64_t Avx512VnniInt8(
    const uint8_t* operands, size_t rounds, int32_t* sink) {
#define LUTRA_STEP(c, a, b) _mm512_dpbusd_epi32(c, a, b)
  LUTRA_PEAK_TILE(4, 5, __m512i, _mm512_setzero_si512(), LUTRA_LOAD512, LUTRA_STEP);
#undef LUTRA_STEP
  return Operations(rounds, 4 * 5, 64, 1);
}

__attribute__((target("avx512f,avx512bw,avx512bf16"))) uint64_t Avx512Bf16(const uint8_t* operands,
                                                                           size_t rounds,
                                                                           int32_t* sink) {
#define LUTRA_STEP(c, a, b) \
  _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b))
  LUTRA_PEAK_TILE(4, 5, __m512, _mm512_setzero_ps(), LUTRA_LOAD512PS, LUTRA_STEP);
#undef LUTRA_STEP
  return Operations(rounds, 4 * 5, 64, 2);
}

__attribute__((target("avx2,fma"))) uint64_t Avx2F32(const uint8_t* operands, size_t rounds,
                                                     int32_t* sink) {
#define LUTRA_STEP(c, a, b) _mm256_fmadd_ps(a, b, c)
  LUTRA_PEAK_TILE(3, 4, __m256, _mm256_setzero_ps(), LUTRA_LOAD256PS, LUTRA_STEP);
#undef LUTRA_STEP
  return Operations(rounds, 3 * 4, 32, 4);
}

__attribute__((target("avx512f"))) uint64_t Avx512F32(const uint8_t* operands, size_t rounds,
                                                      int32_t* sink) {
#define LUTRA_STEP(c, a, b) _mm512_fmadd_ps(a, b, c)
  LUTRA_PEAK_TILE(4, 5, __m512, _mm512_setzero_ps(), LUTRA_LOAD512PS, LUTRA_STEP);
#undef LUTRA_STEP
  return Operations(rounds, 4 * 5, 64, 4);
}

// Eight tiles of 16 rows x 64 bytes: four accumulators, two of each operand.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr size_t kTileBytes = 1024;

// g++ 12 does not know that loading a configuration reads memory, hence the barrier.
#define LUTRA_AMX_LOOP(MULTIPLY_ADD)                                   \
  const TileConfig config;                                             \
  asm volatile("" : : "r"(&config) : "memory");                        \
  _tile_loadconfig(&config);                                           \
  _tile_zero(0);                                                       \
  _tile_zero(1);                                                       \
  _tile_zero(2);                                                       \
  _tile_zero(3);                                                       \
  size_t at = 0;                                                       \
  for (size_t r = 0; r < rounds; ++r) {                                \
    const uint8_t* p = operands + at;                                  \
    at = (at + 3 * kTileBytes) % (kPeakOperandBytes - 4 * kTileBytes); \
    _tile_loadd(4, p, 64);                                             \
    _tile_loadd(6, p + 2 * kTileBytes, 64);                            \
    MULTIPLY_ADD(0, 4, 6);                                             \
    _tile_loadd(5, p + kTileBytes, 64);                                \
    MULTIPLY_ADD(1, 5, 6);                                             \
    _tile_loadd(7, p + 3 * kTileBytes, 64);                            \
    MULTIPLY_ADD(2, 4, 7);                                             \
    MULTIPLY_ADD(3, 5, 7);                                             \
  }                                                                    \
  alignas(64) uint8_t sums[4 * kTileBytes];                            \
  _tile_stored(0, sums, 64);                                           \
  _tile_stored(1, sums + kTileBytes, 64);                              \
  _tile_stored(2, sums + 2 * kTileBytes, 64);                          \
  _tile_stored(3, sums + 3 * kTileBytes, 64);                          \
  _tile_release();                                                     \
  asm volatile("" : : "r"(sums) : "memory");                           \
  *sink = Sum(sums, sizeof sums)

__attribute__((target("amx-tile,amx-int8"))) uint64_t AmxInt8(const uint8_t* operands,
                                                              size_t rounds, int32_t* sink) {
  LUTRA_AMX_LOOP(_tile_dpbssd);
  return Operations(rounds, 4 * 16 * 16, 64, 1);
}

__attribute__((target("amx-tile,amx-bf16"))) uint64_t AmxBf16(const uint8_t* operands,
                                                              size_t rounds, int32_t* sink) {
  LUTRA_AMX_LOOP(_tile_dpbf16ps);
  return Operations(rounds, 4 * 16 * 16, 64, 2);
}

constexpr PeakKernel kKernels[] = {
    {"avx2", "vpmaddubsw ymm", PeakKind::kInt8, [] { return __builtin_cpu_supports("avx2") != 0; },
     Avx2Int8},
    {"avx-vnni", "vpdpbusd ymm", PeakKind::kInt8,
     [] { return __builtin_cpu_supports("avx2") != 0 && CpuHasAvxVnni(); }, AvxVnniInt8},
    {"avx512", "vpmaddubsw zmm", PeakKind::kInt8,
     [] { return __builtin_cpu_supports("avx512bw") != 0; }, Avx512Int8},
    {"avx512-vnni", "vpdpbusd zmm", PeakKind::kInt8,
     [] {
       return __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
     },
     Avx512VnniInt8},
    {"amx-int8", "tdpbssd", PeakKind::kInt8, [] { return CpuAmx().int8 && RequestAmx(); }, AmxInt8},
    {"avx512-bf16", "vdpbf16ps zmm", PeakKind::kBf16,
     [] {
       return __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512bf16") != 0;
     },
     Avx512Bf16},
    {"amx-bf16", "tdpbf16ps", PeakKind::kBf16, [] { return CpuAmx().bf16 && RequestAmx(); },
     AmxBf16},
    {"avx2", "vfmadd ymm", PeakKind::kF32,
     [] { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; },
     Avx2F32},
    {"avx512", "vfmadd zmm", PeakKind::kF32, [] { return __builtin_cpu_supports("avx512f") != 0; },
     Avx512F32},
};

}  // namespace

std::span<const PeakKernel> PeakKernels() { return kKernels; }

}  // namespace lutra
#else
namespace lutra {
std::span<const PeakKernel> PeakKernels() { return {}; }
}  // namespace lutra
#endif
