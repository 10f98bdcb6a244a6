// The draw: one candidate by the probabilities e^logit, from one uniform random number.
#include "engine/sampler_stage.h"

namespace lutra {

size_t DrawIndex(Candidates* candidates, RandomStream* random, bool probabilities) {
  const std::span<const Candidate> list = candidates->List();
  const Candidates::Totals totals = candidates->Weights();
  size_t chosen = 0;
  if (list.size() > 1) {
    // The first index at which the running sum reaches the random share of the whole; never a
    // candidate whose weight is 0, which a share of exactly 0 would otherwise choose.
    const double wanted = random->NextDouble() * totals.sum;
    double sum = 0.0;
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].p == 0.0f) continue;
      sum += static_cast<double>(list[i].p);
      chosen = i;
      if (sum >= wanted) break;
    }
  }
  if (probabilities) candidates->Softmax();
  return chosen;
}

namespace {

class Draw : public TokenSelector {
 public:
  explicit Draw(uint32_t seed) : random_(seed) {}
  int32_t Select(Candidates* candidates) override {
    const size_t chosen = DrawIndex(candidates, &random_, /*probabilities=*/false);
    return candidates->List()[chosen].id;
  }
  void Reset() override { random_.Reset(); }
  std::unique_ptr<TokenSelector> Clone() const override { return std::make_unique<Draw>(*this); }

 private:
  RandomStream random_;
};

}  // namespace

std::unique_ptr<TokenSelector> MakeDraw(const StageContext& context) {
  return std::make_unique<Draw>(context.seed);
}

}  // namespace lutra
