#include "engine/sequence.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/base/error.h"

namespace lutra {
namespace {

double Seconds(Sequence::Clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

Sequence::Sequence(const Engine& engine, SequenceRequest r)
    : request(std::move(r)),
      submitted(Clock::now()),
      engine_(engine),
      texts_(engine.tokenizer()),
      decoder_(engine.tokenizer(), request.special, request.rendered),
      stops_(request.stop) {
  if (request.prompt.empty()) lutra::Fail(ErrorCode::kInvalidArgument, "the prompt is empty");
  const uint32_t n_vocab =
      std::min(engine.hparams().n_vocab, static_cast<uint32_t>(engine.tokenizer().n_vocab()));
  for (const int32_t token : request.prompt) {
    if (token < 0 || static_cast<uint32_t>(token) >= n_vocab) {
      lutra::Fail(ErrorCode::kInvalidArgument, "token %d is outside the vocabulary of %u tokens",
                  token, n_vocab);
    }
  }
  if (request.prompt.size() > engine.n_ctx()) {
    lutra::Fail(ErrorCode::kResourceExhausted,
                "the prompt has %zu tokens, more than the context of %u", request.prompt.size(),
                engine.n_ctx());
  }
  if (!request.embed) {
    sampler_ = std::make_unique<Sampler>(request.sampling, &texts_, engine.hparams().n_vocab);
    for (const int32_t token : request.prompt) sampler_->Accept(token);
    stats.seed = sampler_->seed();
  }
  stream->SetNotify(request.on_event);
  tokens = request.prompt;
  stats.prompt_tokens = tokens.size();
  page_data.reserve((engine.n_ctx() + kKvPage - 1) / kKvPage);
  if (request.prompt_logprobs) {
    LogprobEntry first;
    first.token = {tokens[0], std::numeric_limits<float>::quiet_NaN()};
    first.bytes = Bytes(tokens[0]);
    event_.prompt_logprobs.push_back(std::move(first));
  }
}

LogprobEntry Sequence::Entry(std::span<const float> logits, int32_t token) const {
  LogprobEntry entry;
  const double sum = LogSumExp(logits);
  entry.token = LogprobOf(logits, sum, token);
  std::vector<TokenLogprob> top(static_cast<size_t>(std::max(request.top_logprobs, 0)));
  top.resize(TopLogprobs(logits, sum, top));
  for (const TokenLogprob& t : top) entry.top.push_back({t.id, t.logprob, Bytes(t.id)});
  entry.bytes = Bytes(token);
  return entry;
}

// Models may have more rows of logits than their vocabulary has tokens.
std::string Sequence::Bytes(int32_t token) const {
  return engine_.tokenizer().IsValid(token) ? engine_.tokenizer().TokenToPiece(token, true) : "";
}

void Sequence::AddPromptLogprob(std::span<const float> logits, size_t pos) {
  if (pos + 1 < request.prompt.size())
    event_.prompt_logprobs.push_back(Entry(logits, request.prompt[pos + 1]));
}

void Sequence::AddHidden(std::span<const float> hidden) {
  if (request.embed_last || hidden_sum_.empty()) hidden_sum_.assign(hidden.size(), 0.0);
  for (size_t i = 0; i < hidden.size(); ++i) hidden_sum_[i] += static_cast<double>(hidden[i]);
}

void Sequence::FinishEmbedding() {
  double square = 0;
  for (const double x : hidden_sum_) square += x * x;
  const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
  for (const double x : hidden_sum_) event_.embedding.push_back(static_cast<float>(x * scale));
  Finish(FinishReason::kStop);
}

void Sequence::TakeText(std::string_view text) {
  event_.text.append(text);
  shown_ += text.size();
  // Tokens are shown when the first byte of their text is (those without text, with what comes before).
  size_t n = 0;
  while (n < held_.size() &&
         (held_begin_[n] < shown_ || (finished && held_begin_[n] <= shown_ && !stops_.stopped())))
    ++n;
  std::move(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(n),
            std::back_inserter(event_.logprobs));
  held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(n));
  held_begin_.erase(held_begin_.begin(), held_begin_.begin() + static_cast<ptrdiff_t>(n));
}

void Sequence::Append(int32_t token, std::span<const float> logits) {
  sampler_->Accept(token);
  if (request.constraint != nullptr) request.constraint->Accept(token);
  if (stats.completion_tokens == 0) {
    first_token = Clock::now();
    stats.prompt_seconds = Seconds(first_token - admitted);
  }
  ++stats.completion_tokens;
  ++event_.n_tokens;
  if (engine_.tokenizer().IsEog(token)) {
    Finish(FinishReason::kStop);
    return;
  }
  tokens.push_back(token);
  pieces_.clear();
  const size_t before = decoder_.held_bytes();
  decoder_.Append(token, &pieces_);
  if (request.top_logprobs >= 0) {
    held_.push_back(logits.empty() ? LogprobEntry{{token, 0.0f}, {}, Bytes(token)}
                                   : Entry(logits, token));
    held_begin_.push_back(held_end_ + before);
  }
  held_end_ += pieces_.size();
  TakeText(stops_.Feed(pieces_));
  if (stops_.stopped()) {
    event_.stop_text = request.stop[static_cast<size_t>(stops_.stop_index())];
    Finish(FinishReason::kStop);
  } else if (request.constraint != nullptr && request.constraint->done()) {
    Finish(FinishReason::kStop);
  } else if (stats.completion_tokens >= request.max_tokens) {
    Finish(FinishReason::kLength);
  } else if (tokens.size() > engine_.n_ctx()) {
    Finish(FinishReason::kContextFull);
  }
}

void Sequence::Draw(std::span<const float> logits) {
  try {
    if (request.constraint != nullptr && request.constraint->active()) {
      // Most draws are allowed: the mask is made only for those that are not.
      int32_t token = sampler_->Sample(logits);
      if (!request.constraint->Allows(token))
        token = sampler_->Sample(logits, &request.constraint->Mask());
      Append(token, logits);
    } else {
      Append(sampler_->Sample(logits), logits);
    }
    while (!finished && request.constraint != nullptr && request.constraint->active()) {
      const std::vector<int32_t> forced = request.constraint->Forced();
      if (forced.empty()) break;
      for (const int32_t token : forced) {
        if (finished) break;
        ++stats.forced_tokens;
        Append(token, {});
      }
    }
  } catch (...) {
    Fail(std::current_exception());
  }
}

void Sequence::Finish(FinishReason reason) {
  if (finished) return;
  finished = true;
  if (!request.embed && !stops_.stopped() && reason != FinishReason::kCancelled) {
    pieces_.clear();
    decoder_.Flush(&pieces_);
    std::string rest(stops_.Feed(pieces_));
    if (!stops_.stopped()) rest += stops_.Finish();
    TakeText(rest);
  }
  event_.finished = true;
  event_.finish = reason;
  const Clock::time_point now = Clock::now();
  if (stats.completion_tokens > 0) {
    stats.decode_seconds = Seconds(now - first_token);
  } else {
    stats.prompt_seconds = Seconds(now - admitted);
  }
  event_.stats = stats;
}

void Sequence::Fail(std::exception_ptr error) {
  finished = failed = true;
  event_.finished = true;
  event_.error = error;
  event_.stats = stats;
}

void Sequence::Flush() {
  // An event without news waits for the next: the text is held back. The prompt's log probabilities go with the first token.
  if (!event_.finished && event_.text.empty() && event_.logprobs.empty()) return;
  event_.stats = stats;
  stream->Push(std::move(event_));
  event_ = SequenceEvent();
}

}  // namespace lutra
