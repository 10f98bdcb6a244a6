// Decoding in a steady state allocates nothing, on any thread.
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <memory>

#include "engine/session.h"
#include "kernels/base/aligned.h"
#include "tests/engine/malloc_counter.h"
#include "tests/models/gguf_check.h"
#include "tests/models/tiny_model.h"

namespace lutra {
namespace {

using testing::MallocCount;

// Tokens decoded, and allocations meanwhile, once the first ones have warmed up.
size_t AllocationsOfDecode(const std::string& path, int threads, KvType kv_type) {
  EngineOptions options;
  options.model_path = path;
  options.threads = threads;
  options.kv_type = kv_type;
  options.n_ctx = 400;
  options.batch_tokens = 16;
  options.need_tokenizer = false;
  Engine engine(options);
  Session session(engine);
  const int32_t prompt[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
  session.Feed(prompt);
  int32_t token = 3;
  const auto decode = [&] {
    const std::span<const float> logits = session.Feed({&token, 1});
    token = logits[0] > logits[1] ? (token + 1) % 30 : (token + 7) % 30;
  };
  for (int i = 0; i < 4; ++i) decode();
  const size_t before = MallocCount();
  for (int i = 0; i < 300; ++i) decode();  // into the third page
  const size_t count = MallocCount() - before;
  CHECK(session.tokens().size() == 324);
  return count;
}

// Pages of this process in memory.
size_t ResidentPages() {
  std::ifstream statm("/proc/self/statm");
  size_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident;
}

}  // namespace

TEST_CASE("The counter sees every way to allocate") {
  void* volatile kept;  // the compiler may not leave an allocation out
  size_t last = MallocCount();
  const auto check_seen = [&](void* p) {
    kept = p;
    CHECK(kept == p);
    CHECK(MallocCount() > last);
    last = MallocCount();
  };
  const std::unique_ptr<int> one(new int(1));
  check_seen(one.get());
  std::vector<int> many(100);
  check_seen(many.data());
#if !defined(__SANITIZE_THREAD__)  // its hook leaves aligned memory out
  AlignedArray<float> aligned(100);
  check_seen(aligned.data());
#endif
  void* zeroed = std::calloc(3, 5);
  check_seen(zeroed);
  std::free(zeroed);
  CHECK(MallocCount() == last);
}

TEST_CASE("Decoding allocates nothing after the first tokens: dense and experts, 1 and 2 threads") {
  testing::TinySpec dense = testing::TinyArch("llama");
  dense.n_embd = 256, dense.n_ff = 256, dense.type = testing::kIq4KType;
  testing::TinySpec experts = testing::TinyArch("qwen2moe");
  experts.n_ff_exp = 32, experts.n_ff_shexp = 64, experts.type = testing::kQ8_0Type;
  testing::TinySpec floats = testing::TinyArch("qwen3");
  const testing::TemporaryFolder folder;
  for (const testing::TinySpec& spec : {dense, experts, floats}) {
    const std::string path = folder / (spec.arch + ".gguf");
    BuildTiny(spec).WriteFile(path);
    for (const int threads : {1, 2}) {
      for (const KvType kv : {KvType::kF16, KvType::kF32, KvType::kQ8}) {
        INFO(spec.arch, ", ", threads, " threads, KV ", std::string(KvTypeName(kv)));
        CHECK(AllocationsOfDecode(path, threads, kv) == 0);
      }
    }
  }
}

// oneTBB keeps small objects in pools that the counter does not see: they must not grow.
TEST_CASE("Regions of threads take no more memory with time") {
  ThreadPool pool(2);
  std::atomic<size_t> calls{0};
  const auto run = [&](int n) {
    for (int i = 0; i < n; ++i) {
      pool.Region([&] { pool.For(8, [&](size_t) { ++calls; }); });
    }
  };
  run(1000);
  const size_t before = ResidentPages();
  run(20000);
  CHECK(calls == 21000 * 8);
  if (before != 0) CHECK(ResidentPages() < before + 64);
}

}  // namespace lutra
