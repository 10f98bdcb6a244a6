// Named limits of everything a request can make large, each with its reason. Those of connections are in http/http_server.h.
#pragma once

#include <cstddef>

namespace lutra::server {

inline constexpr int kMaxChoices = 16;            // `n`: each is a sequence of its own
inline constexpr int kMaxTopLogprobs = 20;        // OpenAI's
inline constexpr size_t kMaxStops = 16;           // OpenAI allows 4; each costs 512 bytes of automaton a byte
inline constexpr size_t kMaxStopBytesEach = 256;
inline constexpr size_t kMaxRequestBiases = 1024; // OpenAI's
inline constexpr size_t kMaxMessages = 65536;     // far beyond any context
inline constexpr size_t kMaxTools = 512;          // clients send a few dozen
inline constexpr size_t kMaxPrompts = 256;        // of one completions request (times n: the queue's bound holds too)
inline constexpr size_t kMaxInputs = 2048;        // of one embeddings request, OpenAI's
inline constexpr size_t kMaxGrammarBytes = 256 << 10;
inline constexpr size_t kMaxSchemaBytes = 256 << 10;
inline constexpr size_t kMaxNamesShown = 10;      // in x-ignored-params and x-relaxed-tools

}  // namespace lutra::server
