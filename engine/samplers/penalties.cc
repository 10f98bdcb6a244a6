// penalties: lowers the logits of tokens that are among the last n accepted ones. With c
// occurrences: a logit <= 0 is multiplied, a positive one divided by `repeat_penalty`, then
// c * frequency_penalty + presence_penalty is subtracted.
// Source: Keskar et al. 2019 (CTRL) for the first, OpenAI's API for the others.
#include "engine/sampler_stage.h"
#include "engine/samplers/token_history.h"

namespace lutra {
namespace {

class Penalties : public SamplerStage {
 public:
  Penalties(const SamplingParams& params, size_t n_vocab)
      : repeat_(params.repeat_penalty),
        frequency_(params.frequency_penalty),
        presence_(params.presence_penalty),
        history_(static_cast<size_t>(params.repeat_last_n)),
        counts_(n_vocab) {}

  void Apply(Candidates* candidates) override {
    if (candidates->dense()) {
      const std::span<float> logits = candidates->MutableLogits();
      // A token is done when met first; the sign of its count remembers that.
      for (size_t i = 0; i < history_.size(); ++i) {
        const size_t token = static_cast<size_t>(history_.Back(i));
        int32_t& count = counts_[token];
        if (count < 0) continue;
        if (IsCandidateLogit(logits[token])) logits[token] = Penalize(logits[token], count);
        count = -count;
      }
      for (size_t i = 0; i < history_.size(); ++i) {
        int32_t& count = counts_[static_cast<size_t>(history_.Back(i))];
        if (count < 0) count = -count;
      }
      return;
    }
    for (Candidate& x : candidates->List()) {
      const int32_t count = counts_[static_cast<size_t>(x.id)];
      if (count > 0) x.logit = Penalize(x.logit, count);
    }
    candidates->MarkUnsorted();
  }

  void Accept(int32_t token) override {
    if (history_.full()) --counts_[static_cast<size_t>(history_.Back(history_.size() - 1))];
    history_.Push(token);
    ++counts_[static_cast<size_t>(token)];
  }

  void Reset() override {
    history_.Clear();
    counts_.assign(counts_.size(), 0);
  }
  std::unique_ptr<SamplerStage> Clone() const override {
    return std::make_unique<Penalties>(*this);
  }

 private:
  float Penalize(float logit, int32_t count) const {
    const float repeated = logit <= 0.0f ? logit * repeat_ : logit / repeat_;
    return ClampLogit(ClampLogit(repeated) - (static_cast<float>(count) * frequency_ + presence_));
  }

  float repeat_, frequency_, presence_;
  TokenHistory history_;
  std::vector<int32_t> counts_;  // [n_vocab], of the tokens in history_
};

}  // namespace

std::unique_ptr<SamplerStage> MakePenalties(const StageContext& context) {
  const SamplingParams& params = context.params;
  const bool neutral = params.repeat_penalty == 1.0f && params.frequency_penalty == 0.0f &&
                       params.presence_penalty == 0.0f;
  if (params.repeat_last_n <= 0 || neutral) return nullptr;
  return std::make_unique<Penalties>(params, context.n_vocab);
}

}  // namespace lutra
