#include "engine/session.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace lutra {

Session::Session(Engine& engine) : engine_(engine), n_ctx_(engine.n_ctx()) {
  const size_t page_bytes = engine.decoder().kv_layout().page_bytes();
  const size_t n_pages = (n_ctx_ + kKvPage - 1) / kKvPage;
  memory_ = AlignedArray<uint8_t>(n_pages * page_bytes);
  for (size_t p = 0; p < n_pages; ++p) pages_.push_back(memory_.data() + p * page_bytes);
  tokens_.reserve(n_ctx_);
  batch_.reserve(engine.decoder().max_tokens());
}

std::span<const float> Session::Feed(std::span<const int32_t> tokens,
                                     const FeedProgress& progress) {
  LUTRA_CHECK(!tokens.empty());
  if (tokens.size() > n_ctx_ - tokens_.size()) {
    Fail(ErrorCode::kResourceExhausted,
         "the context of %u tokens is full: it holds %zu and %zu more were given; use a longer "
         "context (-c) or a "
         "shorter text",
         n_ctx_, tokens_.size(), tokens.size());
  }
  size_t done = 0;
  while (done < tokens.size()) {
    const size_t n = std::min(tokens.size() - done, engine_.decoder().max_tokens());
    batch_.clear();
    for (size_t i = 0; i < n; ++i) {
      batch_.push_back({tokens[done + i], static_cast<int32_t>(tokens_.size() + i), pages_.data(),
                        done + i + 1 == tokens.size()});
    }
    engine_.decoder().Forward(batch_);
    tokens_.insert(tokens_.end(), tokens.begin() + static_cast<ptrdiff_t>(done),
                   tokens.begin() + static_cast<ptrdiff_t>(done + n));
    done += n;
    if (progress && !progress(done, tokens.size()) && done < tokens.size()) {
      Fail(ErrorCode::kCancelled, "stopped after %zu of %zu prompt tokens", done, tokens.size());
    }
  }
  return engine_.decoder().logits(0);
}

void Session::Truncate(size_t n) {
  LUTRA_CHECK(n <= tokens_.size());
  tokens_.resize(n);
}

size_t Session::CommonPrefix(std::span<const int32_t> tokens) const {
  const auto [a, b] = std::mismatch(tokens_.begin(), tokens_.end(), tokens.begin(), tokens.end());
  (void)b;
  return static_cast<size_t>(a - tokens_.begin());
}

}  // namespace lutra
