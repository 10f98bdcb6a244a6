// The list of formats: a listed format is packed, run, tested and benchmarked.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/formats/iq1_bn.h"
#include "kernels/formats/iq1_kt.h"
#include "kernels/formats/iq1_m.h"
#include "kernels/formats/iq1_s.h"
#include "kernels/formats/iq2_bn.h"
#include "kernels/formats/iq2_k.h"
#include "kernels/formats/iq2_kl.h"
#include "kernels/formats/iq2_ks.h"
#include "kernels/formats/iq2_kt.h"
#include "kernels/formats/iq2_s.h"
#include "kernels/formats/iq2_xs.h"
#include "kernels/formats/iq2_xxs.h"
#include "kernels/formats/iq3_k.h"
#include "kernels/formats/iq3_ks.h"
#include "kernels/formats/iq3_kt.h"
#include "kernels/formats/iq3_s.h"
#include "kernels/formats/iq3_xxs.h"
#include "kernels/formats/iq4_k.h"
#include "kernels/formats/iq4_ks.h"
#include "kernels/formats/iq4_kss.h"
#include "kernels/formats/iq4_kt.h"
#include "kernels/formats/iq4_nl.h"
#include "kernels/formats/iq4_xs.h"
#include "kernels/formats/iq5_k.h"
#include "kernels/formats/iq5_ks.h"
#include "kernels/formats/iq6_k.h"
#include "kernels/formats/mxfp4.h"
#include "kernels/formats/q2_k.h"
#include "kernels/formats/q3_k.h"
#include "kernels/formats/q4_0.h"
#include "kernels/formats/q4_1.h"
#include "kernels/formats/q4_k.h"
#include "kernels/formats/q5_0.h"
#include "kernels/formats/q5_1.h"
#include "kernels/formats/q5_k.h"
#include "kernels/formats/q6_0.h"
#include "kernels/formats/q6_k.h"
#include "kernels/formats/q8_0.h"
#include "kernels/formats/tq1_0.h"
#include "kernels/formats/tq2_0.h"

namespace lutra {

template <class... Tuples>
using Concat = decltype(std::tuple_cat(std::declval<Tuples>()...));

using LegacyFormats = std::tuple<Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q6_0, Iq4Nl, Mxfp4>;
using KFormats = std::tuple<Q2K, Q3K, Q4K, Q5K, Q6K>;
using IqkFormats =
    std::tuple<Iq4Xs, Iq2K, Iq2Ks, Iq2Kl, Iq3K, Iq3Ks, Iq4K, Iq4Ks, Iq4Kss, Iq5K, Iq5Ks, Iq6K>;
using CodebookFormats = std::tuple<Iq1S, Iq1M, Iq2Xxs, Iq2Xs, Iq2S, Iq3Xxs, Iq3S>;
using TrellisFormats = std::tuple<Iq1Kt, Iq2Kt, Iq3Kt, Iq4Kt>;
using TernaryFormats = std::tuple<Tq1_0, Tq2_0, Iq1Bn, Iq2Bn>;
using AllFormats =
    Concat<LegacyFormats, KFormats, IqkFormats, CodebookFormats, TrellisFormats, TernaryFormats>;

// Calls f.template operator()<F>() for every format F of the tuple.
template <class Tuple, class Function>
constexpr void ForEachFormat(Function&& f) {
  [&]<class... F>(std::type_identity<std::tuple<F...>>) {
    (f.template operator()<F>(), ...);
  }(std::type_identity<Tuple>{});
}

}  // namespace lutra
