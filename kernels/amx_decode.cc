// Panels (kernels/panel.h) to what tiles multiply (kernels/amx_matmul.h), per format; for the one target that machines with AMX have.
//
// Instructions per 64 weights beside kernels/panel_decode-inl.h: two planes 11 (widen 2, offset 2, multiply 2, split and join 5) and 2
// stores; one plane without scales 1 and a store; rounded (`--prefill fast`) 10 and a store.
#include "kernels/amx_matmul.h"
#include "kernels/formats/all.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/amx_decode.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/panel_round-inl.h"  // for every target: its guard counts them

#if HWY_TARGET == HWY_AVX3_DL
#include <hwy/cache_control.h>

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
namespace {

// kFast: rounded (panel_round-inl.h), one plane.
template <PanelKind kKind, bool kFast>
void Decode(const uint8_t* HWY_RESTRICT panel, const uint8_t* HWY_RESTRICT table_bytes,
            size_t block, size_t n_units, AmxBlock& HWY_RESTRICT to) {
  static_assert(kLanes == kPanelRows);
  constexpr size_t kPlanes = kFast || FitsInt8(kKind) ? 1 : 2;
  static_assert(kKind.unit == 256 || kPlanes == 1);
  constexpr size_t kStepQuads = kKind.unit == 256 ? 16 : 8;
  constexpr size_t kUnits = 256 / static_cast<size_t>(kKind.unit);
  constexpr size_t kGroupQuads = static_cast<size_t>(kKind.group) / 4;
  const DI di;
  const DF df;
  const DU8 d8;
  const DU16 du16;
  const DI16 d16;
  const Table<kKind> table(table_bytes);
  const uint8_t* HWY_RESTRICT p =
      panel + kKind.panel_header_bytes() + block * kUnits * kKind.unit_bytes();
  for (size_t u = 0; u < n_units; ++u, p += kKind.unit_bytes()) {
    const UnitFields<kKind> f(p);
    // The next block of the panel, while this one is multiplied.
    for (size_t i = 0; i < kKind.unit_bytes(); i += 64)
      hwy::Prefetch(p + kUnits * kKind.unit_bytes() + i);
    VF super;
    if constexpr (kKind.super == SuperKind::kRow) {
      super = LoadSupers<SuperKind::kF32>(panel, 0);
    } else {
      super = LoadSupers<kKind.super>(f.supers, 0);
    }
    hn::Store(super, df, to.supers[u]);
    if constexpr (kKind.bias) {
      hn::Store(LoadSupers<SuperKind::kF16>(f.bias_supers, 0), df, to.bias_supers[u]);
      constexpr size_t kPairs = static_cast<size_t>(kKind.unit) / 32;
      for (size_t pair = 0; pair < kPairs; ++pair) {
        VI first = hn::Set(di, 1);
        VI second = first;
        if constexpr (kKind.scale_bits != 0) {
          first = LoadScales<kKind, false>(f.biases, pair * 8 / kGroupQuads, 0);
          second = LoadScales<kKind, false>(f.biases, (pair * 8 + 4) / kGroupQuads, 0);
        }
        hn::Store(hn::Or(hn::ShiftLeft<16>(second), first), di,
                  reinterpret_cast<int32_t*>(to.biases[u * kPairs + pair]));
      }
    }
    if constexpr (kFast) {
      const VF factor = RoundUnit<kKind>(f, table, [&](size_t quad, VI8 lanes) HWY_ATTR {
        hn::Store(hn::BitCast(d8, lanes), d8, to.tiles + 64 * quad);
      });
      hn::Store(hn::Mul(super, factor), df, to.supers[u]);
      continue;
    }
    const uint8_t* HWY_RESTRICT step = f.steps;
    for (size_t s = 0; s < kKind.steps(); ++s, step += kKind.step_bytes()) {
      VU8 shift[2];
      VI scale[2];
      LUTRA_UNROLL(2)
      for (size_t i = 0; i < 2; ++i) {
        const size_t g = (s * 8 + 4 * i) / kGroupQuads;
        shift[i] = ShiftLanes<kKind>(f.shifts, g, 0);
        scale[i] = hn::Zero(di);
        if constexpr (kKind.scale_bits != 0) {
          scale[i] = LoadScales<kKind, true>(f.scales, g, 0);
          scale[i] = hn::Or(hn::ShiftLeft<16>(scale[i]), hn::And(scale[i], hn::Set(di, 0xFFFF)));
        }
      }
      const auto put = [&]<size_t kQuad>(std::integral_constant<size_t, kQuad>) HWY_ATTR {
        const size_t quad = (u * kKind.steps() + s) * 8 + kQuad;
        uint8_t* at =
            to.tiles + (quad / kStepQuads * kPlanes * kStepQuads + quad % kStepQuads) * 64;
        VU8 lanes = Quad<kKind, static_cast<int>(kQuad)>(step, table);
        if constexpr (kKind.shift != 0) lanes = hn::Add(lanes, shift[kQuad / 4]);
        if constexpr (kKind.scale_bits == 0) {
          if constexpr (kKind.offset != 0)
            lanes = hn::Sub(lanes, hn::Set(d8, static_cast<uint8_t>(kKind.offset)));
          hn::Store(lanes, d8, at);
        } else {
          const auto low_bytes = hn::Set(du16, uint16_t{0xFF});
          const auto both = hn::BitCast(du16, lanes);
          const auto word = [&](auto v) HWY_ATTR {
            auto w = hn::BitCast(d16, v);
            if constexpr (kKind.offset != 0)
              w = hn::Sub(w, hn::Set(d16, static_cast<int16_t>(kKind.offset)));
            return hn::BitCast(du16, hn::Mul(w, hn::BitCast(d16, scale[kQuad / 4])));
          };
          const auto even = word(hn::And(both, low_bytes));
          const auto odd = word(hn::ShiftRight<8>(both));
          const auto low = hn::BitCast(d8, hn::OrAnd(hn::ShiftLeft<8>(odd), even, low_bytes));
          if constexpr (kPlanes == 1) {
            hn::Store(low, d8, at);
          } else {
            hn::Store(hn::BitCast(d8, hn::IfVecThenElse(low_bytes, hn::ShiftRight<8>(even), odd)),
                      d8, at);
            hn::Store(low, d8, at + kStepQuads * 64);
          }
        }
      };
      [&]<size_t... kQuad>(std::index_sequence<kQuad...>) HWY_ATTR {
        (put(std::integral_constant<size_t, kQuad>{}), ...);
      }
      (std::make_index_sequence<8>{});
    }
  }
}

template <PanelKind kKind, bool kEmulated>
void MatMul(const PanelMatrix& w, const Q8View& x, size_t panel_begin, size_t panel_end, float* y,
            size_t y_stride) {
  constexpr auto kMatMul = kEmulated ? AmxMatMulEmulated : AmxMatMul;
  static constexpr AmxFormat kFormat{FitsInt8(kKind) ? 1 : 2, kKind.unit, kKind.bias,
                                     &Decode<kKind, false>};
  if constexpr (CanRound(kKind) && !FitsInt8(kKind)) {
    static constexpr AmxFormat kRounded{1, kKind.unit, kKind.bias, &Decode<kKind, true>};
    if (x.fast && x.n_tokens > kMostExactTokens)
      return kMatMul(kRounded, w, x, panel_begin, panel_end, y, y_stride);
  }
  kMatMul(kFormat, w, x, panel_begin, panel_end, y, y_stride);
}

}  // namespace

PanelMatMulFn FindAmxTarget(uint32_t type_id, bool emulated) {
  PanelMatMulFn found = nullptr;
  ForEachFormat<AllFormats>([&]<class F>() {
    if (F::kInfo.type_id == type_id)
      found = emulated ? &MatMul<KindOf<F>(), true> : &MatMul<KindOf<F>(), false>;
  });
  return found;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET == HWY_AVX3_DL

#if HWY_ONCE
namespace lutra {

PanelMatMulFn FindAmxPanelMatMul([[maybe_unused]] uint32_t type_id,
                                 [[maybe_unused]] bool emulated) {
#if HWY_ARCH_X86_64 && (HWY_TARGETS & HWY_AVX3_DL)
  return N_AVX3_DL::FindAmxTarget(type_id, emulated);
#else
  return nullptr;
#endif
}

}  // namespace lutra
#endif  // HWY_ONCE
