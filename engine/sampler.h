// Draws tokens from logits: a chain of stages, then the draw. Definitions, defaults and order of
// the stages are llama.cpp's (mid-2026); mirostat replaces all stages but temperature.
//
//   logit bias -> penalties dry top_n_sigma top_k typ_p top_p min_p xtc temperature -> draw
//
// The order in the middle is the request's (`samplers`). A stage is one file in engine/samplers/
// and one row in sampler.cc. Two deliberate differences to llama.cpp: equal logits are ordered by
// token id everywhere, and a token whose logit is -infinity is no candidate at all, so that it is
// never drawn and does not count for min_keep or for the normalization of dynamic temperature.
//
// A seed gives the same tokens on every machine for the same logits bits: random numbers come from
// mt19937 as C++ defines it, exp and log from float_math.h, and every order is a total one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "engine/candidates.h"
#include "engine/sampling_params.h"
#include "engine/token_texts.h"

namespace lutra {

// For one generated sequence; one thread at a time. Sample and Accept allocate nothing.
class Sampler {
 public:
  // `texts` may be null unless `params` use DRY or ignore_eos; it must outlive the sampler.
  // Throws Error(kInvalidArgument): see Validate(), and biases of tokens outside the vocabulary.
  Sampler(const SamplingParams& params, const TokenTexts* texts, size_t n_vocab);
  ~Sampler();
  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;

  // Draws a token from `logits` [n_vocab]; with `mask` only one that it allows. The token is not
  // accepted yet: a caller with a grammar draws without a mask first and, if the grammar refuses
  // the token, draws again with the mask. NaN counts as -infinity, +infinity as FLT_MAX. Throws
  // Error(kInvalidArgument) on wrong sizes and if every token is forbidden, Error(kInternal) if
  // none is left and some logits are NaN.
  int32_t Sample(std::span<const float> logits, const TokenMask* mask = nullptr);

  // Adds a token to the history that penalties, DRY and mirostat look at: every token of the
  // prompt, then every token that was generated. Throws Error(kInvalidArgument) if out of range.
  void Accept(int32_t token);

  // Back to the state after construction: same effective seed, empty history.
  void Reset();

  // An independent sampler in the same state, random numbers included.
  Sampler Clone() const;

  // The effective seed: what the parameters say or, for kRandomSeed, what was drawn.
  uint32_t seed() const;
  const SamplingParams& params() const;

  // What the last draw chose from, with probabilities that sum to 1. Valid until the next call.
  std::span<const Candidate> LastCandidates();

 private:
  struct State;
  explicit Sampler(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// How a stage treats the best candidate. Temperature <= 0 only wants that one, so that it may skip
// stages that cannot change which it is.
enum class StageEffect {
  kEditsLogits,  // may make another candidate the best
  kKeepsBest,    // only removes candidates, never the best
  kMayDropBest,  // removes candidates, perhaps the best
  kTemperature,  // rescales; with a fixed temperature <= 0, keeps the best alone
};

struct StageContext;
class SamplerStage;

struct SamplerStageRow {
  const char* name;   // in the parameter `samplers`
  const char* alias;  // another name in use, or ""
  char letter;        // of the short form of `samplers`
  StageEffect effect;
  std::unique_ptr<SamplerStage> (*make)(const StageContext&);  // null where parameters say "off"
};

// All stages that `samplers` may name, in their default order.
std::span<const SamplerStageRow> SamplerStages();
// Null if there is none. '-' and '_' are the same.
const SamplerStageRow* FindSamplerStage(std::string_view name);
const SamplerStageRow* FindSamplerStage(char letter);

}  // namespace lutra
