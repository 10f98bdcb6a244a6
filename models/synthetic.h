// Models that exist only to be measured: the shapes of published ones (or any other), filled with random weights of any type.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kernels/base/parallel.h"
#include "kernels/tensor_type.h"
#include "models/gguf.h"
#include "models/gguf_writer.h"

namespace lutra {

// Sizes as in models/hparams.h.
struct SyntheticShape {
  const char* name;  // "llama-3.2-1b"; the first part of a model's name on the command line
  const char* arch;  // general.architecture
  uint32_t n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_ctx_train;
  bool tied;      // the output is the embedding
  bool qkv_bias;  // biases on q, k and v
  uint32_t n_expert = 0, n_expert_used = 0, n_ff_exp = 0;
};
std::span<const SyntheticShape> SyntheticShapes();

// One weight type for every matrix (F32 for routers, norms and biases), or a named mix.
struct SyntheticModel {
  std::string text;  // as given: "llama-3.2-1b:IQ4_K"
  SyntheticShape shape;
  const TensorTypeInfo* type;
};

// Reads "SHAPE:TYPE". SHAPE is a name of SyntheticShapes(), any case, a list of sizes "layers=4,embd=1024,...", or a name
// followed by sizes that differ. Sizes: layers embd ff heads kv head-dim vocab ctx experts used ff-exp, tied=0/1, bias=0/1,
// arch=NAME. TYPE is a tensor type, any case. Throws Error(kInvalidArgument) that lists what there is.
SyntheticModel ParseSynthetic(std::string_view text);

// The type that rows of n_cols weights get: `type`, or, where its blocks do not divide them, one of blocks of 32 (else F16) with
// at least as many bits, as quantizing programs do.
const TensorTypeInfo& TypeForRow(const TensorTypeInfo& type, uint64_t n_cols);

// The whole model as GGUF, with a vocabulary of the right size that can tokenize any text byte by byte (SentencePiece kind):
// other programs load it too. The same text and seed give the same bytes. The writer's sources use `pool`, which must outlive it.
GgufWriter SyntheticWriter(const SyntheticModel& model, ThreadPool& pool, uint64_t seed = 1);

// The model in memory, ready for Model::Load, which gives the memory back as it packs. Throws Error(kResourceExhausted) if the
// memory available (0: unknown) is too little.
GgufFile BuildSynthetic(const SyntheticModel& model, ThreadPool& pool, uint64_t available_bytes);

}  // namespace lutra
