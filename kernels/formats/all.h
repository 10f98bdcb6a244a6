// The list of formats: a listed format is packed, run, tested and benchmarked.
#pragma once

#include <tuple>

#include "kernels/formats/iq4_k.h"

namespace lutra {

template <class... Tuples>
using Concat = decltype(std::tuple_cat(std::declval<Tuples>()...));

using IqkFormats = std::tuple<Iq4K>;
using AllFormats = Concat<IqkFormats>;

// Calls f.template operator()<F>() for every format F of the tuple.
template <class Tuple, class Function>
constexpr void ForEachFormat(Function&& f) {
  [&]<class... F>(std::type_identity<std::tuple<F...>>) {
    (f.template operator()<F>(), ...);
  }(std::type_identity<Tuple>{});
}

}  // namespace lutra
