// Bytes and operations of a forward pass, against the tensor list of the file.
#include "models/work.h"

#include "models/synthetic.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

double TensorBytes(const GgufFile& file, const std::string& name) {
  return static_cast<double>(file.FindTensor(name)->bytes);
}

}  // namespace

TEST_CASE(
    "The bytes of a decoded token are the sum of the sizes of the tensors it touches, and the "
    "cache it reads") {
  ThreadPool pool(1);
  for (const char* text :
       {"layers=3,embd=256,ff=512,kv=2,vocab=400:IQ4_K",
        "layers=2,embd=256,ff=512,vocab=400,tied=1:Q4_K", "qwen2.5-0.5b,layers=2,vocab=400:IQ2_KS",
        "qwen3-0.6b,layers=1,ff=512,embd=256,vocab=400:F16",
        "qwen3-30b-a3b,layers=2,embd=256,experts=8,used=2,ff-exp=256,vocab=400:Q6_K"}) {
    INFO(std::string(text));
    const SyntheticModel spec = ParseSynthetic(text);
    const auto model = Model::Load(BuildSynthetic(spec, pool, 0), pool);
    const GgufFile& file = model->file();
    const KvLayout kv(model->hparams(), KvType::kF16);
    const Work w = WorkOfPass(*model, kv, 100, 1, 1);

    double sum = 0, weights = 0;
    for (const GgufTensor& t : file.tensors()) {
      const bool expert = t.name.find("_exps.") != std::string::npos;
      const double share =
          expert ? static_cast<double>(spec.shape.n_expert_used) / spec.shape.n_expert : 1;
      const bool embedding = t.name == "token_embd.weight";
      if (embedding && !spec.shape.tied) continue;
      sum += share * static_cast<double>(t.bytes);
      if (t.dims.size() >= 2) weights += share * static_cast<double>(t.n_weights());
    }
    sum += TensorBytes(file, "token_embd.weight") / spec.shape.n_vocab;  // one row of it
    CHECK(w.weight_bytes == doctest::Approx(sum).epsilon(1e-12));

    const SyntheticShape& s = spec.shape;
    const double position =
        2.0 * 2 * s.n_layer * s.n_head_kv * s.head_dim;  // K and V, two bytes each
    CHECK(w.kv_bytes == 102 * position);                 // 100 and its own read, its own written
    const double attention = 2.0 * 101 * s.n_layer * s.n_head * 2 * s.head_dim;
    CHECK(w.ops() == doctest::Approx(2 * weights + attention).epsilon(1e-12));
    if (spec.type->name == std::string("F16")) {
      CHECK(w.int8_ops == 0);
    } else {
      CHECK(w.int8_ops > 0.9 * (w.ops() - attention));
    }
  }
}

TEST_CASE("A prompt reads each weight once, and the output only for logits") {
  ThreadPool pool(1);
  const auto model = Model::Load(
      BuildSynthetic(ParseSynthetic("layers=2,embd=256,ff=512,vocab=400:Q4_K"), pool, 0), pool);
  const KvLayout kv(model->hparams(), KvType::kF32);
  const Work one = WorkOfPass(*model, kv, 0, 1, 1);
  const Work many = WorkOfPass(*model, kv, 0, 64, 1);
  const Work none = WorkOfPass(*model, kv, 0, 64, 0);
  const double row = static_cast<double>(model->embedding_row_bytes());
  CHECK(many.weight_bytes == one.weight_bytes + 63 * row);
  CHECK(many.weight_bytes - none.weight_bytes == TensorBytes(model->file(), "output.weight"));
  CHECK(none.int8_ops == 64 * (one.int8_ops - 2.0 * 256 * 400));
  CHECK(many.int8_ops - none.int8_ops == 2.0 * 256 * 400);
  // 64 tokens alone at their positions compute and store what the batch does.
  Work sum;
  for (size_t i = 0; i < 64; ++i) sum += WorkOfPass(*model, kv, i, 1, 0);
  CHECK(sum.ops() == none.ops());
}

TEST_CASE("Tokens that choose experts evenly touch ever more of them, at most all") {
  ThreadPool pool(1);
  const auto model = Model::Load(
      BuildSynthetic(
          ParseSynthetic(
              "qwen3-30b-a3b,layers=1,embd=256,experts=8,used=2,ff-exp=256,vocab=400:Q4_0"),
          pool, 0),
      pool);
  const KvLayout kv(model->hparams(), KvType::kF16);
  const double row = static_cast<double>(model->embedding_row_bytes());
  const auto weights = [&](size_t n) {
    return WorkOfPass(*model, kv, 0, n, 0).weight_bytes - static_cast<double>(n) * row;
  };
  double experts = 0;
  for (const char* name : {"gate", "up", "down"})
    experts += TensorBytes(model->file(), "blk.0.ffn_" + std::string(name) + "_exps.weight");
  CHECK(weights(2) - weights(1) == doctest::Approx(experts * (2.0 / 8) * (6.0 / 8)));
  CHECK(weights(1000) - weights(1) == doctest::Approx(experts * 6.0 / 8));
}

}  // namespace lutra
