#include "server/answer.h"

#include <cmath>
#include <random>

#include "kernels/base/utf8.h"

namespace lutra::server {
namespace {

// JSON has no infinity; clients know this value from OpenAI.
double Finite(float logprob) { return logprob < -9999.0f ? -9999.0 : static_cast<double>(logprob); }

Json Bytes(const std::string& bytes) {
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<uint8_t>(c));
  return list;
}

size_t Characters(std::string_view text) {
  size_t n = 0;
  for (const char c : text) n += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return n;
}

}  // namespace

std::string NewId(const char* prefix) {
  static constexpr char kLetters[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::string id = prefix;
  for (int i = 0; i < 29; ++i) id += kLetters[random() % (sizeof(kLetters) - 1)];
  return id;
}

std::string Fingerprint() { return "lutra-" LUTRA_VERSION; }

Json StartAnswer(const AnswerHead& head) {
  return {{"id", head.id},
          {"object", head.object},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", Fingerprint()}};
}

Json UsageJson(const Usage& u, bool chat) {
  Json json = {{"prompt_tokens", u.prompt_tokens},
               {"completion_tokens", u.completion_tokens},
               {"total_tokens", u.prompt_tokens + u.completion_tokens},
               {"prompt_tokens_details", {{"cached_tokens", u.cached_tokens}}}};
  if (chat) json["completion_tokens_details"] = {{"reasoning_tokens", u.reasoning_tokens}};
  return json;
}

Json TimingsJson(const SequenceStats& s) {
  const double prompt_n = static_cast<double>(s.prompt_tokens - s.cached_tokens);
  const double predicted = static_cast<double>(s.completion_tokens);
  const auto each = [](double ms, double n) { return n > 0 ? ms / n : 0.0; };
  const auto rate = [](double n, double seconds) { return seconds > 0 ? n / seconds : 0.0; };
  return {{"cache_n", s.cached_tokens},
          {"prompt_n", s.prompt_tokens - s.cached_tokens},
          {"prompt_ms", s.prompt_seconds * 1e3},
          {"prompt_per_token_ms", each(s.prompt_seconds * 1e3, prompt_n)},
          {"prompt_per_second", rate(prompt_n, s.prompt_seconds)},
          {"predicted_n", s.completion_tokens},
          {"predicted_ms", s.decode_seconds * 1e3},
          {"predicted_per_token_ms", each(s.decode_seconds * 1e3, predicted)},
          {"predicted_per_second", rate(predicted > 0 ? predicted - 1 : 0, s.decode_seconds)},
          {"queue_ms", s.queue_seconds * 1e3},
          {"forced_n", s.forced_tokens},
          {"seed", s.seed}};
}

Json ChatLogprobs(std::span<const LogprobEntry> entries) {
  Json content = Json::array();
  for (const LogprobEntry& e : entries) {
    Json top = Json::array();
    for (const LogprobEntry::Top& t : e.top) {
      top.push_back({{"token", Utf8Sanitize(t.bytes)},
                     {"logprob", Finite(t.logprob)},
                     {"bytes", Bytes(t.bytes)}});
    }
    content.push_back({{"token", Utf8Sanitize(e.bytes)},
                       {"logprob", Finite(e.token.logprob)},
                       {"bytes", Bytes(e.bytes)},
                       {"top_logprobs", std::move(top)}});
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json LegacyLogprobs(std::span<const LogprobEntry> entries, bool top, size_t* offset) {
  Json tokens = Json::array(), values = Json::array(), tops = Json::array(),
       offsets = Json::array();
  for (const LogprobEntry& e : entries) {
    tokens.push_back(Utf8Sanitize(e.bytes));
    const bool known =
        !std::isnan(e.token.logprob);  // nothing is known about the first token of a prompt
    values.push_back(known ? Json(Finite(e.token.logprob)) : Json(nullptr));
    Json best = Json::object();
    for (const LogprobEntry::Top& t : e.top) best[Utf8Sanitize(t.bytes)] = Finite(t.logprob);
    // The token itself is always among them.
    if (known) best[Utf8Sanitize(e.bytes)] = Finite(e.token.logprob);
    tops.push_back(known ? std::move(best) : Json(nullptr));
    offsets.push_back(*offset);
    *offset += Characters(e.bytes);
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", top ? std::move(tops) : Json(nullptr)},
          {"text_offset", std::move(offsets)}};
}

const char* FinishText(FinishReason reason, bool calls) {
  if (reason == FinishReason::kLength || reason == FinishReason::kContextFull) return "length";
  return calls ? "tool_calls" : "stop";
}

Json CallJson(const CallDelta& call) {
  return {{"id", call.id},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

}  // namespace lutra::server
