// Small loops that run at the machine's limits: what instruction sets can multiply and what memory can deliver. All work on
// random data that changes from step to step (constant operands overstate matrix units: AMX by a quarter, as fewer bits switch).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lutra {

enum class PeakKind { kInt8, kBf16, kF32 };

// Multiply-adds of one instruction set, in the tile shape of a matrix product whose operands lie in the L1 cache.
struct PeakKernel {
  const char* name;         // "avx512 vnni"
  const char* instruction;  // "vpdpbusd zmm"
  PeakKind kind;
  bool (*available)();  // this CPU has it and this process may use it
  // Runs `rounds` rounds on operands [kPeakOperandBytes] (64-byte aligned, random; for the float kinds finite numbers of that
  // type). Returns the operations done, two a multiply-add. *sink depends on all of them.
  uint64_t (*run)(const uint8_t* operands, size_t rounds, int32_t* sink);
};
inline constexpr size_t kPeakOperandBytes = 16384;

// Weakest first within a kind. Empty on CPUs this file has no loops for.
std::span<const PeakKernel> PeakKernels();

// Fills operands for a kind.
void FillPeakOperands(PeakKind kind, uint64_t seed, uint8_t* operands);

// Reads [bytes] with the widest loads of the SIMD target in use, several streams at once. `data` is 64-byte aligned, bytes a
// multiple of 4096. The result depends on all of them.
uint64_t StreamRead(const uint8_t* data, size_t bytes);

// Cycles of the core's clock that the loop takes: a chain of one-cycle operations.
uint64_t ClockChain(uint64_t cycles);

}  // namespace lutra
