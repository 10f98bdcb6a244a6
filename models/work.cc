#include "models/work.h"

#include <algorithm>
#include <cmath>

namespace lutra {
namespace {

// Adds a matrix read by a part of the passes (`share`) and multiplied with `tokens` tokens.
void AddMatrix(const Matrix& m, double share, double tokens, Work* w) {
  if (m.empty()) return;
  const double rows = static_cast<double>(m.n_rows());
  w->weight_bytes += share * rows * static_cast<double>(RowBytes(m.type(), m.n_cols()));
  const double ops = 2 * rows * static_cast<double>(m.n_cols()) * tokens;
  const bool quantized =
      m.input_kind() == InputKind::kQ8x256 || m.input_kind() == InputKind::kQ8x32;
  (quantized ? w->int8_ops : w->float_ops) += ops;
}

void AddVector(const std::vector<float>& v, Work* w) {
  w->weight_bytes += static_cast<double>(v.size()) * 4;
}

void AddFfn(const FfnWeights& ffn, double share, double tokens, Work* w) {
  for (const Matrix* m : {&ffn.gate, &ffn.up, &ffn.down}) AddMatrix(*m, share, tokens, w);
  for (const auto* v : {&ffn.gate_bias, &ffn.up_bias, &ffn.down_bias}) AddVector(*v, w);
}

}  // namespace

Work& Work::operator+=(const Work& other) {
  weight_bytes += other.weight_bytes;
  kv_bytes += other.kv_bytes;
  int8_ops += other.int8_ops;
  float_ops += other.float_ops;
  return *this;
}

Work WorkOfPass(const Model& model, const KvLayout& kv, size_t first_pos, size_t n_tokens,
                size_t n_logits) {
  const Hparams& h = model.hparams();
  const double tokens = static_cast<double>(n_tokens);
  Work w;
  w.weight_bytes += tokens * static_cast<double>(model.embedding_row_bytes());
  AddVector(h.rope.freq_factors, &w);
  // A token attends to every position up to its own.
  const double attended = tokens * static_cast<double>(first_pos) + tokens * (tokens + 1) / 2;
  for (size_t i = 0; i < model.layers().size(); ++i) {
    const LayerWeights& l = model.layers()[i];
    for (const Matrix* m : {&l.q, &l.k, &l.v, &l.o, &l.router, &l.shared_gate})
      AddMatrix(*m, 1, tokens, &w);
    for (const auto* v : {&l.attn_norm, &l.ffn_norm, &l.q_bias, &l.k_bias, &l.v_bias, &l.o_bias,
                          &l.q_norm, &l.k_norm}) {
      AddVector(*v, &w);
    }
    AddFfn(l.ffn, 1, tokens, &w);
    AddFfn(l.shared, 1, tokens, &w);
    if (!l.experts.empty()) {
      const double used = static_cast<double>(h.n_expert_used) / static_cast<double>(h.n_expert);
      const double touched = 1 - std::pow(1 - used, tokens);
      for (const FfnWeights& e : l.experts) AddFfn(e, touched, used * tokens, &w);
    }
    // A score and a weighted value for each query head.
    w.float_ops += 2 * attended * h.layers[i].n_head * (h.head_dim_k + h.head_dim_v);
  }
  AddVector(model.output_norm(), &w);
  if (n_logits > 0) {
    AddMatrix(model.output(), 1, static_cast<double>(n_logits), &w);
    AddVector(model.output_bias(), &w);
  }
  const double position_bytes = static_cast<double>(kv.page_bytes()) / kKvPage;
  w.kv_bytes = position_bytes *
               (static_cast<double>(first_pos) + 2 * tokens);  // the new ones are written and read
  return w;
}

}  // namespace lutra
