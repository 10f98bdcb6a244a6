// The forward pass of six architectures as the formulas say, in double, one token at a time,
// nothing shared with models/ but the bytes of the file. Slow and plain: what the decoder is judged
// by.
//
// Sources: RMSNorm, Zhang and Sennrich 2019; rotary embedding, Su et al. 2021; YaRN, Peng et al.
// 2023; SwiGLU, Shazeer 2020; grouped queries, Ainslie et al. 2023; experts, Jiang et al. 2024,
// Yang et al. 2024 and 2025; keys and names, GGUF specification.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/dequantize.h"
#include "models/gguf.h"

namespace lutra::testing {

class NaiveDecoder {
 public:
  using Vec = std::vector<double>;

  explicit NaiveDecoder(const GgufFile& file)
      : file_(file), arch_(*file.GetString("general.architecture")) {
    n_embd_ = Int("embedding_length");
    n_layer_ = Int("block_count");
    eps_ = Float("attention.layer_norm_rms_epsilon", 0);
    heads_ = PerLayer("attention.head_count", {});
    heads_kv_ = PerLayer("attention.head_count_kv", heads_);
    dk_ = Int("attention.key_length", n_embd_ / heads_[0]);
    dv_ = Int("attention.value_length", n_embd_ / heads_[0]);
    n_rot_ = Int("rope.dimension_count", dk_);
    base_ = Float("rope.freq_base", 10000);
    n_expert_ = Int("expert_count", 0);
    n_used_ = Int("expert_used_count", 0);
    const std::string scaling(file.GetString(arch_ + ".rope.scaling.type").value_or("linear"));
    const double factor = Float("rope.scaling.factor", Float("rope.scale_linear", 0));
    if (scaling != "none" && factor > 0) s_ = factor;
    yarn_ = scaling == "yarn" && factor > 0;
    n_orig_ =
        static_cast<double>(Int("rope.scaling.original_context_length", Int("context_length")));
    magnitude_ = Float("rope.scaling.attn_factor", 1);
    if (yarn_ && s_ > 1) magnitude_ *= 0.1 * std::log(s_) + 1;
    k_cache_.resize(n_layer_);
    v_cache_.resize(n_layer_);
  }

  // The logits after one more token.
  Vec Step(int32_t token) {
    Vec x = Row(Get("token_embd.weight"), static_cast<size_t>(token), n_embd_);
    for (size_t i = 0; i < n_layer_; ++i) {
      const std::string p = "blk." + std::to_string(i) + ".";
      const Vec a = Attention(i, p, Norm(x, p + "attn_norm.weight"));
      for (size_t e = 0; e < n_embd_; ++e) x[e] += a[e];
      const Vec h = Norm(x, p + "ffn_norm.weight");
      const Vec f = n_expert_ == 0 ? Ffn(h, p, "") : Experts(h, p);
      for (size_t e = 0; e < n_embd_; ++e) x[e] += f[e];
    }
    ++pos_;
    const bool tied = file_.FindTensor("output.weight") == nullptr;
    return Product(tied ? "token_embd.weight" : "output.weight", Norm(x, "output_norm.weight"),
                   "output.bias");
  }

  // Called with every product's weights (which part of them, in units of the product's rows) and input.
  std::function<void(const std::string& weights, size_t part, const Vec& x)> on_product;

 private:
  size_t Int(const std::string& key) const { return *file_.GetU32(arch_ + "." + key); }
  size_t Int(const std::string& key, size_t absent) const {
    return file_.GetU32(arch_ + "." + key).value_or(static_cast<uint32_t>(absent));
  }
  double Float(const std::string& key, double absent) const {
    const auto v = file_.GetF32(arch_ + "." + key);
    return v ? static_cast<double>(*v) : absent;
  }
  std::vector<size_t> PerLayer(const std::string& key, const std::vector<size_t>& absent) const {
    const auto v = file_.GetU32PerLayer(arch_ + "." + key, n_layer_);
    return v ? std::vector<size_t>(v->begin(), v->end()) : absent;
  }

  bool Has(const std::string& name) const { return file_.FindTensor(name) != nullptr; }
  // A whole tensor as doubles, rows of dims[0] one after another.
  const Vec& Get(const std::string& name) {
    Vec& w = weights_[name];
    if (w.empty()) {
      const GgufTensor& t = *file_.FindTensor(name);
      std::vector<float> row(t.dims[0]);
      for (uint64_t r = 0; r < t.n_weights() / t.dims[0]; ++r) {
        FindDequantizer(t.type->id)(t.data + r * RowBytes(*t.type, t.dims[0]), row.size(),
                                    row.data());
        w.insert(w.end(), row.begin(), row.end());
      }
    }
    return w;
  }
  static Vec Row(const Vec& w, size_t row, size_t n) {
    return Vec(w.begin() + static_cast<ptrdiff_t>(row * n),
               w.begin() + static_cast<ptrdiff_t>((row + 1) * n));
  }

  // Rows [first, first + n) of w times x; all rows if n is 0.
  Vec Product(const std::string& name, const Vec& x, const std::string& bias = "", size_t first = 0,
              size_t n = 0) {
    const Vec& w = Get(name);
    if (n == 0) n = w.size() / x.size();
    if (on_product) on_product(name, first / n, x);
    Vec y(n);
    for (size_t r = 0; r < n; ++r) {
      for (size_t c = 0; c < x.size(); ++c) y[r] += w[(first + r) * x.size() + c] * x[c];
    }
    if (!bias.empty() && Has(bias)) {
      const Vec& b = Get(bias);
      for (size_t r = 0; r < n; ++r) y[r] += b[first + r];
    }
    return y;
  }

  Vec Norm(const Vec& x, const std::string& weight) {
    Vec y = x;
    NormHead(y.data(), y.size(), Get(weight));
    return y;
  }
  void NormHead(double* x, size_t n, const Vec& w) const {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += x[i] * x[i];
    const double factor = 1 / std::sqrt(sum / static_cast<double>(n) + eps_);
    for (size_t i = 0; i < n; ++i) x[i] *= factor * w[i];
  }

  void Rotate(double* head) {
    constexpr double kPi = 3.14159265358979323846;
    const bool adjacent = arch_ == "llama" || arch_ == "smollm3";
    const bool factors = arch_ == "llama" && Has("rope_freqs.weight");
    const double n_rot = static_cast<double>(n_rot_);
    const auto turns_dim = [&](double turns) {
      return n_rot * std::log(n_orig_ / (turns * 2 * kPi)) / (2 * std::log(base_));
    };
    const double low = std::max(0.0, std::floor(turns_dim(32))),
                 high = std::min(n_rot - 1, std::ceil(turns_dim(1)));
    for (size_t i = 0; i < n_rot_ / 2; ++i) {
      double theta = pos_ * std::pow(base_, -2.0 * static_cast<double>(i) / n_rot);
      if (factors) theta /= Get("rope_freqs.weight")[i];
      double angle = theta / s_;
      if (yarn_) {
        const double r =
            1 - std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
        angle = angle * (1 - r) + theta * r;
      }
      double& a = head[adjacent ? 2 * i : i];
      double& b = head[adjacent ? 2 * i + 1 : i + n_rot_ / 2];
      const double c = std::cos(angle) * magnitude_, s = std::sin(angle) * magnitude_, old = a;
      a = old * c - b * s;
      b = old * s + b * c;
    }
  }

  Vec Attention(size_t layer, const std::string& p, const Vec& h) {
    const size_t nh = heads_[layer], nk = heads_kv_[layer];
    Vec q, k, v;
    if (Has(p + "attn_qkv.weight")) {
      const std::string name = p + "attn_qkv.weight", bias = p + "attn_qkv.bias";
      q = Product(name, h, bias, 0, nh * dk_);
      k = Product(name, h, bias, nh * dk_, nk * dk_);
      v = Product(name, h, bias, (nh + nk) * dk_, nk * dv_);
    } else {
      q = Product(p + "attn_q.weight", h, p + "attn_q.bias");
      k = Product(p + "attn_k.weight", h, p + "attn_k.bias");
      v = Product(p + "attn_v.weight", h, p + "attn_v.bias");
    }
    const bool rotate = arch_ != "smollm3" || (layer + 1) % 4 != 0;
    const bool norm = arch_ == "qwen3" || arch_ == "qwen3moe";
    for (size_t g = 0; g < nh; ++g) {
      if (norm) NormHead(&q[g * dk_], dk_, Get(p + "attn_q_norm.weight"));
      if (rotate) Rotate(&q[g * dk_]);
    }
    for (size_t g = 0; g < nk; ++g) {
      if (norm) NormHead(&k[g * dk_], dk_, Get(p + "attn_k_norm.weight"));
      if (rotate) Rotate(&k[g * dk_]);
    }
    k_cache_[layer].push_back(k);
    v_cache_[layer].push_back(v);
    const size_t n_pos = k_cache_[layer].size();
    Vec out(nh * dv_);
    for (size_t head = 0; head < nh; ++head) {
      const size_t g = head / (nh / nk);
      Vec s(n_pos);
      double max = -HUGE_VAL, sum = 0;
      for (size_t j = 0; j < n_pos; ++j) {
        for (size_t d = 0; d < dk_; ++d)
          s[j] += q[head * dk_ + d] * k_cache_[layer][j][g * dk_ + d];
        s[j] /= std::sqrt(static_cast<double>(dk_));
        max = std::max(max, s[j]);
      }
      for (double& e : s) sum += e = std::exp(e - max);
      for (size_t j = 0; j < n_pos; ++j) {
        for (size_t d = 0; d < dv_; ++d)
          out[head * dv_ + d] += s[j] / sum * v_cache_[layer][j][g * dv_ + d];
      }
    }
    return Product(p + "attn_output.weight", out, p + "attn_output.bias");
  }

  static void SiluMul(Vec* gate, const Vec& up) {
    for (size_t i = 0; i < up.size(); ++i)
      (*gate)[i] = (*gate)[i] / (1 + std::exp(-(*gate)[i])) * up[i];
  }
  Vec Ffn(const Vec& h, const std::string& p, const std::string& suffix) {
    Vec gate = Product(p + "ffn_gate" + suffix + ".weight", h, p + "ffn_gate" + suffix + ".bias");
    SiluMul(&gate, Product(p + "ffn_up" + suffix + ".weight", h, p + "ffn_up" + suffix + ".bias"));
    return Product(p + "ffn_down" + suffix + ".weight", gate, p + "ffn_down" + suffix + ".bias");
  }

  Vec Experts(const Vec& h, const std::string& p) {
    Vec prob = Product(p + "ffn_gate_inp.weight", h);
    const double max = *std::max_element(prob.begin(), prob.end());
    double total = 0;
    for (double& e : prob) total += e = std::exp(e - max);
    std::vector<size_t> order(n_expert_);
    for (size_t e = 0; e < n_expert_; ++e) prob[e] /= total, order[e] = e;
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return prob[a] > prob[b]; });
    order.resize(n_used_);
    double chosen = 0;
    for (const size_t e : order) chosen += prob[e];
    const bool normalize = arch_ != "qwen2moe";
    Vec y(n_embd_);
    const size_t n_ff = Get(p + "ffn_down_exps.weight").size() / n_expert_ / n_embd_;
    for (const size_t e : order) {
      Vec gate = Product(p + "ffn_gate_exps.weight", h, "", e * n_ff, n_ff);
      SiluMul(&gate, Product(p + "ffn_up_exps.weight", h, "", e * n_ff, n_ff));
      const Vec down = Product(p + "ffn_down_exps.weight", gate, "", e * n_embd_, n_embd_);
      const double weight = normalize ? prob[e] / std::max(chosen, 0x1p-14) : prob[e];
      for (size_t i = 0; i < n_embd_; ++i) y[i] += weight * down[i];
    }
    if (arch_ == "qwen2moe") {
      const double gate = 1 / (1 + std::exp(-Product(p + "ffn_gate_inp_shexp.weight", h)[0]));
      const Vec shared = Ffn(h, p, "_shexp");
      for (size_t i = 0; i < n_embd_; ++i) y[i] += gate * shared[i];
    }
    return y;
  }

  const GgufFile& file_;
  const std::string arch_;
  size_t n_embd_, n_layer_, dk_, dv_, n_rot_, n_expert_, n_used_;
  std::vector<size_t> heads_, heads_kv_;
  double eps_, base_, s_ = 1, n_orig_, magnitude_;
  bool yarn_ = false;
  int32_t pos_ = 0;
  std::map<std::string, Vec> weights_;
  std::vector<std::vector<Vec>> k_cache_, v_cache_;  // [layer][position][heads * size]
};

}  // namespace lutra::testing
