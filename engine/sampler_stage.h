// What files in engine/samplers/ implement. Nothing here is for users of Sampler.
#pragma once

#include <cstdint>
#include <memory>
#include <random>

#include "engine/candidates.h"
#include "engine/sampling_params.h"
#include "engine/token_texts.h"

namespace lutra {

struct StageContext {
  const SamplingParams& params;  // validated
  const TokenTexts* texts;       // may be null
  size_t n_vocab;
  uint32_t seed;  // the effective one
};

// One stage of the chain with its state. All memory is taken when it is made.
class SamplerStage {
 public:
  virtual ~SamplerStage() = default;
  virtual void Apply(Candidates* candidates) = 0;
  virtual void Accept(int32_t /*token*/) {}
  virtual void Reset() {}
  virtual std::unique_ptr<SamplerStage> Clone() const = 0;
};

// The end of the chain: chooses one of the candidates.
class TokenSelector {
 public:
  virtual ~TokenSelector() = default;
  virtual int32_t Select(Candidates* candidates) = 0;
  virtual void Accept(int32_t /*token*/) {}
  virtual void Reset() = 0;
  virtual std::unique_ptr<TokenSelector> Clone() const = 0;
};

// Uniform random numbers in [0, 1). Every consumer has its own stream, all with the same seed, so
// that turning one off does not shift the others.
class RandomStream {
 public:
  explicit RandomStream(uint32_t seed) : seed_(seed), engine_(seed) {}

  void Reset() { engine_.seed(seed_); }

  // (x0 + x1 * 2^32) / 2^64 of two outputs, as libstdc++ makes a double.
  double NextDouble() {
    const double low = static_cast<double>(engine_());
    const double high = static_cast<double>(engine_());
    const double u = (low + high * 0x1p32) * 0x1p-64;
    return u < 1.0 ? u : 1.0 - 0x1p-53;
  }

  // x0 / 2^32 of one output, as libstdc++ makes a float.
  float NextFloat() {
    const float u = static_cast<float>(engine_()) * 0x1p-32f;
    return u < 1.0f ? u : 1.0f - 0x1p-24f;
  }

 private:
  uint32_t seed_;
  std::mt19937 engine_;  // its output is fixed by the C++ standard
};

// Draws one of the candidates by their probabilities; 0 <= index < candidates->size(). One
// candidate takes no random number. Afterwards p is normalized if `probabilities`, else weights.
size_t DrawIndex(Candidates* candidates, RandomStream* random, bool probabilities);

}  // namespace lutra
