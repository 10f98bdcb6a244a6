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
    const Candidates::Totals totals = candidates->Softmax();
    const double log_sum = Log(totals.sum);
    const double h = candidates->Entropy(totals);
    for (Candidate& x : candidates->List()) {
      const double surprise =
          log_sum - (static_cast<double>(x.logit) - static_cast<double>(totals.max));
      x.key = static_cast<float>(surprise < h ? h - surprise : surprise - h);
    }
    candidates->KeepMass(static_cast<double>(p_), /*exceed=*/true, min_keep_,
                         /*key_is_rank=*/false);
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
