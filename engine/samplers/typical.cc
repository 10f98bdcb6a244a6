// typ_p (locally typical sampling): keeps the tokens whose surprise -ln p is nearest to the
// entropy, the nearest first, until their probabilities sum up to more than the parameter.
// Source: Meister et al. 2022, "Locally Typical Sampling".
#include "engine/float_math.h"
#include "engine/sampler_stage.h"

namespace lutra {
namespace {

class Typical : public SamplerStage {
 public:
  Typical(float p, size_t min_keep) : p_(p), min_keep_(min_keep) {}

  void Apply(Candidates* candidates) override {
    const Candidates::Totals totals = candidates->Weights();
    // |-ln p - h| with -ln p = ln(sum) + max - logit.
    const double center =
        Log(totals.sum) + static_cast<double>(totals.max) - candidates->Entropy(totals);
    candidates->KeepMass(center, static_cast<double>(p_) * totals.sum, /*exceed=*/true, min_keep_,
                         /*by_rank=*/false);
  }
  std::unique_ptr<SamplerStage> Clone() const override { return std::make_unique<Typical>(*this); }

 private:
  float p_;
  size_t min_keep_;
};

}  // namespace

std::unique_ptr<SamplerStage> MakeTypical(const StageContext& context) {
  if (context.params.typical_p >= 1.0f) return nullptr;
  return std::make_unique<Typical>(context.params.typical_p,
                                   static_cast<size_t>(context.params.min_keep));
}

}  // namespace lutra
