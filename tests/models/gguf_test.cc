#include "models/gguf.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <limits>

#include "models/gguf_split_name.h"
#include "models/gguf_writer.h"
#include "tests/gguf_builder.h"
#include "tests/models/gguf_check.h"

namespace lutra {
namespace {

namespace fs = std::filesystem;
using testing::GgufBuilder;
using testing::TemporaryFolder;

std::vector<std::string> FilesIn(const std::string& folder, const std::string& extension) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == extension) paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Copies metadata and tensors through the writer.
std::vector<uint8_t> Rewrite(const GgufFile& file) {
  GgufWriter writer;
  for (const auto& [key, value] : file.metadata()) writer.Set(key, value);
  for (const GgufTensor& t : file.tensors()) {
    writer.AddTensor(t.name, t.dims, t.type->id, {t.data, static_cast<size_t>(t.bytes)});
  }
  std::vector<uint8_t> bytes = writer.WriteToBytes();
  CHECK(bytes.size() == writer.FileBytes());
  return bytes;
}

void CheckSameContents(const GgufFile& a, const GgufFile& b) {
  REQUIRE(a.metadata().size() == b.metadata().size());
  for (size_t i = 0; i < a.metadata().size(); ++i) {
    const auto& [key, x] = a.metadata()[i];
    const auto& [other_key, y] = b.metadata()[i];
    CHECK(key == other_key);
    CHECK(x.type == y.type);
    CHECK(x.element_type == y.element_type);
    REQUIRE(x.count == y.count);
    CHECK(x.strings == y.strings);
    CHECK(std::equal(x.data, x.data + x.count * GgufTypeBytes(x.element_type), y.data));
  }
  REQUIRE(a.tensors().size() == b.tensors().size());
  for (size_t i = 0; i < a.tensors().size(); ++i) {
    const GgufTensor& x = a.tensors()[i];
    const GgufTensor& y = b.tensors()[i];
    CHECK(x.name == y.name);
    CHECK(x.dims == y.dims);
    CHECK(x.type == y.type);
    REQUIRE(x.bytes == y.bytes);
    CHECK(std::equal(x.data, x.data + x.bytes, y.data));
  }
}

std::string MessageOf(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE(
    "Every model and vocabulary beside the checkout opens, and comes back from the writer "
    "unchanged") {
  LUTRA_REQUIRE_SHARED(shared);
  size_t n = 0;
  for (const char* folder : {"/models", "/tiny-models", "/vocabs"}) {
    for (const std::string& path : FilesIn(shared + folder, ".gguf")) {
      INFO(path);
      const GgufFile file = GgufFile::Open(path);
      CHECK(file.version() == 3);
      CHECK(file.file_bytes() == fs::file_size(path));
      CHECK(file.GetString("general.architecture").has_value());
      CHECK((!file.tensors().empty() || std::string_view(folder) == "/vocabs"));
      uint64_t sum = 0;
      for (const GgufTensor& t : file.tensors()) {
        CHECK(file.FindTensor(t.name) == &t);
        sum += t.data[0] + t.data[t.bytes - 1];
      }
      CHECK(sum < UINT64_MAX);
      const std::vector<uint8_t> bytes = Rewrite(file);
      CheckSameContents(file, GgufFile::FromBytes(bytes, "rewritten"));
      // These files were written by others: the same layout means the same bytes.
      const std::vector<uint8_t> original = testing::ReadBytes(path);
      if (original.size() == bytes.size()) CHECK(original == bytes);
      ++n;
    }
  }
  CHECK(n >= 40);
  MESSAGE(n << " files read");
}

TEST_CASE("Every metadata type makes the round trip through the writer") {
  GgufWriter w;
  w.Set("u8", uint8_t{255});
  w.Set("i8", int8_t{-128});
  w.Set("u16", uint16_t{65535});
  w.Set("i16", int16_t{-32768});
  w.Set("u32", uint32_t{4294967295u});
  w.Set("i32", std::numeric_limits<int32_t>::min());
  w.Set("f32", 1.5f);
  w.Set("bool", true);
  w.Set("string", "text \xC3\xA9");
  w.Set("u64", std::numeric_limits<uint64_t>::max());
  w.Set("i64", std::numeric_limits<int64_t>::min());
  w.Set("f64", 1e300);
  w.SetArray("a.u8", std::vector<uint8_t>{1, 2});
  w.SetArray("a.i8", std::vector<int8_t>{-1, 2});
  w.SetArray("a.u16", std::vector<uint16_t>{1, 2, 65535});
  w.SetArray("a.i16", std::vector<int16_t>{-1});
  w.SetArray("a.u32", std::vector<uint32_t>{7, 8, 9});
  w.SetArray("a.i32", std::vector<int32_t>{-7, 8, 9});
  w.SetArray("a.f32", std::vector<float>{0.1f, -INFINITY});
  w.SetBools("a.bool", std::vector<uint8_t>{1, 0, 1});
  w.SetArray("a.string", std::vector<std::string>{"", "a", "bb"});
  w.SetArray("a.u64", std::vector<uint64_t>{UINT64_MAX});
  w.SetArray("a.i64", std::vector<int64_t>{INT64_MIN, 1});
  w.SetArray("a.f64", std::vector<double>{0.5, 2.0});
  w.SetArray("a.empty", std::vector<uint32_t>{});
  w.SetArray("a.nothing", std::vector<std::string>{});
  w.Set("string", "replaced");
  w.Set("gone", 1.0f);
  CHECK(w.Remove("gone"));
  CHECK(!w.Remove("gone"));
  const std::vector<uint8_t> bytes = w.WriteToBytes();
  const GgufFile file = GgufFile::FromBytes(bytes, "test");
  testing::TouchAll(file);
  CheckSameContents(file, GgufFile::FromBytes(Rewrite(file), "again"));

  CHECK(file.metadata().size() == 26);
  CHECK(file.metadata()[8].first == "string");
  CHECK(file.GetU32("u8") == 255u);
  CHECK(file.GetI32("i8") == -128);
  CHECK(file.GetU32("u16") == 65535u);
  CHECK(file.GetI32("i16") == -32768);
  CHECK(file.GetU32("u32") == 4294967295u);
  CHECK(file.GetU64("u32") == uint64_t{4294967295u});
  CHECK(file.GetI32("i32") == std::numeric_limits<int32_t>::min());
  CHECK(file.GetF32("f32") == 1.5f);
  CHECK(file.GetBool("bool") == true);
  CHECK(file.GetString("string") == "replaced");
  CHECK(file.GetU64("u64") == UINT64_MAX);
  CHECK(file.Find("i64")->AsInt() == INT64_MIN);
  CHECK(file.Find("f64")->AsDouble() == 1e300);
  CHECK(file.GetI32s("a.u8") == std::vector<int32_t>{1, 2});
  CHECK(file.GetI32s("a.u16") == std::vector<int32_t>{1, 2, 65535});
  CHECK(file.GetI32s("a.i32") == std::vector<int32_t>{-7, 8, 9});
  CHECK(file.GetU32PerLayer("a.u32", 3) == std::vector<uint32_t>{7, 8, 9});
  CHECK(file.GetU32PerLayer("u8", 3) == std::vector<uint32_t>{255, 255, 255});
  CHECK(file.GetF32s("a.f32") == std::vector<float>{0.1f, -INFINITY});
  CHECK(file.GetF32s("a.f64") == std::vector<float>{0.5f, 2.0f});
  CHECK(*file.GetStrings("a.string") == std::vector<std::string_view>{"", "a", "bb"});
  CHECK(file.GetStrings("a.nothing")->empty());
  CHECK(file.GetI32s("a.empty")->empty());
  CHECK(file.Find("a.bool")->AsInt(2) == 1);
  CHECK(file.Find("f32")->ToText() == "1.5");
  CHECK(file.Find("a.string")->ToText(2) == "[\"\", \"a\", ... 1 more]");
  CHECK(file.Find("u64")->ToText() == "18446744073709551615");
  // Absent keys.
  CHECK(!file.GetU32("x"));
  CHECK(!file.GetF32("x"));
  CHECK(!file.GetBool("x"));
  CHECK(!file.GetString("x"));
  CHECK(file.GetStrings("x") == nullptr);
  CHECK(!file.GetF32s("x"));
  CHECK(!file.GetI32s("x"));
  CHECK(!file.GetU32PerLayer("x", 2));
}

TEST_CASE("Typed access refuses other types and values out of range, and says what it found") {
  GgufBuilder b;
  b.Set("i", int32_t{-1})
      .Set("big", uint64_t{1} << 40)
      .Set("f", 2.0f)
      .Set("nan", NAN)
      .Set("huge", 1e300);
  b.Set("s", "text")
      .Set("b", true)
      .SetArray<uint32_t>("three", {1, 2, 3})
      .SetArray<int64_t>("wide", {1, -(int64_t{1} << 40)});
  b.SetArray<float>("nans", {1.0f, NAN})
      .SetArray("strings", std::vector<std::string>{"a"})
      .SetArray<float>("none", {});
  const std::vector<uint8_t> bytes = b.Build();
  const GgufFile file = GgufFile::FromBytes(bytes, "typed.gguf");
  const auto refused = [&](const char* key, const std::function<void()>& get) {
    const std::string message = MessageOf(get);
    INFO(key);
    CHECK(Contains(message, "typed.gguf"));
    CHECK(Contains(message, std::string("'") + key + "'"));
    CHECK(Contains(message, "wanted"));
    CHECK(Contains(message, "found " + file.Find(key)->TypeText()));
  };
  for (const char* key : {"i", "f", "s", "b", "three", "big", "strings"}) {
    refused(key, [&] { file.GetU32(key); });
  }
  for (const char* key : {"i", "f", "s", "b", "three"}) refused(key, [&] { file.GetU64(key); });
  for (const char* key : {"big", "f", "s", "b", "three"}) refused(key, [&] { file.GetI32(key); });
  for (const char* key : {"i", "nan", "huge", "s", "b", "three", "nans", "none"}) {
    refused(key, [&] { file.GetF32(key); });
  }
  for (const char* key : {"i", "f", "s", "three"}) refused(key, [&] { file.GetBool(key); });
  for (const char* key : {"i", "f", "b", "three", "strings"})
    refused(key, [&] { file.GetString(key); });
  for (const char* key : {"i", "f", "s", "three"}) refused(key, [&] { file.GetStrings(key); });
  for (const char* key : {"i", "f", "s", "three", "nans", "strings"})
    refused(key, [&] { file.GetF32s(key); });
  for (const char* key : {"i", "f", "s", "wide", "nans", "strings", "none"})
    refused(key, [&] { file.GetI32s(key); });
  for (const char* key : {"i", "f", "s", "b", "wide", "strings", "none"}) {
    refused(key, [&] { file.GetU32PerLayer(key, 2); });
  }
  refused("three", [&] { file.GetU32PerLayer("three", 2); });
  CHECK(Contains(MessageOf([&] { file.GetU32("i"); }), "found i32 -1"));
}

TEST_CASE(
    "Version 2 reads like version 3; a scalar tensor has one weight; padding after the last tensor "
    "may be absent") {
  GgufBuilder b;
  b.version = 2;
  b.Set("general.architecture", "llama");
  b.F32("a", {4}, {1.0f, 2.0f, 3.0f, 4.0f});
  b.F32("scalar", {1}, {5.0f}).n_dims = 0;
  b.tensors.back().dims.clear();
  b.pad_last = false;
  const std::vector<uint8_t> bytes = b.Build();
  const GgufFile file = GgufFile::FromBytes(bytes, "v2");
  testing::TouchAll(file);
  CHECK(file.version() == 2);
  CHECK(file.FindTensor("scalar")->dims == std::vector<uint64_t>{1});
  CHECK(file.FindTensor("scalar")->bytes == 4);
  CHECK(file.FindTensor("a")->dim(3) == 1);
  CHECK(file.FindTensor("b") == nullptr);
}

TEST_CASE("Tensors may leave gaps and come in any order; an alignment is honoured") {
  GgufBuilder b;
  b.Alignment(64);
  b.F32("late", {2}, {1.0f, 2.0f}).offset = 192;
  b.F32("early", {2}, {3.0f, 4.0f}).offset = 64;
  b.F32("filler", {1}, {0.0f}).offset = 0;
  b.F32("end", {1}, {0.0f}).offset = 128;
  const std::vector<uint8_t> bytes = b.Build();
  const GgufFile file = GgufFile::FromBytes(bytes, "gaps");
  testing::TouchAll(file);
  CHECK(file.alignment() == 64);
  CHECK(file.FindTensor("early")->offset < file.FindTensor("late")->offset);
  CHECK(file.FindTensor("early")->offset % 64 == 0);
}

TEST_CASE("The reader survives being moved") {
  GgufBuilder b;
  b.Set("k", "v").F32("t", {1}, {1.0f});
  const std::vector<uint8_t> bytes = b.Build();
  GgufFile first = GgufFile::FromBytes(bytes, "moved");
  GgufFile second = std::move(first);
  first = std::move(second);
  testing::TouchAll(first);
  CHECK(first.GetString("k") == "v");
  CHECK(first.n_parts() == 1);
}

TEST_CASE("65,536 tensor names are read in time") {
  GgufWriter w;
  const std::vector<uint8_t> data(4);
  for (int i = 0; i < 65536; ++i) w.AddTensor(Format("blk.%d.ffn_gate.weight", i), {1}, 0, data);
  const std::vector<uint8_t> bytes = w.WriteToBytes();
  const auto start = std::chrono::steady_clock::now();
  const GgufFile file = GgufFile::FromBytes(bytes, "many");
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  CHECK(file.tensors().size() == 65536);
  CHECK(file.FindTensor("blk.65535.ffn_gate.weight") == &file.tensors().back());
  MESSAGE("65,536 tensor names: " << seconds << " s");
#ifdef NDEBUG
  CHECK(seconds < 0.5);
#else
  CHECK(seconds < 5.0);
#endif
}

TEST_CASE("The writer streams tensors and refuses what no reader would take") {
  const std::vector<uint8_t> row(256);
  GgufWriter w;
  w.AddTensor("streamed", {64, 2}, 0, [&](const GgufByteSink& sink) {
    sink(row);
    sink(row);
  });
  const std::vector<uint8_t> bytes = w.WriteToBytes();
  CHECK(GgufFile::FromBytes(bytes, "streamed").FindTensor("streamed")->bytes == 512);

  const auto refused = [](const std::function<void(GgufWriter&)>& f, const char* part) {
    GgufWriter bad;
    const std::string message = MessageOf([&] {
      f(bad);
      bad.WriteToBytes();
    });
    CHECK_MESSAGE(Contains(message, part), message);
  };
  refused([&](GgufWriter& b) { b.AddTensor("t", {64}, 0, std::span(row).first(100)); },
          "needs 256 bytes, was given 100");
  refused([&](GgufWriter& b) { b.AddTensor("t", {32}, 0, row); }, "needs 128 bytes, was given 256");
  refused([&](GgufWriter& b) { b.AddTensor("t", {63}, 8, row); }, "no multiple of 32");
  refused([&](GgufWriter& b) { b.AddTensor("t", {64, 0}, 0, row); }, "dimension is 0");
  refused([&](GgufWriter& b) { b.AddTensor("t", {}, 0, row); }, "0 dimensions");
  refused([&](GgufWriter& b) { b.AddTensor("t", {1, 1, 1, 1, 1}, 0, row); }, "5 dimensions");
  refused([&](GgufWriter& b) { b.AddTensor("t", {uint64_t{1} << 63}, 0, row); }, "above 2^64");
  refused([&](GgufWriter& b) { b.AddTensor("t", {64}, 4, row); }, "type id 4");
  refused([&](GgufWriter& b) { b.AddTensor("", {64}, 0, row); }, "0 bytes");
  refused([&](GgufWriter& b) { b.AddTensor(std::string(64, 'x'), {64}, 0, row); }, "64 bytes");
  refused([&](GgufWriter& b) { b.Set("", 1.0f); }, "0 bytes");
  refused([&](GgufWriter& b) { b.Set("general.alignment", uint32_t{7}); }, "general.alignment");
  refused(
      [&](GgufWriter& b) {
        b.AddTensor("t", {64}, 0, row);
        b.AddTensor("t", {64}, 0, row);
      },
      "added before");
}

TEST_CASE("The writer never leaves a half-written file") {
  const TemporaryFolder folder;
  const std::string path = folder / "out.gguf";
  const std::vector<uint8_t> row(4096);
  GgufWriter good;
  good.Set("k", "v");
  good.AddTensor("t", {1024}, 0, row);
  good.Write(path);
  const std::vector<uint8_t> before = testing::ReadBytes(path);
  CHECK(before == good.WriteToBytes());

  GgufWriter failing;
  failing.AddTensor("t", {1024}, 0, [&](const GgufByteSink& sink) {
    sink(std::span(row).first(1000));
    Fail(ErrorCode::kCancelled, "stopped");
  });
  CHECK(MessageOf([&] { failing.Write(path); }) == "stopped");
  CHECK(testing::ReadBytes(path) == before);
  CHECK(FilesIn(folder.path(), ".gguf").size() == 1);
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);

  // A disk that is full: the file size limit stands for it.
  GgufWriter large;
  const std::vector<uint8_t> weights(size_t{4} << 20);
  large.AddTensor("t", {uint64_t{1} << 20}, 0, weights);
  struct rlimit old_limit;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old_limit) == 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit limit = {size_t{1} << 20, old_limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  const std::string message = MessageOf([&] { large.Write(path); });
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  CHECK_MESSAGE(Contains(message, path + ": cannot write"), message);
  CHECK(testing::ReadBytes(path) == before);
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);

  CHECK(Contains(MessageOf([&] { good.Write(folder / "no/such/out.gguf"); }), "cannot create"));
  CHECK(Contains(MessageOf([&] { good.Write(folder.path()); }), "not a regular file"));
  CHECK(Contains(MessageOf([&] { good.Write("/dev/null"); }), "not a regular file"));
}

TEST_CASE("A file that became shorter after it was mapped is noticed") {
  const TemporaryFolder folder;
  const std::string path = folder / "shrinking.gguf";
  GgufBuilder b;
  b.Tensor("t", {4096}, 0);
  b.WriteFile(path);
  const GgufFile file = GgufFile::Open(path);
  file.CheckNotTruncated();
  fs::resize_file(path, 8192);
  CHECK(Contains(MessageOf([&] { file.CheckNotTruncated(); }), path + ": became shorter"));
}

}  // namespace lutra
