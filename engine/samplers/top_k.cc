// top_k: keeps the k greatest logits.
#include "engine/sampler_stage.h"

namespace lutra {
namespace {

class TopK : public SamplerStage {
 public:
  explicit TopK(size_t k) : k_(k) {}
  void Apply(Candidates* candidates) override { candidates->KeepBest(k_); }
  std::unique_ptr<SamplerStage> Clone() const override { return std::make_unique<TopK>(*this); }

 private:
  size_t k_;
};

}  // namespace

std::unique_ptr<SamplerStage> MakeTopK(const StageContext& context) {
  if (context.params.top_k <= 0) return nullptr;
  return std::make_unique<TopK>(static_cast<size_t>(context.params.top_k));
}

}  // namespace lutra
