#include "cli/bench/speed_text.h"

#include "kernels/base/error.h"
#include "models/work.h"

namespace lutra::bench {

std::string DecodeSpeedText(const Model& model, const KvLayout& kv, size_t first_pos,
                            size_t n_tokens, double seconds,
                            const std::optional<Roofline>& limits) {
  if (n_tokens == 0 || seconds <= 0) return "";
  Work work;
  for (size_t i = 0; i < n_tokens; ++i) work += WorkOfPass(model, kv, first_pos + i, 1, 1);
  const double per_token = work.bytes() / static_cast<double>(n_tokens);
  std::string text = per_token < 1e8 ? Format("%.1f MB a token", per_token / 1e6)
                                     : Format("%.2f GB a token", per_token / 1e9);
  text += Format(", %.1f GB/s", work.bytes() / seconds / 1e9);
  if (limits) text += Format(", %.0f %% of the limit", 100 * LeastSeconds(work, *limits) / seconds);
  return text;
}

}  // namespace lutra::bench
