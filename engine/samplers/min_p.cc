// min_p: keeps tokens at least min_p times as probable as the best one, that is with a logit of at
// least max + ln(min_p), and at least min_keep of the best ones.
// Source: Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling".
#include <algorithm>

#include "engine/float_math.h"
#include "engine/sampler_stage.h"

namespace lutra {
namespace {

class MinP : public SamplerStage {
 public:
  MinP(float p, size_t min_keep)
      : log_p_(static_cast<float>(Log(static_cast<double>(p)))), min_keep_(min_keep) {}

  void Apply(Candidates* candidates) override {
    const float minimum = ClampLogit(candidates->Best().logit + log_p_);
    if (min_keep_ > 1) {
      const std::span<const Candidate> list = candidates->List();
      const auto kept = std::count_if(list.begin(), list.end(),
                                      [&](const Candidate& x) { return x.logit >= minimum; });
      if (static_cast<size_t>(kept) < min_keep_) {
        candidates->KeepBest(min_keep_);
        return;
      }
    }
    candidates->KeepAtLeast(minimum);
  }
  std::unique_ptr<SamplerStage> Clone() const override { return std::make_unique<MinP>(*this); }

 private:
  float log_p_;
  size_t min_keep_;
};

}  // namespace

std::unique_ptr<SamplerStage> MakeMinP(const StageContext& context) {
  if (context.params.min_p <= 0.0f) return nullptr;
  return std::make_unique<MinP>(context.params.min_p, static_cast<size_t>(context.params.min_keep));
}

}  // namespace lutra
