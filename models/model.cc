#include "models/model.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/pack.h"

namespace lutra {

// Takes tensors out of the file by name and shape. One pass, in the order of the forward pass.
class ModelLoader {
 public:
  ModelLoader(Model* model, ThreadPool& pool, const LoadProgress& progress)
      : model_(*model), file_(model->file_), pool_(pool), progress_(progress) {
    for (const GgufTensor& t : file_.tensors()) total_bytes_ += t.bytes;
  }

  void Load() {
    Hparams& h = model_.hparams_;
    h = ReadHparams(file_);
    RefuseUnknownScales();
    LoadRope();
    model_.embedding_ = &Require("token_embd.weight", {h.n_embd, h.n_vocab});
    model_.embed_ = FindDequantizer(model_.embedding_->type->id);
    if (model_.embed_ == nullptr) Unreadable(*model_.embedding_);
    model_.layers_.resize(h.n_layer);
    for (uint32_t i = 0; i < h.n_layer; ++i) LoadLayer(i);
    model_.output_norm_ = Vector("output_norm.weight", h.n_embd);
    model_.output_bias_ = OptionalVector("output.bias", h.n_vocab);
    if (file_.FindTensor("output.weight") != nullptr) {
      model_.output_ = LoadMatrix("output.weight", h.n_embd, h.n_vocab);
    } else if (h.arch->output_required) {
      Fail(ErrorCode::kCorrupt, "%s: tensor output.weight is missing", file_.path().c_str());
    } else {
      model_.output_ = LoadMatrix("token_embd.weight", h.n_embd, h.n_vocab);
    }
    if (n_used_ < file_.tensors().size()) {
      Log(LogLevel::kDebug, "%s: %zu tensors of the file are not used", file_.path().c_str(),
          file_.tensors().size() - n_used_);
    }
    Report(total_bytes_);
  }

 private:
  [[noreturn]] void Unreadable(const GgufTensor& t) const {
    Fail(ErrorCode::kUnsupported,
         "%s: tensor %s has type %s (id %u), which cannot be computed with", file_.path().c_str(),
         t.name.c_str(), t.type->name, t.type->id);
  }

  // Factors that some files keep beside a matrix; leaving them out would be silently wrong.
  void RefuseUnknownScales() const {
    for (const GgufTensor& t : file_.tensors()) {
      if (t.name.ends_with(".scale") || t.name.ends_with(".input_scale")) {
        Fail(ErrorCode::kUnsupported,
             "%s: tensor %s: models with separate scale tensors are not supported",
             file_.path().c_str(), t.name.c_str());
      }
    }
  }

  static std::string ShapeText(std::span<const uint64_t> dims) {
    std::string s = "{";
    for (const uint64_t d : dims) s += (s.size() > 1 ? ", " : "") + std::to_string(d);
    return s + "}";
  }

  const GgufTensor& Require(const std::string& name, std::initializer_list<uint64_t> dims) {
    const GgufTensor* t = file_.FindTensor(name);
    if (t == nullptr)
      Fail(ErrorCode::kCorrupt, "%s: tensor %s is missing", file_.path().c_str(), name.c_str());
    bool same = true;
    for (size_t i = 0; i < 4; ++i)
      same = same && t->dim(i) == (i < dims.size() ? dims.begin()[i] : 1);
    if (!same) {
      Fail(ErrorCode::kCorrupt, "%s: tensor %s has shape %s, but the metadata says %s",
           file_.path().c_str(), name.c_str(), ShapeText(t->dims).c_str(),
           ShapeText({dims.begin(), dims.size()}).c_str());
    }
    ++n_used_;
    return *t;
  }

  std::vector<float> Vector(const std::string& name, uint64_t n) {
    const GgufTensor& t = Require(name, {n});
    const DequantizeFn dequantize = FindDequantizer(t.type->id);
    if (dequantize == nullptr) Unreadable(t);
    std::vector<float> out(n);
    dequantize(t.data, n, out.data());
    Report(done_bytes_ + t.bytes);
    model_.bytes_per_token_ += t.bytes;
    return out;
  }
  std::vector<float> OptionalVector(const std::string& name, uint64_t n) {
    return file_.FindTensor(name) != nullptr ? Vector(name, n) : std::vector<float>();
  }

  // Rows [first, first + n_rows) of matrix `slice` of a tensor.
  Matrix Rows(const GgufTensor& t, uint64_t first, uint64_t n_rows, uint64_t n_cols) {
    if (FindDequantizer(t.type->id) == nullptr) Unreadable(t);
    const uint64_t row_bytes = RowBytes(*t.type, n_cols);
    const uint8_t* rows = t.data + first * row_bytes;
    const uint64_t bytes = n_rows * row_bytes;
    const MappedFile* part = file_.n_parts() > t.part ? &file_.part(t.part) : nullptr;
    if (part != nullptr) part->WillNeed(rows, bytes);
    Matrix m(*t.type, rows, n_rows, n_cols, pool_);
    if (!m.references_rows()) {
      model_.packed_bytes_ += m.packed_bytes();
      if (part != nullptr) part->Release(rows, bytes);
    }
    Report(done_bytes_ + bytes);
    return m;
  }

  Matrix LoadMatrix(const std::string& name, uint64_t n_cols, uint64_t n_rows) {
    const GgufTensor& t = Require(name, {n_cols, n_rows});
    model_.bytes_per_token_ += t.bytes;
    return Rows(t, 0, n_rows, n_cols);
  }

  std::vector<Matrix> ExpertMatrices(const std::string& name, uint64_t n_cols, uint64_t n_rows) {
    const Hparams& h = model_.hparams_;
    const GgufTensor& t = Require(name, {n_cols, n_rows, h.n_expert});
    model_.bytes_per_token_ += t.bytes / h.n_expert * h.n_expert_used;
    std::vector<Matrix> out;
    for (uint64_t e = 0; e < h.n_expert; ++e) out.push_back(Rows(t, e * n_rows, n_rows, n_cols));
    return out;
  }

  FfnWeights Ffn(const std::string& prefix, const std::string& suffix, uint64_t n_ff) {
    const Hparams& h = model_.hparams_;
    FfnWeights f;
    f.gate = LoadMatrix(prefix + "ffn_gate" + suffix + ".weight", h.n_embd, n_ff);
    f.up = LoadMatrix(prefix + "ffn_up" + suffix + ".weight", h.n_embd, n_ff);
    f.down = LoadMatrix(prefix + "ffn_down" + suffix + ".weight", n_ff, h.n_embd);
    f.gate_bias = OptionalVector(prefix + "ffn_gate" + suffix + ".bias", n_ff);
    f.up_bias = OptionalVector(prefix + "ffn_up" + suffix + ".bias", n_ff);
    f.down_bias = OptionalVector(prefix + "ffn_down" + suffix + ".bias", h.n_embd);
    return f;
  }

  void LoadAttention(const std::string& p, const LayerHparams& lh, LayerWeights* layer) {
    const Hparams& h = model_.hparams_;
    const uint64_t n_q = uint64_t{lh.n_head} * h.head_dim_k;
    const uint64_t n_k = uint64_t{lh.n_head_kv} * h.head_dim_k;
    const uint64_t n_v = uint64_t{lh.n_head_kv} * h.head_dim_v;
    if (file_.FindTensor(p + "attn_qkv.weight") != nullptr) {
      const GgufTensor& t = Require(p + "attn_qkv.weight", {h.n_embd, n_q + n_k + n_v});
      model_.bytes_per_token_ += t.bytes;
      layer->q = Rows(t, 0, n_q, h.n_embd);
      layer->k = Rows(t, n_q, n_k, h.n_embd);
      layer->v = Rows(t, n_q + n_k, n_v, h.n_embd);
      const std::vector<float> bias = OptionalVector(p + "attn_qkv.bias", n_q + n_k + n_v);
      if (!bias.empty()) {
        const auto at = [&](uint64_t i) { return bias.begin() + static_cast<ptrdiff_t>(i); };
        layer->q_bias.assign(at(0), at(n_q));
        layer->k_bias.assign(at(n_q), at(n_q + n_k));
        layer->v_bias.assign(at(n_q + n_k), bias.end());
      }
    } else {
      layer->q = LoadMatrix(p + "attn_q.weight", h.n_embd, n_q);
      layer->k = LoadMatrix(p + "attn_k.weight", h.n_embd, n_k);
      layer->v = LoadMatrix(p + "attn_v.weight", h.n_embd, n_v);
      layer->q_bias = OptionalVector(p + "attn_q.bias", n_q);
      layer->k_bias = OptionalVector(p + "attn_k.bias", n_k);
      layer->v_bias = OptionalVector(p + "attn_v.bias", n_v);
    }
    if (h.arch->qk_norm) {
      layer->q_norm = Vector(p + "attn_q_norm.weight", h.head_dim_k);
      layer->k_norm = Vector(p + "attn_k_norm.weight", h.head_dim_k);
    }
    layer->o = LoadMatrix(p + "attn_output.weight", uint64_t{lh.n_head} * h.head_dim_v, h.n_embd);
    layer->o_bias = OptionalVector(p + "attn_output.bias", h.n_embd);
  }

  void LoadLayer(uint32_t i) {
    const Hparams& h = model_.hparams_;
    const std::string p = "blk." + std::to_string(i) + ".";
    LayerWeights& layer = model_.layers_[i];
    const uint32_t interval = h.arch->no_rope_interval;
    layer.rotate = interval == 0 || (i + 1) % interval != 0;
    layer.attn_norm = Vector(p + "attn_norm.weight", h.n_embd);
    LoadAttention(p, h.layers[i], &layer);
    layer.ffn_norm = Vector(p + "ffn_norm.weight", h.n_embd);
    if (h.n_expert == 0) {
      layer.ffn = Ffn(p, "", h.layers[i].n_ff);
      return;
    }
    layer.router = LoadMatrix(p + "ffn_gate_inp.weight", h.n_embd, h.n_expert);
    auto gate = ExpertMatrices(p + "ffn_gate_exps.weight", h.n_embd, h.n_ff_exp);
    auto up = ExpertMatrices(p + "ffn_up_exps.weight", h.n_embd, h.n_ff_exp);
    auto down = ExpertMatrices(p + "ffn_down_exps.weight", h.n_ff_exp, h.n_embd);
    layer.experts.resize(h.n_expert);
    for (uint32_t e = 0; e < h.n_expert; ++e) {
      layer.experts[e].gate = std::move(gate[e]);
      layer.experts[e].up = std::move(up[e]);
      layer.experts[e].down = std::move(down[e]);
    }
    if (h.arch->shared_expert) {
      layer.shared_gate = LoadMatrix(p + "ffn_gate_inp_shexp.weight", h.n_embd, 1);
      layer.shared = Ffn(p, "_shexp", h.n_ff_shexp);
    }
  }

  void LoadRope() {
    RopeParams& rope = model_.hparams_.rope;
    if (model_.hparams_.arch->rope_freqs && file_.FindTensor("rope_freqs.weight") != nullptr) {
      rope.freq_factors = Vector("rope_freqs.weight", rope.n_rot / 2);
      for (const float f : rope.freq_factors) {
        const float least = std::max(1.0f, rope.freq_scale) / kMaxRopeScale;
        if (!(f >= least) || !std::isfinite(f)) {
          Fail(ErrorCode::kCorrupt,
               "%s: tensor rope_freqs.weight holds %g; its values must be finite and at least %g",
               file_.path().c_str(), static_cast<double>(f), static_cast<double>(least));
        }
      }
    }
    model_.rope_ = std::make_unique<Rope>(rope);
  }

  void Report(uint64_t done) {
    done_bytes_ = std::min(done, total_bytes_);
    if (progress_) progress_(done_bytes_, total_bytes_);
  }

  Model& model_;
  const GgufFile& file_;
  ThreadPool& pool_;
  const LoadProgress& progress_;
  uint64_t total_bytes_ = 0, done_bytes_ = 0;
  size_t n_used_ = 0;
};

std::unique_ptr<Model> Model::Load(GgufFile file, ThreadPool& pool, const LoadProgress& progress) {
  std::unique_ptr<Model> model(new Model(std::move(file)));
  pool.Region([&] { ModelLoader(model.get(), pool, progress).Load(); });
  model->file_.CheckNotTruncated();
  return model;
}

void Model::Embed(int32_t token, float* x) const {
  const uint64_t n = hparams_.n_embd;
  embed_(embedding_->data + static_cast<uint64_t>(token) * RowBytes(*embedding_->type, n), n, x);
}

uint64_t Model::PlannedBytes(const GgufFile& file) {
  uint64_t total = 0;
  for (const GgufTensor& t : file.tensors()) {
    const Packer* packer = FindPacker(t.type->id);
    const uint64_t n_rows = t.dim(1) * t.dim(2) * t.dim(3);
    const bool repacked =
        packer != nullptr && t.dims.size() >= 2 &&
        !(t.name == "token_embd.weight" && file.FindTensor("output.weight") != nullptr);
    // Float tensors, and an embedding beside a separate output, stay mapped: they count as their file bytes.
    total += repacked ? (n_rows + 15) / 16 * packer->panel_bytes(t.dims[0]) : t.bytes;
  }
  return total;
}

}  // namespace lutra
