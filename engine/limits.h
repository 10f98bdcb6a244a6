// Named limits of everything in the engine that grows with what a client sends, each with its
// reason.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra {

// Context and batch. Positions stay exact in float rotary angles; scratch grows with the batch.
inline constexpr uint32_t kMaxContext = 1u << 24;
inline constexpr uint32_t kMaxBatchTokens = 16384;

// Sampling. A window of a million tokens is longer than any context served; it costs 4 bytes a
// token.
inline constexpr int32_t kMaxPenaltyTokens = 1 << 20;
inline constexpr size_t kMaxLogitBiases =
    4096;  // OpenAI allows 300; one binary search and one add each
inline constexpr size_t kMaxSamplerStages = 32;     // a chain names each stage once, rarely twice
inline constexpr size_t kMaxDryBreakers = 64;       // each is searched for in every token's text
inline constexpr size_t kMaxDryBreakerBytes = 40;   // longer ones are cut, as llama.cpp does
inline constexpr size_t kMaxDryBreakerTokens = 20;  // of the rest behind a head token, likewise

// Stop strings. The automaton takes 512 bytes for each byte of stop text, so 2 MiB at most.
inline constexpr size_t kMaxStopStrings = 64;
inline constexpr size_t kMaxStopBytes = 4096;  // of all stop strings of a request together

}  // namespace lutra
