// Models of random weights: shapes, types, and that the engine and other readers can use them.
#include "models/synthetic.h"

#include <cmath>
#include <set>

#include "kernels/base/error.h"
#include "models/decoder.h"
#include "models/hparams.h"
#include "models/tokenizer/tokenizer.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

std::string Refusal(const std::string& text) {
  try {
    ParseSynthetic(text);
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "";
}

// Logits after a few tokens.
std::vector<float> Logits(GgufFile file, ThreadPool& pool) {
  const auto model = Model::Load(std::move(file), pool);
  Decoder decoder(*model, pool, KvType::kF16, 4, 1);
  AlignedArray<uint8_t> cache(decoder.kv_layout().page_bytes());
  uint8_t* const page = cache.data();
  std::vector<BatchToken> batch;
  for (int i = 0; i < 4; ++i) batch.push_back({300 + i, i, &page, i == 3});
  decoder.Forward(batch);
  const auto logits = decoder.logits(0);
  return {logits.begin(), logits.end()};
}

}  // namespace

TEST_CASE("Every named shape is a model whose sizes its own reader accepts") {
  ThreadPool pool(1);
  std::set<std::string> names;
  for (const SyntheticShape& shape : SyntheticShapes()) {
    INFO(std::string(shape.name));
    CHECK(names.insert(shape.name).second);
    // Few layers and tokens: the rest of the shape is what the file says.
    const SyntheticModel model = ParseSynthetic(std::string(shape.name) + ":Q4_0");
    CHECK(model.shape.n_layer == shape.n_layer);
    CHECK(model.shape.n_embd == shape.n_embd);
    CHECK(model.shape.n_vocab == shape.n_vocab);
  }
  // Published numbers of weights (billions), from the model cards.
  for (const auto& [text, billions] :
       std::vector<std::pair<const char*, double>>{{"llama-3.2-1b", 1.236},
                                                   {"llama-3.2-3b", 3.213},
                                                   {"llama-3.1-8b", 8.030},
                                                   {"llama-3.1-70b", 70.554},
                                                   {"qwen2.5-0.5b", 0.494},
                                                   {"qwen2.5-1.5b", 1.544},
                                                   {"qwen2.5-7b", 7.616},
                                                   {"qwen3-0.6b", 0.596},
                                                   {"qwen3-1.7b", 1.721},
                                                   {"qwen3-4b", 4.022},
                                                   {"qwen3-8b", 8.191},
                                                   {"qwen3-30b-a3b", 30.532}}) {
    INFO(std::string(text));
    const GgufWriter writer = SyntheticWriter(ParseSynthetic(std::string(text) + ":F32"), pool);
    // 4 bytes a weight; the vocabulary takes a few MB.
    CHECK(static_cast<double>(writer.FileBytes()) / 4e9 ==
          doctest::Approx(billions).epsilon(0.004));
  }
}

TEST_CASE(
    "A synthetic model runs, from memory and from its file alike, and its logits say something") {
  ThreadPool pool(2);
  for (const char* text :
       {"layers=2,embd=256,ff=512,kv=2,vocab=400:IQ4_K", "qwen2.5-0.5b,layers=1,vocab=400:Q4_K",
        "qwen3-0.6b,layers=1,ff=512,embd=256,vocab=400:IQ2_KS",
        "qwen3-30b-a3b,layers=1,embd=256,experts=4,used=2,ff-exp=256,vocab=400:Q6_K",
        "layers=1,embd=256,ff=256,vocab=400,tied=1:BF16"}) {
    INFO(std::string(text));
    const SyntheticModel model = ParseSynthetic(text);
    GgufFile memory = BuildSynthetic(model, pool, 0);
    CHECK(memory.memory_bytes() == memory.file_bytes());
    const std::vector<uint8_t> bytes = SyntheticWriter(model, pool).WriteToBytes();
    CHECK(bytes.size() == memory.file_bytes());
    const auto tokenizer = Tokenizer::FromGguf(memory);
    CHECK(tokenizer->Decode(tokenizer->Encode("a b\n", false, false), false, false) == "a b\n");
    const std::vector<float> logits = Logits(std::move(memory), pool);
    CHECK(logits == Logits(GgufFile::FromBytes(bytes, text), pool));
    CHECK(logits.size() == model.shape.n_vocab);
    double squares = 0;
    for (const float x : logits) {
      REQUIRE(std::isfinite(x));
      squares += static_cast<double>(x) * static_cast<double>(x);
    }
    CHECK(squares / static_cast<double>(logits.size()) > 1e-3);
    CHECK(squares / static_cast<double>(logits.size()) < 1e3);
  }
}

TEST_CASE("Rows that blocks of 256 do not divide get a type of blocks of 32 with as many bits") {
  const auto type = [](const char* name) {
    return *ParseSynthetic(std::string("layers=1,embd=64:") + name).type;
  };
  CHECK(std::string(TypeForRow(type("IQ4_K"), 4096).name) == "IQ4_K");
  CHECK(std::string(TypeForRow(type("IQ2_K"), 896).name) == "IQ4_NL");
  CHECK(std::string(TypeForRow(type("Q5_K"), 896).name) == "Q5_0");
  CHECK(std::string(TypeForRow(type("Q6_K"), 896).name) == "Q8_0");
  CHECK(std::string(TypeForRow(type("Q4_0"), 896).name) == "Q4_0");
  CHECK(std::string(TypeForRow(type("Q4_K"), 40).name) == "F16");
}

TEST_CASE("What is no model is refused with a message that names it") {
  CHECK(Refusal("llama-3.2-1b").find("SHAPE:TYPE") != std::string::npos);
  CHECK(Refusal("llama-9:Q4_K").find("llama-9") != std::string::npos);
  CHECK(Refusal("llama-3.2-1b:Q9").find("'Q9' is no type") != std::string::npos);
  CHECK(Refusal("llama-3.2-1b:I32").find("'I32' is no type") != std::string::npos);
  CHECK(Refusal("layers=2:Q4_K").find("embd=N") != std::string::npos);
  CHECK(Refusal("layers=2,embd=x:Q4_K").find("embd takes a whole number") != std::string::npos);
  CHECK(Refusal("layers=99999999999,embd=64:Q4_K").find("layers takes") != std::string::npos);
  CHECK(Refusal("layers=2,embd=256,heads=4,kv=3:Q4_K").find("multiple of kv") != std::string::npos);
  CHECK(Refusal("layers=2,embd=256,vocab=10:Q4_K").find("vocab") != std::string::npos);
  CHECK(Refusal("layers=2,embd=256,arch=mamba:Q4_K").find("arch=mamba") != std::string::npos);
  CHECK(Refusal("layers=2,embd=256,arch=qwen3,experts=4:Q4_K").find("no experts") !=
        std::string::npos);
  CHECK(Refusal(":").find("no type") != std::string::npos);
  ThreadPool pool(1);
  CHECK_THROWS_AS(BuildSynthetic(ParseSynthetic("llama-3.1-70b:F32"), pool, 1 << 30), Error);
}

}  // namespace lutra
