// Continuous batching: whatever runs beside it, a sequence gives the text it gives alone.
#include "engine/scheduler.h"

#include <random>
#include <thread>

#include "engine/session.h"
#include "kernels/base/error.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

const char* const kPrompts[] = {
    "Once upon a time",
    "The dog and the cat",
    "Lily went to the park with her mom. She saw a big red ball and a small blue boat. The boat "
    "was",
    "One day, a bird",
    "Tom liked to play",
    "There was a little girl who had a doll. The doll was her best friend. Every day they played "
    "in the garden. One day it "
    "began to rain and the girl could not find the doll. She looked under the bed, behind the "
    "door, in the kitchen and in the "
    "garden, but the doll was not there. Then she heard a sound from the big tree. She ran to the "
    "tree and",
    "A",
    "Mom said, \"Do not go",
};

std::unique_ptr<Engine> DemoEngine(uint64_t kv_tokens, int threads = 2,
                                   KvType kv_type = KvType::kF16) {
  EngineOptions options;
  options.model_path = std::string(LUTRA_SOURCE_DIR) + "/models/demo/demo-stories-6m-5.5bpw.gguf";
  options.threads = threads;
  options.n_ctx = 384;
  options.kv_tokens = kv_tokens;
  options.kv_type = kv_type;
  options.batch_tokens = 64;
  options.batch_logits = 32;
  return std::make_unique<Engine>(options);
}

SequenceRequest Request(const Engine& engine, size_t i) {
  SequenceRequest r;
  r.prompt = engine.tokenizer().Encode(kPrompts[i % std::size(kPrompts)], true, false);
  r.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
  r.sampling.seed = 7 + static_cast<uint32_t>(i);
  r.sampling.repeat_penalty = i % 3 == 0 ? 1.1f : 1.0f;
  r.max_tokens = 40 + 40 * (i % 5);
  if (i == 3) r.stop = {" the", "zebra"};
  r.client = "client " + std::to_string(i % 3);
  return r;
}

struct Result {
  std::string text;
  FinishReason finish = FinishReason::kCancelled;
  SequenceStats stats;
  std::vector<LogprobEntry> logprobs, prompt_logprobs;
  std::vector<float> embedding;
  bool error = false;
};

Result Collect(TokenStream& stream) {
  Result result;
  SequenceEvent event;
  do {
    REQUIRE(stream.Next(&event, testing::Patience(60)));
    result.text += event.text;
    for (auto& e : event.logprobs) result.logprobs.push_back(e);
    for (auto& e : event.prompt_logprobs) result.prompt_logprobs.push_back(e);
    if (!event.embedding.empty()) result.embedding = event.embedding;
  } while (!event.finished);
  result.finish = event.finish;
  result.stats = event.stats;
  result.error = event.error != nullptr;
  return result;
}

// What one session gives, with nobody else about.
std::vector<Generation> Alone(KvType kv_type) {
  const auto engine = DemoEngine(0, 1, kv_type);
  std::vector<Generation> out;
  for (size_t i = 0; i < 8; ++i) {
    const SequenceRequest r = Request(*engine, i);
    Session session(*engine);
    GenerateOptions options;
    options.sampling = r.sampling;
    options.max_tokens = r.max_tokens;
    options.stop = r.stop;
    out.push_back(Generate(*engine, session, r.prompt, options));
  }
  return out;
}

const std::vector<Generation>& Expected(KvType kv_type = KvType::kF16) {
  static const std::vector<Generation> f16 = Alone(KvType::kF16), q8 = Alone(KvType::kQ8);
  return kv_type == KvType::kQ8 ? q8 : f16;
}

void CheckAll(Scheduler& scheduler, size_t rounds, unsigned seed) {
  std::mt19937 rng(seed);
  const std::vector<Generation>& expected = Expected(scheduler.engine().plan().kv_type);
  for (size_t round = 0; round < rounds; ++round) {
    std::vector<std::shared_ptr<TokenStream>> streams(8), noise;
    std::vector<size_t> order = {0, 1, 2, 3, 4, 5, 6, 7};
    std::shuffle(order.begin(), order.end(), rng);
    for (const size_t i : order) {
      streams[i] = scheduler.Submit({Request(scheduler.engine(), i)}).at(0);
      if (rng() % 3 == 0) {
        noise.push_back(scheduler.Submit({Request(scheduler.engine(), i + 1)}).at(0));
        if (rng() % 2 == 0) noise.back()->Cancel();
      }
      if (rng() % 4 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(rng() % 4));
    }
    for (auto& n : noise) n->Cancel();
    for (size_t i = 0; i < 8; ++i) {
      const Result r = Collect(*streams[i]);
      INFO("round ", round, " stream ", i);
      CHECK(r.text == expected[i].text);
      CHECK(r.finish == expected[i].finish);
      CHECK(r.stats.completion_tokens == expected[i].tokens.size() + (expected[i].end_token >= 0));
    }
    for (auto& n : noise) Collect(*n);
  }
}

}  // namespace

TEST_CASE("Eight mixed streams give the same texts as each alone") {
  const auto engine = DemoEngine(8 * 384);
  SUBCASE("side by side") {
    SchedulerOptions options;
    options.max_sequences = 8;
    Scheduler scheduler(*engine, options);
    CheckAll(scheduler, 3, 1);
    CHECK(scheduler.stats().kv_pages_used == scheduler.stats().kv_pages_cached);
    CHECK(scheduler.stats().cached_tokens > 0);
    CHECK(scheduler.stats().preemptions == 0);
  }
  SUBCASE("three at a time, prompts in the smallest slices, no prefix cache") {
    SchedulerOptions options;
    options.max_sequences = 3;
    options.slice_seconds = 1e-9;
    options.prefix_cache_share = 0;
    Scheduler scheduler(*engine, options);
    CheckAll(scheduler, 2, 2);
    CHECK(scheduler.stats().cached_tokens == 0);
    CHECK(scheduler.stats().kv_pages_used == 0);
  }
}

TEST_CASE(
    "Eight mixed streams give the same texts as each alone with an integer KV cache too, also "
    "after interruptions") {
  for (const uint64_t kv_tokens : {uint64_t{8 * 384}, uint64_t{3 * kKvPage}}) {
    const auto engine = DemoEngine(kv_tokens, 2, KvType::kQ8);
    SchedulerOptions options;
    options.max_sequences = 8;
    Scheduler scheduler(*engine, options);
    CheckAll(scheduler, 2, 4);
    CHECK((scheduler.stats().preemptions > 0) == (kv_tokens < 8 * 384));
  }
}

TEST_CASE("Streams that are interrupted for lack of memory go on as if nothing had been") {
  const auto engine = DemoEngine(3 * kKvPage);
  SchedulerOptions options;
  options.max_sequences = 5;
  Scheduler scheduler(*engine, options);
  CheckAll(scheduler, 3, 3);
  CHECK(scheduler.stats().preemptions > 0);
}

TEST_CASE("A prompt is computed once, also for several answers to it") {
  const auto engine = DemoEngine(8 * 384);
  SchedulerOptions options;
  options.max_sequences = 8;
  Scheduler scheduler(*engine, options);
  std::vector<SequenceRequest> group;
  for (uint32_t i = 0; i < 4; ++i) {
    group.push_back(Request(*engine, 5));
    group.back().sampling.seed = i;
  }
  const size_t n = group[0].prompt.size();
  const auto streams = scheduler.Submit(std::move(group));
  REQUIRE(streams.size() == 4);
  for (size_t i = 0; i < 4; ++i) {
    const Result r = Collect(*streams[i]);
    CHECK(r.stats.prompt_tokens == n);
    CHECK(r.stats.cached_tokens == (i == 0 ? 0 : n - 1));
  }
  // Again, from what has ended; but not for somebody else.
  CHECK(Collect(*scheduler.Submit({Request(*engine, 5)})[0]).stats.cached_tokens == n - 1);
  SequenceRequest stranger = Request(*engine, 5);
  stranger.scope = "another key";
  const Result r = Collect(*scheduler.Submit({stranger})[0]);
  CHECK(r.stats.cached_tokens == 0);
  CHECK(r.text == Expected()[5].text);
  scheduler.ClearPrefixCache();
  CHECK(Collect(*scheduler.Submit({Request(*engine, 5)})[0]).stats.cached_tokens == 0);
}

TEST_CASE("The queue is bounded, turns go round between clients, and cancelling frees a place") {
  const auto engine = DemoEngine(4 * 384);
  SchedulerOptions options;
  options.max_sequences = 1;
  options.max_queued = 4;
  Scheduler scheduler(*engine, options);
  std::vector<std::shared_ptr<TokenStream>> streams;
  SequenceRequest endless = Request(*engine, 0);
  endless.max_tokens = SIZE_MAX;
  endless.sampling.ignore_eos = true;
  for (int i = 0; i < 5; ++i) {
    const auto s = scheduler.Submit({endless});
    REQUIRE(s.size() == 1);
    streams.push_back(s[0]);
  }
  CHECK(scheduler.Submit({endless}).empty());
  CHECK(scheduler.stats().queued + scheduler.stats().running == 5);
  streams[0]->Cancel();
  streams[1]->Cancel();
  CHECK(Collect(*streams[0]).finish == FinishReason::kCancelled);
  CHECK(Collect(*streams[1]).finish == FinishReason::kCancelled);
  // Another client need not wait for all that the first has queued.
  SequenceRequest other = Request(*engine, 1);
  other.client = "another";
  const auto s = scheduler.Submit({other, other});
  REQUIRE(s.size() == 2);
  std::thread reader([&] {
    for (int i = 2; i < 5; ++i) Collect(*streams[static_cast<size_t>(i)]);
  });
  const Result first = Collect(*s[0]);
  CHECK(first.text == Expected()[1].text);
  CHECK(scheduler.stats().queued >= 1);
  for (auto& stream : streams) stream->Cancel();
  reader.join();
  Collect(*s[1]);
  CHECK(scheduler.stats().running == 0);
  CHECK(scheduler.Drain(testing::Patience(5)));
  CHECK(scheduler.Submit({other}).empty());
}

TEST_CASE("A reader that does not read stops its own stream only") {
  const auto engine = DemoEngine(4 * 384);
  SchedulerOptions options;
  options.max_sequences = 2;
  Scheduler scheduler(*engine, options);
  SequenceRequest endless = Request(*engine, 0);
  endless.max_tokens = SIZE_MAX;
  endless.sampling.ignore_eos = true;
  const auto lazy = scheduler.Submit({endless})[0];
  for (size_t i = 0; i < 8; ++i)
    CHECK(Collect(*scheduler.Submit({Request(*engine, i)})[0]).text == Expected()[i].text);
  // The context ends it; every token is there.
  const Result r = Collect(*lazy);
  CHECK(r.finish == FinishReason::kContextFull);
  CHECK(r.stats.prompt_tokens + r.stats.completion_tokens == 385);
}

TEST_CASE("Log probabilities belong to the tokens of the text, the prompt's too") {
  const auto engine = DemoEngine(4 * 384);
  Scheduler scheduler(*engine, {});
  SequenceRequest r = Request(*engine, 5);
  r.top_logprobs = 3;
  r.prompt_logprobs = true;
  r.max_tokens = 12;
  const std::vector<int32_t> prompt = r.prompt;
  const Result with = Collect(*scheduler.Submit({r})[0]);
  REQUIRE(with.prompt_logprobs.size() == prompt.size());
  REQUIRE(with.logprobs.size() == 12);
  std::string text;
  for (const LogprobEntry& e : with.logprobs) {
    text += e.bytes;
    CHECK(e.top.size() == 3);
    CHECK(e.token.logprob <= 0);
    CHECK(e.top[0].logprob >= e.token.logprob);
  }
  CHECK(text == with.text);
  for (size_t i = 0; i < prompt.size(); ++i) CHECK(with.prompt_logprobs[i].token.id == prompt[i]);
  // The same numbers as from a session, one token at a time.
  const auto plain = DemoEngine(0);
  Session session(*plain);
  for (size_t i = 0; i + 1 < prompt.size(); ++i) {
    const std::span<const float> logits = session.Feed(std::span(prompt).subspan(i, 1));
    CHECK(LogprobOf(logits, LogSumExp(logits), prompt[i + 1]).logprob ==
          with.prompt_logprobs[i + 1].token.logprob);
  }
  // Scoring alone: nothing is generated.
  r.max_tokens = 0;
  const Result score = Collect(*scheduler.Submit({r})[0]);
  CHECK(score.stats.completion_tokens == 0);
  CHECK(score.text.empty());
  CHECK(score.finish == FinishReason::kLength);
  REQUIRE(score.prompt_logprobs.size() == prompt.size());
  CHECK(score.prompt_logprobs.back().token.logprob == with.prompt_logprobs.back().token.logprob);
  // Tokens of a stop text are not shown.
  SequenceRequest stop = Request(*engine, 0);
  stop.top_logprobs = 0;
  const Result whole = Collect(*scheduler.Submit({stop})[0]);
  const size_t cut = whole.text.size() / 2;
  stop.stop = {whole.text.substr(cut, 9)};
  const Result cut_off = Collect(*scheduler.Submit({stop})[0]);
  CHECK(cut_off.finish == FinishReason::kStop);
  size_t bytes = 0;
  for (const LogprobEntry& e : cut_off.logprobs) bytes += e.bytes.size();
  CHECK(bytes >= cut_off.text.size());
  CHECK(bytes < cut_off.text.size() + 9);
}

TEST_CASE("Embeddings are unit vectors that depend on the text alone") {
  const auto engine = DemoEngine(4 * 384);
  Scheduler scheduler(*engine, {});
  const auto embed = [&](size_t i, bool last) {
    SequenceRequest r = Request(*engine, i);
    r.embed = true;
    r.embed_last = last;
    return r;
  };
  const auto many = scheduler.Submit({embed(2, false), embed(5, false), embed(5, true)});
  std::vector<std::vector<float>> got;
  for (const auto& s : many) got.push_back(Collect(*s).embedding);
  for (const auto& e : got) {
    REQUIRE(e.size() == engine->hparams().n_embd);
    double square = 0;
    for (const float x : e) square += static_cast<double>(x) * x;
    CHECK(std::abs(square - 1) < 1e-5);
  }
  CHECK(got[1] != got[2]);
  CHECK(got[0] != got[1]);
  CHECK(Collect(*scheduler.Submit({embed(5, false)})[0]).embedding == got[1]);
}

TEST_CASE("Bad requests are refused before they are queued") {
  const auto engine = DemoEngine(0);
  Scheduler scheduler(*engine, {});
  SequenceRequest r = Request(*engine, 0);
  r.prompt.clear();
  CHECK_THROWS_AS(scheduler.Submit({r}), Error);
  r.prompt = {1, -1};
  CHECK_THROWS_AS(scheduler.Submit({r}), Error);
  r.prompt = {static_cast<int32_t>(engine->hparams().n_vocab)};
  CHECK_THROWS_AS(scheduler.Submit({r}), Error);
  r.prompt.assign(385, 5);
  CHECK_THROWS_AS(scheduler.Submit({r}), Error);
  r = Request(*engine, 0);
  r.sampling.top_p = 2;
  CHECK_THROWS_AS(scheduler.Submit({r}), Error);
  CHECK(scheduler.stats().requests == 0);
}

TEST_CASE("The tree of prefixes gives back every page") {
  KvPool pool(64, 10);
  std::vector<int32_t> tokens(3 * kKvPage + 40);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i % 1000);
  std::vector<int> pages;
  for (int i = 0; i < 4; ++i) pages.push_back(pool.Allocate());
  PrefixCache cache(&pool, 5);
  cache.Insert("a", tokens, pages);
  for (const int p : pages) pool.Release(p);
  CHECK(pool.n_free() == 6);
  CHECK(pool.n_evictable() == 4);
  CHECK(cache.Find("b", tokens).n_tokens() == 0);
  PrefixCache::Match match = cache.Find("a", tokens);
  CHECK(match.n_tokens() == tokens.size());
  CHECK(match.pages == std::vector<int>(pages.begin(), pages.begin() + 3));
  CHECK(match.partial_page == pages[3]);
  CHECK(pool.n_evictable() == 1);
  // What somebody uses stays.
  CHECK(cache.Evict(10) == 1);
  for (const int p : match.pages) pool.Release(p);
  tokens[kKvPage + 5] = -7;
  match = cache.Find("a", tokens);
  CHECK(match.n_tokens() == kKvPage + 5);
  CHECK(match.partial_page == pages[1]);
  for (const int p : match.pages) pool.Release(p);
  // A branch; the bound holds and the least recently used leaves.
  std::vector<int> more;
  for (int i = 0; i < 3; ++i) more.push_back(pool.Allocate());
  cache.Insert("a", std::span(tokens).first(3 * kKvPage), more);
  for (const int p : more) pool.Release(p);
  CHECK(cache.n_pages() == 5);
  match = cache.Find("a", tokens);
  CHECK(match.n_tokens() == 3 * kKvPage);
  for (const int p : match.pages) pool.Release(p);
  CHECK(cache.Evict(100) == 5);
  CHECK(pool.n_free() == 10);
}

}  // namespace lutra
