// Named limits of everything a request can make large, each with its reason: of one request, of one connection, of all together. What the
// engine bounds by itself is in engine/limits.h and, of grammars, in engine/grammar/grammar.h; slots, queue and memory are options of `serve`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra::server {

inline constexpr int kMaxChoices = 16;      // `n`: each is a sequence of its own
inline constexpr int kMaxTopLogprobs = 20;  // OpenAI's
inline constexpr size_t kMaxStops =
    16;  // OpenAI allows 4; each costs 512 bytes of automaton a byte
inline constexpr size_t kMaxStopBytesEach = 256;
inline constexpr size_t kMaxRequestBiases = 1024;  // OpenAI's
inline constexpr size_t kMaxMessages = 65536;      // far beyond any context
inline constexpr size_t kMaxTools = 512;           // clients send a few dozen
inline constexpr size_t kMaxPrompts =
    256;  // of one completions request (times n: the queue's bound holds too)
inline constexpr size_t kMaxInputs = 2048;  // of one embeddings request, OpenAI's
inline constexpr size_t kMaxGrammarBytes = 256 << 10;
inline constexpr size_t kMaxSchemaBytes = 256 << 10;
inline constexpr size_t kMaxNamesShown =
    10;  // in x-ignored-params, x-relaxed-tools and x-relaxed-schema

// JSON.
inline constexpr int kMaxJsonDepth = 64;
inline constexpr int kMaxJsonMembers =
    2048;  // of one object: reading a name looks through those before it

// Schemas: their grammars, and what is looked at while these are made.
inline constexpr int kMaxSchemaRules = 20000;
inline constexpr int kMaxSchemaRepeat =
    2000;  // of items and characters; the grammar's own limit is higher
inline constexpr int kMaxSchemaMerges = 2000;  // each copies a schema
inline constexpr int kMaxSchemaDepth =
    500;  // of schemas within schemas, references followed: reading them recurses
inline constexpr size_t kMaxSchemaOneOf = 64;  // branches that are compared, each with each
inline constexpr int kMaxOverlapSteps =
    1 << 19;  // of comparing branches in a whole schema: about 0.1 s
inline constexpr size_t kMaxPatternBytes = 4096;
inline constexpr int kMaxPatternDepth = 100;        // of groups
inline constexpr int kMaxPatternRepeat = 4096;      // in {m,n}
inline constexpr size_t kMaxPatternPlaces = 20000;  // of one pattern, its repetitions written out
inline constexpr size_t kMaxPatternStates =
    8192;  // of patterns and lengths side by side; each is a rule of the grammar
inline constexpr size_t kMaxPatternWork =
    size_t{1} << 21;  // places looked at while automata are made: about 0.3 s

// Every limit on what a connection may cost.
struct HttpLimits {
  size_t head_bytes = 16384;  // a browser's cookies fit; header floods do not
  size_t headers = 100;
  size_t uri_bytes = 8192;               // what parsers and proxies take
  uint64_t body_bytes = 32u << 20;       // a context of a million tokens is about 5 MiB of JSON
  uint64_t buffered_bytes = 512u << 20;  // of all bodies that are being received
  size_t connections = 8192;             // beyond it the longest idle one is closed
  size_t workers = 512;                  // requests handled at the same time
  size_t spare_workers = 16;     // of which so many are kept for what is no POST, such as /health
  double head_seconds = 10;      // to send a head, from its first byte (or from connecting)
  double body_gap_seconds = 30;  // between two parts of a body
  double body_seconds = 120;     // for a whole body
  double idle_seconds = 60;      // between requests of a connection
  double write_stall_seconds = 30;  // a client that takes nothing for so long is dropped
};

}  // namespace lutra::server
