#include "engine/generate.h"

#include <algorithm>
#include <chrono>

#include "engine/sampler.h"
#include "engine/stop.h"
#include "engine/tokenizer_texts.h"
#include "kernels/base/error.h"

namespace lutra {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContextFull:
      return "context_full";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "stop";
}

double Generation::prompt_rate() const {
  const double n = static_cast<double>(prompt_tokens - cached_tokens);
  return prompt_seconds > 0 ? n / prompt_seconds : 0;
}

double Generation::decode_rate() const {
  // The first token comes with the prompt.
  return decode_seconds > 0 && tokens.size() > 1
             ? static_cast<double>(tokens.size() - 1) / decode_seconds
             : 0;
}

Generation Generate(Engine& engine, Session& session, std::span<const int32_t> prompt,
                    const GenerateOptions& options) {
  const auto start = Clock::now();
  if (prompt.empty()) Fail(ErrorCode::kInvalidArgument, "the prompt is empty");
  if (prompt.size() > session.n_ctx()) {
    Fail(ErrorCode::kResourceExhausted,
         "the prompt has %zu tokens, more than the context of %u: shorten it or use a longer "
         "context (-c)",
         prompt.size(), session.n_ctx());
  }
  const Tokenizer& tokenizer = engine.tokenizer();
  const TokenizerTexts texts(tokenizer);
  Sampler sampler(options.sampling, &texts, engine.hparams().n_vocab);
  StreamDecoder decoder(tokenizer, options.special);
  StopFilter stops(options.stop);
  const auto cancelled = [&] { return options.cancel != nullptr && options.cancel->load(); };

  Generation out;
  out.seed = sampler.seed();
  out.prompt_tokens = prompt.size();
  // The last prompt token is always computed: its logits are wanted.
  out.cached_tokens = std::min(session.CommonPrefix(prompt), prompt.size() - 1);
  session.Truncate(out.cached_tokens);
  std::span<const float> logits;
  try {
    logits = session.Feed(prompt.subspan(out.cached_tokens), [&](size_t done, size_t total) {
      return !cancelled() && (!options.on_prompt || options.on_prompt(done, total));
    });
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kCancelled) throw;
    out.finish = FinishReason::kCancelled;
    return out;
  }
  out.prompt_seconds = Since(start);
  for (const int32_t token : prompt) sampler.Accept(token);

  const size_t room =
      session.n_ctx() - session.tokens().size() + 1;  // the last token need not be fed
  out.tokens.reserve(std::min(options.max_tokens == 0 ? room : options.max_tokens, room));
  std::string pieces;
  const auto emit = [&](std::string_view text) {
    out.text.append(text);
    return text.empty() || !options.on_text || options.on_text(text);
  };
  Clock::time_point first;
  for (;;) {
    if (cancelled()) {
      out.finish = FinishReason::kCancelled;
      break;
    }
    const int32_t token = sampler.Sample(logits);
    sampler.Accept(token);
    if (out.tokens.empty()) {
      first = Clock::now();
      out.first_token_seconds = Since(start);
    }
    if (tokenizer.IsEog(token)) {
      out.end_token = token;
      break;
    }
    out.tokens.push_back(token);
    pieces.clear();
    decoder.Append(token, &pieces);
    if (!emit(stops.Feed(pieces))) {
      out.finish = FinishReason::kCancelled;
      break;
    }
    if (stops.stopped()) break;
    if (options.max_tokens != 0 && out.tokens.size() >= options.max_tokens) {
      out.finish = FinishReason::kLength;
      break;
    }
    if (session.tokens().size() >= session.n_ctx()) {
      out.finish = FinishReason::kContextFull;
      break;
    }
    logits = session.Feed({&token, 1});
  }
  if (!out.tokens.empty()) out.decode_seconds = Since(first);
  if (!stops.stopped()) {
    pieces.clear();
    decoder.Flush(&pieces);
    std::string rest(stops.Feed(pieces));
    if (!stops.stopped()) rest += stops.Finish();
    emit(rest);
  }
  return out;
}

}  // namespace lutra
