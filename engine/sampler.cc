#include "engine/sampler.h"

#include <exception>
#include <random>
#include <utility>

#include "engine/sampler_stage.h"
#include "kernels/base/error.h"

namespace lutra {

// The chain's stages in their default order: name, alias, letter, what it does to the best
// candidate, factory. This is the only list of them.
#define LUTRA_SAMPLER_STAGES(X)                           \
  X("penalties", "", 'e', kEditsLogits, MakePenalties)    \
  X("dry", "", 'd', kEditsLogits, MakeDry)                \
  X("top_n_sigma", "", 's', kKeepsBest, MakeTopNSigma)    \
  X("top_k", "", 'k', kKeepsBest, MakeTopK)               \
  X("typ_p", "typical_p", 'y', kMayDropBest, MakeTypical) \
  X("top_p", "nucleus", 'p', kKeepsBest, MakeTopP)        \
  X("min_p", "", 'm', kKeepsBest, MakeMinP)               \
  X("xtc", "", 'x', kMayDropBest, MakeXtc)                \
  X("temperature", "temp", 't', kTemperature, MakeTemperature)

#define LUTRA_DECLARE(name, alias, letter, effect, make) \
  std::unique_ptr<SamplerStage> make(const StageContext&);
LUTRA_SAMPLER_STAGES(LUTRA_DECLARE)
#undef LUTRA_DECLARE

std::unique_ptr<SamplerStage> MakeLogitBias(const StageContext&);
std::unique_ptr<SamplerStage> MakeFixedTemperature(const StageContext&);
std::unique_ptr<TokenSelector> MakeDraw(const StageContext&);
std::unique_ptr<TokenSelector> MakeMirostat1(const StageContext&);
std::unique_ptr<TokenSelector> MakeMirostat2(const StageContext&);

namespace {

const SamplerStageRow kStages[] = {
#define LUTRA_ROW(name, alias, letter, effect, make) \
  {name, alias, letter, StageEffect::effect, make},
    LUTRA_SAMPLER_STAGES(LUTRA_ROW)
#undef LUTRA_ROW
};

// By the value of the parameter `mirostat`.
std::unique_ptr<TokenSelector> (*const kSelectors[])(const StageContext&) = {
    MakeDraw, MakeMirostat1, MakeMirostat2};

uint32_t EffectiveSeed(uint32_t seed) {
  // The drawn seed must not be the one that means "random", or it could not be used again.
  try {
    while (seed == kRandomSeed) seed = std::random_device()();
  } catch (const std::exception& e) {
    Fail(ErrorCode::kInternal, "cannot draw a random seed: %s; set the parameter seed", e.what());
  }
  return seed;
}

std::vector<const SamplerStageRow*> ChainOf(const SamplingParams& params) {
  std::vector<const SamplerStageRow*> chain;
  if (params.samplers.has_value()) {
    for (const std::string& name : *params.samplers) chain.push_back(FindSamplerStage(name));
  } else {
    for (const SamplerStageRow& row : kStages) chain.push_back(&row);
  }
  return chain;
}

// Where a fixed temperature <= 0 takes the best candidate, leaves out what cannot matter: all
// behind it, and the stages right before it that never remove the best. The chain then stays in
// dense form, and a greedy draw is one pass over the logits.
void SimplifyGreedy(const SamplingParams& params, std::vector<const SamplerStageRow*>* chain) {
  if (params.temperature > 0.0f || params.dynatemp_range > 0.0f) return;
  for (size_t i = 0; i < chain->size(); ++i) {
    if ((*chain)[i]->effect != StageEffect::kTemperature) continue;
    chain->resize(i + 1);
    while (i > 0 && (*chain)[i - 1]->effect == StageEffect::kKeepsBest) {
      --i;
      chain->erase(chain->begin() + static_cast<ptrdiff_t>(i));
    }
    return;
  }
}

}  // namespace

std::span<const SamplerStageRow> SamplerStages() { return kStages; }

const SamplerStageRow* FindSamplerStage(std::string_view name) {
  std::string wanted(name);
  for (char& c : wanted) {
    if (c == '-') c = '_';
  }
  for (const SamplerStageRow& row : kStages) {
    if (wanted == row.name || (*row.alias != '\0' && wanted == row.alias)) return &row;
  }
  return nullptr;
}

const SamplerStageRow* FindSamplerStage(char letter) {
  for (const SamplerStageRow& row : kStages) {
    if (row.letter == letter) return &row;
  }
  return nullptr;
}

struct Sampler::State {
  explicit State(size_t vocab) : n_vocab(vocab), candidates(vocab) {}

  size_t n_vocab;
  SamplingParams params;
  uint32_t seed = 0;
  std::vector<std::unique_ptr<SamplerStage>> stages;
  std::unique_ptr<TokenSelector> selector;
  Candidates candidates;
  bool drawn = false;  // `candidates` hold the last draw
};

Sampler::Sampler(const SamplingParams& params, const TokenTexts* texts, size_t n_vocab) {
  Validate(params);
  if (n_vocab == 0 || n_vocab > INT32_MAX) {
    Fail(ErrorCode::kInvalidArgument, "a sampler's vocabulary has 1 to 2147483647 tokens, not %zu",
         n_vocab);
  }
  if (texts != nullptr && texts->size() > n_vocab) {
    Fail(ErrorCode::kInvalidArgument,
         "the vocabulary has %zu tokens, but there are only %zu logits", texts->size(), n_vocab);
  }
  state_ = std::make_unique<State>(n_vocab);
  state_->params = params;
  state_->seed = EffectiveSeed(params.seed);
  const StageContext context = {state_->params, texts, n_vocab, state_->seed};
  const auto add = [&](std::unique_ptr<SamplerStage> stage) {
    if (stage != nullptr) state_->stages.push_back(std::move(stage));
  };
  add(MakeLogitBias(context));
  if (params.mirostat == 0) {
    std::vector<const SamplerStageRow*> chain = ChainOf(params);
    SimplifyGreedy(params, &chain);
    for (const SamplerStageRow* row : chain) add(row->make(context));
  } else {
    add(MakeFixedTemperature(context));
  }
  state_->selector = kSelectors[params.mirostat](context);
}

Sampler::Sampler(std::unique_ptr<State> state) : state_(std::move(state)) {}
Sampler::~Sampler() = default;
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;

int32_t Sampler::Sample(std::span<const float> logits, const TokenMask* mask) {
  State& s = *state_;
  if (logits.size() != s.n_vocab || (mask != nullptr && mask->n_vocab() != s.n_vocab)) {
    Fail(ErrorCode::kInvalidArgument, "%zu logits and a mask of %zu tokens for a vocabulary of %zu",
         logits.size(), mask != nullptr ? mask->n_vocab() : s.n_vocab, s.n_vocab);
  }
  s.drawn = false;
  s.candidates.Start(logits, mask);
  for (const std::unique_ptr<SamplerStage>& stage : s.stages) stage->Apply(&s.candidates);
  const int32_t token = s.selector->Select(&s.candidates);
  s.drawn = true;
  return token;
}

void Sampler::Accept(int32_t token) {
  State& s = *state_;
  if (token < 0 || static_cast<size_t>(token) >= s.n_vocab) {
    Fail(ErrorCode::kInvalidArgument, "token %d is not in the vocabulary of %zu tokens", token,
         s.n_vocab);
  }
  for (const std::unique_ptr<SamplerStage>& stage : s.stages) stage->Accept(token);
  s.selector->Accept(token);
}

void Sampler::Reset() {
  for (const std::unique_ptr<SamplerStage>& stage : state_->stages) stage->Reset();
  state_->selector->Reset();
  state_->drawn = false;
}

Sampler Sampler::Clone() const {
  auto copy = std::make_unique<State>(state_->n_vocab);
  copy->params = state_->params;
  copy->seed = state_->seed;
  for (const std::unique_ptr<SamplerStage>& stage : state_->stages) {
    copy->stages.push_back(stage->Clone());
  }
  copy->selector = state_->selector->Clone();
  return Sampler(std::move(copy));
}

uint32_t Sampler::seed() const { return state_->seed; }

const SamplingParams& Sampler::params() const { return state_->params; }

std::span<const Candidate> Sampler::LastCandidates() {
  if (!state_->drawn) return {};
  state_->candidates.Softmax();
  return state_->candidates.List();
}

}  // namespace lutra
