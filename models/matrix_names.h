// Which tensor of the file a loaded matrix comes from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/model.h"

namespace lutra {

struct NamedMatrix {
  std::string tensor;    // "blk.0.ffn_down_exps.weight"
  uint32_t index;        // which matrix of the tensor: the expert; 0 of others
  uint32_t n_matrices;   // of the tensor
  const Matrix* matrix;  // of the model, which must outlive it
};

// Every matrix that the forward pass multiplies with, layer by layer, then the output (named token_embd.weight where it is tied). The parts of
// a fused tensor (attn_qkv) have its name and index 0 each.
std::vector<NamedMatrix> NamedMatrices(const Model& model);

}  // namespace lutra
