#include <filesystem>
#include <functional>

#include "kernels/quant_format.h"
#include "models/gguf_split_name.h"
#include "tests/gguf_builder.h"
#include "tests/models/gguf_check.h"

namespace lutra {
namespace {

namespace fs = std::filesystem;
using testing::GgufBuilder;
using testing::TemporaryFolder;

// Three parts: 2, 1 and 3 tensors; the second part has another alignment.
std::vector<GgufBuilder> GoodSet() {
  std::vector<GgufBuilder> parts(3);
  parts[0].Set("general.architecture", "llama").Set("general.name", "split");
  for (uint16_t i = 0; i < 3; ++i) {
    parts[i]
        .Set("split.no", i)
        .Set("split.count", uint16_t{3})
        .Set("split.tensors.count", int32_t{6});
  }
  parts[1].Alignment(128);
  parts[0].F32("a", {2}, {1.0f, 2.0f});
  parts[0].F32("b", {2}, {3.0f, 4.0f});
  parts[1].F32("c", {2}, {5.0f, 6.0f});
  parts[2].F32("d", {1}, {7.0f});
  parts[2].F32("e", {1}, {8.0f});
  parts[2].F32("f", {1}, {9.0f});
  return parts;
}

std::string PartName(uint32_t i, uint32_t n = 3) { return Format("m-%05u-of-%05u.gguf", i, n); }

// Writes the set, opens its first part; the message, "" if it opened.
std::string OpenSet(const TemporaryFolder& folder, std::vector<GgufBuilder>& parts) {
  for (uint32_t i = 0; i < parts.size(); ++i) parts[i].WriteFile(folder / PartName(i + 1));
  try {
    testing::TouchAll(GgufFile::Open(folder / PartName(1)));
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("Names of parts") {
  const auto name = SplitName::Parse("dir/x-00002-of-00010.gguf");
  REQUIRE(name.has_value());
  CHECK(name->prefix == "dir/x");
  CHECK(name->number == 2);
  CHECK(name->count == 10);
  CHECK(name->Path(1) == "dir/x-00001-of-00010.gguf");
  for (const char* bad :
       {"x.gguf", "x-00000-of-00002.gguf", "x-00003-of-00002.gguf", "x-0001-of-0002.gguf",
        "-00001-of-00002.gguf", "x-00001-of-00002.bin", "x-0000a-of-00002.gguf", ""}) {
    CHECK(!SplitName::Parse(bad).has_value());
  }
}

TEST_CASE("A split model is one model") {
  const TemporaryFolder folder;
  std::vector<GgufBuilder> parts = GoodSet();
  CHECK(OpenSet(folder, parts) == "");
  const GgufFile file = GgufFile::Open(folder / PartName(1));
  CHECK(file.n_parts() == 3);
  CHECK(file.tensors().size() == 6);
  CHECK(file.GetString("general.name") == "split");
  CHECK(file.FindTensor("f")->part == 2);
  CHECK(LoadLe<float>(file.FindTensor("f")->data) == 9.0f);
  CHECK(LoadLe<float>(file.FindTensor("c")->data) == 5.0f);
  CHECK(file.FindTensor("c")->offset % 128 == 0);
  CHECK(file.file_bytes() == fs::file_size(folder / PartName(1)) +
                                 fs::file_size(folder / PartName(2)) +
                                 fs::file_size(folder / PartName(3)));
  // Parts may be links, as download caches keep them.
  fs::rename(folder / PartName(2), folder / "blob");
  fs::create_symlink(folder / "blob", folder / PartName(2));
  CHECK(GgufFile::Open(folder / PartName(1)).tensors().size() == 6);
}

TEST_CASE("A first part without tensors, and a set of one, are fine") {
  const TemporaryFolder folder;
  std::vector<GgufBuilder> parts = GoodSet();
  parts[0].tensors.clear();
  for (GgufBuilder& b : parts) b.Set("split.tensors.count", int32_t{4});
  CHECK(OpenSet(folder, parts) == "");
  GgufBuilder one;
  one.Set("split.no", uint16_t{0})
      .Set("split.count", uint16_t{1})
      .Set("split.tensors.count", int32_t{0});
  one.WriteFile(folder / PartName(1, 1));
  one.WriteFile(folder / "plain.gguf");
  CHECK(GgufFile::Open(folder / PartName(1, 1)).n_parts() == 1);
  CHECK(GgufFile::Open(folder / "plain.gguf").n_parts() == 1);
}

TEST_CASE("Sets that are no set are refused, and the message names the file and the reason") {
  struct Case {
    const char* what;
    std::function<void(std::vector<GgufBuilder>&, const TemporaryFolder&)> break_it;
    std::vector<std::string> named;  // all of these
  };
  using Parts = std::vector<GgufBuilder>;
  using Folder = TemporaryFolder;
  const std::vector<Case> cases = {
      {"parts disagree on the count",
       [](Parts& p, const Folder&) { p[1].Set("split.count", uint16_t{4}); },
       {PartName(2), "split.count", "4", "3"}},
      {"wrong number",
       [](Parts& p, const Folder&) { p[1].Set("split.no", uint16_t{2}); },
       {PartName(2), "split.no", "2"}},
      {"the same part twice",
       [](Parts& p, const Folder&) { p[2] = p[1]; },
       {PartName(3), "split.no", "1"}},
      {"the first part again",
       [](Parts& p, const Folder&) { p[2] = p[0]; },
       {PartName(3), "split.no"}},
      {"a part without keys",
       [](Parts& p, const Folder&) { p[1].entries.clear(); },
       {PartName(2), "split.no", "absent"}},
      {"a part of another model",
       [](Parts& p, const Folder&) { p[2].Set("general.architecture", "qwen2"); },
       {PartName(3), "general.architecture", "qwen2", "llama", PartName(1)}},
      {"another total",
       [](Parts& p, const Folder&) { p[2].Set("split.tensors.count", int32_t{7}); },
       {PartName(3), "split.tensors.count"}},
      {"wrong total everywhere",
       [](Parts& p, const Folder&) {
         for (GgufBuilder& b : p) b.Set("split.tensors.count", int32_t{7});
       },
       {PartName(1), "split.tensors.count", "7", "6"}},
      {"negative total",
       [](Parts& p, const Folder&) { p[0].Set("split.tensors.count", int32_t{-1}); },
       {PartName(1), "split.tensors.count", "-1"}},
      {"no total",
       [](Parts& p, const Folder&) { p[0].Remove("split.tensors.count"); },
       {PartName(1), "split.tensors.count", "absent"}},
      {"a tensor in two parts",
       [](Parts& p, const Folder&) { p[2].tensors[0].name = "a"; },
       {PartName(3), "'a'", "twice", PartName(1)}},
      {"count above the limit",
       [](Parts& p, const Folder&) { p[0].Set("split.count", uint32_t{65536}); },
       {PartName(1), "split.count", "65536"}},
      {"count of 65535 with three files",
       [](Parts& p, const Folder&) { p[0].Set("split.count", uint16_t{65535}); },
       {PartName(1), "split.count", "65535"}},
      {"huge count",
       [](Parts& p, const Folder&) { p[0].Set("split.count", UINT64_MAX); },
       {PartName(1), "split.count"}},
      {"count of another type",
       [](Parts& p, const Folder&) { p[0].Set("split.count", "three"); },
       {PartName(1), "split.count", "string"}},
      {"count of another type later",
       [](Parts& p, const Folder&) { p[1].SetArray<float>("split.count", {3.0f}); },
       {PartName(2), "split.count", "array"}},
      {"number beyond the count",
       [](Parts& p, const Folder&) { p[0].Set("split.no", uint16_t{3}); },
       {PartName(1), "split.no", "3"}},
      {"no number",
       [](Parts& p, const Folder&) { p[0].Remove("split.no"); },
       {PartName(1), "split.no", "absent"}},
      {"the name contradicts the number",
       [](Parts& p, const Folder&) { p[0].Set("split.no", uint16_t{1}); },
       {PartName(1), "split.no", "part 1 of 3", "part 2 of 3"}},
      {"no split keys under a part's name",
       [](Parts& p, const Folder&) { p[0].Remove("split.count"); },
       {PartName(1), "split.count", "part 1 of 3"}},
      {"a damaged later part",
       [](Parts& p, const Folder&) { p[2].magic = "GGUX"; },
       {PartName(3), "magic"}},
      {"a later part that ends early",
       [](Parts& p, const Folder&) { p[2].tensors[2].bytes.clear(); },
       {PartName(3), "'f'", "offset"}},
      {"a big-endian later part",
       [](Parts& p, const Folder&) { p[1].version = 0x03000000; },
       {PartName(2), "big-endian"}},
  };
  for (const Case& c : cases) {
    const TemporaryFolder folder;
    std::vector<GgufBuilder> parts = GoodSet();
    c.break_it(parts, folder);
    const std::string message = OpenSet(folder, parts);
    INFO(c.what << ": " << message);
    CHECK(message != "");
    for (const std::string& part : c.named)
      CHECK_MESSAGE(message.find(part) != std::string::npos, part);
  }
}

TEST_CASE(
    "Opening another part than the first, a renamed part, or an incomplete set says what to do") {
  const TemporaryFolder folder;
  std::vector<GgufBuilder> parts = GoodSet();
  CHECK(OpenSet(folder, parts) == "");
  const auto message_of = [](const std::string& path) -> std::string {
    try {
      GgufFile::Open(path);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message_of(folder / PartName(2)) ==
        folder / PartName(2) + ": is part 2 of 3 of a split model: open the first, " +
            (folder / PartName(1)));
  fs::copy_file(folder / PartName(1), folder / "renamed.gguf");
  CHECK(message_of(folder / "renamed.gguf").find("does not end in -00001-of-00003.gguf") !=
        std::string::npos);
  fs::remove(folder / PartName(3));
  CHECK(message_of(folder / PartName(1))
            .starts_with(folder / PartName(3) + ": missing: part 3 of 3"));
  fs::create_directory(folder / PartName(3));
  CHECK(message_of(folder / PartName(1)).find("directory") != std::string::npos);
  // 65,535 parts announced, one there: the first missing one ends it.
  for (uint32_t i : {1u, 2u})
    parts[0]
        .Set("split.count", uint16_t{65535})
        .Set("split.no", static_cast<uint16_t>(i - 1))
        .WriteFile(folder / PartName(i, 65535));
  CHECK(message_of(folder / PartName(1, 65535))
            .starts_with(folder / PartName(3, 65535) + ": missing: part 3 of 65535"));
  // Parts of a set in memory have no neighbours.
  const std::vector<uint8_t> bytes = parts[0].Build();
  testing::CheckRefused(bytes, {"split.count"});
}

}  // namespace lutra
