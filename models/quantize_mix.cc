#include "models/quantize_mix.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "kernels/base/error.h"
#include "kernels/formats/all.h"
#include "kernels/formats/float_formats.h"
#include "kernels/quantize/quantize.h"

namespace lutra {
namespace {

template <class F>
constexpr uint32_t kId = F::kInfo.type_id;

// Numbers of general.file_type are fixed by llama.cpp and ik_llama.cpp.
constexpr QuantizeMix kMixes[] = {
    {"F32", 0, kId<F32>},        {"F16", 1, kId<F16>},         {"BF16", 32, kId<Bf16>},
    {"Q4_0", 2, kId<Q4_0>},      {"Q4_1", 3, kId<Q4_1>},       {"Q5_0", 8, kId<Q5_0>},
    {"Q5_1", 9, kId<Q5_1>},      {"Q6_0", 135, kId<Q6_0>},     {"Q8_0", 7, kId<Q8_0>},
    {"MXFP4", 38, kId<Mxfp4>},   {"Q2_K", 10, kId<Q2K>},       {"Q2_K_S", 21, kId<Q2K>},
    {"Q3_K", 12, kId<Q3K>},      {"Q3_K_S", 11, kId<Q3K>},     {"Q3_K_M", 12, kId<Q3K>},
    {"Q3_K_L", 13, kId<Q3K>},    {"Q4_K", 15, kId<Q4K>},       {"Q4_K_S", 14, kId<Q4K>},
    {"Q4_K_M", 15, kId<Q4K>},    {"Q5_K", 17, kId<Q5K>},       {"Q5_K_S", 16, kId<Q5K>},
    {"Q5_K_M", 17, kId<Q5K>},    {"Q6_K", 18, kId<Q6K>},       {"IQ1_S", 24, kId<Iq1S>},
    {"IQ1_M", 31, kId<Iq1M>},    {"IQ2_XXS", 19, kId<Iq2Xxs>}, {"IQ2_XS", 20, kId<Iq2Xs>},
    {"IQ2_S", 28, kId<Iq2Xs>},   {"IQ2_M", 29, kId<Iq2S>},     {"IQ3_XXS", 23, kId<Iq3Xxs>},
    {"IQ3_XS", 22, kId<Iq3S>},   {"IQ3_S", 26, kId<Iq3S>},     {"IQ3_M", 27, kId<Iq3S>},
    {"IQ4_NL", 25, kId<Iq4Nl>},  {"IQ4_XS", 30, kId<Iq4Xs>},   {"IQ1_KT", 156, kId<Iq1Kt>},
    {"IQ2_KT", 151, kId<Iq2Kt>}, {"IQ3_KT", 152, kId<Iq3Kt>},  {"IQ4_KT", 153, kId<Iq4Kt>},
    {"IQ2_K", 138, kId<Iq2K>},   {"IQ2_KS", 147, kId<Iq2Ks>},  {"IQ2_KL", 155, kId<Iq2Kl>},
    {"IQ3_K", 139, kId<Iq3K>},   {"IQ3_KS", 154, kId<Iq3Ks>},  {"IQ3_KL", 146, kId<Iq3K>},
    {"IQ4_K", 140, kId<Iq4K>},   {"IQ4_KS", 145, kId<Iq4Ks>},  {"IQ4_KSS", 148, kId<Iq4Kss>},
    {"IQ5_K", 141, kId<Iq5K>},   {"IQ5_KS", 150, kId<Iq5Ks>},  {"IQ6_K", 142, kId<Iq6K>},
    {"TQ1_0", 36, kId<Tq1_0>},   {"TQ2_0", 37, kId<Tq2_0>},    {"IQ1_BN", 136, kId<Iq1Bn>},
    {"IQ2_BN", 137, kId<Iq2Bn>},
};

bool SameName(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return std::toupper(static_cast<unsigned char>(x)) ==
                  std::toupper(static_cast<unsigned char>(y));
         });
}

bool Has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Layers that some mixes give more bits: the first and last eighths, and every third between.
bool More(uint32_t i, uint32_t n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

// N of "blk.N."; 0 without one.
uint32_t BlockOf(std::string_view name) {
  const size_t at = name.find("blk.");
  uint32_t n = 0;
  if (at != std::string_view::npos)
    std::from_chars(name.data() + at + 4, name.data() + name.size(), n);
  return n;
}

}  // namespace

std::span<const QuantizeMix> AllQuantizeMixes() { return kMixes; }

const QuantizeMix* FindQuantizeMix(std::string_view name) {
  for (const QuantizeMix& mix : kMixes) {
    if (SameName(mix.name, name) && CanQuantize(mix.default_type)) return &mix;
  }
  return nullptr;
}

const TensorTypeInfo* FindWritableType(std::string_view name) {
  for (const TensorTypeInfo& type : AllTensorTypes()) {
    if (SameName(type.name, name) && CanQuantize(type.id)) return &type;
  }
  return nullptr;
}

std::string WritableTypeNames() {
  std::string names;
  for (const TensorTypeInfo& type : AllTensorTypes()) {
    if (CanQuantize(type.id)) names += std::string(names.empty() ? "" : " ") + type.name;
  }
  return names;
}

bool IsQuantizable(const GgufTensor& tensor) {
  if (!tensor.type->readable || tensor.dims.size() < 2 || !tensor.name.ends_with("weight"))
    return false;
  // A matrix of one row or column is a vector.
  if (tensor.n_weights() == tensor.dim(0)) return false;
  for (const char* part :
       {"_norm.weight", "ffn_gate_inp", "ssm_conv1d", "ssm_x.weight", "ssm_dt.weight",
        "attn_rel_b.weight", "position_embd", "token_types", "rope_freqs"}) {
    if (Has(tensor.name, part)) return false;
  }
  return true;
}

bool IsOutput(const GgufFile& file, const GgufTensor& tensor) {
  return tensor.name == "output.weight" ||
         (tensor.name == "token_embd.weight" && file.FindTensor("output.weight") == nullptr);
}
bool IsEmbedding(const GgufTensor& tensor) { return tensor.name == "token_embd.weight"; }

const TensorTypeInfo* FallbackForRows(const TensorTypeInfo* wanted, uint64_t n) {
  if (n % wanted->block_weights == 0) return wanted;
  uint32_t id = kId<Iq4Nl>;
  switch (wanted->id) {
    case kId<Q4K>:
    case kId<Iq4K>:
    case kId<Iq5Ks>:
      id = kId<Q5_0>;
      break;
    case kId<Q5K>:
    case kId<Iq5K>:
      id = kId<Q6_0>;
      break;
    case kId<Q6K>:
    case kId<Iq6K>:
      id = kId<Q8_0>;
      break;
    default:
      break;
  }
  const TensorTypeInfo* type = FindTensorType(id);
  return n % type->block_weights == 0 ? type : FindTensorType(kId<F16>);
}

MixRules::MixRules(const QuantizeMix& mix, const GgufFile& file, bool has_imatrix)
    : mix_(mix), has_imatrix_(has_imatrix), tied_(file.FindTensor("output.weight") == nullptr) {
  const std::string arch(file.GetString("general.architecture").value_or(""));
  n_layer_ = file.GetU32(arch + ".block_count").value_or(0);
  n_expert_ = std::max(1u, file.GetU32(arch + ".expert_count").value_or(1));
  // Per-layer arrays of heads: the first layer speaks for all.
  const auto heads_of = [&](const std::string& key) -> uint32_t {
    const GgufValue* value = file.Find(arch + key);
    if (value == nullptr || value->type == GgufType::kString || value->count == 0) return 0;
    return static_cast<uint32_t>(std::clamp<int64_t>(value->AsInt(0).value_or(0), 0, 1 << 20));
  };
  const uint32_t heads = heads_of(".attention.head_count");
  const uint32_t kv_heads = heads_of(".attention.head_count_kv");
  gqa_ = heads > 0 && kv_heads > 0 ? static_cast<double>(heads) / kv_heads : 1.0;
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  n_vocab_ = embedding == nullptr ? 0 : static_cast<uint32_t>(embedding->dim(1));
  is_70b_ = n_layer_ == 80 && heads != kv_heads;
  is_8b_ = n_layer_ == 32 && n_vocab_ >= 40000;
  for (const GgufTensor& tensor : file.tensors()) {
    n_attn_v_ += Has(tensor.name, "attn_v.weight") || Has(tensor.name, "attn_qkv.weight");
  }
}

bool MixRules::Is(std::initializer_list<std::string_view> names) const {
  return std::find(names.begin(), names.end(), std::string_view(mix_.name)) != names.end();
}

uint32_t MixRules::OutputType() const {
  if (Is({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ2_K", "IQ2_KS",
          "IQ2_KL", "IQ3_K", "IQ3_KS", "IQ1_KT", "IQ2_KT", "IQ3_KT"})) {
    return tied_ ? kId<Iq4K> : kId<Q5K>;
  }
  if (tied_ && Is({"IQ3_S", "IQ3_M", "IQ3_KL", "IQ4_XS", "IQ4_KS", "IQ4_KSS"})) return kId<Iq5K>;
  if (mix_.default_type == kId<Q8_0> || mix_.default_type == kId<Iq6K>) return mix_.default_type;
  return kId<Q6K>;
}

// Mixes of 1 and 2 bits have rules of their own from attn_v on.
uint32_t MixRules::LowBitType(std::string_view name) {
  const uint32_t d = mix_.default_type;
  const bool kt = Is({"IQ2_KT"});
  const bool larger = Is({"IQ2_S", "IQ2_M"});
  if (Has(name, "attn_v.weight")) {
    if (gqa_ >= 4 || n_expert_ >= 4) return kId<Iq4K>;
    if (gqa_ >= 2 || n_expert_ >= 2) return kId<Iq3K>;
    return larger ? kId<Iq3S> : kId<Q2K>;
  }
  if (n_expert_ >= 8 && (Has(name, "attn_k") || (Has(name, "attn_q") && !Has(name, "attn_qkv"))))
    return kId<Q4K>;
  if (Has(name, "attn_qkv")) return larger ? kId<Iq3Xxs> : kt ? kId<Iq3K> : kId<Iq2K>;
  if (kt && Has(name, "_shexp")) return kId<Iq4K>;
  if (Has(name, "ffn_down")) {
    const uint32_t i = seen_down_++;
    return i >= n_layer_ / 8 ? d : larger ? kId<Iq3S> : kt ? kId<Iq3K> : kId<Q2K>;
  }
  if (Has(name, "attn_output.weight")) {
    if (n_expert_ >= 4) return kId<Q5K>;
    if (kt) return kId<Iq3K>;
    if (Is({"IQ1_S", "IQ1_M"})) return kId<Iq2K>;
    return larger ? kId<Iq3S> : d;
  }
  return d;
}

uint32_t MixRules::AttentionValueType() {
  const uint32_t i = seen_attn_v_++;
  uint32_t d = mix_.default_type;
  if (n_expert_ >= 4) return kId<Q8_0>;
  if (is_70b_) {
    if (d == kId<Q3K> || d == kId<Q4K>) return kId<Q5K>;
    if (d == kId<Iq3K>) return kId<Iq5K>;
    return d;
  }
  if (Is({"Q2_K"})) return gqa_ >= 4 ? kId<Q4K> : kId<Q3K>;
  if (Is({"Q2_K_S"}) && gqa_ >= 4) return kId<Q4K>;
  if (Is({"Q3_K", "Q3_K_M"})) return i < 2 ? kId<Q5K> : kId<Q4K>;
  if (Is({"Q3_K_L"})) return kId<Q5K>;
  if (Is({"Q4_K", "Q4_K_M", "Q5_K", "Q5_K_M"}) && More(i, n_attn_v_)) return kId<Q6K>;
  if (Is({"Q4_K_S"}) && i < 4) return kId<Q5K>;
  if (Is({"Q5_K_S"})) return n_vocab_ >= 127999 && is_8b_ ? kId<Q6K> : d;
  if (Is({"IQ5_K", "IQ5_KS"})) return n_vocab_ >= 127999 && is_8b_ ? kId<Iq6K> : d;
  if (Is({"IQ2_K"})) return gqa_ >= 2 ? kId<Iq4K> : kId<Iq3K>;
  if (Is({"IQ3_K", "IQ3_S", "IQ3_XS"}) && gqa_ >= 2) return kId<Iq4K>;
  if (Is({"IQ3_KS", "IQ2_KL"}) && gqa_ >= 2) return kId<Iq4Ks>;
  if (Is({"IQ3_KL", "IQ3_M"})) return gqa_ >= 2 ? kId<Iq5K> : kId<Iq4K>;
  if (Is({"IQ3_XXS"})) {
    if (gqa_ >= 4) return kId<Q4K>;
    if (gqa_ >= 2) return kId<Iq3K>;
    return has_imatrix_ ? kId<Iq3Xxs> : kId<Iq3S>;
  }
  if (Is({"IQ4_NL", "IQ4_XS", "IQ4_KS", "IQ4_KSS", "IQ4_K"}) && gqa_ >= 2) return kId<Iq5K>;
  if (Is({"IQ3_KT"})) return gqa_ >= 4 ? kId<Iq4K> : kId<Iq3K>;
  if (Is({"IQ4_KT"})) return gqa_ >= 4 ? kId<Iq5K> : kId<Iq4K>;
  if (gqa_ >= 4) {
    switch (d) {
      case kId<Q2K>:
      case kId<Iq3Xxs>:
        return kId<Iq3S>;
      case kId<Q3K>:
      case kId<Iq3S>:
        return kId<Q4K>;
      case kId<Q4K>:
        return kId<Q5K>;
      case kId<Q5K>:
        return kId<Q6K>;
      default:
        break;
    }
  }
  return d;
}

uint32_t MixRules::AttentionOutputType() const {
  if (n_expert_ >= 4) {
    if (Is({"IQ2_KL"})) return kId<Iq4Ks>;
    if (Is({"Q2_K",   "Q3_K",   "Q3_K_S", "Q3_K_M", "Q4_K",    "Q4_K_S", "Q4_K_M", "IQ3_XXS",
            "IQ3_XS", "IQ3_S",  "IQ3_M",  "IQ4_NL", "IQ4_XS",  "IQ2_K",  "IQ3_K",  "IQ3_KL",
            "IQ3_KS", "IQ3_KT", "IQ4_K",  "IQ4_KS", "IQ4_KSS", "IQ5_KS"})) {
      return kId<Q5K>;
    }
    return mix_.default_type;
  }
  if (Is({"Q2_K"})) return kId<Q3K>;
  if (Is({"Q3_K", "Q3_K_M"})) return kId<Q4K>;
  if (Is({"Q3_K_L"})) return kId<Q5K>;
  if (Is({"IQ2_K"})) return kId<Iq3K>;
  if (Is({"IQ3_KL"})) return kId<Iq4Ks>;
  if (Is({"IQ3_XXS"})) return kId<Iq3S>;
  if (Is({"IQ3_M"})) return kId<Iq4K>;
  if (Is({"IQ3_KT"}) && gqa_ >= 4) return kId<Iq3K>;
  return mix_.default_type;
}

uint32_t MixRules::DownType(uint32_t i) const {
  const uint32_t d = mix_.default_type;
  const bool first = i < n_layer_ / 8;
  if (Is({"Q2_K"})) return kId<Q3K>;
  if (Is({"Q2_K_S"}) && first) return kId<Q4K>;
  if (Is({"Q3_K", "Q3_K_M"})) return i < n_layer_ / 16 ? kId<Q5K> : kId<Q4K>;
  if (Is({"Q3_K_L"})) return kId<Q5K>;
  if (Is({"Q4_K_S"}) && first) return kId<Q5K>;
  if (Is({"Q4_K", "Q4_K_M", "Q5_K", "Q5_K_M"}) && More(i, n_layer_)) return kId<Q6K>;
  if (Is({"IQ3_KL"})) return More(i, n_layer_) ? kId<Iq4Ks> : kId<Iq3K>;
  if (Is({"IQ3_M"}) && (first || (n_expert_ >= 4 && More(i, n_layer_)))) return kId<Iq4K>;
  if (Is({"IQ3_XXS"}) && !has_imatrix_) return first ? kId<Q4K> : kId<Q3K>;
  if (Is({"IQ3_KT"}) && !has_imatrix_) return first ? kId<Iq4K> : kId<Iq3K>;
  if (Is({"IQ4_NL", "IQ4_XS", "IQ4_KS", "IQ4_KSS"}) && !has_imatrix_ && first) return kId<Q5K>;
  if (Is({"Q4_0"}) && has_imatrix_ && first) return kId<Q4_1>;
  if (Is({"Q5_0"}) && has_imatrix_ && first) return kId<Q5_1>;
  return d;
}

uint32_t MixRules::Next(const GgufTensor& tensor) {
  const std::string_view name = tensor.name;
  const uint32_t d = mix_.default_type;
  if (FindTensorType(d)->block_weights == 1) return d;  // a float type: no rules
  if (name == "output.weight" || (tied_ && name == "token_embd.weight")) {
    return tensor.dim(0) % 256 != 0 ? kId<Q8_0> : OutputType();
  }
  if (name == "token_embd.weight") {
    if (Is({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS"})) return kId<Q2K>;
    if (Is({"IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_KT"})) return kId<Iq3S>;
    if (Is({"IQ1_BN", "IQ2_BN"})) return kId<Iq4Nl>;
    return d;
  }
  if (Is({"IQ2_KS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ1_S", "IQ1_M", "IQ2_KT"}))
    return LowBitType(name);
  if (Has(name, "attn_v.weight")) return AttentionValueType();
  if (Has(name, "attn_k")) {
    if (n_expert_ >= 4) return kId<Q8_0>;
    return Is({"IQ3_XS"}) ? kId<Iq3Xxs> : Is({"IQ3_XXS"}) ? kId<Iq2S> : d;
  }
  if (Has(name, "attn_q")) {
    if (n_vocab_ >= 127999 && (is_8b_ || is_70b_)) {
      if (Is({"Q5_K_S"})) return kId<Q4K>;
      if (Is({"IQ5_K"})) return kId<Iq4K>;
      if (Is({"IQ5_KS"})) return kId<Iq4Ks>;
    }
    return Is({"IQ3_XS"}) ? kId<Iq3Xxs> : Is({"IQ3_XXS"}) ? kId<Iq2S> : d;
  }
  // Counted in file order, or by the block's number where a block has several.
  const auto layer = [&](uint32_t* seen) {
    const uint32_t i = (*seen)++;
    return n_expert_ > 1 ? BlockOf(name) : i;
  };
  if (Has(name, "ffn_down")) return DownType(layer(&seen_down_));
  if (Has(name, "attn_output.weight")) return AttentionOutputType();
  if (Has(name, "ffn_gate") || Has(name, "ffn_up")) {
    const uint32_t i = layer(Has(name, "ffn_gate") ? &seen_gate_ : &seen_up_);
    if (Is({"IQ3_KL"})) return More(i, n_layer_) ? kId<Iq4Ks> : d;
    if (Is({"IQ3_XS"}) && i >= n_layer_ / 8 && i < 7 * n_layer_ / 8) return kId<Iq3Xxs>;
  }
  return d;
}

}  // namespace lutra
