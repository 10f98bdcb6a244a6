// top_n_sigma: keeps logits within n standard deviations of the greatest.
// Source: Tang et al. 2024, "Top-n-sigma: Not All Logits Are You Need".
#include "engine/sampler_stage.h"

namespace lutra {
namespace {

class TopNSigma : public SamplerStage {
 public:
  explicit TopNSigma(float n) : n_(n) {}

  void Apply(Candidates* candidates) override {
    double mean, deviation;
    candidates->MeanAndDeviation(&mean, &deviation);
    const double max = static_cast<double>(candidates->Best().logit);
    const double minimum = max - static_cast<double>(n_) * deviation;
    const double lowest = -static_cast<double>(FLT_MAX);
    candidates->KeepAtLeast(static_cast<float>(minimum < lowest ? lowest : minimum));
  }
  std::unique_ptr<SamplerStage> Clone() const override {
    return std::make_unique<TopNSigma>(*this);
  }

 private:
  float n_;
};

}  // namespace

std::unique_ptr<SamplerStage> MakeTopNSigma(const StageContext& context) {
  if (context.params.top_n_sigma <= 0.0f) return nullptr;
  return std::make_unique<TopNSigma>(context.params.top_n_sigma);
}

}  // namespace lutra
