// temperature: divides the logits; 0 and below leave the best token alone. With a range, the
// temperature follows the entropy of the candidates ("dynamic temperature").
#include <cmath>

#include "engine/float_math.h"
#include "engine/sampler_stage.h"

namespace lutra {
namespace {

class Temperature : public SamplerStage {
 public:
  Temperature(float t, float range, float exponent) : t_(t), range_(range), exponent_(exponent) {}

  void Apply(Candidates* candidates) override {
    if (range_ <= 0.0f) {
      Divide(candidates, t_);
    } else if (candidates->size() > 1) {
      Divide(candidates, DynamicTemperature(candidates));
    }
  }
  std::unique_ptr<SamplerStage> Clone() const override {
    return std::make_unique<Temperature>(*this);
  }

 private:
  static void Divide(Candidates* candidates, float t) {
    if (t <= 0.0f) {
      candidates->KeepOnlyBest();
      return;
    }
    const float max = candidates->Best().logit;
    // Only differences matter for the draw. Where the quotients would overflow, and become equal,
    // the logits are first moved so that the greatest is 0.
    const float shift = std::isfinite(max / t) ? 0.0f : max;
    if (candidates->dense()) {
      for (float& x : candidates->MutableLogits()) {
        if (IsCandidateLogit(x)) x = ClampLogit((ClampLogit(x) - shift) / t);
      }
    } else {
      for (Candidate& x : candidates->List()) x.logit = ClampLogit((x.logit - shift) / t);
    }
  }

  float DynamicTemperature(Candidates* candidates) const {
    const double low = t_ > range_ ? static_cast<double>(t_) - static_cast<double>(range_) : 0.0;
    const double high = static_cast<double>(t_) + static_cast<double>(range_);
    const double h = candidates->Entropy(candidates->Weights());
    const double normal = h / Log(static_cast<double>(candidates->size()));
    return static_cast<float>(
        low + (high - low) * Pow(normal < 0.0 ? 0.0 : normal, static_cast<double>(exponent_)));
  }

  float t_;
  float range_;
  float exponent_;
};

}  // namespace

std::unique_ptr<SamplerStage> MakeFixedTemperature(const StageContext& context) {
  if (context.params.temperature == 1.0f) return nullptr;
  return std::make_unique<Temperature>(context.params.temperature, 0.0f, 1.0f);
}

std::unique_ptr<SamplerStage> MakeTemperature(const StageContext& context) {
  const SamplingParams& params = context.params;
  if (params.dynatemp_range <= 0.0f) return MakeFixedTemperature(context);
  return std::make_unique<Temperature>(params.temperature, params.dynatemp_range,
                                       params.dynatemp_exponent);
}

}  // namespace lutra
