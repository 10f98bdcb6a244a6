#include "models/synthetic.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/formats/float_formats.h"
#include "kernels/random_rows.h"
#include "models/arch/arch.h"
#include "models/hparams.h"

namespace lutra {
namespace {

// A row a shape, from the config.json that its maker published.
constexpr SyntheticShape kShapes[] = {
    {"llama-3.2-1b", "llama", 16, 2048, 8192, 32, 8, 64, 128256, 131072, true, false},
    {"llama-3.2-3b", "llama", 28, 3072, 8192, 24, 8, 128, 128256, 131072, true, false},
    {"llama-3.1-8b", "llama", 32, 4096, 14336, 32, 8, 128, 128256, 131072, false, false},
    {"llama-3.1-70b", "llama", 80, 8192, 28672, 64, 8, 128, 128256, 131072, false, false},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 4864, 14, 2, 64, 151936, 32768, true, true},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 8960, 12, 2, 128, 151936, 32768, true, true},
    {"qwen2.5-7b", "qwen2", 28, 3584, 18944, 28, 4, 128, 152064, 32768, false, true},
    {"qwen3-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 128, 151936, 40960, true, false},
    {"qwen3-1.7b", "qwen3", 28, 2048, 6144, 16, 8, 128, 151936, 40960, true, false},
    {"qwen3-4b", "qwen3", 36, 2560, 9728, 32, 8, 128, 151936, 40960, true, false},
    {"qwen3-8b", "qwen3", 36, 4096, 12288, 32, 8, 128, 151936, 40960, false, false},
    {"qwen3-30b-a3b", "qwen3moe", 48, 2048, 6144, 32, 4, 128, 151936, 40960, false, false, 128, 8,
     768},
};

// What a list of sizes starts from; 0: to be given or derived.
constexpr SyntheticShape kOther = {"other", "llama", 0, 0, 0, 0, 0, 0, 32000, 131072, false, false};

struct SizeKey {
  const char* name;
  uint32_t SyntheticShape::*field;
  uint32_t most;
};
constexpr SizeKey kSizeKeys[] = {
    {"layers", &SyntheticShape::n_layer, kMaxLayers},
    {"embd", &SyntheticShape::n_embd, kMaxWidth},
    {"ff", &SyntheticShape::n_ff, kMaxWidth},
    {"heads", &SyntheticShape::n_head, kMaxHeads},
    {"kv", &SyntheticShape::n_head_kv, kMaxHeads},
    {"head-dim", &SyntheticShape::head_dim, kMaxHeadDim},
    {"vocab", &SyntheticShape::n_vocab, 1u << 20},
    {"ctx", &SyntheticShape::n_ctx_train, 1u << 24},
    {"experts", &SyntheticShape::n_expert, kMaxExperts},
    {"used", &SyntheticShape::n_expert_used, kMaxExperts},
    {"ff-exp", &SyntheticShape::n_ff_exp, kMaxWidth},
};
constexpr uint32_t kLeastVocab = 3 + 256 + 1;  // control tokens, bytes, the blank

std::string Lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

[[noreturn]] void Refuse(std::string_view text, const std::string& why) {
  Fail(ErrorCode::kInvalidArgument, "--synthetic: '%s': %s", Printable(text, 120).c_str(),
       why.c_str());
}

uint32_t ParseSize(std::string_view text, std::string_view key, std::string_view value,
                   uint32_t most) {
  uint32_t v = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), v);
  if (error != std::errc() || end != value.data() + value.size() || v > most) {
    Refuse(text, Format("%s takes a whole number up to %u", std::string(key).c_str(), most));
  }
  return v;
}

void SetSize(std::string_view text, std::string_view item, SyntheticShape* shape) {
  const size_t equals = item.find('=');
  const std::string key = Lower(item.substr(0, equals));
  const std::string_view value = equals == std::string_view::npos ? "" : item.substr(equals + 1);
  for (const SizeKey& k : kSizeKeys) {
    if (key == k.name) {
      shape->*k.field = ParseSize(text, key, value, k.most);
      return;
    }
  }
  if (key == "tied") {
    shape->tied = ParseSize(text, key, value, 1) != 0;
  } else if (key == "bias") {
    shape->qkv_bias = ParseSize(text, key, value, 1) != 0;
  } else if (key == "arch" && FindArch(value) != nullptr) {
    shape->arch = FindArch(value)->name;
  } else {
    std::string known;
    for (const SizeKey& k : kSizeKeys) known += std::string(k.name) + " ";
    std::string shapes, archs;
    for (const SyntheticShape& s : kShapes) shapes += std::string(" ") + s.name;
    for (const ArchSpec* a : AllArchs()) archs += std::string(" ") + a->name;
    Refuse(
        text,
        Format("'%s' is neither a shape (%s) nor a size like layers=4 (%stied bias arch=one of%s)",
               Printable(item, 40).c_str(), shapes.c_str() + 1, known.c_str(), archs.c_str()));
  }
}

// Fills in what was left out and refuses what no model can have.
void Complete(std::string_view text, SyntheticShape* s) {
  const ArchSpec& arch = *FindArch(s->arch);
  if (s->n_layer == 0 || s->n_embd == 0) Refuse(text, "needs at least layers=N and embd=N");
  if (s->head_dim == 0) s->head_dim = s->n_head != 0 ? s->n_embd / s->n_head : 64;
  if (s->n_head == 0) s->n_head = s->n_embd / std::max(1u, s->head_dim);
  if (s->n_head_kv == 0) s->n_head_kv = s->n_head;
  if (s->n_ff == 0) s->n_ff = 4 * s->n_embd;
  if (s->n_head == 0 || s->head_dim == 0 || s->n_head % s->n_head_kv != 0) {
    Refuse(text, "heads must be a multiple of kv, and both at least 1");
  }
  if (s->head_dim % 2 != 0) Refuse(text, "head-dim must be even");
  if (s->n_vocab < kLeastVocab) Refuse(text, Format("vocab must be at least %u", kLeastVocab));
  if (s->n_ctx_train == 0) Refuse(text, "ctx must be at least 1");
  if (arch.experts == ArchSpec::Experts::kNever && s->n_expert != 0) {
    Refuse(text, Format("the architecture %s has no experts", arch.name));
  }
  if (arch.experts == ArchSpec::Experts::kAlways && s->n_expert == 0) {
    Refuse(text, Format("the architecture %s needs experts=N", arch.name));
  }
  if (s->n_expert != 0) {
    if (s->n_expert_used == 0) s->n_expert_used = std::min(8u, s->n_expert);
    if (s->n_expert_used > s->n_expert) Refuse(text, "used must be at most experts");
    if (s->n_ff_exp == 0 || !arch.expert_ff_key) s->n_ff_exp = s->n_ff;
  }
  if (arch.shared_expert)
    Refuse(text, Format("the architecture %s (shared experts) cannot be made yet", arch.name));
  if (arch.output_required) s->tied = false;
}

const TensorTypeInfo& TypeById(uint32_t id) { return *FindTensorType(id); }

const TensorTypeInfo& ParseType(std::string_view text, std::string_view name) {
  std::string known;
  for (const TensorTypeInfo& type : AllTensorTypes()) {
    if (FindRandomRows(type.id) == nullptr) continue;
    if (Lower(type.name) == Lower(name)) return type;
    known += std::string(" ") + type.name;
  }
  Refuse(text,
         Format("'%s' is no type; it takes one of%s", Printable(name, 40).c_str(), known.c_str()));
}

uint64_t SeedOf(std::string_view name, uint64_t seed) {  // FNV-1a
  uint64_t h = 0xCBF29CE484222325u ^ seed;
  for (const char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return h;
}

constexpr float kSpread = 0.02f;  // of weights, about that of trained models

// Adds the tensors of a shape to a writer, in the order of a forward pass.
class TensorAdder {
 public:
  TensorAdder(GgufWriter* writer, ThreadPool& pool, const TensorTypeInfo& type, uint64_t seed)
      : writer_(*writer), pool_(pool), type_(type), seed_(seed) {}

  void Matrix(const std::string& name, uint64_t n_cols, uint64_t n_rows, uint64_t n_slices = 1) {
    Add(name, TypeForRow(type_, n_cols), n_cols, n_rows, n_slices, 0, kSpread);
  }
  void FloatMatrix(const std::string& name, uint64_t n_cols, uint64_t n_rows) {
    Add(name, TypeById(F32::kInfo.type_id), n_cols, n_rows, 1, 0, kSpread);
  }
  void Vector(const std::string& name, uint64_t n, float mean, float spread) {
    Add(name, TypeById(F32::kInfo.type_id), n, 0, 1, mean, spread);
  }
  void Norm(const std::string& name, uint64_t n) { Vector(name, n, 1.0f, 0.1f); }
  void Bias(const std::string& name, uint64_t n) { Vector(name, n, 0.0f, kSpread); }

 private:
  // n_rows 0: a vector.
  void Add(const std::string& name, const TensorTypeInfo& type, uint64_t n_cols, uint64_t n_rows,
           uint64_t n_slices, float mean, float spread) {
    std::vector<uint64_t> dims = {n_cols};
    if (n_rows != 0) dims.push_back(n_rows);
    if (n_slices != 1) dims.push_back(n_slices);
    const uint64_t all_rows = std::max<uint64_t>(1, n_rows) * n_slices;
    const uint64_t seed = SeedOf(name, seed_);
    ThreadPool& pool = pool_;
    writer_.AddTensor(name, dims, type.id, [=, &pool, &type](const GgufByteSink& sink) {
      const RandomRowsFn make = FindRandomRows(type.id);
      const uint64_t row_bytes = RowBytes(type, n_cols);
      constexpr uint64_t kPieceBytes = 256 << 10, kPieces = 16;
      const uint64_t piece_rows = std::max<uint64_t>(1, kPieceBytes / row_bytes);
      std::vector<uint8_t> buffer(std::min(all_rows, piece_rows * kPieces) * row_bytes);
      for (uint64_t begin = 0; begin < all_rows; begin += piece_rows * kPieces) {
        const uint64_t n = std::min(all_rows - begin, piece_rows * kPieces);
        pool.Region([&] {
          pool.For((n + piece_rows - 1) / piece_rows, [&](size_t piece) {
            const uint64_t first = piece * piece_rows;
            make(seed, begin + first, std::min(piece_rows, n - first), n_cols, mean, spread,
                 buffer.data() + first * row_bytes);
          });
        });
        sink(std::span(buffer).first(n * row_bytes));
      }
    });
  }

  GgufWriter& writer_;
  ThreadPool& pool_;
  const TensorTypeInfo& type_;
  const uint64_t seed_;
};

void AddVocabulary(uint32_t n_vocab, GgufWriter* w) {
  enum : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {kUnknown, kControl, kControl};
  for (int b = 0; b < 256; ++b) {
    tokens.push_back(Format("<0x%02X>", b));
    types.push_back(kByte);
  }
  const std::string blank = "\xE2\x96\x81";
  tokens.push_back(blank);
  types.push_back(kNormal);
  std::vector<float> scores(n_vocab);
  while (tokens.size() < n_vocab) {
    scores[tokens.size()] = -static_cast<float>(tokens.size());
    tokens.push_back(blank + "w" + std::to_string(tokens.size()));
    types.push_back(kNormal);
  }
  w->Set("tokenizer.ggml.model", "llama");
  w->Set("tokenizer.ggml.pre", "default");
  w->SetArray("tokenizer.ggml.tokens", tokens);
  w->SetArray("tokenizer.ggml.scores", scores);
  w->SetArray("tokenizer.ggml.token_type", types);
  w->Set("tokenizer.ggml.bos_token_id", uint32_t{1});
  w->Set("tokenizer.ggml.eos_token_id", uint32_t{2});
  w->Set("tokenizer.ggml.unknown_token_id", uint32_t{0});
  w->Set("tokenizer.ggml.add_bos_token", true);
  w->Set("tokenizer.ggml.add_eos_token", false);
}

}  // namespace

std::span<const SyntheticShape> SyntheticShapes() { return kShapes; }

SyntheticModel ParseSynthetic(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    Refuse(text, "takes SHAPE:TYPE, for example llama-3.2-1b:IQ4_K or layers=4,embd=1024:Q4_K");
  }
  SyntheticModel model{std::string(text), kOther, &ParseType(text, text.substr(colon + 1))};
  std::string_view rest = text.substr(0, colon);
  for (bool first = true; first || !rest.empty(); first = false) {
    const size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
    const SyntheticShape* named = nullptr;
    for (const SyntheticShape& s : kShapes) {
      if (first && Lower(item) == s.name) named = &s;
    }
    if (named != nullptr) {
      model.shape = *named;
    } else {
      SetSize(text, item, &model.shape);
    }
  }
  Complete(text, &model.shape);
  return model;
}

const TensorTypeInfo& TypeForRow(const TensorTypeInfo& type, uint64_t n_cols) {
  if (n_cols % type.block_weights == 0) return type;
  if (n_cols % 32 != 0) return TypeById(F16::kInfo.type_id);
  const double bits = 8.0 * type.block_bytes / type.block_weights;
  for (const uint32_t id : {/* IQ4_NL */ 20u, /* Q5_0 */ 6u, /* Q5_1 */ 7u}) {
    const TensorTypeInfo& t = TypeById(id);
    if (bits <= 8.0 * t.block_bytes / t.block_weights) return t;
  }
  return TypeById(/* Q8_0 */ 8);
}

GgufWriter SyntheticWriter(const SyntheticModel& model, ThreadPool& pool, uint64_t seed) {
  const SyntheticShape& s = model.shape;
  const ArchSpec& arch = *FindArch(s.arch);
  GgufWriter w;
  w.Set("general.architecture", arch.name);
  w.Set("general.name", "synthetic " + model.text);
  w.Set("general.type", "model");
  w.Set("general.description", "random weights, to measure speed with; it can say nothing");
  w.Set("general.quantization_version", uint32_t{2});
  const auto set = [&](const char* key, uint32_t v) {
    w.Set(arch.name + std::string(".") + key, v);
  };
  set("block_count", s.n_layer);
  set("context_length", s.n_ctx_train);
  set("embedding_length", s.n_embd);
  set("feed_forward_length", s.n_ff);
  set("attention.head_count", s.n_head);
  set("attention.head_count_kv", s.n_head_kv);
  set("attention.key_length", s.head_dim);
  set("attention.value_length", s.head_dim);
  set("rope.dimension_count", s.head_dim);
  set("vocab_size", s.n_vocab);
  w.Set(arch.name + std::string(".rope.freq_base"), 500000.0f);
  w.Set(arch.name + std::string(".attention.layer_norm_rms_epsilon"), 1e-5f);
  if (s.n_expert != 0) {
    set("expert_count", s.n_expert);
    set("expert_used_count", s.n_expert_used);
    if (arch.expert_ff_key) set("expert_feed_forward_length", s.n_ff_exp);
  }
  AddVocabulary(s.n_vocab, &w);

  TensorAdder add(&w, pool, *model.type, seed);
  const uint64_t n_q = uint64_t{s.n_head} * s.head_dim;
  const uint64_t n_kv = uint64_t{s.n_head_kv} * s.head_dim;
  add.Matrix("token_embd.weight", s.n_embd, s.n_vocab);
  for (uint32_t i = 0; i < s.n_layer; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    add.Norm(p + "attn_norm.weight", s.n_embd);
    add.Matrix(p + "attn_q.weight", s.n_embd, n_q);
    add.Matrix(p + "attn_k.weight", s.n_embd, n_kv);
    add.Matrix(p + "attn_v.weight", s.n_embd, n_kv);
    if (s.qkv_bias) {
      add.Bias(p + "attn_q.bias", n_q);
      add.Bias(p + "attn_k.bias", n_kv);
      add.Bias(p + "attn_v.bias", n_kv);
    }
    if (arch.qk_norm) {
      add.Norm(p + "attn_q_norm.weight", s.head_dim);
      add.Norm(p + "attn_k_norm.weight", s.head_dim);
    }
    add.Matrix(p + "attn_output.weight", n_q, s.n_embd);
    add.Norm(p + "ffn_norm.weight", s.n_embd);
    if (s.n_expert == 0) {
      add.Matrix(p + "ffn_gate.weight", s.n_embd, s.n_ff);
      add.Matrix(p + "ffn_up.weight", s.n_embd, s.n_ff);
      add.Matrix(p + "ffn_down.weight", s.n_ff, s.n_embd);
    } else {
      add.FloatMatrix(p + "ffn_gate_inp.weight", s.n_embd, s.n_expert);
      add.Matrix(p + "ffn_gate_exps.weight", s.n_embd, s.n_ff_exp, s.n_expert);
      add.Matrix(p + "ffn_up_exps.weight", s.n_embd, s.n_ff_exp, s.n_expert);
      add.Matrix(p + "ffn_down_exps.weight", s.n_ff_exp, s.n_embd, s.n_expert);
    }
  }
  add.Norm("output_norm.weight", s.n_embd);
  if (!s.tied) add.Matrix("output.weight", s.n_embd, s.n_vocab);
  return w;
}

GgufFile BuildSynthetic(const SyntheticModel& model, ThreadPool& pool, uint64_t available_bytes) {
  const GgufWriter writer = SyntheticWriter(model, pool);
  const uint64_t bytes = writer.FileBytes();
  if (available_bytes != 0 && bytes > available_bytes) {
    Fail(ErrorCode::kResourceExhausted,
         "synthetic %s: needs %.2f GB of memory, but only %.2f GB are available",
         model.text.c_str(), static_cast<double>(bytes) / 1e9,
         static_cast<double>(available_bytes) / 1e9);
  }
  MappedFile memory = MappedFile::Memory(bytes, "synthetic " + model.text);
  uint8_t* to = memory.writable();
  size_t header = 0;
  writer.WriteTo([&](std::span<const uint8_t> piece) {
    if (header == 0) header = piece.size();
    std::memcpy(to, piece.data(), piece.size());
    to += piece.size();
  });
  // The embedding comes first and is read here as long as the model lives, even where its packed copy is the output.
  const SyntheticShape& s = model.shape;
  memory.Keep(header + RowBytes(TypeForRow(*model.type, s.n_embd), s.n_embd) * s.n_vocab);
  return GgufFile::FromMapping(std::move(memory));
}

}  // namespace lutra
