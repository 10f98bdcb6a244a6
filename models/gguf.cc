#include "models/gguf.h"

#include <algorithm>
#include <cinttypes>

#include "kernels/base/error.h"
#include "models/gguf_parse.h"
#include "models/gguf_split_name.h"

namespace lutra {
namespace {

std::string Shown(const std::string& path) { return Printable(path, 400); }

bool SameValue(const GgufValue& a, const GgufValue& b) {
  if (a.type != b.type || a.element_type != b.element_type || a.count != b.count ||
      a.strings != b.strings)
    return false;
  return std::equal(a.data, a.data + a.count * GgufTypeBytes(a.element_type), b.data);
}

// A split.* key of a part as a number; nullopt if absent.
std::optional<uint64_t> SplitNumber(const GgufMetadata& metadata, const char* key,
                                    const std::string& path) {
  const GgufValue* value = metadata.Find(key);
  if (value == nullptr) return std::nullopt;
  std::optional<uint64_t> v;
  if (!value->is_array() && value->type != GgufType::kF32 && value->type != GgufType::kF64)
    v = value->AsUint();
  if (!v) {
    Fail(ErrorCode::kCorrupt, "%s: metadata key '%s': wanted an integer of at least 0, found %s %s",
         Shown(path).c_str(), key, value->TypeText().c_str(), value->ToText().c_str());
  }
  return v;
}

// Part `i` must continue `first`: same set, same model.
void CheckContinues(const GgufFile& first, const GgufMetadata& metadata, uint32_t i,
                    const std::string& path) {
  const uint64_t no = SplitNumber(metadata, "split.no", path).value_or(UINT64_MAX);
  if (no != i) {
    Fail(ErrorCode::kCorrupt, "%s: metadata key 'split.no': must be %u in this part, %s",
         Shown(path).c_str(), i,
         no == UINT64_MAX ? "but is absent" : Format("but is %" PRIu64, no).c_str());
  }
  for (const auto& [key, value] : metadata.entries) {
    if (key == "split.no" || key == kGgufAlignmentKey) continue;
    const GgufValue* expected = first.Find(key);
    // The same number may have another width.
    const bool number = key == "split.count" || key == "split.tensors.count";
    if (number && SplitNumber(metadata, key.c_str(), path) == first.GetU64(key)) continue;
    if (expected == nullptr && !number) continue;
    if (expected == nullptr || number || !SameValue(*expected, value)) {
      Fail(ErrorCode::kCorrupt,
           "%s: metadata key '%s': is %s here, but %s in %s; the parts are not of one model",
           Shown(path).c_str(), Printable(key, 80).c_str(), value.ToText().c_str(),
           expected == nullptr ? "absent" : expected->ToText().c_str(),
           Shown(first.path()).c_str());
    }
  }
}

}  // namespace

GgufFile::GgufFile(GgufFile&&) noexcept = default;
GgufFile& GgufFile::operator=(GgufFile&&) noexcept = default;
GgufFile::~GgufFile() = default;

uint64_t GgufTensor::n_weights() const {
  uint64_t n = 1;
  for (const uint64_t dim : dims) n *= dim;
  return n;
}

void GgufFile::ReadPart(uint32_t part) {
  const std::string& path = parts_[part]->path();
  GgufPart parsed = ParseGguf(parts_[part]->bytes(), path, kGgufMaxTensors - tensors_.size());
  if (part == 0) {
    version_ = parsed.version;
    alignment_ = parsed.alignment;
    metadata_ = std::move(parsed.metadata.entries);
    key_index_ = std::move(parsed.metadata.index);
    tensors_ = std::move(parsed.tensors);
    return;
  }
  CheckContinues(*this, parsed.metadata, part, path);
  for (GgufTensor& tensor : parsed.tensors) {
    tensor.part = part;
    tensors_.push_back(std::move(tensor));
  }
}

void GgufFile::IndexTensors() {
  tensor_index_.reserve(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensor_index_.emplace(tensors_[i].name, i).second) {
      const GgufTensor& other = tensors_[tensor_index_.find(tensors_[i].name)->second];
      Fail(ErrorCode::kCorrupt, "%s: tensor '%s': name occurs twice%s%s",
           Shown(parts_[tensors_[i].part]->path()).c_str(), Printable(other.name).c_str(),
           other.part == tensors_[i].part ? "" : ", also in ",
           other.part == tensors_[i].part ? "" : Shown(parts_[other.part]->path()).c_str());
    }
  }
}

void GgufFile::OpenOtherParts() {
  const uint64_t count = GetU64("split.count").value_or(1);
  const std::optional<SplitName> name = SplitName::Parse(path_);
  const std::string shown = Shown(path_);
  if (count <= 1) {
    if (name && name->count > 1) {
      Fail(ErrorCode::kCorrupt,
           "%s: metadata key 'split.count': the name says part %u of %u, but the file says %s",
           shown.c_str(), name->number, name->count,
           Find("split.count") == nullptr ? "nothing about parts" : "one part");
    }
    return;
  }
  if (count > kGgufMaxParts) {
    Fail(ErrorCode::kCorrupt,
         "%s: metadata key 'split.count': %" PRIu64 " is above the limit of %" PRIu64,
         shown.c_str(), count, kGgufMaxParts);
  }
  const std::optional<uint64_t> no = GetU64("split.no");
  if (!no || *no >= count) {
    Fail(ErrorCode::kCorrupt,
         "%s: metadata key 'split.no': must be below split.count, %" PRIu64 ", but is %s",
         shown.c_str(), count, no ? Format("%" PRIu64, *no).c_str() : "absent");
  }
  if (!name) {
    Fail(ErrorCode::kInvalidArgument,
         "%s: is part %" PRIu64 " of %" PRIu64
         " of a split model (metadata key 'split.count'), but its name does not end "
         "in %s: give all parts their names back",
         shown.c_str(), *no + 1, count,
         SplitName{"", static_cast<uint32_t>(*no + 1), static_cast<uint32_t>(count)}
             .Path(static_cast<uint32_t>(*no + 1))
             .c_str());
  }
  if (name->count != count || name->number != *no + 1) {
    Fail(ErrorCode::kCorrupt,
         "%s: metadata keys 'split.no', 'split.count': the name says part %u of %u, but the file "
         "part %" PRIu64 " of %" PRIu64,
         shown.c_str(), name->number, name->count, *no + 1, count);
  }
  if (*no != 0) {
    Fail(ErrorCode::kInvalidArgument,
         "%s: is part %" PRIu64 " of %" PRIu64 " of a split model: open the first, %s",
         shown.c_str(), *no + 1, count, Shown(name->Path(1)).c_str());
  }
  const std::optional<uint64_t> total = GetU64("split.tensors.count");
  if (!total)
    Fail(ErrorCode::kCorrupt, "%s: metadata key 'split.tensors.count': is absent", shown.c_str());

  for (uint32_t i = 1; i < count; ++i) {
    const std::string part_path = name->Path(i + 1);
    try {
      parts_.push_back(std::make_unique<MappedFile>(part_path));
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kNotFound) throw;
      Fail(ErrorCode::kNotFound,
           "%s: missing: part %u of %" PRIu64 " of the split model %s (metadata key 'split.count')",
           Shown(part_path).c_str(), i + 1, count, shown.c_str());
    }
    ReadPart(i);
  }
  if (tensors_.size() != *total) {
    Fail(ErrorCode::kCorrupt,
         "%s: metadata key 'split.tensors.count': says %" PRIu64 ", but the %" PRIu64
         " parts hold %zu tensors",
         shown.c_str(), *total, count, tensors_.size());
  }
}

GgufFile GgufFile::Open(const std::string& path) {
  GgufFile file;
  file.path_ = path;
  file.parts_.push_back(std::make_unique<MappedFile>(path));
  file.ReadPart(0);
  file.OpenOtherParts();
  file.IndexTensors();
  file.CheckNotTruncated();
  return file;
}

GgufFile GgufFile::FromBytes(std::span<const uint8_t> bytes, const std::string& name) {
  return FromMapping(MappedFile::View(bytes, name));
}

GgufFile GgufFile::FromMapping(MappedFile mapping) {
  GgufFile file;
  file.path_ = mapping.path();
  file.parts_.push_back(std::make_unique<MappedFile>(std::move(mapping)));
  file.ReadPart(0);
  if (file.GetU64("split.count").value_or(1) > 1) {
    Fail(ErrorCode::kUnsupported,
         "%s: metadata key 'split.count': parts of a split model are opened by path",
         Shown(file.path_).c_str());
  }
  file.IndexTensors();
  return file;
}

uint64_t GgufFile::file_bytes() const {
  uint64_t bytes = 0;
  for (const auto& part : parts_) bytes += part->bytes().size();
  return bytes;
}

uint64_t GgufFile::memory_bytes() const {
  uint64_t bytes = 0;
  for (const auto& part : parts_) bytes += part->is_memory() ? part->bytes().size() : 0;
  return bytes;
}

void GgufFile::CheckNotTruncated() const {
  for (const auto& part : parts_) part->CheckNotTruncated();
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace lutra
