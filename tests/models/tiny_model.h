// Random models of any architecture, small enough to build and run in a test.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "kernels/tensor_type.h"
#include "tests/gguf_builder.h"
#include "tests/test_util.h"

namespace lutra::testing {

inline constexpr uint32_t kF32Type = 0, kF16Type = 1, kQ4_0Type = 2, kQ8_0Type = 8, kBf16Type = 30,
                          kIq4KType = 139;

struct TinySpec {
  std::string arch = "llama";
  uint32_t n_embd = 64, n_layer = 2, n_head = 4, n_head_kv = 2, n_ff = 96, n_vocab = 48,
           n_ctx = 512;
  uint32_t head_dim = 0, head_dim_v = 0;  // keys attention.key_length and value_length; 0: left out
  uint32_t n_rot = 0;                     // key rope.dimension_count; 0: left out
  uint32_t n_expert = 0, n_used = 0, n_ff_exp = 0, n_ff_shexp = 0;
  bool tied = false, fused_qkv = false, qkv_bias = false, o_bias = false, ffn_bias = false,
       output_bias = false;
  bool rope_freqs = false;
  std::string scaling;  // "", "linear", "yarn"
  float factor = 4.0f, freq_base = 10000.0f;
  uint32_t n_ctx_orig = 0;
  uint32_t type = kF32Type;  // of the matrices
  unsigned seed = 1;
};

// Architectures differ in what a file must hold; what a spec leaves open is filled in here.
inline TinySpec TinyArch(const std::string& arch) {
  TinySpec s;
  s.arch = arch;
  if (arch == "smollm3") s.n_layer = 5;  // one that does not rotate, and one after it
  if (arch == "qwen2" || arch == "qwen2moe") s.qkv_bias = true;
  if (arch.ends_with("moe")) {
    s.n_expert = 6;
    s.n_used = 3;
    s.n_ff_exp = 48;
  }
  if (arch == "qwen2moe") s.n_ff_shexp = 80;
  return s;
}

// n_rows random rows of a type with values of the given size. Quantized types: any bytes behind a
// chosen f16 scale.
inline std::vector<uint8_t> RandomRows(uint32_t type_id, size_t n_rows, size_t n_cols, float size,
                                       std::mt19937& rng) {
  const TensorTypeInfo& type = *FindTensorType(type_id);
  const size_t n = n_rows * n_cols;
  std::vector<uint8_t> bytes(n_rows * RowBytes(type, n_cols));
  std::normal_distribution<float> normal(0.0f, size);
  if (type_id == kF32Type || type_id == kF16Type || type_id == kBf16Type) {
    std::vector<float> values(n);
    for (float& v : values) v = normal(rng);
    if (type_id == kF32Type) {
      std::memcpy(bytes.data(), values.data(), bytes.size());
    } else if (type_id == kBf16Type) {
      for (size_t i = 0; i < n; ++i)
        std::memcpy(&bytes[2 * i], reinterpret_cast<const uint8_t*>(&values[i]) + 2, 2);
    } else {
      F32ToF16(values.data(), n, reinterpret_cast<uint16_t*>(bytes.data()));
    }
    return bytes;
  }
  // The root mean square of what the rest of a block, drawn at random, stands for.
  const float rms = type_id == kQ4_0Type ? 4.6f : type_id == kQ8_0Type ? 73.9f : 70.0f * 18.5f;
  REQUIRE((type_id == kQ4_0Type || type_id == kQ8_0Type || type_id == kIq4KType));
  const float d = size / rms;
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
  for (size_t at = 0; at < bytes.size(); at += type.block_bytes) {
    uint16_t half;
    F32ToF16(&d, 1, &half);
    std::memcpy(&bytes[at], &half, 2);
  }
  return bytes;
}

inline GgufBuilder BuildTiny(const TinySpec& s) {
  std::mt19937 rng(s.seed);
  GgufBuilder b;
  const std::string a = s.arch + ".";
  b.Set("general.architecture", s.arch);
  b.Set(a + "context_length", s.n_ctx)
      .Set(a + "embedding_length", s.n_embd)
      .Set(a + "block_count", s.n_layer);
  b.Set(a + "feed_forward_length", s.n_ff);
  b.Set(a + "attention.head_count", s.n_head).Set(a + "attention.head_count_kv", s.n_head_kv);
  b.Set(a + "attention.layer_norm_rms_epsilon", 1e-5f).Set(a + "rope.freq_base", s.freq_base);
  if (s.head_dim != 0) b.Set(a + "attention.key_length", s.head_dim);
  if (s.head_dim_v != 0) b.Set(a + "attention.value_length", s.head_dim_v);
  if (s.n_rot != 0) b.Set(a + "rope.dimension_count", s.n_rot);
  if (!s.scaling.empty()) {
    b.Set(a + "rope.scaling.type", s.scaling).Set(a + "rope.scaling.factor", s.factor);
    if (s.n_ctx_orig != 0) b.Set(a + "rope.scaling.original_context_length", s.n_ctx_orig);
  }
  if (s.n_expert != 0) b.Set(a + "expert_count", s.n_expert).Set(a + "expert_used_count", s.n_used);
  if (s.n_ff_exp != 0) b.Set(a + "expert_feed_forward_length", s.n_ff_exp);
  if (s.n_ff_shexp != 0) b.Set(a + "expert_shared_feed_forward_length", s.n_ff_shexp);
  std::vector<std::string> tokens;
  for (uint32_t i = 0; i < s.n_vocab; ++i) tokens.push_back("t" + std::to_string(i));
  b.SetArray("tokenizer.ggml.tokens", tokens);

  const uint64_t e = s.n_embd, dk = s.head_dim != 0 ? s.head_dim : s.n_embd / s.n_head;
  const uint64_t dv = s.head_dim_v != 0 ? s.head_dim_v : s.n_embd / s.n_head;
  const auto matrix = [&](const std::string& name, uint64_t cols, uint64_t rows,
                          uint64_t slices = 1) {
    const float size = 1.2f / std::sqrt(static_cast<float>(cols));
    std::vector<uint64_t> dims = {cols, rows};
    if (slices > 1) dims.push_back(slices);
    b.Tensor(name, dims, s.type, RandomRows(s.type, rows * slices, cols, size, rng));
  };
  const auto floats = [&](const std::string& name, uint64_t n, float mean, float size) {
    std::normal_distribution<float> normal(mean, size);
    std::vector<float> v(n);
    for (float& x : v) x = normal(rng);
    b.F32(name, {n}, v);
  };
  const auto bias = [&](bool has, const std::string& name, uint64_t n) {
    if (has) floats(name, n, 0.0f, 0.3f);
  };
  b.Tensor("token_embd.weight", {e, s.n_vocab}, s.type,
           RandomRows(s.type, s.n_vocab, e, 1.0f, rng));
  if (s.rope_freqs) {
    std::vector<float> factors(dk / 2);
    for (size_t i = 0; i < factors.size(); ++i)
      factors[i] = 1.0f + 7.0f * static_cast<float>(i) / static_cast<float>(factors.size());
    b.F32("rope_freqs.weight", {factors.size()}, factors);
  }
  for (uint32_t i = 0; i < s.n_layer; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    floats(p + "attn_norm.weight", e, 1.0f, 0.2f);
    const uint64_t nq = s.n_head * dk, nk = s.n_head_kv * dk, nv = s.n_head_kv * dv;
    if (s.fused_qkv) {
      matrix(p + "attn_qkv.weight", e, nq + nk + nv);
      bias(s.qkv_bias, p + "attn_qkv.bias", nq + nk + nv);
    } else {
      matrix(p + "attn_q.weight", e, nq);
      matrix(p + "attn_k.weight", e, nk);
      matrix(p + "attn_v.weight", e, nv);
      bias(s.qkv_bias, p + "attn_q.bias", nq);
      bias(s.qkv_bias, p + "attn_k.bias", nk);
      bias(s.qkv_bias, p + "attn_v.bias", nv);
    }
    if (s.arch.starts_with("qwen3")) {
      floats(p + "attn_q_norm.weight", dk, 1.0f, 0.2f);
      floats(p + "attn_k_norm.weight", dk, 1.0f, 0.2f);
    }
    matrix(p + "attn_output.weight", s.n_head * dv, e);
    bias(s.o_bias, p + "attn_output.bias", e);
    floats(p + "ffn_norm.weight", e, 1.0f, 0.2f);
    const auto ffn = [&](const std::string& suffix, uint64_t n_ff, uint64_t slices) {
      matrix(p + "ffn_gate" + suffix + ".weight", e, n_ff, slices);
      matrix(p + "ffn_up" + suffix + ".weight", e, n_ff, slices);
      matrix(p + "ffn_down" + suffix + ".weight", n_ff, e, slices);
    };
    if (s.n_expert == 0) {
      ffn("", s.n_ff, 1);
      bias(s.ffn_bias, p + "ffn_gate.bias", s.n_ff);
      bias(s.ffn_bias, p + "ffn_up.bias", s.n_ff);
      bias(s.ffn_bias, p + "ffn_down.bias", e);
      continue;
    }
    const float router = 2.0f / std::sqrt(static_cast<float>(e));
    b.Tensor(p + "ffn_gate_inp.weight", {e, s.n_expert}, kF32Type,
             RandomRows(kF32Type, s.n_expert, e, router, rng));
    ffn("_exps", s.n_ff_exp != 0 ? s.n_ff_exp : s.n_ff, s.n_expert);
    if (s.n_ff_shexp != 0) {
      floats(p + "ffn_gate_inp_shexp.weight", e, 0.0f, router);
      ffn("_shexp", s.n_ff_shexp, 1);
    }
  }
  floats("output_norm.weight", e, 1.0f, 0.2f);
  if (!s.tied) matrix("output.weight", e, s.n_vocab);
  bias(s.output_bias, "output.bias", s.n_vocab);
  return b;
}

}  // namespace lutra::testing
