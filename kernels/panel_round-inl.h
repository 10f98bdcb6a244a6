// `--prefill fast`: a unit of 256 columns of a panel as int8 lanes with one scale a row instead of one per 16 or 32 columns. Not exact.
//   q = round(scale_g * lane * 127 / (top * kMagnitude)),   top = max |scale_g| of the row,   super' = super * top * kMagnitude / 127
// in fixed point: lane * 2^kUp times c_g = scale_g * 127 * 2^15 / (top * kMagnitude * 2^kUp), rounded to 15 bits.
#if defined(LUTRA_PANEL_ROUND_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_PANEL_ROUND_INL_H_
#undef LUTRA_PANEL_ROUND_INL_H_
#else
#define LUTRA_PANEL_ROUND_INL_H_
#endif

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/panel_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// Kinds with integer scales: the others have nothing to round.
constexpr bool CanRound(const PanelKind& k) {
  return kLanes == kPanelRows && k.unit == 256 && k.scale_bits != 0;
}

// put(quad, lanes) for the 64 quads of the unit with these fields: VI8, 4 lanes of each row. What the row's super-scale must be multiplied
// with is returned.
template <PanelKind kKind, class Put>
HWY_INLINE VF RoundUnit(const UnitFields<kKind>& f, const Table<kKind>& table, const Put& put) {
  static_assert(CanRound(kKind) && kKind.greatest - kKind.offset <= 127 && kKind.magnitude <= 128);
  const DI di;
  const DF df;
  const DI16 d16;
  constexpr size_t kGroupQuads = static_cast<size_t>(kKind.group) / 4;
  constexpr size_t kGroups = 256 / static_cast<size_t>(kKind.group);
  constexpr int kUp =
      std::bit_width(static_cast<unsigned>(126 / kKind.magnitude));  // kMagnitude * 2^kUp >= 127
  constexpr float kUnit = 127.0f / static_cast<float>(kKind.magnitude);
  VI top = hn::Set(di, 1);
  for (size_t g = 0; g < kGroups; ++g)
    top = hn::Max(top, hn::Abs(LoadScales<kKind, true>(f.scales, g, 0)));
  const VF top_scale = hn::ConvertTo(df, top);
  // Below 2^15 by its rounding's share, so that no c_g is 2^15.
  const VF per_scale =
      hn::Div(hn::Set(df, kUnit / static_cast<float>(1 << kUp) * 32767.0f), top_scale);
  const uint8_t* HWY_RESTRICT step = f.steps;
  for (size_t s = 0; s < kKind.steps(); ++s, step += kKind.step_bytes()) {
    VU8 shift[2];
    hn::Vec<DI16> c[2];
    LUTRA_UNROLL(2)
    for (size_t i = 0; i < 2; ++i) {
      const size_t g = (s * 8 + 4 * i) / kGroupQuads;
      shift[i] = ShiftLanes<kKind>(f.shifts, g, 0);
      const VI factor = hn::NearestInt(
          hn::Mul(hn::ConvertTo(df, LoadScales<kKind, true>(f.scales, g, 0)), per_scale));
      c[i] = hn::BitCast(d16, Pair(factor, factor));
    }
    const auto round = [&]<size_t kQuad>(std::integral_constant<size_t, kQuad>) HWY_ATTR {
      VU8 lanes = Quad<kKind, static_cast<int>(kQuad)>(step, table);
      if constexpr (kKind.shift != 0) lanes = hn::Add(lanes, shift[kQuad / 4]);
      if constexpr (kKind.offset != 0)
        lanes = hn::Sub(lanes, hn::Set(DU8(), static_cast<uint8_t>(kKind.offset)));
      const auto both = hn::BitCast(d16, lanes);
      const auto even = hn::ShiftRight<8 - kUp>(hn::ShiftLeft<8>(both));
      const auto odd = hn::ShiftLeft<kUp>(hn::ShiftRight<8>(both));
      const auto low_bytes = hn::Set(d16, int16_t{0xFF});
      const auto even_q = hn::MulFixedPoint15(even, c[kQuad / 4]);
      const auto odd_q = hn::ShiftLeft<8>(hn::MulFixedPoint15(odd, c[kQuad / 4]));
      put(s * 8 + kQuad, hn::BitCast(DI8(), hn::OrAnd(odd_q, even_q, low_bytes)));
    };
    [&]<size_t... kQuad>(std::index_sequence<kQuad...>) HWY_ATTR {
      (round(std::integral_constant<size_t, kQuad>{}), ...);
    }
    (std::make_index_sequence<8>{});
  }
  return hn::Mul(top_scale, hn::Set(df, 32768.0f / 32767.0f / kUnit));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_PANEL_ROUND_INL_H_
