// top_p (nucleus sampling): keeps the best tokens up to and including the first one with which
// their probabilities sum up to p.
// Source: Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration".
#include "engine/float_math.h"
#include "engine/sampler_stage.h"

namespace lutra {
namespace {

class TopP : public SamplerStage {
 public:
  TopP(float p, size_t min_keep) : p_(p), min_keep_(min_keep) {}

  void Apply(Candidates* candidates) override {
    const double p = static_cast<double>(p_);
    const Candidates::Totals totals = candidates->Sums();
    if (candidates->dense() && min_keep_ <= 1) {
      // All candidates below (1 - p) / n together are less than 1 - p, so the wanted sum is reached
      // before any of them. Half of that leaves room for rounding.
      const double n = static_cast<double>(candidates->n_vocab());
      const double least = Log(0.5 * totals.sum * (1.0 - p) / n);
      if (least < 0.0) {
        candidates->KeepAtLeast(
            ClampLogit(static_cast<float>(static_cast<double>(totals.max) + least)));
      }
    }
    candidates->Weights();
    candidates->KeepMass(static_cast<double>(totals.max), p * totals.sum, /*exceed=*/false,
                         min_keep_, /*by_rank=*/true);
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
