// Keys and values of one KV head inside a page of the cache: where they lie, and how a position is stored.
//
// A page holds kKvPage consecutive positions of every layer and KV head. The layout of one head's part serves the products of
// attention.h, which read it from begin to end: scores with lanes = positions, weighted sums with lanes = dimensions, so that no
// product needs a sum across lanes. It is the same on every SIMD target.
//   f32, f16  K [2, head_dim_k, 64] (64 positions beside each other), V [kKvPage, v_width]
//   q8        K [2, head_dim_k / 4, 64, 4] as k + 128, V in blocks of 64 columns [kKvPage / 4, columns, 4 positions] as int8,
//             K scales [kKvPage], V scales [kKvPage], bf16
// with v_width = head_dim_v rounded up to 16 and head_dim_k / 4 rounded up.
//
// q8 is the integer cache: a row of a head has one scale, so a position of a head of 64 takes 132 bytes instead of 256 (f16).
// Keys (and queries, in attention.cc) go through a Hadamard transform first, which leaves their dot products as they are and
// spreads outliers (biases of Qwen2's keys) over the row: see HadamardRow. Sources: QuaRot, Ashkboos et al. 2024; KIVI, Liu et
// al. 2024, on outliers in keys.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra {

inline constexpr size_t kKvPage = 128;  // positions a page
inline constexpr size_t kMaxKvHeadDim = 1024;

enum class KvType { kF32, kF16, kQ8 };

// Offsets in bytes inside one KV head's part of a page. The part is a multiple of 64 bytes.
struct KvHeadLayout {
  KvHeadLayout(KvType type, size_t head_dim_k, size_t head_dim_v);

  KvType type;
  size_t dk, dv;              // head sizes, 1 to kMaxKvHeadDim
  size_t v_width;             // columns of V as stored: dv rounded up to 16
  size_t v;                   // where V begins; K is at 0
  size_t k_scales, v_scales;  // q8 only
  size_t bytes;

  // q8: the first byte of V's columns [c, ...), c % 64 == 0, and how many columns that block has.
  size_t v_columns(size_t c) const { return v + c * kKvPage; }
  size_t block_columns(size_t c) const { return v_width - c < 64 ? v_width - c : 64; }
};

// The block that HadamardRow transforms: the largest power of two that divides n.
constexpr size_t HadamardBlock(size_t n) { return n & (~n + 1); }

// In place, each block of HadamardBlock(n) on its own: x <- H x with H of +-1, not normalised (H H = block * identity). Butterflies
// (a, b) -> (a + b, a - b) over distances 1, 2, 4 ...: the same bits on every target. Sylvester's construction.
void HadamardRow(float* x, size_t n);

// Stores position `at` (0 to kKvPage - 1) of one head: k [dk], v [dv], both unchanged. `head` is the head's part of the page,
// aligned to 64 bytes. Other positions are not touched, so several threads may store different positions.
// q8, for K after HadamardRow and for V: scale = max|x| / 127 rounded up to bf16, q = x * (1 / scale) rounded half to even; 0 and
// zeros below max|x| = 2^-100. A row with NaN or infinity gets a NaN scale: whatever attends to it becomes NaN. The scalar
// definition is in attention_exact.h. Never throws.
void StoreKv(const KvHeadLayout& layout, size_t at, const float* k, const float* v, uint8_t* head);

// q8 [n] = x / scale to nearest, scale = max|x| / 127 exactly as float, for queries; the same special cases. Returns the scale.
float QuantizeHeadRow(const float* x, size_t n, int8_t* q8);

}  // namespace lutra
