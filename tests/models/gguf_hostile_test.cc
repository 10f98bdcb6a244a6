// Files broken on purpose, field by field, from tables. Every one must be refused with a message
// that names the file and the field, or be read right; memory must stay in proportion to the file;
// nothing may crash or hang.
#include <algorithm>
#include <set>

#include "kernels/quant_format.h"
#include "tests/models/gguf_check.h"
#include "tests/models/gguf_small_model.h"

namespace lutra {
namespace {

using testing::CheckRefused;
using testing::GgufBuilder;
using testing::GgufField;
using testing::SmallModel;
using testing::TryOpen;

// What a length or a count is set to; none of them can be true.
std::vector<uint64_t> ExtremeCounts(uint64_t file_bytes) {
  return {0x7FFFFFFF,
          0x80000000,
          0xFFFFFFFF,
          uint64_t{1} << 32,
          (uint64_t{1} << 32) + 1,
          uint64_t{1} << 60,
          uint64_t{1} << 61,
          uint64_t{1} << 62,
          (uint64_t{1} << 63) - 1,
          uint64_t{1} << 63,
          (uint64_t{1} << 63) + 1,
          UINT64_MAX - 7,
          UINT64_MAX,
          file_bytes + 1};
}

void Overwrite(std::vector<uint8_t>* bytes, size_t at, size_t n, uint64_t value) {
  for (size_t i = 0; i < n; ++i) (*bytes)[at + i] = static_cast<uint8_t>(value >> (8 * i));
}

// What messages about a field say.
std::vector<std::string> NamesOf(GgufField kind) {
  switch (kind) {
    case GgufField::kMagic:
      return {"magic"};
    case GgufField::kVersion:
      return {"version"};
    case GgufField::kTensorCount:
      return {"tensor count"};
    case GgufField::kKeyCount:
      return {"metadata count"};
    case GgufField::kKeyLength:
      return {": key (at byte "};
    case GgufField::kValueType:
      return {"value type"};
    case GgufField::kStringLength:
      return {"string value", "array string"};
    case GgufField::kArrayType:
      return {"array element type"};
    case GgufField::kArrayCount:
      return {"array count"};
    case GgufField::kNameLength:
      return {"tensor name"};
    case GgufField::kNDims:
      return {"number of dimensions"};
    case GgufField::kDim:
      return {"dimension", "offset"};
    case GgufField::kTensorType:
      return {"tensor type"};
    case GgufField::kOffset:
      return {"offset"};
    case GgufField::kNumber:
      return {};
  }
  return {};
}

bool IsOneOf(GgufField kind, std::initializer_list<GgufField> kinds) {
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

// A file with one tensor.
std::vector<uint8_t> OneTensor(std::vector<uint64_t> dims, uint32_t type_id, size_t data_bytes) {
  GgufBuilder b;
  b.Tensor("weight", std::move(dims), type_id, std::vector<uint8_t>(data_bytes));
  return b.Build();
}

}  // namespace

TEST_CASE("Hostile: the small model itself is good") {
  CHECK(TryOpen(SmallModel().Build()) == std::nullopt);
}

TEST_CASE("Hostile: every count and length, set to extreme values, is refused by name") {
  GgufBuilder b = SmallModel();
  const std::vector<uint8_t> good = b.Build();
  size_t n = 0;
  std::set<GgufField> kinds;
  for (const GgufBuilder::Field& field : b.fields()) {
    if (!IsOneOf(field.kind,
                 {GgufField::kTensorCount, GgufField::kKeyCount, GgufField::kKeyLength,
                  GgufField::kStringLength, GgufField::kArrayCount, GgufField::kNameLength})) {
      continue;
    }
    for (const uint64_t value : ExtremeCounts(good.size())) {
      INFO("field at " << field.at << " = " << value);
      std::vector<uint8_t> bytes = good;
      Overwrite(&bytes, field.at, field.bytes, value);
      CheckRefused(bytes, NamesOf(field.kind));
      ++n;
    }
    // Values that could be true: too small, too large by one.
    for (const uint64_t value :
         {uint64_t{0}, uint64_t{1}, LoadLe<uint64_t>(good.data() + field.at) + 1}) {
      std::vector<uint8_t> bytes = good;
      Overwrite(&bytes, field.at, field.bytes, value);
      TryOpen(bytes);
      ++n;
    }
    kinds.insert(field.kind);
  }
  CHECK(kinds.size() == 6);
  CHECK(n > 14 * 30);
  MESSAGE(n << " files");
}

TEST_CASE("Hostile: counts that the limits refuse though the file is long enough") {
  // 65,537 keys and 131,073 tensors would fit into these bytes.
  for (const bool keys : {true, false}) {
    GgufBuilder b;
    if (keys) b.n_keys = kGgufMaxKeys + 1;
    if (!keys) b.n_tensors = kGgufMaxTensors + 1;
    std::vector<uint8_t> bytes = b.Build();
    bytes.resize(4 << 20);
    CheckRefused(bytes, {keys ? "metadata count" : "tensor count"});
    CHECK(TryOpen(bytes)->find("limit") != std::string::npos);
  }
}

TEST_CASE(
    "Hostile: as many of the smallest records as the limits allow take memory in proportion") {
  const auto name = [](uint64_t i) {
    std::string text;
    for (; i != 0; i /= 90) text += static_cast<char>(33 + i % 90);
    return text + " ";
  };
  GgufBuilder keys;
  for (uint64_t i = 0; i < kGgufMaxKeys; ++i) keys.AddRaw(name(i), 0, {1});
  CHECK(TryOpen(keys.Build(), false) == std::nullopt);
  GgufBuilder tensors;
  tensors.Alignment(8);
  for (uint64_t i = 0; i < kGgufMaxTensors; ++i) tensors.F32(name(i), {1}, {1.0f});
  CHECK(TryOpen(tensors.Build(), false) == std::nullopt);
  GgufBuilder strings;
  strings.SetArray("empty", std::vector<std::string>(1000000));
  CHECK(TryOpen(strings.Build(), false) == std::nullopt);
}

TEST_CASE("Hostile: small fields of 32 bits") {
  GgufBuilder b = SmallModel();
  const std::vector<uint8_t> good = b.Build();
  size_t n = 0;
  for (const GgufBuilder::Field& field : b.fields()) {
    std::vector<uint32_t> values;
    if (field.kind == GgufField::kValueType)
      values = {13, 14, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    if (field.kind == GgufField::kArrayType)
      values = {9, 13, 14, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    if (field.kind == GgufField::kNDims) values = {5, 6, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    for (const uint32_t value : values) {
      INFO("field at " << field.at << " = " << value);
      std::vector<uint8_t> bytes = good;
      Overwrite(&bytes, field.at, 4, value);
      CheckRefused(bytes, NamesOf(field.kind));
      ++n;
    }
    // Every type in every place: the bytes that follow then mean something else.
    if (field.kind == GgufField::kValueType || field.kind == GgufField::kArrayType) {
      for (uint32_t type = 0; type <= 12; ++type) {
        std::vector<uint8_t> bytes = good;
        Overwrite(&bytes, field.at, 4, type);
        TryOpen(bytes);
        ++n;
      }
    }
  }
  CHECK(n > 300);
  MESSAGE(n << " files");
}

TEST_CASE("Hostile: metadata arrays of wrong types and counts") {
  // Every element type with counts whose product with the element size wraps or passes the end.
  size_t n = 0;
  for (uint32_t type = 0; type <= 14; ++type) {
    for (const uint64_t count : ExtremeCounts(100)) {
      std::vector<uint8_t> value;
      GgufBuilder::Append(&value, type);
      GgufBuilder::Append(&value, count);
      value.resize(value.size() + 24);
      GgufBuilder b;
      b.SetRaw("key", GgufBuilder::kArrayId, value);
      CheckRefused(b.Build(), {type == 9 || type > 12 ? "array element type" : "array count"});
      CHECK(TryOpen(b.Build())->find("'key'") != std::string::npos);
      ++n;
    }
  }
  // Nested arrays end at the first level, however deep.
  std::vector<uint8_t> nested;
  for (int i = 0; i < 100000; ++i) {
    GgufBuilder::Append(&nested, GgufBuilder::kArrayId);
    GgufBuilder::Append(&nested, uint64_t{1});
  }
  GgufBuilder b;
  b.SetRaw("key", GgufBuilder::kArrayId, nested);
  CheckRefused(b.Build(), {"arrays of arrays"});
  MESSAGE((n + 1) << " files");
}

TEST_CASE("Hostile: dimensions from a table in all places") {
  const std::vector<uint64_t> table = {0,
                                       UINT64_MAX,
                                       uint64_t{1} << 63,
                                       (uint64_t{1} << 63) - 1,
                                       0x7FFFFFFF,
                                       0x80000000,
                                       0xFFFFFFFF,
                                       uint64_t{1} << 32,
                                       (uint64_t{1} << 32) + 1,
                                       uint64_t{1} << 61,
                                       uint64_t{1} << 62,
                                       (uint64_t{1} << 62) + 32};
  size_t n = 0;
  for (const uint32_t type : {0u, 1u, 8u, 12u, 144u}) {
    const uint64_t row = FindTensorType(type)->block_weights;
    for (const uint64_t value : table) {
      for (size_t place = 0; place < 4; ++place) {
        std::vector<uint64_t> dims = {row, 1, 1, 1};
        dims[place] = value;
        INFO("type " << type << " place " << place << " = " << value);
        CheckRefused(OneTensor(dims, type, 1024), {"dimension", "offset"});
        ++n;
      }
    }
  }
  // Products around 2^31, 2^32, 2^63, 2^64, in pairs and in all four places.
  for (unsigned a = 1; a < 64; a += 3) {
    for (const unsigned sum : {31u, 32u, 33u, 62u, 63u, 64u, 65u}) {
      if (a > sum || sum - a > 62) continue;
      for (const uint64_t more : {0u, 1u}) {
        const std::vector<uint64_t> dims = {(uint64_t{1} << a) + more, uint64_t{1} << (sum - a)};
        CheckRefused(OneTensor(dims, 0, 1024), {"dimension", "offset"});
        CheckRefused(OneTensor({32, dims[0], dims[1]}, 8, 1024), {"dimension", "offset"});
        n += 2;
      }
    }
  }
  for (const uint64_t d :
       {uint64_t{65536}, uint64_t{46341}, uint64_t{55109}, uint64_t{65535}, uint64_t{1} << 48}) {
    CheckRefused(OneTensor({d, d, d, d}, 0, 1024), {"dimension", "offset"});
    ++n;
  }
  CHECK(n > 500);
  MESSAGE(n << " files");
}

TEST_CASE("Hostile: tensor type ids") {
  size_t known = 0;
  size_t n = 0;
  std::vector<uint32_t> ids = {0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000000, 65536 + 2};
  for (uint32_t id = 0; id <= 420; ++id) ids.push_back(id);
  for (const uint32_t id : ids) {
    INFO("type id " << id);
    const TensorTypeInfo* type = FindTensorType(id);
    const size_t bytes = type == nullptr ? 4096 : RowBytes(*type, 256);
    const std::vector<uint8_t> file = OneTensor({256}, id, bytes);
    if (type != nullptr) {
      CHECK(TryOpen(file) == std::nullopt);
      ++known;
    } else {
      CheckRefused(file, {"tensor type"});
      const std::string message = *TryOpen(file);
      CHECK(message.find("'weight'") != std::string::npos);
      CHECK(message.find(Format("id %u", id)) != std::string::npos);
      if (const char* name = RetiredOrForeignTypeName(id))
        CHECK(message.find(name) != std::string::npos);
    }
    ++n;
  }
  CHECK(known == AllTensorTypes().size());
  MESSAGE(n << " files");
}

TEST_CASE("Hostile: rows against blocks, and data one byte short, for every type") {
  size_t n = 0;
  for (const TensorTypeInfo& type : AllTensorTypes()) {
    const uint64_t block = type.block_weights;
    for (const uint64_t row : std::set<uint64_t>{1, block - 1, block, block + 1}) {
      INFO(type.name << " row " << row);
      // Bytes enough for any of these.
      const size_t enough = RowBytes(type, 2 * block);
      if (row == 0) {
        CheckRefused(OneTensor({row}, type.id, enough), {"dimension"});
      } else if (row % block != 0) {
        CheckRefused(OneTensor({row}, type.id, enough),
                     {"block size of " + std::string(type.name)});
      } else {
        GgufBuilder b;
        b.pad_last = false;
        GgufBuilder::TensorSpec& tensor = b.Tensor("weight", {row, 3}, type.id);
        CHECK(TryOpen(b.Build()) == std::nullopt);
        tensor.bytes.pop_back();
        CheckRefused(b.Build(), {"offset"});
        n += 1;
      }
      ++n;
    }
  }
  MESSAGE(n << " files");
}

TEST_CASE("Hostile: offsets unaligned, overlapping, outside") {
  GgufBuilder b = SmallModel();
  const std::vector<uint8_t> good = b.Build();
  size_t n = 0;
  for (const GgufBuilder::Field& field : b.fields()) {
    if (field.kind != GgufField::kOffset) continue;
    const uint64_t truth = LoadLe<uint64_t>(good.data() + field.at);
    for (const uint64_t value :
         {truth + 1, truth + 16, truth - 1, uint64_t{0x7FFFFFFF}, uint64_t{1} << 31,
          uint64_t{1} << 32, uint64_t{1} << 62, (uint64_t{1} << 63) - 32, uint64_t{1} << 63,
          UINT64_MAX, UINT64_MAX - 31, uint64_t{good.size() + 31} / 32 * 32}) {
      INFO("offset at " << field.at << " = " << value);
      std::vector<uint8_t> bytes = good;
      Overwrite(&bytes, field.at, 8, value);
      CheckRefused(bytes, {"offset"});
      ++n;
    }
  }
  // On another tensor's bytes: the same, inside, at its last 32.
  for (const uint64_t offset : {uint64_t{0}, uint64_t{32}, uint64_t{224}}) {
    GgufBuilder two;
    two.Tensor("first", {64}, 0);
    two.Tensor("second", {64}, 0).offset = offset;
    CheckRefused(two.Build(), {"overlaps tensor"});
    ++n;
  }
  MESSAGE(n << " files");
}

TEST_CASE("Hostile: alignment") {
  struct Case {
    uint32_t value;
    bool good;
  };
  for (const Case c : {Case{0, false},
                       {1, false},
                       {3, false},
                       {4, false},
                       {7, false},
                       {8, true},
                       {16, true},
                       {24, false},
                       {64, true},
                       {1u << 20, true},
                       {1u << 21, false},
                       {1u << 31, false},
                       {UINT32_MAX, false}}) {
    INFO("alignment " << c.value);
    GgufBuilder b;
    b.Set("general.alignment", c.value);
    if (c.good) b.alignment = c.value;
    b.F32("a", {2}, {1.0f, 2.0f});
    b.F32("b", {2}, {1.0f, 2.0f});
    if (c.good) {
      CHECK(TryOpen(b.Build()) == std::nullopt);
    } else {
      CheckRefused(b.Build(), {"'general.alignment'"});
    }
  }
  GgufBuilder b;
  b.F32("a", {2}, {1.0f, 2.0f});
  CheckRefused(b.Set("general.alignment", "32").Build(), {"'general.alignment'"});
  CheckRefused(b.Set("general.alignment", 32.0f).Build(), {"'general.alignment'"});
  CheckRefused(b.Set("general.alignment", true).Build(), {"'general.alignment'"});
  CheckRefused(b.Set("general.alignment", int32_t{-32}).Build(), {"'general.alignment'"});
  CheckRefused(b.Set("general.alignment", (uint64_t{1} << 32) + 32).Build(),
               {"'general.alignment'"});
  CheckRefused(b.SetArray<uint32_t>("general.alignment", {32}).Build(), {"'general.alignment'"});
  CheckRefused(b.SetArray<uint32_t>("general.alignment", {}).Build(), {"'general.alignment'"});
  CHECK(TryOpen(b.Set("general.alignment", uint64_t{32}).Build()) == std::nullopt);
}

TEST_CASE("Hostile: a file cut at any byte") {
  GgufBuilder b = SmallModel();
  b.pad_last = false;
  const std::vector<uint8_t> good = b.Build();
  CHECK(TryOpen(good) == std::nullopt);
  for (size_t n = 0; n < good.size(); ++n) {
    INFO("cut to " << n << " bytes");
    CHECK(TryOpen(std::span(good).first(n)).has_value());
  }
  // Without tensors the file may end where the infos end.
  GgufBuilder empty;
  empty.Set("general.architecture", "llama");
  CHECK(TryOpen(empty.Build()) == std::nullopt);
  MESSAGE(good.size() << " files");
}

TEST_CASE("Hostile: versions and magics name the cause") {
  const auto with_version = [](uint32_t version) {
    GgufBuilder b = SmallModel();
    b.version = version;
    return b.Build();
  };
  CheckRefused(with_version(0), {"version"});
  CheckRefused(with_version(1), {"obsolete version"});
  for (const uint32_t version : {4u, 5u, 255u, 0x7FFFFFFFu, 0x80000001u, UINT32_MAX}) {
    CheckRefused(with_version(version), {"only versions 2 and 3"});
  }
  CheckRefused(with_version(0x03000000), {"big-endian"});
  CheckRefused(with_version(0x02000000), {"big-endian"});
  // Nothing in it, and byte-swapped: still refused.
  GgufBuilder swapped;
  swapped.version = 0x03000000;
  CheckRefused(swapped.Build(), {"big-endian"});

  const auto with_start = [](std::string_view start) {
    std::vector<uint8_t> bytes = SmallModel().Build();
    std::copy(start.begin(), start.end(), bytes.begin());
    return bytes;
  };
  CheckRefused(with_start("GGUX"), {"not a GGUF file"});
  CheckRefused(with_start("FUGG"), {"not a GGUF file"});
  CheckRefused(with_start(std::string_view("\0\0\0\0", 4)), {"not a GGUF file"});
  CheckRefused(with_start("\x1B[2J"), {"\\x1B[2J"});
  CheckRefused(with_start("tjgg"), {"older format"});
  CheckRefused(with_start("PK\x03\x04"), {"PyTorch"});
  CheckRefused(with_start("version https://git-lfs"), {"Git LFS"});
  CheckRefused(with_start(std::string_view("\x10\0\0\0\0\0\0\0{\"a\":", 13)), {"safetensors"});
  CheckRefused(with_start("<!DOCTYPE html>"), {"web page"});
}

TEST_CASE("Hostile: names and keys") {
  const auto tensor_named = [](const std::string& name) {
    GgufBuilder b;
    b.F32(name, {1}, {1.0f});
    return b.Build();
  };
  CheckRefused(tensor_named(""), {"tensor name"});
  CHECK(TryOpen(tensor_named(std::string(63, 'n'))) == std::nullopt);
  CheckRefused(tensor_named(std::string(64, 'n')), {"tensor name"});
  CheckRefused(tensor_named(std::string(1000, 'n')), {"tensor name"});

  const auto key_named = [](const std::string& key) {
    return GgufBuilder().Set(key, uint32_t{1}).Build();
  };
  CheckRefused(key_named(""), {": key (at byte "});
  CHECK(TryOpen(key_named(std::string(65535, 'k'))) == std::nullopt);
  CheckRefused(key_named(std::string(65536, 'k')), {": key (at byte "});

  // Odd bytes in names are data; a message shows them escaped, in one line.
  for (const std::string& name :
       {std::string("\x1B[31m\nred"), std::string("nul\0nul", 7), std::string("\xFF\xFE")}) {
    CHECK(TryOpen(tensor_named(name)) == std::nullopt);
    CHECK(TryOpen(key_named(name)) == std::nullopt);
    GgufBuilder b;
    b.Tensor(name, {0}, 0);
    const std::string message = TryOpen(b.Build()).value_or("");
    CHECK(message.find('\x1B') == std::string::npos);
    CHECK(message.find('\0') == std::string::npos);
    CHECK(message.find("\\x") != std::string::npos);
  }
}

TEST_CASE("Hostile: duplicates") {
  GgufBuilder keys;
  keys.Set("same", uint32_t{1}).AddRaw("same", 4, {1, 0, 0, 0});
  CheckRefused(keys.Build(), {"'same': key (at byte "});
  GgufBuilder more = SmallModel();
  more.AddRaw("general.architecture", 0, {1});
  CheckRefused(more.Build(), {"'general.architecture'"});
  GgufBuilder tensors;
  tensors.F32("same", {1}, {1.0f});
  tensors.F32("other", {1}, {1.0f});
  tensors.F32("same", {1}, {1.0f});
  CheckRefused(tensors.Build(), {"'same': name occurs twice"});
}

}  // namespace lutra
