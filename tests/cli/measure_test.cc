// `lutra perplexity` and `lutra imatrix` as programs: what they print, write and return.
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "kernels/dispatch.h"
#include "models/imatrix.h"
#include "tests/cli/run_program.h"

namespace lutra {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::Outcome;
using testing::Run;
using testing::TemporaryFolder;

const std::string kData = std::string(LUTRA_TEST_DATA) + "/tiny-models/";
const std::string kModelFile = " -m " + kData + "llama.gguf -t 2";
const std::string kModel = kModelFile + " -c 64";
const std::string kText = " -f " + kData + "imatrix.txt";

}  // namespace

TEST_CASE("lutra perplexity prints llama.cpp's number") {
  const Outcome text = Run("perplexity -q -ctk f32 -ctv f32" + kModel + kText);
  CHECK(text.status == 0);
  CHECK(Contains(text.output, "Final estimate: PPL = 687.48"));
  const Outcome chunks = Run("perplexity" + kModel + kText + " --chunks 2");
  CHECK(chunks.output.starts_with("[1]"));
  CHECK(Contains(chunks.output, ",[2]"));
  CHECK_FALSE(Contains(chunks.output, "[3]"));
  const json j = json::parse(Run("perplexity --json --kv-type f32" + kModel + kText).output);
  CHECK(j["perplexity"]["value"].get<double>() == doctest::Approx(687.4856).epsilon(1e-5));
  CHECK(j["perplexity"]["error"].get<double>() == doctest::Approx(44.97291).epsilon(1e-4));
  CHECK(j["tokens"] == 6 * 31);
  CHECK(j["complete"] == true);
}

TEST_CASE("Every SIMD choice gives the program's same output; --no-amx forbids one") {
  const std::string expected = Run("perplexity -q" + kModel + kText).output;
  CHECK(Contains(expected, "Final estimate: PPL = 68"));
  for (const std::string& simd : SimdToTest()) {
    INFO(simd);
    CHECK(Run("perplexity -q --simd " + simd + kModel + kText).output == expected);
  }
  CHECK(Run("perplexity -q --no-amx" + kModel + kText).output == expected);
  const auto refused = [&](const std::string& options) {
    const Outcome both = Run("perplexity -q --simd amx" + options + kModel + kText, true);
    CHECK(both.status == 2);
    CHECK(Contains(both.output, "leave one out"));
  };
  refused(" --no-amx");
  ::setenv("LUTRA_NO_AMX", "1", 1);
  refused("");
  ::unsetenv("LUTRA_NO_AMX");
}

TEST_CASE("lutra perplexity compares in one pass, or through a file") {
  const TemporaryFolder folder;
  const std::string base = folder / "base.kld";
  const Outcome self = Run("perplexity -q" + kModel + kText + " --compare " + kData + "llama.gguf");
  CHECK(self.status == 0);
  CHECK(Contains(self.output, "Mean PPL(Q)/PPL(base)         :   1.000000 \u00b1   0.000000"));
  CHECK(Contains(self.output, "Maximum KLD:   0.000000"));
  CHECK(Contains(self.output, "Same top p: 100.000 \u00b1 0.000 %"));
  const json cache = json::parse(
      Run("perplexity --json --kv-type f32" + kModel + kText + " --compare-kv-type f16").output);
  CHECK(cache["kld"]["mean"].get<double>() > 0);
  CHECK(cache["kld"]["mean"].get<double>() < 1e-5);
  const std::string copy = folder / "copy.gguf";
  std::filesystem::copy_file(kData + "llama.gguf", copy);
  CHECK(json::parse(Run("perplexity --json --kv-type f32" + kModel + kText + " --compare " + copy +
                        " --compare-kv-type f16")
                        .output) == cache);
  CHECK(cache["base_perplexity"]["value"].get<double>() == doctest::Approx(687.4856).epsilon(1e-5));

  CHECK(Run("perplexity -q" + kModel + kText + " --kl-divergence-base " + base).status == 0);
  CHECK(std::filesystem::file_size(base) == 20 + 6 * 64 * 4 + 6 * 31 * (288 + 4) * 2);
  // The context is the file's.
  const Outcome file =
      Run("perplexity -q -m " + kData + "llama.gguf --kl-divergence --kl-divergence-base " + base);
  CHECK(file.status == 0);
  CHECK(Contains(file.output, "Mean    KLD:"));
  CHECK(Contains(file.output, "Same top p: 100.000"));
}

TEST_CASE("lutra imatrix collects, adds up, resumes and describes") {
  const TemporaryFolder folder;
  const std::string all = folder / "all.gguf", part = folder / "part.gguf",
                    dat = folder / "sum.dat";
  const Outcome collected =
      Run("imatrix -q --process-output --kv-type f32" + kModel + kText + " -o " + all);
  CHECK(collected.status == 0);
  CHECK(Contains(collected.output, "Final estimate: PPL = 687.48"));
  const Imatrix expected = Imatrix::Read(kData + "llama.imatrix.gguf"), got = Imatrix::Read(all);
  CHECK(got.entries.size() == expected.entries.size());
  CHECK(got.chunk_count == 6);

  CHECK(Run("imatrix -q --no-ppl" + kModel + kText + " -o " + part + " --chunks 4").output.empty());
  CHECK(Imatrix::Read(part).chunk_count == 4);
  CHECK(Run("imatrix -q" + kModel + kText + " -o " + part + " --resume").status == 0);
  CHECK(Imatrix::Read(part).chunk_count == 6);
  CHECK(Imatrix::Read(part).datasets == std::vector<std::string>{kData + "imatrix.txt"});
  const Outcome other =
      Run("imatrix -q -c 32" + kModelFile + kText + " -o " + part + " --resume", true);
  CHECK(other.status == 2);
  CHECK(Contains(other.output, "cannot be resumed"));

  CHECK(Run("imatrix -q -c 64 --in-file " + all + "," + part + " -o " + dat).status == 0);
  const Imatrix sum = Imatrix::Read(dat);
  CHECK(sum.legacy);
  CHECK(sum.chunk_count == 12);

  const Outcome table = Run("imatrix --show-statistics --in-file " + all);
  CHECK(table.status == 0);
  CHECK(Contains(table.output, "15 tensors, 6 chunks of 64 tokens"));
  CHECK(Contains(table.output, "    1 ffn_down "));
}

TEST_CASE("Mistakes are told in one line, and the status says of what kind") {
  const TemporaryFolder folder;
  const std::string text = folder / "short.txt";
  std::ofstream(text) << "a b";
  const auto fails = [&](const std::string& arguments, int status, const std::string& part) {
    INFO(arguments);
    const Outcome o = Run(arguments, true);
    CHECK(o.status == status);
    CHECK_MESSAGE(Contains(o.output, part), o.output);
  };
  fails("perplexity -q" + kModel, 2, "no text");
  fails("perplexity -q" + kModel + " -f " + text, 2, "do not fill one window of 64");
  fails("perplexity -q" + kModel + " -f " + folder.path(), 2, "is a folder");
  fails("perplexity -q" + kModel + " -f " + (folder / "absent"), 3, "cannot open");
  fails("perplexity -q" + kModel + kText + " --kl-divergence", 2, "--kl-divergence-base");
  fails("perplexity -q" + kModel + " --kl-divergence --kl-divergence-base " + text, 4,
        "no file of log probabilities");
  fails("perplexity -q" + kModel + kText + " --compare " + (folder / "absent.gguf"), 3,
        "absent.gguf");
  fails("perplexity -q" + kModel + kText + " -ctk f16 -ctv f32", 2, "-ctv f32");
  fails("perplexity -q" + kModelFile + kText + " -c 0", 2, "context (-c)");
  fails("imatrix -q" + kModel, 2, "no text");
  fails("imatrix -q" + kModel + kText + " -o " + (folder / "no/such.gguf"), 3, "cannot create");
  fails("imatrix -q --show-statistics", 2, "--in-file");
  fails("imatrix -q --in-file " + text, 4, "short.txt");
  CHECK_FALSE(std::filesystem::exists("imatrix.gguf"));
}

}  // namespace lutra
