// Files of log probabilities: the bytes, writing while measuring, reading what is broken.
#include "engine/logits_file.h"

#include <cstring>
#include <fstream>

#include "engine/kl_divergence.h"
#include "kernels/base/error.h"
#include "tests/engine/eval_fixture.h"

namespace lutra {
namespace {

using testing::EvalFixture;
using testing::EvalIds;
using testing::TinyArch;
using testing::TinySpec;

void WriteBytes(const std::string& path, const std::vector<uint8_t>& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

// Reads and compares all of it.
std::string ErrorOf(const std::string& path, Engine& engine) {
  try {
    const LogitsFile file(path);
    CompareWithFile(file, engine, file.Windows(1, -1));
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find(path) != std::string::npos);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("The bytes of a file are those of the format") {
  EvalFixture f;
  TinySpec spec = TinyArch("llama");
  spec.n_vocab = 47;  // odd: rows are padded
  const auto engine = f.Make(spec, 16);
  const std::vector<int32_t> ids = EvalIds(40, 1, 47);
  const EvalWindows windows(ids, 3, {16, -1, 0});
  const std::string path = f.folder / "base.kld";
  LogitsFileWriter writer(path, windows, 47);
  MeasurePerplexity(*engine, windows, {}, &writer);
  CHECK_FALSE(std::filesystem::exists(path));
  writer.Commit();
  const std::vector<uint8_t> bytes = testing::ReadBytes(path);
  const size_t row = 2 * (48 + 4);
  REQUIRE(bytes.size() == 8 + 12 + 4 * 32 + 2 * 7 * row);
  CHECK(std::memcmp(bytes.data(), "_logits_", 8) == 0);
  int32_t numbers[3 + 32];
  std::memcpy(numbers, &bytes[8], sizeof numbers);
  CHECK(numbers[0] == 16);
  CHECK(numbers[1] == 47);
  CHECK(numbers[2] == 2);
  CHECK(std::equal(numbers + 3, numbers + 35, ids.begin()));  // without BOS
  // The last row: position 14 of window 1.
  std::vector<int32_t> window;
  windows.Get(1, &window);
  const std::vector<double> expected = testing::NaiveLogProbs(*engine, window)[14];
  float scale[2];
  uint16_t codes[48];
  std::memcpy(scale, &bytes[bytes.size() - row], 8);
  std::memcpy(codes, &bytes[bytes.size() - row + 8], sizeof codes);
  CHECK(codes[47] == 0);
  for (size_t i = 0; i < 47; ++i) {
    CHECK(std::fabs(static_cast<double>(scale[0]) * codes[i] + static_cast<double>(scale[1]) -
                    expected[i]) < 2e-4);
  }
}

TEST_CASE("Comparing with a file agrees with the paired pass to the precision of 16 bits") {
  EvalFixture f;
  TinySpec other = TinyArch("llama");
  other.seed = 2;
  const auto a = f.Make(TinyArch("llama"), 64), b = f.Make(other, 64, 2, 20);
  const EvalWindows windows(EvalIds(300), 1, {64, -1, 0});
  const std::string path = f.folder / "base.kld";
  LogitsFileWriter writer(path, windows, 48);
  MeasurePerplexity(*a, windows, {}, &writer);
  writer.Commit();
  const LogitsFile file(path);
  CHECK(file.n_ctx() == 64);
  CHECK(file.n_vocab() == 48);
  CHECK(file.n_windows() == 4);
  const KlReport exact = CompareModels(*a, *b, windows),
                 coded = CompareWithFile(file, *b, file.Windows(1, -1));
  CHECK(coded.n_tokens == exact.n_tokens);
  CHECK(coded.perplexity.value == exact.perplexity.value);
  CHECK(coded.reference_perplexity.value ==
        doctest::Approx(exact.reference_perplexity.value).epsilon(1e-4));
  CHECK(coded.kld.value == doctest::Approx(exact.kld.value).epsilon(1e-3));
  CHECK(coded.kld_max == doctest::Approx(exact.kld_max).epsilon(1e-3));
  CHECK(coded.delta_p_rms.value == doctest::Approx(exact.delta_p_rms.value).epsilon(1e-3));
  CHECK(std::fabs(coded.same_top.value - exact.same_top.value) < 0.02);
  // Fewer windows, and itself.
  const KlReport self = CompareWithFile(file, *a, file.Windows(1, 2));
  CHECK(self.n_windows == 2);
  CHECK(std::fabs(self.kld.value) < 1e-5);
}

TEST_CASE("A stopped run leaves no file") {
  EvalFixture f;
  const auto engine = f.Make(TinyArch("llama"), 16);
  const EvalWindows windows(EvalIds(64), 1, {16, -1, 0});
  {
    LogitsFileWriter writer(f.folder / "base.kld", windows, 48);
    const auto result = MeasurePerplexity(
        *engine, windows, [](const PerplexityResult&, size_t) { return false; }, &writer);
    CHECK_FALSE(result.complete);
  }
  size_t n = 0;
  for (const auto& entry : std::filesystem::directory_iterator(f.folder.path()))
    n += entry.path().extension() != ".gguf";
  CHECK(n == 0);
  CHECK_THROWS_WITH_AS(
      LogitsFileWriter(f.folder / "x", EvalWindows(EvalIds(64), 1, {16, -1, 4}), 48),
      doctest::Contains("stride"), Error);
  CHECK_THROWS_AS(LogitsFileWriter(f.folder / "no/such/folder", windows, 48), Error);
}

TEST_CASE("Broken files are refused") {
  EvalFixture f;
  const auto engine = f.Make(TinyArch("llama"), 16);
  const EvalWindows windows(EvalIds(40), 1, {16, -1, 0});
  const std::string path = f.folder / "base.kld", broken = f.folder / "broken.kld";
  LogitsFileWriter writer(path, windows, 48);
  MeasurePerplexity(*engine, windows, {}, &writer);
  writer.Commit();
  CHECK(ErrorOf(path, *engine).empty());
  const std::vector<uint8_t> good = testing::ReadBytes(path);
  for (const size_t n :
       {size_t{0}, size_t{7}, size_t{8}, size_t{19}, size_t{20}, size_t{100}, good.size() - 1}) {
    WriteBytes(broken, {good.begin(), good.begin() + static_cast<ptrdiff_t>(n)});
    CHECK_FALSE(ErrorOf(broken, *engine).empty());
  }
  const auto with = [&](size_t at, uint32_t value) {
    std::vector<uint8_t> bytes = good;
    std::memcpy(&bytes[at], &value, 4);
    WriteBytes(broken, bytes);
    return ErrorOf(broken, *engine);
  };
  CHECK(with(0, 0).find("_logits_") != std::string::npos);
  for (const uint32_t value : {0u, 3u, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu, 17u}) {
    INFO(value);
    CHECK_FALSE(with(8, value).empty());
    CHECK_FALSE(with(12, value).empty());
    if (value != 17u) CHECK_FALSE(with(16, value).empty());
  }
  CHECK(with(16, 0x7FFFFFFF).find("2147483647 chunks") != std::string::npos);
  CHECK(with(20 + 4 * 5, 48).find("token 5 is 48, outside the vocabulary of 48") !=
        std::string::npos);
  CHECK(with(20 + 4 * 5, 0xFFFFFFFF).find("token 5 is -1") != std::string::npos);
  CHECK(with(20 + 4 * 32, 0x7FC00000)
            .find("the log probabilities after token 9 of chunk 1 are not numbers") !=
        std::string::npos);
  TinySpec larger = TinyArch("llama");
  larger.n_vocab = 50;
  const auto other = f.Make(larger, 16);
  CHECK(ErrorOf(path, *other).find("vocabulary of 48 tokens") != std::string::npos);
  CHECK_THROWS_AS(LogitsFile(f.folder / "absent"), Error);
}

}  // namespace lutra
