// Hyperparameters that are zero, huge, of another type or at odds with the tensors: an Error that
// names file and key, or a model that runs. Hostile cases run under the sanitizers.
#include "models/hparams.h"

#include <cstring>
#include <limits>
#include <optional>
#include <random>

#include "kernels/base/error.h"
#include "tests/alloc_counter.h"
#include "tests/models/model_run.h"
#include "tests/models/tiny_model.h"

namespace lutra {
namespace {

using testing::AllocWatch;
using testing::BuildTiny;
using testing::GgufBuilder;
using testing::ModelRun;
using testing::TinyArch;
using testing::TinySpec;

constexpr const char* kName = "hostile.gguf";

TinySpec Small(const std::string& arch) {
  TinySpec s = TinyArch(arch);
  s.n_embd = 16, s.n_layer = 2, s.n_head = 4, s.n_head_kv = 2, s.head_dim = s.head_dim_v = 4,
  s.n_rot = 4;
  s.n_ff = 24, s.n_vocab = 6, s.scaling = "yarn", s.n_ctx_orig = 64;
  if (s.n_expert != 0) s.n_expert = 3, s.n_used = 2, s.n_ff_exp = 8;
  if (s.n_ff_shexp != 0) s.n_ff_shexp = 12;
  return s;
}

// Loads the file and runs two tokens. The Error's message, or nullopt if all went well. Memory must
// stay in proportion.
std::optional<std::string> Try(GgufBuilder& b) {
  const std::vector<uint8_t> bytes = b.Build();
  const AllocWatch watch;
  std::optional<std::string> message;
  try {
    ThreadPool pool(1);
    const std::unique_ptr<Model> model = Model::Load(GgufFile::FromBytes(bytes, kName), pool);
    // Scratch follows from tensors that exist: it cannot be out of proportion either.
    REQUIRE(Decoder::PlannedBytes(model->hparams(), 2, 1) < (size_t{4} << 20) + 64 * bytes.size());
    Decoder decoder(*model, pool, KvType::kF16, 2, 1);
    const testing::Pages pages(decoder.kv_layout(), 2);
    const BatchToken batch[] = {{0, 0, pages.data(), false}, {0, 1, pages.data(), true}};
    decoder.Forward(batch);
    CHECK(decoder.logits(0).size() == model->hparams().n_vocab);
  } catch (const Error& e) {
    message = e.what();
    CHECK((e.code() == ErrorCode::kCorrupt || e.code() == ErrorCode::kUnsupported ||
           e.code() == ErrorCode::kResourceExhausted));
  }
  CHECK(watch.peak_bytes() < (size_t{16} << 20) + 8 * bytes.size());
  if (message) {
    CHECK_MESSAGE(message->starts_with(std::string(kName) + ": "), *message);
    CHECK_MESSAGE(message->find('\n') == std::string::npos, *message);
  }
  return message;
}

// An Error must name the key, the one that was derived from it, or the tensor whose shape
// contradicts it.
void CheckOutcome(GgufBuilder& b, const std::string& key) {
  const auto message = Try(b);
  if (!message) return;
  bool names = false;
  for (const std::string& text :
       {key, std::string("key "), std::string("tensor "), std::string("architecture "),
        std::string("tokenizer.ggml.tokens")}) {
    names = names || message->find(text) != std::string::npos;
  }
  CHECK_MESSAGE(names, *message);
}

void CheckRefused(GgufBuilder& b, const std::vector<std::string>& texts) {
  const auto message = Try(b);
  REQUIRE_MESSAGE(message.has_value(), "accepted; should name " << texts[0]);
  for (const std::string& text : texts)
    CHECK_MESSAGE(message->find(text) != std::string::npos,
                  *message << " -- does not name " << text);
}

constexpr const char* kIntKeys[] = {"context_length",
                                    "embedding_length",
                                    "block_count",
                                    "feed_forward_length",
                                    "attention.head_count",
                                    "attention.head_count_kv",
                                    "attention.key_length",
                                    "attention.value_length",
                                    "expert_count",
                                    "expert_used_count",
                                    "expert_feed_forward_length",
                                    "expert_shared_feed_forward_length",
                                    "rope.dimension_count",
                                    "rope.scaling.original_context_length",
                                    "vocab_size"};
constexpr const char* kFloatKeys[] = {"attention.layer_norm_rms_epsilon", "rope.freq_base",
                                      "rope.scaling.factor", "rope.scale_linear",
                                      "rope.scaling.attn_factor"};
constexpr const char* kStringKeys[] = {"rope.scaling.type"};

// One value of each of the 13 types, as a scalar and as an array.
void SetTyped(GgufBuilder& b, const std::string& key, uint32_t type, bool array, size_t n) {
  const auto set = [&]<class T>(T value) {
    if (array) {
      b.SetArray<T>(key, std::vector<T>(n, value));
    } else {
      b.Set(key, value);
    }
  };
  switch (type) {
    case 0:
      return set(uint8_t{2});
    case 1:
      return set(int8_t{2});
    case 2:
      return set(uint16_t{2});
    case 3:
      return set(int16_t{2});
    case 4:
      return set(uint32_t{2});
    case 5:
      return set(int32_t{2});
    case 6:
      return set(2.0f);
    case 7:
      if (array) {
        b.SetRaw(key, 9, {7, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1});
      } else {
        b.Set(key, true);
      }
      return;
    case 8:
      if (array) {
        b.SetArray(key, std::vector<std::string>(n, "2"));
      } else {
        b.Set(key, "2");
      }
      return;
    case 9:  // an array, empty; and an array of arrays
      if (array) {
        b.SetRaw(key, 9, {9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
      } else {
        b.SetArray<uint32_t>(key, {});
      }
      return;
    case 10:
      return set(uint64_t{2});
    case 11:
      return set(int64_t{2});
    default:
      return set(2.0);
  }
}

}  // namespace

TEST_CASE("The model that hostile tests break is good") {
  for (const ArchSpec* arch : AllArchs()) {
    GgufBuilder b = BuildTiny(Small(arch->name));
    CHECK_FALSE(Try(b).has_value());
  }
}

TEST_CASE("Every integer key at its limits: an Error naming it, or a model that runs") {
  for (const char* arch : {"llama", "qwen2moe"}) {
    for (const char* key : kIntKeys) {
      const std::string full = std::string(arch) + "." + key;
      INFO(full);
      const auto check = [&](auto value) {
        INFO("value ", value);
        GgufBuilder b = BuildTiny(Small(arch));
        if (key == std::string("vocab_size")) b.Remove("tokenizer.ggml.tokens");
        b.Set(full, value);
        CheckOutcome(b, full);
      };
      for (const uint32_t v : {0u, 1u, 3u, 0x7FFFFFFFu, 0xFFFFFFFFu}) check(v);
      check(int32_t{-1});
      check(std::numeric_limits<int32_t>::min());
      check(uint64_t{1} << 32);
      check(std::numeric_limits<uint64_t>::max());
      check(std::numeric_limits<int64_t>::min());
    }
  }
}

TEST_CASE("Every float key at its limits: an Error naming it, or a model that runs") {
  const double values[] = {0.0,    -0.0,  -1.0,  std::nan(""), HUGE_VAL, -HUGE_VAL, 1e-45,
                           -1e-45, 1e-38, 1e-20, 0.1,          1.0,      1e38,      3.4e38};
  for (const char* arch : {"llama", "qwen2moe"}) {
    for (const char* key : kFloatKeys) {
      for (const char* scaling : {"linear", "yarn", "none"}) {
        for (const double v : values) {
          const std::string full = std::string(arch) + "." + key;
          INFO(full, " = ", v, ", scaling ", scaling);
          TinySpec s = Small(arch);
          s.scaling = scaling;
          GgufBuilder b = BuildTiny(s);
          if (key == std::string("rope.scale_linear")) b.Remove(s.arch + ".rope.scaling.factor");
          b.Set(full, static_cast<float>(v));
          CheckOutcome(b, full);
          b.Set(full, v);  // f64
          CheckOutcome(b, full);
        }
      }
      GgufBuilder b = BuildTiny(Small(arch));
      if (key == std::string("rope.scale_linear"))
        b.Remove(std::string(arch) + ".rope.scaling.factor");
      b.Set(std::string(arch) + "." + key, 1e300);  // no float
      CheckRefused(b, {key});
    }
  }
}

TEST_CASE("Every key with every type, scalar and array: an Error naming it, or a model that runs") {
  for (const char* arch : {"llama", "qwen2moe"}) {
    std::vector<std::string> keys = {"general.architecture", "tokenizer.ggml.tokens"};
    for (const char* k : kIntKeys) keys.push_back(std::string(arch) + "." + k);
    for (const char* k : kFloatKeys) keys.push_back(std::string(arch) + "." + k);
    for (const char* k : kStringKeys) keys.push_back(std::string(arch) + "." + k);
    for (const std::string& key : keys) {
      for (uint32_t type = 0; type < 13; ++type) {
        for (const bool array : {false, true}) {
          for (const size_t n : {size_t{0}, size_t{1}, size_t{2}, size_t{3}}) {
            if (!array && n != 0) continue;
            INFO(key, " type ", type, " array ", array, " of ", n);
            GgufBuilder b = BuildTiny(Small(arch));
            SetTyped(b, key, type, array, n);
            CheckOutcome(b, key);
          }
        }
      }
    }
  }
}

TEST_CASE("Keys that are missing are named") {
  for (const char* key :
       {"context_length", "embedding_length", "block_count", "feed_forward_length",
        "attention.head_count", "attention.layer_norm_rms_epsilon"}) {
    GgufBuilder b = BuildTiny(Small("llama"));
    b.Remove(std::string("llama.") + key);
    CheckRefused(b, {std::string("llama.") + key, "missing"});
  }
  GgufBuilder b = BuildTiny(Small("llama"));
  b.Remove("general.architecture");
  CheckRefused(b, {"general.architecture"});
  b = BuildTiny(Small("llama"));
  b.Remove("tokenizer.ggml.tokens");
  CheckRefused(b, {"tokenizer.ggml.tokens"});
  b = BuildTiny(Small("qwen2moe"));
  b.Remove("qwen2moe.expert_count");
  CheckRefused(b, {"qwen2moe.expert_count"});
}

TEST_CASE("Values that contradict each other are refused by key and value") {
  const auto refuse = [](const std::string& arch, const std::string& key, auto value,
                         const std::vector<std::string>& texts) {
    GgufBuilder b = BuildTiny(Small(arch));
    b.Set(arch + "." + key, value);
    std::vector<std::string> all = {arch + "." + key};
    all.insert(all.end(), texts.begin(), texts.end());
    CheckRefused(b, all);
  };
  refuse("llama", "attention.head_count_kv", 3u, {"is 3", "4 query heads"});
  refuse("llama", "attention.head_count_kv", 0u, {"is 0"});
  refuse("llama", "attention.head_count", 0u, {"is 0"});
  refuse("llama", "attention.head_count", 4097u, {"is 4097"});
  refuse("llama", "block_count", 513u, {"513", "512"});
  refuse("llama", "rope.dimension_count", 6u, {"is 6"});  // more than a head has
  refuse("llama", "rope.dimension_count", 2u, {"is 2", "whole heads of 4"});
  refuse("qwen2", "rope.dimension_count", 3u, {"is 3", "even"});
  refuse("llama", "expert_used_count", 1u, {"is 1"});  // there are no experts
  refuse("qwen2moe", "expert_used_count", 4u, {"is 4"});
  refuse("qwen2moe", "expert_used_count", 0u, {"is 0"});
  refuse("qwen2", "expert_count", 3u, {"is 3"});
  refuse("llama", "rope.scaling.type", "longrope", {"longrope", "yarn"});
  refuse("llama", "rope.scaling.factor", -2.0f, {"-2"});
  refuse("llama", "rope.freq_base", 0.5f, {"0.5"});
  GgufBuilder b = BuildTiny(Small("llama"));
  b.Set("general.architecture", "gpt2");
  CheckRefused(b, {"'gpt2'", "llama", "qwen3moe"});
  // 128 query heads on one KV head of size 4.
  TinySpec s = Small("llama");
  s.n_head = 128, s.n_head_kv = 1;
  b = BuildTiny(s);
  CheckRefused(b, {"attention.head_count_kv", "128 query heads"});
}

TEST_CASE("Angles stay in the range that sin and cos are computed in") {
  TinySpec s = Small("llama");
  s.rope_freqs = true;
  for (const float f : {0.0f, -1.0f, std::nanf(""), HUGE_VALF, 1e-45f, 1e-6f}) {
    INFO("factor ", f);
    GgufBuilder b = BuildTiny(s);
    std::memcpy(b.FindTensor("rope_freqs.weight")->bytes.data(), &f, 4);
    CheckRefused(b, {"tensor rope_freqs.weight"});
  }
  // Scale and factors together.
  GgufBuilder b = BuildTiny(s);
  b.Set("llama.rope.scaling.factor", 0.2f);
  const float f = 0.2f;
  std::memcpy(b.FindTensor("rope_freqs.weight")->bytes.data(), &f, 4);
  CheckRefused(b, {"rope_freqs.weight"});
}

TEST_CASE("Arrays of one value a layer must have as many as there are layers") {
  for (const char* key :
       {"attention.head_count", "attention.head_count_kv", "feed_forward_length"}) {
    const std::string full = std::string("llama.") + key;
    const uint32_t good = key == std::string("feed_forward_length")    ? 24
                          : key == std::string("attention.head_count") ? 4
                                                                       : 2;
    for (size_t n = 0; n < 5; ++n) {
      GgufBuilder b = BuildTiny(Small("llama"));
      b.SetArray<uint32_t>(full, std::vector<uint32_t>(n, good));
      if (n == 2) {
        CHECK_FALSE(Try(b).has_value());
      } else {
        CheckRefused(b, {full});
      }
    }
    GgufBuilder b = BuildTiny(Small("llama"));
    b.SetArray<uint32_t>(full, {good, 0});
    CheckRefused(b, {full, "0"});
  }
}

TEST_CASE("Tensors: missing, of another shape or type, twice") {
  for (const char* arch : {"llama", "qwen2moe", "qwen3"}) {
    const GgufBuilder good = BuildTiny(Small(arch));
    for (size_t i = 0; i < good.tensors.size(); ++i) {
      const std::string name = good.tensors[i].name;
      INFO(arch, " ", name);
      const bool optional =
          name.ends_with(".bias") || (name == "output.weight" && arch != std::string("qwen2moe"));
      {
        GgufBuilder b = good;
        b.tensors.erase(b.tensors.begin() + static_cast<ptrdiff_t>(i));
        if (optional) {
          CHECK_FALSE(Try(b).has_value());
        } else {
          CheckRefused(b, {"tensor " + name, "missing"});
        }
      }
      for (size_t d = 0; d < good.tensors[i].dims.size(); ++d) {
        for (const int change : {-1, 1, 4}) {
          GgufBuilder b = good;
          auto dims = good.tensors[i].dims;
          dims[d] += static_cast<uint64_t>(change);
          if (dims[d] == 0) continue;
          b.Tensor(name, dims, 0);
          b.tensors[i] = b.tensors.back();
          b.tensors.pop_back();
          CheckRefused(b, {name});
        }
      }
      {
        GgufBuilder b = good;
        b.tensors.push_back(b.tensors[i]);
        CheckRefused(b, {name});
        b = good;
        b.tensors[i].dims.push_back(2);
        b.tensors[i].bytes.resize(b.tensors[i].bytes.size() * 2);
        CheckRefused(b, {name});
      }
      for (const TensorTypeInfo& type : AllTensorTypes()) {
        if (type.readable || good.tensors[i].dims[0] % type.block_weights != 0) continue;
        GgufBuilder b = good;
        b.Tensor(name, good.tensors[i].dims, type.id);
        b.tensors[i] = b.tensors.back();
        b.tensors.pop_back();
        CheckRefused(b, {name, type.name});
      }
    }
    for (const char* suffix : {".scale", ".input_scale"}) {
      GgufBuilder b = good;
      b.F32(std::string("blk.0.attn_q") + suffix, {1}, {2.0f});
      CheckRefused(b, {std::string("blk.0.attn_q") + suffix});
    }
  }
}

TEST_CASE("The vocabulary must have as many tokens as the embedding has rows") {
  for (const size_t n : {size_t{1}, size_t{5}, size_t{7}, size_t{600}}) {
    GgufBuilder b = BuildTiny(Small("llama"));
    b.SetArray("tokenizer.ggml.tokens", std::vector<std::string>(n, "x"));
    CheckRefused(b, {"token_embd.weight", "{16, 6}", std::to_string(n)});
  }
  GgufBuilder b = BuildTiny(Small("llama"));
  b.Remove("tokenizer.ggml.tokens");
  b.Set("llama.vocab_size", 6u);
  CHECK_FALSE(Try(b).has_value());
}

TEST_CASE(
    "Weights and constants of any value run: infinities and NaN come out as numbers, not as "
    "crashes") {
  for (const char* arch : {"llama", "qwen2moe", "qwen3moe"}) {
    for (const float v : {0.0f, HUGE_VALF, -HUGE_VALF, std::nanf(""), 3e38f, 1e-45f}) {
      GgufBuilder b = BuildTiny(Small(arch));
      for (auto& t : b.tensors) {
        for (size_t at = 0; at < t.bytes.size(); at += 4) std::memcpy(&t.bytes[at], &v, 4);
      }
      CHECK_FALSE(Try(b).has_value());
    }
  }
}

TEST_CASE("5000 mutants of small models load and run, or are refused") {
  std::mt19937 rng(77);
  const auto pick = [&](size_t n) { return static_cast<size_t>(rng() % n); };
  const uint64_t numbers[] = {0,
                              1,
                              2,
                              3,
                              4,
                              5,
                              7,
                              8,
                              12,
                              16,
                              24,
                              255,
                              256,
                              65536,
                              0x7FFFFFFF,
                              0xFFFFFFFF,
                              uint64_t{1} << 32,
                              UINT64_MAX};
  const auto& archs = AllArchs();
  size_t ran = 0;
  for (int i = 0; i < 5000; ++i) {
    INFO("mutant ", i);
    GgufBuilder b = BuildTiny(Small(archs[pick(archs.size())]->name));
    for (size_t n = 1 + pick(3); n > 0; --n) {
      auto& entry = b.entries[pick(b.entries.size())];
      auto& tensor = b.tensors[pick(b.tensors.size())];
      switch (pick(12)) {
        case 0:
          b.Set(entry.key, static_cast<uint32_t>(numbers[pick(std::size(numbers))]));
          break;
        case 1:
          b.Set(entry.key, numbers[pick(std::size(numbers))]);
          break;
        case 2:
          b.Set(entry.key, std::bit_cast<float>(static_cast<uint32_t>(rng())));
          break;
        case 3:
          entry.value[pick(entry.value.size())] ^= static_cast<uint8_t>(1u << pick(8));
          break;
        case 4:
          entry.type_id = static_cast<uint32_t>(pick(14));
          break;
        case 5:
          entry.key[pick(entry.key.size())] ^= 1;
          break;
        case 6:
          b.Remove(std::string(entry.key));
          break;
        case 7:
          tensor.dims[pick(tensor.dims.size())] = numbers[pick(std::size(numbers))];
          break;
        case 8:
          tensor.type_id = AllTensorTypes()[pick(AllTensorTypes().size())].id;
          break;
        case 9:
          tensor.name = b.tensors[pick(b.tensors.size())].name;
          break;
        case 10:
          std::swap(tensor.dims, b.tensors[pick(b.tensors.size())].dims);
          break;
        default:  // the weights themselves
          for (int k = 0; k < 40; ++k)
            tensor.bytes[pick(tensor.bytes.size())] = static_cast<uint8_t>(rng());
      }
      if (b.entries.empty()) break;
    }
    ran += !Try(b).has_value();
  }
  CHECK(ran > 250);
  CHECK(ran < 4000);
}

}  // namespace lutra
