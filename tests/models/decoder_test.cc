// The forward pass against the naive decoder, for every architecture and variant; and its bits
// against itself, however the work is cut.
#include "models/decoder.h"

#include <cstring>
#include <random>

#include "kernels/base/error.h"
#include "tests/kernels/simd_util.h"
#include "tests/models/model_run.h"
#include "tests/models/naive_decoder.h"
#include "tests/models/tiny_model.h"

namespace lutra {
namespace {

using testing::BuildTiny;
using testing::ForEachSimdAndTiles;
using testing::ModelRun;
using testing::NaiveDecoder;
using testing::Pages;
using testing::RelativeDifference;
using testing::TinyArch;
using testing::TinySpec;

std::vector<int32_t> RandomTokens(size_t n, uint32_t n_vocab, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng() % n_vocab);
  return ids;
}

struct Named {
  std::string name;
  TinySpec spec;
};

// What the formulas allow for an architecture, each thing at least once.
std::vector<Named> Variants(const std::string& arch) {
  std::vector<Named> all;
  const TinySpec plain = TinyArch(arch);
  const auto add = [&](const std::string& name, auto change) {
    TinySpec s = plain;
    s.seed = static_cast<unsigned>(all.size() + 1);
    change(s);
    all.push_back({name, s});
  };
  add("plain", [](TinySpec&) {});
  add("one KV head", [](TinySpec& s) { s.n_head = 8, s.n_head_kv = 1; });
  add("no grouping", [](TinySpec& s) { s.n_head = s.n_head_kv = 4; });
  add("heads larger than the model", [](TinySpec& s) { s.head_dim = s.head_dim_v = 32; });
  add("keys and values of different size", [](TinySpec& s) { s.head_dim = 24, s.head_dim_v = 40; });
  add("odd widths", [](TinySpec& s) {
    s.n_embd = 60, s.n_head = 3, s.n_head_kv = 3, s.n_ff = 77, s.n_vocab = 37;
  });
  add("biases", [](TinySpec& s) { s.qkv_bias = s.o_bias = s.ffn_bias = s.output_bias = true; });
  add("no biases", [](TinySpec& s) { s.qkv_bias = false; });
  add("fused q, k, v", [](TinySpec& s) { s.fused_qkv = true; });
  add("fused q, k, v with bias", [](TinySpec& s) { s.fused_qkv = s.qkv_bias = true; });
  add("linear scaling", [](TinySpec& s) { s.scaling = "linear"; });
  add("scaling none", [](TinySpec& s) { s.scaling = "none"; });
  add("YaRN", [](TinySpec& s) { s.scaling = "yarn", s.n_ctx_orig = 64; });
  add("YaRN over the whole context",
      [](TinySpec& s) { s.scaling = "yarn", s.factor = 2.5f, s.freq_base = 500000.0f; });
  add("rope_freqs", [](TinySpec& s) { s.rope_freqs = true; });  // which only llama reads
  if (!FindArch(arch)->output_required) add("tied output", [](TinySpec& s) { s.tied = true; });
  if (!FindArch(arch)->rope_spans_head) add("partial rotation", [](TinySpec& s) { s.n_rot = 6; });
  if (arch == "llama") {
    add("experts", [](TinySpec& s) { s.n_expert = 4, s.n_used = 2; });
    add("rope_freqs and YaRN",
        [](TinySpec& s) { s.rope_freqs = true, s.scaling = "yarn", s.n_ctx_orig = 64; });
  }
  if (plain.n_expert != 0) {
    add("one expert of many", [](TinySpec& s) { s.n_expert = 17, s.n_used = 1; });
    add("every expert", [](TinySpec& s) { s.n_expert = s.n_used = 5; });
    add("expert size left out", [](TinySpec& s) { s.n_ff = 144, s.n_ff_exp = 0; });
  }
  return all;
}

}  // namespace

TEST_CASE("Every architecture computes what the formulas say") {
  for (const ArchSpec* arch : AllArchs()) {
    for (Named& variant : Variants(arch->name)) {
      INFO(arch->name, ": ", variant.name);
      TinySpec& s = variant.spec;
      testing::GgufBuilder builder = BuildTiny(s);
      if (variant.name == "expert size left out") {  // feed_forward_length / expert_used_count
        s.n_ff_exp = s.n_ff / s.n_used;
        builder = BuildTiny(s);
        builder.Remove(s.arch + ".expert_feed_forward_length");
      }
      const std::vector<uint8_t> bytes = builder.Build();
      const auto ids = RandomTokens(26, s.n_vocab, s.seed);
      ModelRun run(bytes, 2, KvType::kF32, ids.size());
      const std::vector<float> ours = run.Logits(ids);
      const GgufFile file = GgufFile::FromBytes(bytes, "naive.gguf");
      NaiveDecoder naive(file);
      std::vector<double> exact;
      for (const int32_t id : ids) {
        const std::vector<double> l = naive.Step(id);
        exact.insert(exact.end(), l.begin(), l.end());
      }
      CHECK(RelativeDifference(ours, exact) < 1e-5);
      // With an F16 cache the keys and values are rounded by 2^-11 at most; an expert may tip over.
      ModelRun f16(bytes, 1, KvType::kF16, ids.size());
      if (s.n_expert == 0) CHECK(RelativeDifference(f16.Logits(ids), exact) < 1e-2);
      // An integer cache: keys, queries and values to 1/254 of their row's greatest element.
      ModelRun q8(bytes, 1, KvType::kQ8, ids.size());
      if (s.n_expert == 0) CHECK(RelativeDifference(q8.Logits(ids), exact) < 5e-2);
    }
  }
}

TEST_CASE("Heads and widths may differ from layer to layer") {
  TinySpec s = TinyArch("llama");
  testing::GgufBuilder b = BuildTiny(s);
  // Layer 1 of a model with 8 query heads, 4 KV heads and another width takes the place of this
  // one's.
  TinySpec other = s;
  other.n_head = 8, other.n_head_kv = 4, other.n_ff = 128, other.head_dim = other.head_dim_v = 16,
  other.seed = 2;
  testing::GgufBuilder c = BuildTiny(other);
  for (auto& t : c.tensors) {
    if (t.name.starts_with("blk.1.")) *b.FindTensor(t.name) = t;
  }
  b.SetArray<uint32_t>("llama.attention.head_count", {4, 8});
  b.SetArray<uint32_t>("llama.attention.head_count_kv", {2, 4});
  b.SetArray<uint32_t>("llama.feed_forward_length", {96, 128});
  const std::vector<uint8_t> bytes = b.Build();
  const auto ids = RandomTokens(20, s.n_vocab, 1);
  ModelRun run(bytes, 2, KvType::kF32, 7);
  const GgufFile file = GgufFile::FromBytes(bytes, "naive.gguf");
  NaiveDecoder naive(file);
  std::vector<double> exact;
  for (const int32_t id : ids) {
    const std::vector<double> l = naive.Step(id);
    exact.insert(exact.end(), l.begin(), l.end());
  }
  CHECK(RelativeDifference(run.Logits(ids), exact) < 1e-5);
}

namespace {

// One model a row: what its matrices are made of decides which kernels run.
std::vector<Named> BitModels() {
  TinySpec dense = TinyArch("llama");
  dense.n_embd = 256, dense.n_ff = 256, dense.n_layer = 1, dense.n_head = 4, dense.n_vocab = 40;
  TinySpec moe = TinyArch("qwen2moe");
  moe.n_embd = 64, moe.n_layer = 2, moe.n_ff_exp = 32, moe.n_ff_shexp = 64, moe.n_vocab = 40,
  moe.type = testing::kQ8_0Type;
  std::vector<Named> all;
  for (const auto& [name, type] : {std::pair{"IQ4_K", testing::kIq4KType},
                                   {"Q4_0", testing::kQ4_0Type},
                                   {"F16", testing::kF16Type}}) {
    TinySpec s = dense;
    s.type = type;
    all.push_back({name, s});
  }
  all.push_back({"Q8_0 experts", moe});
  moe.type = testing::kF32Type, moe.arch = "qwen3moe", moe.n_ff_shexp = 0;
  all.push_back({"F32 experts", moe});
  return all;
}

void CheckSame(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  const bool same = std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  CHECK(same);
}

}  // namespace

TEST_CASE("Logits are the same bits for any thread count, chunking and SIMD choice") {
  for (const Named& m : BitModels()) {
    INFO(m.name);
    const std::vector<uint8_t> bytes = BuildTiny(m.spec).Build();
    const auto ids = RandomTokens(300, m.spec.n_vocab, 5);  // three pages
    for (const KvType kv : {KvType::kQ8, KvType::kF16, KvType::kF32}) {
      INFO("KV ", std::string(kv == KvType::kQ8 ? "q8" : kv == KvType::kF16 ? "f16" : "f32"));
      const std::vector<float> expected = ModelRun(bytes, 1, kv, ids.size()).Logits(ids);
      for (const float l : expected) REQUIRE(std::isfinite(l));
      struct Way {
        int threads;
        size_t chunk;
      };
      const std::vector<Way> all_ways = {
          {1, 1}, {1, 3}, {1, 7},  {1, 64},  {2, 1}, {2, 3}, {2, 7}, {2, 64}, {2, 300}, {3, 1},
          {3, 3}, {3, 7}, {3, 64}, {3, 300}, {4, 1}, {4, 3}, {4, 7}, {4, 64}, {4, 300}};
      const std::vector<Way> some_ways = {{1, 300}, {1, 1}, {2, 7}, {3, 64}, {4, 150}};
      const auto check = [&](const std::vector<Way>& ways, size_t n) {
        for (const Way& w : ways) {
          INFO(w.threads, " threads, chunks of ", w.chunk);
          ModelRun run(bytes, w.threads, kv, w.chunk);
          const std::vector<float> part(
              expected.begin(), expected.begin() + static_cast<ptrdiff_t>(n * m.spec.n_vocab));
          CheckSame(run.Logits(std::span(ids).first(n), w.chunk), part);
        }
      };
      // A quantized and an expert model walk the whole cross into the second page; all walk a
      // diagonal through three pages with every SIMD choice. More threads than cores wait for each
      // other at every phase, so not more than that.
      if (kv == KvType::kF32) {
        check(some_ways, 140);
        continue;
      }
      // The integer cache and its SIMD choices are walked by two models: attention knows nothing of weights.
      const bool whole = m.name == "IQ4_K" || m.name == "Q8_0 experts";
      if (whole) check(all_ways, 132);
      if (whole || kv == KvType::kF16) ForEachSimdAndTiles([&] { check(some_ways, 300); });
    }
  }
}

TEST_CASE("Fast prefill of F16 and BF16 models on tiles is near the exact logits, on any threads") {
  struct Restore {
    ~Restore() { SetPrefill("exact"); }
  } restore;
  for (const auto& [arch, type] : {std::pair{"llama", testing::kF16Type},
                                   {"llama", testing::kBf16Type},
                                   {"qwen3moe", testing::kF16Type}}) {
    INFO(std::string(arch), ", type ", type);
    TinySpec spec = TinyArch(arch);
    spec.type = type;
    const std::vector<uint8_t> bytes = BuildTiny(spec).Build();
    const auto ids = RandomTokens(150, spec.n_vocab, 7);
    const auto run = [&](const char* prefill, int threads, size_t chunk) {
      SetPrefill(prefill);
      return ModelRun(bytes, threads, KvType::kF32, chunk).Logits(ids, chunk);
    };
    const std::vector<float> exact = run("exact", 1, ids.size());
    ForEachSimdAndTiles([&] {
      CheckSame(run("exact", 1, ids.size()), exact);
      CheckSame(run("fast", 2, 16), exact);  // nothing is rounded with so few tokens
      const std::vector<float> fast = run("fast", 1, ids.size());
      CheckSame(run("fast", 3, ids.size()), fast);
      const bool rounds = FindTileBf16MatMul(type) != nullptr;
      const double rms = testing::RmsDifference(fast, exact);
      CHECK((rms != 0) == rounds);
      // Weights and inputs of 8 bits; an expert may tip over.
      CHECK(rms < (spec.n_expert == 0 ? 0.01 : 0.1));
    });
  }
}

TEST_CASE(
    "Few tokens behind a long context: attention shared out by segments gives the same bits") {
  TinySpec spec = TinyArch("llama");
  spec.n_layer = 1, spec.n_head = 2, spec.n_head_kv = 1;
  const std::vector<uint8_t> bytes = BuildTiny(spec).Build();
  const size_t n = 2 * 8 * kKvPage + 150, last = 6;  // three segments
  const auto ids = RandomTokens(n, spec.n_vocab, 6);
  for (const KvType kv : {KvType::kQ8, KvType::kF16}) {
    std::vector<float> expected;
    for (const auto& [threads, chunk] : {std::pair{1, size_t{1}},
                                         {2, size_t{1}},
                                         {4, size_t{2}},
                                         {3, size_t{3}},
                                         {4, size_t{6}}}) {
      ModelRun run(bytes, threads, kv, 512);
      const Pages pages(run.decoder().kv_layout(), n);
      std::vector<float> got;
      for (size_t at = 0; at < n;) {
        const size_t m = at < n - last ? std::min<size_t>(512, n - last - at) : chunk;
        std::vector<BatchToken> batch;
        for (size_t i = at; i < at + m; ++i) {
          batch.push_back({ids[i], static_cast<int32_t>(i), pages.data(), i >= n - last});
        }
        run.decoder().Forward(batch);
        for (size_t i = 0; i < m && at >= n - last; ++i) {
          const auto l = run.decoder().logits(i);
          got.insert(got.end(), l.begin(), l.end());
        }
        at += m;
      }
      INFO(threads, " threads, ", chunk, " tokens a step");
      if (expected.empty()) expected = got;
      CheckSame(got, expected);
    }
  }
}

TEST_CASE("A sequence's logits do not depend on what else is in the batch") {
  for (const Named& m : BitModels()) {
    INFO(m.name);
    const std::vector<uint8_t> bytes = BuildTiny(m.spec).Build();
    ModelRun run(bytes, 3, KvType::kQ8, 96);
    const size_t lengths[] = {290, 130, 40, 1};
    std::vector<std::vector<int32_t>> ids;
    std::vector<std::vector<float>> expected, got(4);
    std::vector<Pages> pages;
    for (size_t s = 0; s < 4; ++s) {
      ids.push_back(RandomTokens(lengths[s], m.spec.n_vocab, static_cast<unsigned>(s)));
      expected.push_back(run.Logits(ids[s]));
      pages.emplace_back(run.decoder().kv_layout(), lengths[s]);
    }
    std::mt19937 rng(9);
    size_t fed[4] = {};
    for (bool more = true; more;) {
      more = false;
      std::vector<BatchToken> batch;
      std::vector<size_t> wants;  // sequence of each logits row
      for (size_t s = 0; s < 4; ++s) {
        const size_t n = std::min<size_t>(lengths[s] - fed[s], rng() % 24);
        for (size_t i = 0; i < n; ++i, ++fed[s]) {
          batch.push_back({ids[s][fed[s]], static_cast<int32_t>(fed[s]), pages[s].data(), true});
          wants.push_back(s);
        }
        more = more || fed[s] < lengths[s];
      }
      run.decoder().Forward(batch);
      for (size_t i = 0; i < wants.size(); ++i) {
        const auto l = run.decoder().logits(i);
        got[wants[i]].insert(got[wants[i]].end(), l.begin(), l.end());
      }
    }
    for (size_t s = 0; s < 4; ++s) CheckSame(got[s], expected[s]);
  }
}

TEST_CASE("Only the tokens that want logits get rows, in their order") {
  const TinySpec s = TinyArch("qwen3");
  const std::vector<uint8_t> bytes = BuildTiny(s).Build();
  ModelRun run(bytes, 2, KvType::kF32, 16);
  const auto ids = RandomTokens(16, s.n_vocab, 3);
  const std::vector<float> all = run.Logits(ids);
  const Pages pages(run.decoder().kv_layout(), 16);
  std::vector<BatchToken> batch;
  for (int32_t i = 0; i < 16; ++i)
    batch.push_back({ids[static_cast<size_t>(i)], i, pages.data(), i == 3 || i == 15});
  run.decoder().Forward(batch);
  const std::vector<float> row3(all.begin() + 3 * 48, all.begin() + 4 * 48),
      row15(all.end() - 48, all.end());
  const auto a = run.decoder().logits(0), b = run.decoder().logits(1);
  CheckSame({a.begin(), a.end()}, row3);
  CheckSame({b.begin(), b.end()}, row15);
}

TEST_CASE("A batch that was not planned for, or a token outside the vocabulary, is refused") {
  const TinySpec s = TinyArch("llama");
  const std::vector<uint8_t> bytes = BuildTiny(s).Build();
  ModelRun run(bytes, 1, KvType::kF32, 2);
  const Pages pages(run.decoder().kv_layout(), 3);
  const auto forward = [&](std::vector<BatchToken> batch) { run.decoder().Forward(batch); };
  CHECK_THROWS_WITH_AS(forward({{-1, 0, pages.data(), true}}),
                       doctest::Contains("token -1 is outside the vocabulary of 48"), Error);
  CHECK_THROWS_WITH_AS(forward({{48, 0, pages.data(), true}}), doctest::Contains("token 48"),
                       Error);
  const BatchToken t = {1, 0, pages.data(), false};
  CHECK_THROWS_WITH_AS(forward({t, t, t}), doctest::Contains("batch of 3 tokens"), Error);
  CHECK_NOTHROW(forward({}));
  CHECK_NOTHROW(forward({t}));
}

}  // namespace lutra
