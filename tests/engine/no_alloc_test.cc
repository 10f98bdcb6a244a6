#include "tests/engine/alloc_counter.h"

#include <cstdlib>
#include <new>

#include "engine/logprobs.h"
#include "engine/sampler.h"
#include "engine/stop.h"
#include "tests/engine/naive_sampler.h"
#include "tests/test_util.h"

namespace {

thread_local size_t g_allocations = 0;

void* CountedAlloc(size_t size) {
  ++g_allocations;
  void* p = std::malloc(size == 0 ? 1 : size);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(size_t size) { return CountedAlloc(size); }
void* operator new[](size_t size) { return CountedAlloc(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++g_allocations;
  return std::malloc(size == 0 ? 1 : size);
}
void* operator new[](size_t size, const std::nothrow_t& tag) noexcept {
  return operator new(size, tag);
}
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }

namespace lutra {

size_t testing::AllocationCount() { return g_allocations; }

TEST_CASE("Sampling allocates nothing after construction, whatever stages are on") {
  constexpr size_t kVocab = 3000;
  std::vector<std::string> texts(kVocab);
  for (size_t i = 0; i < kVocab; ++i) texts[i] = "t" + std::to_string(i);
  const testing::LiteralVocab vocab(texts);
  SamplingParams all;
  all.seed = 1;
  for (const auto& [name, value] :
       std::vector<std::pair<const char*, const char*>>{{"repeat_penalty", "1.1"},
                                                        {"dry_multiplier", "0.8"},
                                                        {"top_n_sigma", "3"},
                                                        {"top_k", "2000"},
                                                        {"typical_p", "0.99"},
                                                        {"top_p", "0.99"},
                                                        {"min_p", "0.001"},
                                                        {"xtc_probability", "0.5"},
                                                        {"xtc_threshold", "0.01"},
                                                        {"dynatemp_range", "0.3"},
                                                        {"logit_bias", "3=1,4=-inf"}}) {
    SetByName(&all, name, value);
  }
  std::vector<SamplingParams> variants = {SamplingParams(), all};
  for (const SamplerStageRow& row : SamplerStages()) {  // each alone
    variants.push_back(all);
    variants.back().samplers = std::vector<std::string>{row.name};
  }
  for (const char* order : {"tpmkyxsed", "kyed", "ypm"}) {
    variants.push_back(all);
    SetByName(&variants.back(), "samplers", order);
  }
  for (const int32_t mirostat : {1, 2}) {
    variants.push_back(all);
    variants.back().mirostat = mirostat;
  }
  variants.push_back(SamplingParams());
  variants.back().temperature = 0.0f;

  const std::vector<float> logits = testing::BellLogits(kVocab, 5);
  TokenMask mask(kVocab);
  for (int32_t i = 0; i < 1000; ++i) mask.Allow(i * 3);
  for (size_t i = 0; i < variants.size(); ++i) {
    INFO("variant " << i);
    Sampler sampler(variants[i], &vocab, kVocab);
    const size_t before = testing::AllocationCount();
    for (int n = 0; n < 1000; ++n) {
      sampler.Accept(sampler.Sample(logits, n % 3 == 0 ? &mask : nullptr));
    }
    sampler.LastCandidates();
    sampler.Reset();
    CHECK(testing::AllocationCount() == before);
  }
}

TEST_CASE("Log probabilities and warm stop filters allocate nothing") {
  const std::vector<float> logits = testing::BellLogits(3000, 6);
  TokenLogprob best[20];
  StopFilter filter(std::vector<std::string>{"</s>", "\nUser:"});
  for (int i = 0; i < 10; ++i) filter.Feed("warming up, a long piece </s ");
  const size_t before = testing::AllocationCount();
  CHECK(TopLogprobs(logits, LogSumExp(logits), best) == 20);
  for (int i = 0; i < 1000; ++i) filter.Feed("\nUse");
  CHECK(testing::AllocationCount() == before);
}

}  // namespace lutra
