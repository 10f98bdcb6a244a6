#include "kernels/roofline.h"

#include <cstring>
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/roofline.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

uint64_t StreamReadTarget(const uint8_t* HWY_RESTRICT data, size_t bytes) {
  const hn::ScalableTag<uint64_t> d;
  const size_t step = hn::Lanes(d) * 8;
  // Eight chains of one cache line each (or a part of one): addition never stalls, and the prefetcher sees one stream.
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  const uint64_t* p = reinterpret_cast<const uint64_t*>(data);
  const size_t n = hn::Lanes(d);
  for (size_t i = 0; i < bytes; i += 8 * step, p += 8 * n) {
    s0 = hn::Xor(s0, hn::Load(d, p));
    s1 = hn::Xor(s1, hn::Load(d, p + n));
    s2 = hn::Xor(s2, hn::Load(d, p + 2 * n));
    s3 = hn::Xor(s3, hn::Load(d, p + 3 * n));
    s4 = hn::Xor(s4, hn::Load(d, p + 4 * n));
    s5 = hn::Xor(s5, hn::Load(d, p + 5 * n));
    s6 = hn::Xor(s6, hn::Load(d, p + 6 * n));
    s7 = hn::Xor(s7, hn::Load(d, p + 7 * n));
  }
  s0 =
      hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  return hn::ReduceSum(d, s0);
}

}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {

HWY_EXPORT(StreamReadTarget);

uint64_t StreamRead(const uint8_t* data, size_t bytes) {
  return HWY_DYNAMIC_DISPATCH(StreamReadTarget)(data, bytes);
}

uint64_t ClockChain(uint64_t cycles) {
  // Rotate and exclusive-or: one cycle each, and neither is done away with at renaming as moves and small additions are.
  uint64_t x = 0x9E3779B97F4A7C15u;
  for (uint64_t i = 0; i < cycles; i += 32) {
    for (int k = 0; k < 16; ++k) {
      x = (x << 7 | x >> 57);
      asm volatile("" : "+r"(x));
      x ^= i;
      asm volatile("" : "+r"(x));
    }
  }
  return x;
}

void FillPeakOperands(PeakKind kind, uint64_t seed, uint8_t* operands) {
  uint64_t state = seed;
  const auto next = [&] {  // xorshift64* (Vigna 2016)
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1Du;
  };
  if (state == 0) state = 1;
  for (size_t i = 0; i < kPeakOperandBytes; i += 8) {
    uint64_t v = next();
    // Magnitudes within [2^-8, 2), any sign: sums stay finite.
    if (kind == PeakKind::kBf16) v = (v & 0x83FF83FF83FF83FFu) | 0x3C003C003C003C00u;
    if (kind == PeakKind::kF32) v = (v & 0x83FFFFFF83FFFFFFu) | 0x3C0000003C000000u;
    std::memcpy(operands + i, &v, 8);
  }
}

}  // namespace lutra
#endif  // HWY_ONCE
