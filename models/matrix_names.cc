#include "models/matrix_names.h"

namespace lutra {

std::vector<NamedMatrix> NamedMatrices(const Model& model) {
  std::vector<NamedMatrix> all;
  const auto add = [&](std::string tensor, const Matrix& matrix, uint32_t index = 0,
                       uint32_t n = 1) {
    if (!matrix.empty()) all.push_back({std::move(tensor), index, n, &matrix});
  };
  const auto add_ffn = [&](const std::string& prefix, const char* suffix, const FfnWeights& ffn,
                           uint32_t index, uint32_t n) {
    add(prefix + "ffn_gate" + suffix, ffn.gate, index, n);
    add(prefix + "ffn_up" + suffix, ffn.up, index, n);
    add(prefix + "ffn_down" + suffix, ffn.down, index, n);
  };
  for (size_t i = 0; i < model.layers().size(); ++i) {
    const LayerWeights& layer = model.layers()[i];
    const std::string p = "blk." + std::to_string(i) + ".";
    const bool fused = model.file().FindTensor(p + "attn_qkv.weight") != nullptr;
    add(p + (fused ? "attn_qkv.weight" : "attn_q.weight"), layer.q);
    add(p + (fused ? "attn_qkv.weight" : "attn_k.weight"), layer.k);
    add(p + (fused ? "attn_qkv.weight" : "attn_v.weight"), layer.v);
    add(p + "attn_output.weight", layer.o);
    add_ffn(p, ".weight", layer.ffn, 0, 1);
    add(p + "ffn_gate_inp.weight", layer.router);
    const uint32_t n_experts = static_cast<uint32_t>(layer.experts.size());
    for (uint32_t e = 0; e < n_experts; ++e)
      add_ffn(p, "_exps.weight", layer.experts[e], e, n_experts);
    add(p + "ffn_gate_inp_shexp.weight", layer.shared_gate);
    add_ffn(p, "_shexp.weight", layer.shared, 0, 1);
  }
  const bool tied = model.file().FindTensor("output.weight") == nullptr;
  add(tied ? "token_embd.weight" : "output.weight", model.output());
  return all;
}

}  // namespace lutra
