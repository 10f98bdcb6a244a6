// Engine and session: feeding, taking back, limits and refusals.
#include "engine/session.h"

#include <cstring>
#include <random>

#include "engine/engine.h"
#include "kernels/base/error.h"
#include "tests/models/gguf_check.h"
#include "tests/models/tiny_model.h"

namespace lutra {
namespace {

using testing::TemporaryFolder;
using testing::TinyArch;
using testing::TinySpec;

// A tiny model in a file, and options for it.
struct Fixture {
  explicit Fixture(TinySpec spec = TinyArch("llama")) {
    options.model_path = folder / "tiny.gguf";
    BuildTiny(spec).WriteFile(options.model_path);
    options.threads = 1;
    options.n_ctx = 200;
    options.batch_tokens = 32;
    options.need_tokenizer = false;
  }
  TemporaryFolder folder;
  EngineOptions options;
};

std::vector<int32_t> Tokens(size_t n, unsigned seed = 1) {
  std::mt19937 rng(seed);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng() % 48);
  return ids;
}

std::vector<float> Copy(std::span<const float> x) { return {x.begin(), x.end()}; }

void CheckSame(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  const bool same = std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  CHECK(same);
}

ErrorCode CodeOf(const EngineOptions& options, std::string* message) {
  try {
    Engine engine(options);
  } catch (const Error& e) {
    *message = e.what();
    return e.code();
  }
  FAIL("no Error");
  return ErrorCode::kInternal;
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("A session gives the same bits however its tokens are fed") {
  Fixture f;
  Engine engine(f.options);
  CHECK(engine.n_ctx() == 200);
  const auto ids = Tokens(150);
  Session whole(engine), parts(engine);
  const std::vector<float> expected = Copy(whole.Feed(ids));
  CHECK(expected.size() == 48);
  std::vector<float> got;
  for (size_t at = 0, n = 1; at < ids.size(); at += n, n = n % 41 + 7) {
    n = std::min(n, ids.size() - at);
    got = Copy(parts.Feed(std::span(ids).subspan(at, n)));
  }
  CheckSame(got, expected);
  CHECK(std::vector<int32_t>(parts.tokens().begin(), parts.tokens().end()) == ids);
}

TEST_CASE("Sessions of an engine do not see each other") {
  Fixture f;
  Engine engine(f.options);
  const auto a = Tokens(60, 1), b = Tokens(60, 2);
  Session alone(engine), first(engine), second(engine);
  const std::vector<float> expected = Copy(alone.Feed(a));
  first.Feed(std::span(a).first(30));
  second.Feed(b);
  CheckSame(Copy(first.Feed(std::span(a).subspan(30))), expected);
}

TEST_CASE("What is fed again after Truncate gives the same bits") {
  Fixture f;
  Engine engine(f.options);
  const auto ids = Tokens(180, 3), other = Tokens(100, 4);
  Session session(engine);
  std::vector<std::vector<float>> expected;
  for (const int32_t id : ids) expected.push_back(Copy(session.Feed({&id, 1})));
  for (const size_t keep : {179, 128, 127, 1, 0}) {
    INFO("keep ", keep);
    session.Truncate(keep);
    CHECK(session.tokens().size() == keep);
    session.Feed(
        std::span(other).first(std::min<size_t>(100, 200 - keep)));  // something else in between
    session.Truncate(keep);
    CheckSame(Copy(session.Feed(std::span(ids).subspan(keep))), expected.back());
  }
}

TEST_CASE("CommonPrefix counts the tokens that the cache holds already") {
  Fixture f;
  Engine engine(f.options);
  Session session(engine);
  CHECK(session.CommonPrefix(Tokens(5)) == 0);
  const std::vector<int32_t> ids = {1, 2, 3, 4};
  session.Feed(ids);
  CHECK(session.CommonPrefix({}) == 0);
  CHECK(session.CommonPrefix(std::vector<int32_t>{2}) == 0);
  CHECK(session.CommonPrefix(std::vector<int32_t>{1, 2, 9, 4}) == 2);
  CHECK(session.CommonPrefix(ids) == 4);
  CHECK(session.CommonPrefix(std::vector<int32_t>{1, 2, 3, 4, 5}) == 4);
  session.Truncate(2);
  CHECK(session.CommonPrefix(ids) == 2);
}

TEST_CASE("A full context is refused before anything is computed, with the numbers") {
  Fixture f;
  Engine engine(f.options);
  Session session(engine);
  CHECK_THROWS_WITH_AS(
      session.Feed(Tokens(201)),
      doctest::Contains("the context of 200 tokens is full: it holds 0 and 201 more were given"),
      Error);
  session.Feed(Tokens(195));
  try {
    session.Feed(Tokens(6));
    FAIL("no Error");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kResourceExhausted);
    CHECK(Contains(e.what(), "it holds 195 and 6 more were given"));
  }
  CHECK(session.tokens().size() == 195);
  session.Feed(Tokens(5));  // to the last place
  CHECK(session.tokens().size() == 200);
  CHECK_THROWS_AS(session.Feed(Tokens(1)), Error);
  session.Truncate(199);
  CHECK_NOTHROW(session.Feed(Tokens(1)));
}

TEST_CASE("A token outside the vocabulary is refused and not remembered") {
  Fixture f;
  Engine engine(f.options);
  Session session(engine);
  session.Feed(Tokens(3));
  for (const int32_t bad : {-1, 48, INT32_MAX, INT32_MIN}) {
    const std::vector<int32_t> ids = {1, bad};
    CHECK_THROWS_WITH_AS(session.Feed(ids), doctest::Contains("outside the vocabulary of 48"),
                         Error);
    CHECK(session.tokens().size() == 3);
  }
}

TEST_CASE("Progress is told after each part, and may stop the rest") {
  Fixture f;
  Engine engine(f.options);
  const auto ids = Tokens(100, 5);
  Session session(engine);
  std::vector<size_t> done;
  const std::vector<float> expected = Copy(session.Feed(ids, [&](size_t n, size_t total) {
    CHECK(total == 100);
    done.push_back(n);
    return true;
  }));
  CHECK(done == std::vector<size_t>{32, 64, 96, 100});
  Session stopped(engine);
  try {
    stopped.Feed(ids, [&](size_t n, size_t) { return n < 64; });
    FAIL("no Error");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kCancelled);
    CHECK(Contains(e.what(), "64 of 100"));
  }
  CHECK(stopped.tokens().size() == 64);
  CheckSame(Copy(stopped.Feed(std::span(ids).subspan(64))), expected);  // and goes on from there
  stopped.Truncate(0);
  // Too late to stop: everything is done.
  CheckSame(Copy(stopped.Feed(ids, [](size_t n, size_t total) { return n < total; })), expected);
}

TEST_CASE(
    "A plan beyond the machine's memory is refused in a clear sentence before anything is loaded") {
  TinySpec big = TinyArch("llama");
  big.n_head = big.n_head_kv = 16, big.head_dim = big.head_dim_v = 1024, big.n_layer = 1;
  Fixture f(big);
  f.options.n_ctx = kMaxContext;  // 2 TiB of keys and values
  f.options.kv_type = KvType::kF32;
  std::string message;
  CHECK(CodeOf(f.options, &message) == ErrorCode::kResourceExhausted);
  for (const char* part : {"tiny.gguf: needs weights ",
                           "context of 16777216 tokens (f32) 2048.00 GiB", "available", "-c"}) {
    CHECK_MESSAGE(Contains(message, part), message);
  }
  f.options.n_ctx = 64;
  Engine engine(f.options);
  CHECK(engine.plan().total() < (uint64_t{64} << 20));
  CHECK(Contains(engine.plan().Text(), "context of 64 tokens (f32)"));
}

TEST_CASE("Options out of range are refused by name and range") {
  Fixture f;
  std::string message;
  EngineOptions o = f.options;
  o.n_ctx = kMaxContext + 1;
  CHECK(CodeOf(o, &message) == ErrorCode::kInvalidArgument);
  CHECK(Contains(message, "16777217"));
  o = f.options;
  o.batch_tokens = 0;
  CHECK(CodeOf(o, &message) == ErrorCode::kInvalidArgument);
  CHECK(Contains(message, "batch"));
  o.batch_tokens = kMaxBatchTokens + 1;
  CHECK(CodeOf(o, &message) == ErrorCode::kInvalidArgument);
  for (const int threads : {-1, 1025}) {
    o = f.options;
    o.threads = threads;
    CHECK(CodeOf(o, &message) == ErrorCode::kInvalidArgument);
    CHECK(Contains(message, std::to_string(threads)));
  }
  o = f.options;
  o.model_path = f.folder / "none.gguf";
  CHECK(CodeOf(o, &message) == ErrorCode::kNotFound);
  CHECK(Contains(message, "none.gguf"));
  CHECK(ParseKvType("q8_0") == KvType::kQ8);
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8})
    CHECK(ParseKvType(KvTypeName(type)) == type);
  CHECK_THROWS_WITH_AS(ParseKvType("q4_0"), doctest::Contains("q8, f16 or f32"), Error);
}

TEST_CASE("Without a wish the context is the model's own, at most the default") {
  Fixture f;  // trained with 512
  f.options.n_ctx = 0;
  CHECK(Engine(f.options).n_ctx() == 512);
  TinySpec longer = TinyArch("llama");
  longer.n_ctx = 131072;
  Fixture g(longer);
  g.options.n_ctx = 0;
  CHECK(Engine(g.options).n_ctx() == kDefaultContext);
}

TEST_CASE("Loading reports progress up to the whole") {
  Fixture f;
  std::vector<uint64_t> done;
  uint64_t all = 0;
  f.options.progress = [&](uint64_t n, uint64_t total) {
    done.push_back(n);
    all = total;
  };
  Engine engine(f.options);
  REQUIRE(done.size() > 10);
  CHECK(std::is_sorted(done.begin(), done.end()));
  CHECK(done.back() == all);
}

}  // namespace lutra
