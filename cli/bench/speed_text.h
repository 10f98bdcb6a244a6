// How near the limit a generation was, in a few words for status lines.
#pragma once

#include <optional>
#include <string>

#include "cli/bench/roofline.h"
#include "models/batch.h"
#include "models/model.h"

namespace lutra::bench {

// "0.70 GB a token, 21.4 GB/s, 43 % of the limit" of n_tokens passes of one token from position first_pos on that took `seconds`;
// without limits the last part is left out; "" if there was nothing to time.
std::string DecodeSpeedText(const Model& model, const KvLayout& kv, size_t first_pos,
                            size_t n_tokens, double seconds, const std::optional<Roofline>& limits);

}  // namespace lutra::bench
