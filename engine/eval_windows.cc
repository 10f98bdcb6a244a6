#include "engine/eval_windows.h"

#include <algorithm>
#include <cinttypes>

#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace lutra {

std::vector<int32_t> EvalTokens(const Tokenizer& tokenizer, std::string_view text,
                                bool parse_special) {
  std::vector<int32_t> ids = tokenizer.Encode(text, true, parse_special);
  if (tokenizer.add_eos() && !ids.empty() && ids.back() == tokenizer.eos()) ids.pop_back();
  return ids;
}

EvalWindows::EvalWindows(std::vector<int32_t> tokens, int32_t bos, const EvalOptions& options)
    : tokens_(std::move(tokens)), bos_(options.stride == 0 ? bos : kNoToken) {
  if (options.n_ctx < 4 || options.n_ctx > kMaxContext) {
    Fail(ErrorCode::kInvalidArgument,
         "context: %u is out of range; measuring takes 4 to %u tokens a window", options.n_ctx,
         kMaxContext);
  }
  if (options.stride >= options.n_ctx) {
    Fail(ErrorCode::kInvalidArgument,
         "stride: %u is out of range; it takes less than the context of %u", options.stride,
         options.n_ctx);
  }
  n_ctx_ = options.n_ctx;
  step_ = options.stride == 0 ? n_ctx_ : options.stride;
  scored_begin_ = options.stride == 0 ? n_ctx_ / 2 : n_ctx_ - options.stride - 1;
  const size_t n = tokens_.size();
  if (options.stride == 0) {
    n_windows_ = n / n_ctx_;
  } else {
    n_windows_ = n > n_ctx_ ? (n - n_ctx_ + step_ - 1) / step_ : 0;
  }
  if (n_windows_ == 0) {
    Fail(ErrorCode::kInvalidArgument,
         "the text has %zu tokens, which do not fill one window of %u: give a longer text or a "
         "shorter context (-c)",
         n, n_ctx_);
  }
  if (options.skip_windows >= n_windows_) {
    Fail(ErrorCode::kInvalidArgument,
         "the text has %zu chunks: nothing is left after skipping %" PRIu64, n_windows_,
         options.skip_windows);
  }
  tokens_.erase(tokens_.begin(),
                tokens_.begin() + static_cast<ptrdiff_t>(options.skip_windows * step_));
  n_windows_ -= options.skip_windows;
  if (options.max_windows >= 0)
    n_windows_ = std::min(n_windows_, static_cast<size_t>(options.max_windows));
  if (n_windows_ == 0) Fail(ErrorCode::kInvalidArgument, "chunks: 0 leaves nothing to measure");
}

EvalWindows EvalWindows::FromText(const Tokenizer& tokenizer, std::string_view text,
                                  const EvalOptions& options, bool parse_special) {
  return EvalWindows(EvalTokens(tokenizer, text, parse_special),
                     tokenizer.add_bos() ? tokenizer.bos() : kNoToken, options);
}

void EvalWindows::Get(size_t i, std::vector<int32_t>* ids) const {
  LUTRA_CHECK(i < n_windows_);
  const auto begin = tokens_.begin() + static_cast<ptrdiff_t>(i * step_);
  ids->assign(begin, begin + n_ctx_);
  if (bos_ != kNoToken) ids->front() = bos_;
}

EngineOptions ForEvaluation(EngineOptions options, uint32_t n_ctx) {
  options.n_ctx = n_ctx;
  options.batch_tokens = std::min(options.batch_tokens, n_ctx);
  options.batch_logits = options.batch_tokens;
  options.batch_logits_bytes = kEvalLogitsBytes;
  return options;
}

WindowRunner::WindowRunner(Engine& engine, uint32_t n_ctx)
    : engine_(engine), decoder_(&engine.decoder()) {
  MakePages(n_ctx);
}

WindowRunner::WindowRunner(Engine& engine, uint32_t n_ctx, KvType kv_type)
    : engine_(engine),
      own_decoder_(std::make_unique<Decoder>(engine.model(), engine.pool(), kv_type,
                                             engine.decoder().max_tokens(),
                                             engine.decoder().max_logits())),
      decoder_(own_decoder_.get()) {
  MakePages(n_ctx);
}

void WindowRunner::MakePages(uint32_t n_ctx) {
  const size_t page_bytes = decoder_->kv_layout().page_bytes();
  const size_t n_pages = (n_ctx + kKvPage - 1) / kKvPage;
  memory_ = AlignedArray<uint8_t>(n_pages * page_bytes);
  for (size_t p = 0; p < n_pages; ++p) pages_.push_back(memory_.data() + p * page_bytes);
  batch_.reserve(decoder_->max_tokens());
}

void WindowRunner::Forward(std::span<const int32_t> ids, size_t pos, size_t logits_begin,
                           size_t logits_end) {
  LUTRA_CHECK((pos + ids.size() + kKvPage - 1) / kKvPage <= pages_.size());
  batch_.clear();
  for (size_t i = 0; i < ids.size(); ++i) {
    const size_t at = pos + i;
    batch_.push_back(
        {ids[i], static_cast<int32_t>(at), pages_.data(), at >= logits_begin && at < logits_end});
  }
  decoder_->Forward(batch_);
}

namespace {

void RunWindow(std::span<WindowRunner* const> runners, std::span<const int32_t> ids,
               size_t logits_begin, size_t logits_end,
               FunctionRef<void(size_t pos, size_t n)> scored) {
  size_t max_tokens = ids.size(), max_logits = ids.size();
  for (const WindowRunner* r : runners) {
    max_tokens = std::min(max_tokens, r->decoder().max_tokens());
    max_logits = std::min(max_logits, r->decoder().max_logits());
  }
  LUTRA_CHECK(max_tokens >= 1 && max_logits >= 1);
  logits_end = std::min(logits_end, ids.size());
  for (size_t pos = 0; pos < ids.size();) {
    size_t end = std::min(ids.size(), pos + max_tokens);
    const size_t first = std::max(pos, logits_begin);
    if (first < logits_end && end > first)
      end = std::min(end, std::max(first + max_logits, pos + 1));
    for (WindowRunner* r : runners)
      r->Forward(ids.subspan(pos, end - pos), pos, logits_begin, logits_end);
    const size_t last = std::min(end, logits_end);
    if (last > first) scored(first, last - first);
    pos = end;
  }
}

}  // namespace

bool RunWindows(std::span<WindowRunner* const> runners, const EvalWindows& windows,
                const WindowPass& pass,
                FunctionRef<void(size_t window, size_t pos, size_t n)> scored,
                FunctionRef<bool(size_t window)> finished) {
  std::vector<int32_t> ids;
  for (size_t w = 0; w < windows.size(); ++w) {
    windows.Get(w, &ids);
    ids.resize(pass.end);
    RunWindow(runners, ids, pass.logits_begin, pass.logits_end,
              [&](size_t pos, size_t n) { scored(w, pos, n); });
    if (!finished(w) && w + 1 < windows.size()) return false;
  }
  return true;
}

}  // namespace lutra
