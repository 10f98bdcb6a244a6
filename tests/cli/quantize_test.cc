// `lutra quantize` as a program: what it stores about its result, and what is left on disk when it is stopped.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "kernels/base/sha256.h"
#include "models/gguf_writer.h"
#include "tests/cli/run_program.h"

extern char** environ;

namespace lutra {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::Outcome;
using testing::Run;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

const std::string kData = std::string(LUTRA_TEST_DATA) + "/tiny-models/";
const std::string kModel = kData + "llama.gguf";
const std::string kText = kData + "imatrix.txt";
const std::string kEvaluate = " -t 2 --evaluate " + kText + " --evaluate-context 64";

std::vector<std::string> Names(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// The program, not waited for.
pid_t Start(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), LUTRA_PROGRAM);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  pid_t child = 0;
  REQUIRE(::posix_spawn(&child, LUTRA_PROGRAM, nullptr, nullptr, pointers.data(), environ) == 0);
  return child;
}

// A model of one F16 matrix of zeros that the disk does not store: the file has a hole. False where such files cannot be.
bool WriteSparseSource(const std::string& path, uint64_t n_cols, uint64_t n_rows) {
  GgufWriter writer;
  writer.Set("general.architecture", "llama");
  writer.Set("llama.block_count", uint32_t{1});
  writer.Set("llama.attention.head_count", uint32_t{8});
  const std::vector<uint8_t> zeros(32);
  const std::string name = "blk.0.ffn_up.weight";
  writer.AddTensor(name, {16, 1}, 1, zeros);
  std::vector<uint8_t> bytes = writer.WriteToBytes();
  const auto at = std::search(bytes.begin(), bytes.end(), name.begin(), name.end());
  REQUIRE(at != bytes.end());
  const uint64_t dims[] = {n_cols, n_rows};
  std::memcpy(&*at + name.size() + 4, dims, sizeof dims);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  std::error_code error;
  fs::resize_file(path, bytes.size() - zeros.size() + 2 * n_cols * n_rows, error);
  return !error;
}

// One matrix of 16 million weights: takes long enough to be killed at it.
void WriteLargeSource(const std::string& path) {
  GgufWriter writer;
  writer.Set("general.architecture", "llama");
  writer.Set("llama.block_count", uint32_t{1});
  writer.Set("llama.attention.head_count", uint32_t{8});
  std::vector<uint16_t> half(4096 * 4096);
  uint32_t x = 1;
  for (uint16_t& v : half) {
    x = x * 1664525 + 1013904223;
    v = static_cast<uint16_t>(0x2800 + (x >> 19) + ((x & 0x100) << 7));
  }
  writer.AddTensor("blk.0.ffn_up.weight", {4096, 4096}, 1,
                   {reinterpret_cast<const uint8_t*>(half.data()), half.size() * 2});
  writer.Write(path);
}

}  // namespace

TEST_CASE("--evaluate stores what `perplexity --compare` measures, and inspect shows it") {
  const TemporaryFolder folder;
  const std::string out = folder / "q.gguf";
  const Outcome made = Run("quantize " + kModel + " " + out + " Q4_0 --pure" + kEvaluate);
  CHECK(made.status == 0);
  CHECK(Contains(made.output, "quality: against llama.gguf on imatrix.txt"));
  CHECK(Contains(made.output, "worst tensors"));
  CHECK(Names(folder.path()) == std::vector<std::string>{"q.gguf"});

  const std::string compare =
      "perplexity --json -c 64 -t 2 -m " + kModel + " -f " + kText + " --compare ";
  const json expected = json::parse(Run(compare + out).output),
             shown = json::parse(Run("inspect --json " + out).output);
  const json& q = shown["quality"];
  const auto near = [](const json& a, const json& b) {
    CHECK(a.get<double>() == doctest::Approx(b.get<double>()).epsilon(1e-6));
  };
  near(q["kl_divergence"]["value"], expected["kld"]["mean"]);
  near(q["kl_divergence"]["error"], expected["kld"]["error"]);
  near(q["kl_divergence_99"], expected["kld"]["percentiles"]["99"]);
  near(q["kl_divergence_max"], expected["kld"]["max"]);
  near(q["perplexity_ratio"]["value"], expected["ratio"]["value"]);
  near(q["perplexity"]["value"], expected["perplexity"]["value"]);
  near(q["reference_perplexity"]["value"], expected["base_perplexity"]["value"]);
  near(q["same_top"]["value"], expected["same_top"]["value"]);
  CHECK(q["kl_divergence"]["value"].get<double>() > 0);
  CHECK(q["chunks"] == 6);
  CHECK(q["tokens"] == 6 * 31);
  CHECK(q["context"] == 64);
  const std::string text = testing::ReadText(kText);
  CHECK(q["text_bytes"] == text.size());
  CHECK(q["text_sha256"] ==
        Sha256Hex({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  CHECK(Contains(Run("inspect " + out).output, made.output.substr(made.output.find("quality:"))));

  // Weights are the same without it; what another program makes of the file is not described by it.
  const std::string plain = folder / "plain.gguf", again = folder / "again.gguf";
  CHECK(Run("quantize " + kModel + " " + plain + " Q4_0 --pure").status == 0);
  CHECK(json::parse(Run(compare + plain).output)["kld"] == expected["kld"]);
  CHECK_FALSE(json::parse(Run("inspect --json " + plain).output).contains("quality"));
  CHECK(Run("quantize --allow-requantize " + out + " " + again + " Q8_0").status == 0);
  CHECK_FALSE(Contains(Run("inspect " + again).output, "quality"));
}

TEST_CASE(
    "--evaluate refuses early what cannot be measured, and a file is kept whose measurement "
    "fails") {
  const TemporaryFolder folder;
  const std::string out = folder / "q.gguf";
  std::ofstream(folder / "short.txt") << "a b";
  CHECK(
      Run("quantize " + kModel + " " + out + " Q8_0 --evaluate " + (folder / "short.txt")).status ==
      2);
  CHECK(Run("quantize " + kModel + " " + out + " Q8_0 --evaluate " + (folder / "absent.txt"))
            .status == 3);
  CHECK(Run("quantize " + kModel + " " + out + " Q8_0 --evaluate-chunks 3").status == 2);
  CHECK_FALSE(fs::exists(out));
  // A layer count that the new file does not keep.
  const Outcome bad = Run(
      "quantize " + kModel + " " + out + " Q8_0 --override-kv llama.block_count=int:9" + kEvaluate,
      true);
  CHECK(bad.status == 4);
  CHECK(Contains(bad.output, "is written, but was not compared"));
  const json q = json::parse(Run("inspect --json " + out).output)["quality"];
  CHECK(q["chunks"] == 0);
  CHECK(q["tensor_errors"].size() > 4);
}

TEST_CASE(
    "Killed in mid-write: no file under the name, the old one stays, the next run clears up") {
  const TemporaryFolder folder;
  const std::string in = folder / "in.gguf", out = folder / "out.gguf";
  WriteLargeSource(in);
  std::ofstream(out) << "old";
  const pid_t child = Start({"quantize", in, out, "IQ2_K", "-t", "1"});
  // Until the file under its temporary name has grown by a slab.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  bool seen = false;
  while (!seen && std::chrono::steady_clock::now() < deadline) {
    for (const std::string& name : Names(folder.path())) {
      std::error_code ignored;
      seen = seen ||
             (name.starts_with("out.gguf.partial-") && fs::file_size(folder / name, ignored) > 0);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(seen);
  ::kill(child, SIGKILL);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(testing::ReadText(out) == "old");
  CHECK(Names(folder.path()).size() == 3);

  // Names that only look alike stay.
  std::ofstream(folder / "out.gguf.partial-notes") << "mine";
  std::ofstream(folder / "other.gguf.partial-1-0") << "of another";
  const Outcome next = Run("quantize " + in + " " + out + " Q8_0", true);
  CHECK(next.status == 0);
  CHECK(Contains(next.output, "left by a run that was killed, removed"));
  CHECK(Names(folder.path()) == std::vector<std::string>{"in.gguf", "other.gguf.partial-1-0",
                                                         "out.gguf", "out.gguf.partial-notes"});
  CHECK(GgufFile::Open(out).tensors().size() == 1);
}

TEST_CASE("A target in bytes is the size of the file, with its report") {
  const TemporaryFolder folder;
  const std::string out = folder / "q.gguf";
  const uint64_t whole = fs::file_size(kModel);
  for (const double part : {0.45, 0.7}) {
    const auto target = static_cast<uint64_t>(part * static_cast<double>(whole));
    INFO(target, " of ", whole, " bytes");
    const Outcome made =
        Run("quantize " + kModel + " " + out + " --target " + std::to_string(target) + kEvaluate);
    INFO(made.output);
    REQUIRE(made.status == 0);
    CHECK(fs::file_size(out) <= target);
  }
  const Outcome refused = Run("quantize " + kModel + " " + out + " --target 1024", true);
  CHECK(refused.status != 0);
  CHECK(Contains(refused.output, "metadata and padding alone"));
}

TEST_CASE("A disk that fills up leaves the old file and nothing else") {
  const TemporaryFolder folder;
  const std::string in = folder / "in.gguf", out = folder / "out.gguf";
  WriteLargeSource(in);
  std::ofstream(out) << "old";
  // A limit of 4 MiB a file, in blocks of 512 bytes: writing fails in the middle.
  const Outcome full = Run("quantize " + in + " " + out + " Q8_0", true, "ulimit -f 8192; ");
  CHECK(full.status == 5);
  CHECK(Contains(full.output, "out.gguf: cannot write: File too large"));
  CHECK(testing::ReadText(out) == "old");
  CHECK(Names(folder.path()) == std::vector<std::string>{"in.gguf", "out.gguf"});
}

TEST_CASE("A file larger than the disk is refused before anything is written") {
#if defined(__SANITIZE_THREAD__)
  MESSAGE("SKIPPED: ThreadSanitizer leaves no room to map 8 TiB");
  return;
#endif
  const TemporaryFolder folder;
  const std::string in = folder / "in.gguf", out = folder / "out.gguf";
  if (!WriteSparseSource(in, uint64_t{1} << 20, uint64_t{1} << 22)) {
    MESSAGE("SKIPPED: no files of 8 TiB here");
    return;
  }
  const Outcome refused = Run("quantize " + in + " " + out + " Q8_0", true);
  INFO(refused.output);
  CHECK(refused.status == 5);
  CHECK(Contains(refused.output, "MiB free: make room or name another place"));
  CHECK(Names(folder.path()) == std::vector<std::string>{"in.gguf"});
}

TEST_CASE("Memory does not grow with the model") {
  const TemporaryFolder folder;
  const std::string in = folder / "in.gguf", out = folder / "out.gguf";
  REQUIRE(WriteSparseSource(in, 4096, 32768));
  REQUIRE(fs::file_size(in) > uint64_t{256} << 20);
  int status = 0;
  struct rusage usage;
  const pid_t child = Start({"quantize", in, out, "IQ2_KS", "-t", "2"});
  REQUIRE(::wait4(child, &status, 0, &usage) == child);
  CHECK(status == 0);
  CHECK(fs::file_size(out) > uint64_t{32} << 20);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  MESSAGE("SKIPPED: sanitizers take memory of their own");
#else
  const long most_kib = 96 * 1024;
  CHECK(usage.ru_maxrss < most_kib);
#endif
}

}  // namespace lutra
