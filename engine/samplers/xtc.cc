// xtc (exclude top choices): with the given probability, removes all but the least likely of the
// tokens whose probability reaches the threshold. The order of the others does not change.
// Source: p-e-w 2024, text-generation-webui pull request 6335.
#include "engine/sampler_stage.h"

namespace lutra {
namespace {

class Xtc : public SamplerStage {
 public:
  Xtc(float probability, float threshold, size_t min_keep, uint32_t seed)
      : probability_(probability), threshold_(threshold), min_keep_(min_keep), random_(seed) {}

  void Apply(Candidates* candidates) override {
    if (candidates->size() < 2) return;
    if (random_.NextFloat() > probability_) return;
    candidates->Softmax();
    const std::span<const Candidate> list = candidates->List();
    const Candidate* last = nullptr;  // the least likely top choice
    size_t n_top = 0;
    for (const Candidate& x : list) {
      if (x.p < threshold_) continue;
      ++n_top;
      if (last == nullptr || Better(*last, x)) last = &x;
    }
    if (n_top < 2 || list.size() - (n_top - 1) < min_keep_) return;
    const Candidate kept = *last;
    candidates->RemoveIf([&](const Candidate& x) { return x.p >= threshold_ && x.id != kept.id; });
  }
  void Reset() override { random_.Reset(); }
  std::unique_ptr<SamplerStage> Clone() const override { return std::make_unique<Xtc>(*this); }

 private:
  float probability_;
  float threshold_;
  size_t min_keep_;
  RandomStream random_;
};

}  // namespace

std::unique_ptr<SamplerStage> MakeXtc(const StageContext& context) {
  const SamplingParams& params = context.params;
  if (params.xtc_probability <= 0.0f || params.xtc_threshold > 0.5f) return nullptr;
  return std::make_unique<Xtc>(params.xtc_probability, params.xtc_threshold,
                               static_cast<size_t>(params.min_keep), context.seed);
}

}  // namespace lutra
