// Experts that no token of a batch chose: their weights are not read. Their pages are taken away and the same batch is computed again.
#include <sys/mman.h>
#include <unistd.h>

#include <set>

#include "models/decoder.h"
#include "tests/kernels/simd_util.h"
#include "tests/models/model_run.h"
#include "tests/models/tiny_model.h"

namespace lutra {
namespace {

using testing::BuildTiny;
using testing::ModelRun;
using testing::Pages;
using testing::TinyArch;
using testing::TinySpec;

class SeenMatrices : public InputObserver {
 public:
  void Observe(std::span<const Product> products, const MatrixInput&) override {
    for (const Product& p : products) seen_.insert(p.w);
  }
  bool Has(const Matrix& m) const { return seen_.count(&m) != 0; }

 private:
  std::set<const Matrix*> seen_;
};

// Whole pages of [begin, end) that cannot be read while this lives.
class Unreadable {
 public:
  Unreadable(const uint8_t* begin, const uint8_t* end) {
    const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page;
    const uintptr_t last = reinterpret_cast<uintptr_t>(end) / page * page;
    at_ = reinterpret_cast<void*>(first);
    bytes_ = last > first ? last - first : 0;
    ok_ = bytes_ != 0 && ::mprotect(at_, bytes_, PROT_NONE) == 0;
  }
  ~Unreadable() {
    if (ok_) ::mprotect(at_, bytes_, PROT_READ | PROT_WRITE);
  }
  Unreadable(const Unreadable&) = delete;
  Unreadable& operator=(const Unreadable&) = delete;
  bool ok() const { return ok_; }

 private:
  void* at_;
  size_t bytes_;
  bool ok_;
};

void CheckUntouched(uint32_t type, const std::vector<int32_t>& ids) {
  TinySpec s = TinyArch("qwen3moe");
  s.n_embd = 64;
  s.n_layer = 1;
  s.n_expert = 12;
  s.n_used = 2;
  s.n_ff_exp = 128;  // a matrix of an expert: 8192 numbers, used where they lie
  s.type = type;
  const std::vector<uint8_t> bytes = BuildTiny(s).Build();
  ModelRun run(bytes, 2, KvType::kF16, ids.size());

  SeenMatrices seen;
  run.decoder().set_observer(&seen);
  const std::vector<float> expected = run.Logits(ids);
  const std::vector<float> one_by_one = run.Logits(ids, 1);
  run.decoder().set_observer(nullptr);

  const LayerWeights& layer = run.model().layers()[0];
  std::vector<std::unique_ptr<Unreadable>> taken;
  size_t used = 0;
  for (uint32_t e = 0; e < s.n_expert; ++e) {
    if (seen.Has(layer.experts[e].gate)) {
      ++used;
      continue;
    }
    for (const char* name :
         {"blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight", "blk.0.ffn_down_exps.weight"}) {
      const GgufTensor* t = run.model().file().FindTensor(name);
      REQUIRE(t != nullptr);
      const uint64_t each = t->bytes / s.n_expert;
      taken.push_back(std::make_unique<Unreadable>(t->data + e * each, t->data + (e + 1) * each));
      REQUIRE(taken.back()->ok());
    }
  }
  CHECK(used >= s.n_used);
  CHECK(used <= ids.size() * s.n_used);
  REQUIRE(!taken.empty());
  CHECK((run.Logits(ids) == expected));       // a batch
  CHECK((run.Logits(ids, 1) == one_by_one));  // token by token
}

}  // namespace

TEST_CASE("Weights of experts that no token chose are not touched") {
  CheckUntouched(testing::kF32Type, {3, 14, 15});
}

TEST_CASE(
    "Weights of experts that no token chose are not touched by long prompts on any SIMD choice") {
  struct Restore {
    ~Restore() { SetPrefill("exact"); }
  } restore;
  const std::vector<int32_t> ids(20, 7);
  testing::ForEachSimdAndTiles([&] {
    for (const char* prefill : {"exact", "fast"}) {
      SetPrefill(prefill);
      for (const uint32_t type : {testing::kF32Type, testing::kF16Type, testing::kBf16Type})
        CheckUntouched(type, ids);
    }
  });
}

}  // namespace lutra
