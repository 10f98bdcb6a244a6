#include "models/hparams.h"

#include <cmath>

#include "kernels/attention.h"
#include "kernels/base/error.h"

namespace lutra {
namespace {

// Reads `ARCH.key` values; messages name the file and the whole key.
class KeyReader {
 public:
  KeyReader(const GgufFile& file, const std::string& arch) : file_(file), prefix_(arch + ".") {}

  std::string Key(const char* key) const { return prefix_ + key; }

  // Within [low, high]; `absent` if there is no such key (required if `absent` is 0 and low > 0).
  uint32_t U32(const char* key, uint32_t low, uint32_t high, uint32_t absent = 0) const {
    const auto v = file_.GetU32(Key(key));
    if (!v && absent == 0 && low > 0) Missing(key);
    const uint32_t value = v.value_or(absent);
    CheckRange(key, value, low, high);
    return value;
  }

  std::vector<uint32_t> PerLayer(const char* key, uint32_t n_layer, uint32_t low, uint32_t high,
                                 const std::vector<uint32_t>& absent) const {
    auto values = file_.GetU32PerLayer(Key(key), n_layer);
    if (!values) {
      if (absent.empty()) Missing(key);
      values = absent;
    }
    for (const uint32_t v : *values) CheckRange(key, v, low, high);
    return *values;
  }

  float Positive(const char* key, float absent) const {
    const auto v = file_.GetF32(Key(key));
    if (!v && absent == 0) Missing(key);
    const float value = v.value_or(absent);
    if (!(value > 0) || !std::isfinite(value)) {
      Fail(ErrorCode::kCorrupt, "%s: key %s is %g; it must be a positive number", Path(),
           Key(key).c_str(), static_cast<double>(value));
    }
    return value;
  }

  const GgufFile& file() const { return file_; }
  const char* Path() const { return file_.path().c_str(); }

  [[noreturn]] void Bad(const char* key, uint64_t value, const std::string& rule) const {
    Fail(ErrorCode::kCorrupt, "%s: key %s is %llu; %s", Path(), Key(key).c_str(),
         static_cast<unsigned long long>(value), rule.c_str());
  }

 private:
  [[noreturn]] void Missing(const char* key) const {
    Fail(ErrorCode::kCorrupt, "%s: key %s is missing", Path(), Key(key).c_str());
  }
  void CheckRange(const char* key, uint32_t value, uint32_t low, uint32_t high) const {
    if (value < low || value > high)
      Bad(key, value, Format("it must be within %u and %u", low, high));
  }

  const GgufFile& file_;
  std::string prefix_;
};

void ReadRope(const KeyReader& keys, Hparams* h) {
  RopeParams& rope = h->rope;
  rope.kind = h->arch->rope;
  const uint32_t n_rot = keys.U32("rope.dimension_count", 0, h->head_dim_k, h->head_dim_k);
  if (n_rot % 2 != 0) keys.Bad("rope.dimension_count", n_rot, "it must be even");
  if (h->arch->rope_spans_head && n_rot != h->head_dim_k) {
    keys.Bad("rope.dimension_count", n_rot,
             Format("this architecture rotates whole heads of %u", h->head_dim_k));
  }
  rope.n_rot = n_rot;
  rope.freq_base = keys.Positive("rope.freq_base", 10000.0f);
  if (rope.freq_base < 1) {  // angles would grow from pair to pair
    Fail(ErrorCode::kCorrupt, "%s: key %s is %g; it must be at least 1", keys.Path(),
         keys.Key("rope.freq_base").c_str(), static_cast<double>(rope.freq_base));
  }

  const GgufFile& file = keys.file();
  const char* factor_key = file.Find(keys.Key("rope.scaling.factor")) != nullptr
                               ? "rope.scaling.factor"
                               : "rope.scale_linear";
  const float factor = file.GetF32(keys.Key(factor_key)).value_or(0);
  if (factor != 0 && !(factor >= 1 / kMaxRopeScale)) {
    Fail(ErrorCode::kCorrupt, "%s: key %s is %g; it must be 0 (no scaling) or at least %g",
         keys.Path(), keys.Key(factor_key).c_str(), static_cast<double>(factor),
         static_cast<double>(1 / kMaxRopeScale));
  }
  const std::string type(file.GetString(keys.Key("rope.scaling.type")).value_or("linear"));
  if (type != "none" && type != "linear" && type != "yarn") {
    Fail(ErrorCode::kUnsupported, "%s: key %s is '%s'; only none, linear and yarn are supported",
         keys.Path(), keys.Key("rope.scaling.type").c_str(), Printable(type, 40).c_str());
  }
  if (type != "none" && factor > 0) rope.freq_scale = 1.0f / factor;
  rope.n_ctx_orig = keys.U32("rope.scaling.original_context_length", 1, UINT32_MAX, h->n_ctx_train);
  rope.magnitude = keys.Positive("rope.scaling.attn_factor", 1.0f);
  if (type == "yarn" && factor > 0) {
    rope.yarn = true;
    if (factor > 1) rope.magnitude *= 0.1f * std::log(factor) + 1.0f;
  }
}

}  // namespace

Hparams ReadHparams(const GgufFile& file) {
  const auto name = file.GetString("general.architecture");
  if (!name) {
    Fail(ErrorCode::kCorrupt, "%s: key general.architecture is missing: not a model file",
         file.path().c_str());
  }
  Hparams h{};
  h.arch = FindArch(*name);
  if (h.arch == nullptr) {
    std::string known;
    for (const ArchSpec* a : AllArchs()) known += std::string(known.empty() ? "" : ", ") + a->name;
    Fail(ErrorCode::kUnsupported, "%s: architecture '%s' is not supported; supported are %s",
         file.path().c_str(), Printable(*name, 60).c_str(), known.c_str());
  }
  const KeyReader keys(file, h.arch->name);
  h.n_ctx_train = keys.U32("context_length", 1, 1u << 30);
  h.n_embd = keys.U32("embedding_length", 1, kMaxWidth);
  h.n_layer = keys.U32("block_count", 1, kMaxLayers);

  const auto* tokens = file.GetStrings("tokenizer.ggml.tokens");
  h.n_vocab = tokens != nullptr
                  ? static_cast<uint32_t>(std::min<size_t>(tokens->size(), UINT32_MAX))
                  : keys.U32("vocab_size", 0, 1u << 28, 0);
  if (h.n_vocab == 0) {
    Fail(ErrorCode::kCorrupt, "%s: the vocabulary (tokenizer.ggml.tokens) is missing or empty",
         file.path().c_str());
  }

  const auto heads = keys.PerLayer("attention.head_count", h.n_layer, 1, kMaxHeads, {});
  const auto heads_kv = keys.PerLayer("attention.head_count_kv", h.n_layer, 1, kMaxHeads, heads);
  h.head_dim_k =
      keys.U32("attention.key_length", 1, kMaxHeadDim, std::max(1u, h.n_embd / heads[0]));
  h.head_dim_v =
      keys.U32("attention.value_length", 1, kMaxHeadDim, std::max(1u, h.n_embd / heads[0]));
  h.rms_eps = keys.Positive("attention.layer_norm_rms_epsilon", 0);

  const ArchSpec::Experts experts = h.arch->experts;
  h.n_expert = keys.U32("expert_count", experts == ArchSpec::Experts::kAlways ? 1 : 0, kMaxExperts);
  if (experts == ArchSpec::Experts::kNever && h.n_expert > 0) {
    keys.Bad("expert_count", h.n_expert, "this architecture has no experts");
  }
  h.n_expert_used = keys.U32("expert_used_count", h.n_expert > 0 ? 1 : 0, h.n_expert);

  const bool dense = h.n_expert == 0;
  const auto n_ff =
      keys.PerLayer("feed_forward_length", h.n_layer, dense ? 1 : 0, kMaxWidth,
                    dense ? std::vector<uint32_t>() : std::vector<uint32_t>(h.n_layer, 0));
  if (!dense) {
    h.n_ff_exp = h.arch->expert_ff_key ? keys.U32("expert_feed_forward_length", 1, kMaxWidth,
                                                  n_ff[0] / h.n_expert_used)
                                       : n_ff[0];
    if (h.n_ff_exp == 0) keys.Bad("feed_forward_length", 0, "experts need a size");
    if (h.arch->shared_expert) {
      h.n_ff_shexp = keys.U32("expert_shared_feed_forward_length", 1, kMaxWidth, n_ff[0]);
    }
  }
  for (uint32_t i = 0; i < h.n_layer; ++i) {
    h.layers.push_back({heads[i], heads_kv[i], n_ff[i]});
    if (heads[i] % heads_kv[i] != 0) {
      keys.Bad("attention.head_count_kv", heads_kv[i],
               Format("it must divide the %u query heads", heads[i]));
    }
    if (heads[i] / heads_kv[i] > kMaxHeadsPerKv) {
      keys.Bad("attention.head_count_kv", heads_kv[i],
               Format("%u query heads would share one; at most %zu may", heads[i] / heads_kv[i],
                      kMaxHeadsPerKv));
    }
    if (uint64_t{heads[i]} * std::max(h.head_dim_k, h.head_dim_v) > kMaxWidth) {
      keys.Bad("attention.head_count", heads[i], "heads times head size is too large");
    }
  }
  ReadRope(keys, &h);
  return h;
}

}  // namespace lutra
