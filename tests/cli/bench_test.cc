// The parts of `lutra bench`: lists, statistics, records and formats, and a run of a tiny model.
#include <cmath>
#include <sstream>

#include <nlohmann/json.hpp>

#include "cli/bench/int_list.h"
#include "cli/bench/printer.h"
#include "cli/bench/record.h"
#include "cli/bench/runner.h"
#include "cli/bench/stats.h"
#include "kernels/base/error.h"
#include "tests/test_util.h"

namespace lutra::bench {
namespace {

std::vector<int> List(const std::string& text) { return ParseIntList("-x", text, 0, 1000); }

BenchRecord SomeRecord() {
  BenchRecord r;
  r.model_filename = "dir/a \"quoted\" it's.gguf";
  r.model_type = "llama 1.2B Q4_K";
  r.model_size = 3ull << 30;
  r.model_n_params = 1'236'000'000;
  r.spec = {512, 0, 4096, 2048, 512, 2, "f16", "f16"};
  r.cpu_info = "Some CPU";
  r.test_time = "2026-11-21T00:00:00Z";
  r.samples_ns = {1'000'000'000, 2'000'000'000, 4'000'000'000};
  r.simd_target = "avx2";
  r.load_ms = 12.5;
  return r;
}

std::vector<std::string> SplitCsv(const std::string& line) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
      cells.back() += '"';
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      cells.emplace_back();
    } else if (c != '\n') {
      cells.back() += c;
    }
  }
  return cells;
}

}  // namespace

TEST_CASE("Lists and ranges of numbers read as llama-bench's do") {
  CHECK(List("7") == std::vector<int>{7});
  CHECK(List("1,2,3") == std::vector<int>{1, 2, 3});
  CHECK(List("3-6") == std::vector<int>{3, 4, 5, 6});
  CHECK(List("0-10+5") == std::vector<int>{0, 5, 10});
  CHECK(List("1-9+5") == std::vector<int>{1, 6});
  CHECK(List("64-512*2") == std::vector<int>{64, 128, 256, 512});
  CHECK(List("1,4-6,10-100*10") == std::vector<int>{1, 4, 5, 6, 10, 100});
  CHECK(List("5-5*1") == std::vector<int>{5});
  CHECK(ParseIntPair("-pg", "512,128", 1000) == std::pair(512, 128));
}

TEST_CASE("What is no list is refused, naming the option and what it takes") {
  for (const char* bad : {"", ",", "a", "1,", "1-", "5-3", "1-4+", "1-4+0", "1-4*1", "0-4*2", "-1",
                          "1001", "1-1001", "1 2", "1.5", "99999999999999999999", "1+2", "1-2-3"}) {
    INFO(std::string(bad));
    try {
      List(bad);
      FAIL("accepted");
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::kInvalidArgument);
      CHECK(std::string(e.what()).find("-x: ") == 0);
      CHECK(std::string(e.what()).find("FIRST-LAST+STEP") != std::string::npos);
      CHECK(std::string(e.what()).find('\n') == std::string::npos);
    }
  }
  for (const char* bad : {"", "512", "512,", ",128", "1,2,3", "a,b", "1001,1"}) {
    INFO(std::string(bad));
    CHECK_THROWS_AS(ParseIntPair("-pg", bad, 1000), Error);
  }
}

TEST_CASE("Statistics of small samples") {
  const std::vector<double> x = {4, 1, 3, 2, 100};
  CHECK(Mean(x) == 22);
  CHECK(Median(x) == 3);
  CHECK(Quantile(x, 0) == 1);
  CHECK(Quantile(x, 1) == 100);
  CHECK(Quantile(std::vector<double>{1, 2}, 0.25) == 1.25);
  CHECK(RobustSpread(x) == doctest::Approx(1.4826));  // distances 1 2 0 1 97
  CHECK(StandardDeviation(std::vector<double>{2, 4, 4, 4, 5, 5, 7, 9}) ==
        doctest::Approx(std::sqrt(32.0 / 7)));
  CHECK(StandardDeviation(std::vector<double>{5}) == 0);
  CHECK(Mean({}) == 0);
  CHECK(Median({}) == 0);
}

TEST_CASE("The bootstrap interval holds the median and shrinks with the sample") {
  std::vector<double> few, many;
  for (int i = 0; i < 200; ++i) {
    const double v = 10 + std::sin(i * 12.9898);
    if (i < 10) few.push_back(v);
    many.push_back(v);
  }
  const Interval a = BootstrapMedian(few), b = BootstrapMedian(many);
  CHECK(a.low <= Median(few));
  CHECK(a.high >= Median(few));
  CHECK(b.high - b.low < a.high - a.low);
  CHECK(b.low < b.high);
  const Interval same = BootstrapMedian(std::vector<double>{2, 2, 2});
  CHECK(same.low == 2);
  CHECK(same.high == 2);
}

TEST_CASE("Tests have llama-bench's names") {
  TestSpec s;
  s.n_prompt = 512;
  CHECK(TestName(s) == "pp512");
  s.n_gen = 128;
  CHECK(TestName(s) == "pp512+tg128");
  s.n_prompt = 0;
  s.n_depth = 4096;
  CHECK(TestName(s) == "tg128 @ d4096");
}

TEST_CASE("The columns begin with llama-bench's own, in its order") {
  const std::vector<std::string> theirs = {"build_commit",   "build_number",
                                           "cpu_info",       "gpu_info",
                                           "backends",       "model_filename",
                                           "model_type",     "model_size",
                                           "model_n_params", "n_batch",
                                           "n_ubatch",       "n_threads",
                                           "cpu_mask",       "cpu_strict",
                                           "poll",           "type_k",
                                           "type_v",         "n_gpu_layers",
                                           "n_cpu_moe",      "split_mode",
                                           "main_gpu",       "no_kv_offload",
                                           "flash_attn",     "devices",
                                           "tensor_split",   "tensor_buft_overrides",
                                           "load_mode",      "embeddings",
                                           "no_op_offload",  "no_host",
                                           "fit_target",     "fit_min_ctx",
                                           "n_prompt",       "n_gen",
                                           "n_depth",        "test_time",
                                           "avg_ns",         "stddev_ns",
                                           "avg_ts",         "stddev_ts"};
  REQUIRE(Columns().size() > theirs.size());
  for (size_t i = 0; i < theirs.size(); ++i) CHECK(Columns()[i].name == theirs[i]);
}

TEST_CASE("CSV, JSON, JSONL, SQL and Markdown hold the same record") {
  const BenchRecord r = SomeRecord();
  const auto text = [&](const char* format) {
    const auto p = MakePrinter("-o", format, {});
    std::string all = p->Header();
    all += p->Row(r);
    all += p->Row(r);
    return all + p->Footer();
  };
  const auto json = nlohmann::json::parse(text("json"));
  REQUIRE(json.size() == 2);
  CHECK(json[0] == json[1]);
  CHECK(json[0]["model_filename"] == r.model_filename);
  CHECK(json[0]["n_prompt"] == 512);
  CHECK(json[0]["no_kv_offload"] == false);
  CHECK(json[0]["samples_ns"] == nlohmann::json({1'000'000'000, 2'000'000'000, 4'000'000'000}));
  CHECK(json[0]["avg_ts"].get<double>() == doctest::Approx((512 + 256 + 128) / 3.0));
  CHECK(json[0]["median_ts"].get<double>() == doctest::Approx(256));
  std::istringstream jsonl(text("jsonl"));
  std::string line;
  size_t lines = 0;
  while (std::getline(jsonl, line)) {
    CHECK(nlohmann::json::parse(line) == json[0]);
    ++lines;
  }
  CHECK(lines == 2);

  std::istringstream csv(text("csv"));
  std::getline(csv, line);
  const auto names = SplitCsv(line);
  std::getline(csv, line);
  const auto cells = SplitCsv(line);
  REQUIRE(names.size() == Columns().size());
  REQUIRE(cells.size() == names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    CHECK(names[i] == Columns()[i].name);
    CHECK(cells[i] == Columns()[i].value(r).value_or(""));
  }

  const std::string sql = text("sql");
  CHECK(sql.find("CREATE TABLE IF NOT EXISTS llama_bench (") == 0);
  CHECK(sql.find("'dir/a \"quoted\" it''s.gguf'") != std::string::npos);
  CHECK(text("md").find("| llama 1.2B Q4_K                |   3.00 GiB |     1.24 B | CPU        | "
                        "      2 |   pp512 @ d4096 |      298.67 \xC2\xB1 195.52 |") !=
        std::string::npos);
  CHECK(MakePrinter("-o", "none", {}) == nullptr);
  CHECK_THROWS_AS(MakePrinter("-o", "xml", {}), Error);
}

TEST_CASE(
    "A tiny synthetic model is measured: as many samples as asked for, all of them positive") {
  BenchModel model({"", "layers=2,embd=256,ff=256,vocab=300:Q4_0"}, 2);
  CHECK(model.TensorWeights() > 2 * (4 * 256 * 256 + 3 * 256 * 256));
  RunOptions options;
  options.repetitions = 3;
  size_t said = 0;
  options.progress = [&](const std::string&) { ++said; };
  for (const TestSpec& spec :
       {TestSpec{40, 0, 0, 32, 16, 2, "f16", "f16"}, TestSpec{0, 5, 0, 32, 16, 1, "f16", "f16"},
        TestSpec{16, 4, 130, 32, 16, 2, "f32", "f32"},
        TestSpec{0, 4, 20, 64, 512, 2, "f32", "f32"}}) {
    const BenchRecord r = model.Run(spec, options);
    INFO(TestName(spec));
    CHECK(r.samples_ns.size() == 3);
    for (const uint64_t ns : r.samples_ns) CHECK(ns > 0);
    CHECK(r.spec.n_threads == spec.n_threads);
    CHECK(r.model_filename == "synthetic layers=2,embd=256,ff=256,vocab=300:Q4_0");
  }
  CHECK(said >= 12);
  options.repetitions = 1;
  options.roofline = [](int threads) {
    Roofline limits;
    limits.threads = threads;
    limits.stream.memory_n = 1e-3;  // GB/s: nothing is slower than this machine
    return std::optional<Roofline>(limits);
  };
  const BenchRecord r = model.Run({8, 3, 0, 8, 8, 1, "f16", "f16"}, options);
  CHECK(r.token_ns.size() == 3);
  CHECK(r.prompt_ns.size() == 1);
  CHECK(*r.percent_of_roofline() > 100);
  CHECK(r.work.weight_bytes >
        4 * static_cast<double>(model.TensorBytes()) * 0.8);  // read by the prompt and each token
  CHECK(r.work.weight_bytes < 4 * static_cast<double>(model.TensorBytes()));
  for (const Column& c : Columns()) {
    const std::string name = c.name;
    if (name == "joules_per_token" || name == "noise" || name == "gpu_info") continue;
    INFO(name);
    CHECK(c.value(r).value_or("") != "");
  }
  const auto streams = model.RunBatched({4, 5, 0, 8, 8, 2, "f16", "f16"}, 3, options);
  CHECK(streams.prompt_seconds > 0);
  CHECK(streams.decode_seconds > 0);
  CHECK_THROWS_AS(model.Run({8, 0, 0, 8, 8, 1, "f16", "f32"}, options), Error);
  std::atomic<bool> cancel = true;
  options.cancel = &cancel;
  try {
    model.Run({8, 0, 0, 8, 8, 1, "f16", "f16"}, options);
    FAIL("not stopped");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kCancelled);
  }
}

}  // namespace lutra::bench
