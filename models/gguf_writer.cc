#include "models/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/quant_format.h"
#include "models/bounded_reader.h"

namespace lutra {
namespace {

constexpr uint32_t kVersion = 3;
constexpr uint64_t kDefaultAlignment = 32;

template <class T>
void Append(std::vector<uint8_t>* out, T value) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&value);
  out->insert(out->end(), bytes, bytes + sizeof(T));
}

void AppendString(std::vector<uint8_t>* out, std::string_view text) {
  Append<uint64_t>(out, text.size());
  out->insert(out->end(), text.begin(), text.end());
}

uint64_t PadTo(uint64_t n, uint64_t alignment) {
  return (n + alignment - 1) / alignment * alignment;
}

}  // namespace

void GgufWriter::Put(Entry entry) {
  if (entry.key.empty() || entry.key.size() > kGgufMaxKeyBytes) {
    Fail(ErrorCode::kInvalidArgument, "GGUF key '%s': has %zu bytes, must have 1 to %" PRIu64,
         Printable(entry.key, 60).c_str(), entry.key.size(), kGgufMaxKeyBytes);
  }
  const auto [it, added] = entry_index_.emplace(entry.key, entries_.size());
  if (added) {
    entries_.push_back(std::move(entry));
  } else {
    entries_[it->second] = std::move(entry);
  }
}

void GgufWriter::Set(std::string_view key, std::string_view value) {
  Entry entry{std::string(key), GgufType::kString, GgufType::kString, 1, {}};
  AppendString(&entry.encoded, value);
  Put(std::move(entry));
}

void GgufWriter::SetNumbers(std::string_view key, GgufType type, std::span<const uint8_t> bytes,
                            uint64_t count) {
  Put({std::string(key), GgufType::kArray, type, count, {bytes.begin(), bytes.end()}});
}

void GgufWriter::SetBools(std::string_view key, std::span<const uint8_t> values) {
  SetNumbers(key, GgufType::kBool, values, values.size());
}

void GgufWriter::SetArray(std::string_view key, const std::vector<std::string>& values) {
  SetArray(key, std::vector<std::string_view>(values.begin(), values.end()));
}

void GgufWriter::SetArray(std::string_view key, const std::vector<std::string_view>& values) {
  Entry entry{std::string(key), GgufType::kArray, GgufType::kString, values.size(), {}};
  for (const std::string_view value : values) AppendString(&entry.encoded, value);
  Put(std::move(entry));
}

void GgufWriter::Set(std::string_view key, const GgufValue& value) {
  Entry entry{std::string(key), value.type, value.element_type, value.count, {}};
  if (value.element_type == GgufType::kString) {
    for (const std::string_view text : value.strings) AppendString(&entry.encoded, text);
  } else {
    entry.encoded.assign(value.data, value.data + value.count * GgufTypeBytes(value.element_type));
  }
  Put(std::move(entry));
}

bool GgufWriter::Remove(std::string_view key) {
  const auto it = entry_index_.find(std::string(key));
  if (it == entry_index_.end()) return false;
  const size_t at = it->second;
  entry_index_.erase(it);
  entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(at));
  for (auto& [other, i] : entry_index_) {
    if (i > at) --i;
  }
  return true;
}

void GgufWriter::AddTensor(std::string_view name, std::span<const uint64_t> dims, uint32_t type_id,
                           GgufTensorSource source) {
  const std::string shown = Printable(name, 80);
  const auto refuse = [&](const std::string& why) {
    Fail(ErrorCode::kInvalidArgument, "GGUF tensor '%s': %s", shown.c_str(), why.c_str());
  };
  if (name.empty() || name.size() > kGgufMaxTensorNameBytes) {
    refuse(Format("the name has %zu bytes, must have 1 to %" PRIu64, name.size(),
                  kGgufMaxTensorNameBytes));
  }
  if (dims.empty() || dims.size() > kGgufMaxDims)
    refuse(Format("%zu dimensions, must be 1 to 4", dims.size()));
  if (tensors_.size() >= kGgufMaxTensors)
    refuse(Format("more than %" PRIu64 " tensors", kGgufMaxTensors));
  const TensorTypeInfo* type = FindTensorType(type_id);
  if (type == nullptr) refuse(Format("unknown type id %u", type_id));
  uint64_t rows = 1;
  for (size_t i = 1; i < dims.size(); ++i) {
    if (!CheckedMul(rows, dims[i], &rows)) refuse("the size is above 2^64");
  }
  if (rows == 0 || dims[0] == 0) refuse("a dimension is 0");
  if (dims[0] % type->block_weights != 0) {
    refuse(Format("rows of %" PRIu64 " weights are no multiple of %u, the block size of %s",
                  dims[0], type->block_weights, type->name));
  }
  uint64_t bytes = 0;
  if (!CheckedMul(dims[0] / type->block_weights, type->block_bytes, &bytes) ||
      !CheckedAdd(bytes, type->row_header_bytes, &bytes) || !CheckedMul(bytes, rows, &bytes)) {
    refuse("the size is above 2^64");
  }
  if (!tensor_index_.emplace(name, tensors_.size()).second) refuse("was added before");
  tensors_.push_back(
      {std::string(name), {dims.begin(), dims.end()}, type_id, bytes, std::move(source)});
}

void GgufWriter::AddTensor(std::string_view name, std::span<const uint64_t> dims, uint32_t type_id,
                           std::span<const uint8_t> bytes) {
  AddTensor(name, dims, type_id, [bytes](const GgufByteSink& sink) { sink(bytes); });
}

uint64_t GgufWriter::Alignment() const {
  const auto it = entry_index_.find("general.alignment");
  if (it == entry_index_.end()) return kDefaultAlignment;
  const Entry& entry = entries_[it->second];
  const uint64_t v = entry.type == GgufType::kU32 ? LoadLe<uint32_t>(entry.encoded.data()) : 0;
  if (!std::has_single_bit(v) || v < kGgufMinAlignment || v > kGgufMaxAlignment) {
    Fail(ErrorCode::kInvalidArgument,
         "GGUF key 'general.alignment': must be a u32, a power of two from %" PRIu64 " to %" PRIu64,
         kGgufMinAlignment, kGgufMaxAlignment);
  }
  return v;
}

std::vector<uint8_t> GgufWriter::Header(uint64_t alignment) const {
  std::vector<uint8_t> out;
  for (const char c : std::string_view("GGUF")) out.push_back(static_cast<uint8_t>(c));
  Append<uint32_t>(&out, kVersion);
  Append<uint64_t>(&out, tensors_.size());
  Append<uint64_t>(&out, entries_.size());
  for (const Entry& entry : entries_) {
    AppendString(&out, entry.key);
    Append(&out, static_cast<uint32_t>(entry.type));
    if (entry.type == GgufType::kArray) {
      Append(&out, static_cast<uint32_t>(entry.element_type));
      Append<uint64_t>(&out, entry.count);
    }
    out.insert(out.end(), entry.encoded.begin(), entry.encoded.end());
  }
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    AppendString(&out, tensor.name);
    Append(&out, static_cast<uint32_t>(tensor.dims.size()));
    for (const uint64_t dim : tensor.dims) Append(&out, dim);
    Append(&out, tensor.type_id);
    Append(&out, offset);
    if (!CheckedAdd(offset, tensor.bytes, &offset) || !CheckedAdd(offset, alignment - 1, &offset)) {
      Fail(ErrorCode::kInvalidArgument, "GGUF tensors: their sizes together are above 2^64");
    }
    offset = offset / alignment * alignment;
  }
  out.resize(PadTo(out.size(), alignment));
  return out;
}

uint64_t GgufWriter::FileBytes() const {
  const uint64_t alignment = Alignment();
  uint64_t bytes = Header(alignment).size();
  for (const Tensor& tensor : tensors_) bytes += PadTo(tensor.bytes, alignment);
  return bytes;
}

void GgufWriter::WriteTo(const GgufByteSink& sink) const {
  const uint64_t alignment = Alignment();
  sink(Header(alignment));
  const std::vector<uint8_t> zeros(alignment);
  for (const Tensor& tensor : tensors_) {
    uint64_t given = 0;
    const auto check = [&](bool ok) {
      if (ok) return;
      Fail(ErrorCode::kInvalidArgument,
           "GGUF tensor '%s': needs %" PRIu64 " bytes, was given %" PRIu64,
           Printable(tensor.name, 80).c_str(), tensor.bytes, given);
    };
    tensor.source([&](std::span<const uint8_t> bytes) {
      given += bytes.size();
      check(given <= tensor.bytes);
      sink(bytes);
    });
    check(given == tensor.bytes);
    sink(std::span(zeros).first(PadTo(given, alignment) - given));
  }
}

std::unique_ptr<TemporaryFile> GgufWriter::WriteTemporary(const std::string& path) const {
  auto file = std::make_unique<TemporaryFile>(path);
  WriteTo([&](std::span<const uint8_t> bytes) { file->Write(bytes); });
  file->Flush();
  return file;
}

void GgufWriter::RewriteMetadata(TemporaryFile* file) const {
  LUTRA_CHECK(FileBytes() == file->bytes());
  file->Rewrite(Header(Alignment()));
}

void GgufWriter::Write(const std::string& path) const { WriteTemporary(path)->Commit(); }

std::vector<uint8_t> GgufWriter::WriteToBytes() const {
  std::vector<uint8_t> out;
  WriteTo(
      [&](std::span<const uint8_t> bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); });
  return out;
}

}  // namespace lutra
