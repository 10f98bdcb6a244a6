// A model in memory: sizes, weights ready to multiply, tokenizer-independent.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/dequantize.h"
#include "kernels/rope.h"
#include "kernels/weights.h"
#include "models/gguf.h"
#include "models/hparams.h"

namespace lutra {

// gate, up and down of a gated feed-forward network; biases may be empty.
struct FfnWeights {
  Matrix gate, up, down;
  std::vector<float> gate_bias, up_bias, down_bias;
};

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm;  // [n_embd]
  Matrix q, k, v, o;
  std::vector<float> q_bias, k_bias, v_bias, o_bias;  // or empty
  std::vector<float> q_norm, k_norm;                  // [head_dim_k], or empty
  bool rotate = true;
  FfnWeights ffn;  // dense layers
  Matrix router;   // [n_expert, n_embd], expert layers
  std::vector<FfnWeights> experts;
  Matrix shared_gate;  // [1, n_embd]: sigmoid of the product scales the shared expert
  FfnWeights shared;
};

// Called while loading with the bytes done and in all, from one thread.
using LoadProgress = std::function<void(uint64_t done, uint64_t total)>;

// Immutable after Load; shared by threads. Owns the mapped file.
class Model {
 public:
  // Reads hyperparameters, checks the shape of every tensor against them, then packs. Throws Error.
  static std::unique_ptr<Model> Load(GgufFile file, ThreadPool& pool,
                                     const LoadProgress& progress = {});

  const GgufFile& file() const { return file_; }
  const Hparams& hparams() const { return hparams_; }
  const Rope& rope() const { return *rope_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  const std::vector<float>& output_norm() const { return output_norm_; }
  const Matrix& output() const { return output_; }
  const std::vector<float>& output_bias() const { return output_bias_; }

  // x [n_embd] = row `token` of the embedding.
  void Embed(int32_t token, float* x) const;
  uint64_t embedding_row_bytes() const { return RowBytes(*embedding_->type, hparams_.n_embd); }

  // Bytes of packed weights held in memory beside the mapped file.
  uint64_t packed_bytes() const { return packed_bytes_; }
  // Bytes of tensors that one decoded token reads (all experts counted as used / total).
  uint64_t bytes_per_token() const { return bytes_per_token_; }

  // Bytes Load will allocate for weights, from the tensor list alone.
  static uint64_t PlannedBytes(const GgufFile& file);

 private:
  friend class ModelLoader;
  explicit Model(GgufFile file) : file_(std::move(file)) {}

  GgufFile file_;
  Hparams hparams_;
  std::unique_ptr<Rope> rope_;
  const GgufTensor* embedding_ = nullptr;
  DequantizeFn embed_ = nullptr;
  std::vector<LayerWeights> layers_;
  std::vector<float> output_norm_, output_bias_;
  Matrix output_;
  uint64_t packed_bytes_ = 0;
  uint64_t bytes_per_token_ = 0;
};

}  // namespace lutra
