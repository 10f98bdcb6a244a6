// top_p (nucleus sampling): keeps the best tokens up to and including the first one with which
// their probabilities sum up to p.
// Source: Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration".
#include "engine/sampler_stage.h"

namespace lutra {
namespace {

class TopP : public SamplerStage {
 public:
  TopP(float p, size_t min_keep) : p_(p), min_keep_(min_keep) {}

  void Apply(Candidates* candidates) override {
    const float max = candidates->Softmax().max;
    for (Candidate& x : candidates->List()) x.key = max - x.logit;
    candidates->KeepMass(static_cast<double>(p_), /*exceed=*/false, min_keep_,
                         /*key_is_rank=*/true);
  }
  std::unique_ptr<SamplerStage> Clone() const override { return std::make_unique<TopP>(*this); }

 private:
  float p_;
  size_t min_keep_;
};

}  // namespace

std::unique_ptr<SamplerStage> MakeTopP(const StageContext& context) {
  if (context.params.top_p >= 1.0f) return nullptr;
  return std::make_unique<TopP>(context.params.top_p, static_cast<size_t>(context.params.min_keep));
}

}  // namespace lutra
