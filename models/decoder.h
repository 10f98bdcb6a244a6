// The forward pass of the decoder-only transformers in models/arch/: straight code over the data of the layers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.h"
#include "kernels/base/aligned.h"
#include "kernels/base/parallel.h"
#include "kernels/weights.h"
#include "models/batch.h"
#include "models/model.h"

namespace lutra {

// Sees the inputs of the matrices of a forward pass, for importance matrices.
class InputObserver {
 public:
  virtual ~InputObserver() = default;
  // All `products` are about to be made of `input` (rows of floats). Called by the thread that runs Forward, inside its region: may use
  // the pool's For.
  virtual void Observe(std::span<const Product> products, const MatrixInput& input) = 0;
};

// Scratch and code for one forward pass at a time. The model and the pool must outlive it. Results for a token depend on nothing
// but its sequence: not on the batch, the chunking, the thread count or the SIMD target.
class Decoder {
 public:
  // Batches of up to max_tokens tokens, of which up to max_logits want logits.
  Decoder(const Model& model, ThreadPool& pool, KvType kv_type, size_t max_tokens,
          size_t max_logits);

  // Runs the batch: writes keys and values into the tokens' pages and computes the logits wanted. Allocates nothing. Throws
  // Error(kInvalidArgument) if the batch is larger than declared, a token is outside the vocabulary or wants both logits and
  // hidden state.
  void Forward(std::span<const BatchToken> batch);

  // Logits [n_vocab] of the i-th token of the last batch that wanted them.
  std::span<const float> logits(size_t i) const;

  // Output [n_embd] of the last layer, after the output norm, of the i-th token of the last batch that wanted it.
  std::span<const float> hidden(size_t i) const;

  // Must outlive the passes it sees; nullptr: nobody looks.
  void set_observer(InputObserver* observer) { observer_ = observer; }

  const KvLayout& kv_layout() const { return kv_; }
  size_t max_tokens() const { return max_tokens_; }
  size_t max_logits() const { return max_logits_; }

  // Bytes of scratch the constructor allocates.
  static uint64_t PlannedBytes(const Hparams& h, size_t max_tokens, size_t max_logits);

 private:
  // All products of input_, seen by the observer.
  void Multiply(std::span<const Product> products);
  void MultiplyTogether(std::span<const Product> products,
                        FunctionRef<void(size_t, size_t)> finish);
  // x += w * input_ + bias.
  void MultiplyOntoX(const Matrix& w, const std::vector<float>& bias, size_t n_tokens);
  void RunLayers(std::span<const BatchToken> batch);
  void Attention(std::span<const BatchToken> batch, size_t layer);
  // Cuts the batch into runs of tokens at consecutive positions of one page, at most `most` each.
  void FindRuns(std::span<const BatchToken> batch, size_t most);
  void Attend(std::span<const BatchToken> batch, size_t layer);
  void NormInput(const std::vector<float>& weight, size_t n_tokens);
  // input_ = silu(gate * input_) * (up * input_).
  void GateAndUp(const FfnWeights& ffn, size_t n_ff, size_t n_tokens);
  struct ExpertShare {
    uint32_t token;  // of the batch
    float weight;
  };
  // y_[token] += weight * ffn(row j of input_), where share_of(j) says which token's row it is.
  void AddExpert(const FfnWeights& ffn, size_t n_ff, size_t n_tokens,
                 FunctionRef<ExpertShare(size_t)> share_of);
  // x += what the experts make of input_, the rows of h_norm_.
  void Experts(const LayerWeights& layer, size_t n_tokens);
  void ForTokens(size_t n, FunctionRef<void(size_t)> body);

  const Model& model_;
  const Hparams& h_;
  ThreadPool& pool_;
  const KvLayout kv_;
  const size_t max_tokens_, max_logits_;
  size_t max_q_, max_kv_k_, max_kv_v_, max_att_, max_ff_;
  MatrixInput input_;
  InputObserver* observer_ = nullptr;
  AlignedArray<float> x_, h_norm_;       // [max_tokens, n_embd]
  AlignedArray<float> q_, k_, v_, att_;  // [max_tokens, heads * head size]
  AlignedArray<float> gate_, up_;        // [max_tokens, max_ff]
  AlignedArray<float> y_;                // [max_tokens, n_embd]
  AlignedArray<float> cos_, sin_;        // [max_tokens, n_pairs]
  AlignedArray<float> logits_;           // [max_logits, n_vocab]
  AlignedArray<float> router_, expert_x_, expert_y_;
  AlignedArray<float> states_;  // attention segment by segment, for batches of few tokens
  struct Run {
    uint32_t first, n;  // tokens of the batch
  };
  std::vector<Run> runs_;
  std::vector<uint32_t> chosen_;  // [max_tokens, n_expert_used]
  std::vector<float> chosen_weight_;
  std::vector<uint32_t> expert_tokens_, expert_rank_;
  size_t n_logits_ = 0, n_hidden_ = 0;  // of the last batch
};

}  // namespace lutra
