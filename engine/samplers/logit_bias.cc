// Logit bias: runs before the chain. Adds to the logits of single tokens; -infinity forbids them.
#include <limits>
#include <utility>

#include "engine/sampler_stage.h"
#include "kernels/base/error.h"

namespace lutra {
namespace {

class Bias : public SamplerStage {
 public:
  explicit Bias(std::vector<LogitBias> biases) : biases_(std::move(biases)) {}

  void Apply(Candidates* candidates) override {
    const std::span<float> logits = candidates->MutableLogits();
    for (const LogitBias& entry : biases_) {
      float& logit = logits[static_cast<size_t>(entry.token)];
      if (!IsCandidateLogit(logit)) continue;
      if (entry.bias >= -FLT_MAX) {
        logit = ClampLogit(ClampLogit(logit) + entry.bias);
      } else {
        logit = -std::numeric_limits<float>::infinity();
      }
    }
  }
  std::unique_ptr<SamplerStage> Clone() const override { return std::make_unique<Bias>(*this); }

 private:
  std::vector<LogitBias> biases_;
};

}  // namespace

std::unique_ptr<SamplerStage> MakeLogitBias(const StageContext& context) {
  std::vector<LogitBias> biases = context.params.logit_bias;
  for (const LogitBias& entry : biases) {
    if (static_cast<size_t>(entry.token) >= context.n_vocab) {
      Fail(ErrorCode::kInvalidArgument,
           "logit_bias names token %d, but the vocabulary has only %zu tokens", entry.token,
           context.n_vocab);
    }
  }
  if (context.params.ignore_eos) {
    if (context.texts == nullptr) {
      Fail(ErrorCode::kInvalidArgument, "ignore_eos needs a vocabulary, and there is none");
    }
    const size_t n = context.texts->size();
    for (size_t i = 0; i < n; ++i) {
      const int32_t id = static_cast<int32_t>(i);
      if (context.texts->IsEndOfGeneration(id)) {
        biases.push_back({id, -std::numeric_limits<float>::infinity()});
      }
    }
  }
  if (biases.empty()) return nullptr;
  return std::make_unique<Bias>(std::move(biases));
}

}  // namespace lutra
