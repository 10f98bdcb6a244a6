#include "models/gguf_parse.h"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <optional>

#include "kernels/base/error.h"
#include "models/bounded_reader.h"

namespace lutra {
namespace {

// The smallest records: a key/value pair has a length (8), one byte of key, a type (4) and one byte
// of value; a tensor has a length (8), the number of dimensions (4), a type (4) and an offset (8).
constexpr uint64_t kMinKeyValueBytes = 14;
constexpr uint64_t kMinTensorBytes = 24;
constexpr uint64_t kDefaultAlignment = 32;

// What a file that is not GGUF seems to be.
const char* GuessOtherFormat(std::span<const uint8_t> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()),
                              std::min<size_t>(bytes.size(), 16));
  if (text.starts_with("version https://")) {
    return "it looks like a Git LFS pointer: fetch the file itself with `git lfs pull`";
  }
  if (text.starts_with("lmgg") || text.starts_with("tjgg") || text.starts_with("fmgg") ||
      text.starts_with("algg")) {
    return "it is an older format of 2023: convert the model to GGUF again";
  }
  if (text.starts_with("PK")) return "it looks like a PyTorch checkpoint: convert it to GGUF";
  if (text.size() > 8 && text[8] == '{')
    return "it looks like a safetensors file: convert it to GGUF";
  if (text.starts_with("<")) return "it looks like a web page: the download went wrong";
  return "not a GGUF file";
}

uint32_t ReadHeader(BoundedReader& in, std::span<const uint8_t> bytes) {
  const std::string_view magic(reinterpret_cast<const char*>(in.Take(4, "magic")), 4);
  if (magic != "GGUF") {
    in.Fail(
        "magic", 0, ErrorCode::kCorrupt,
        Format("'%s' instead of 'GGUF'; %s", Printable(magic).c_str(), GuessOtherFormat(bytes)));
  }
  const uint32_t version = in.Read<uint32_t>("version");
  if (version == 2 || version == 3) return version;
  const char* why = "only versions 2 and 3 exist; the file is damaged, or newer than this program";
  if (version == 1) why = "this obsolete version is not read; convert the model to GGUF again";
  if (version != 0 && (version & 0xFFFF) == 0) {
    why = "the file is big-endian; convert it to little-endian (gguf_convert_endian.py does)";
  }
  in.Fail("version", 4, ErrorCode::kUnsupported, Format("%u: %s", version, why));
}

GgufType ReadType(BoundedReader& in, const char* field) {
  const uint64_t at = in.offset();
  const uint32_t id = in.Read<uint32_t>(field);
  if (id > static_cast<uint32_t>(GgufType::kF64)) {
    in.Fail(field, at, ErrorCode::kCorrupt, Format("%u is not a type of GGUF (0 to 12)", id));
  }
  return static_cast<GgufType>(id);
}

void ReadArray(BoundedReader& in, GgufValue* value) {
  const uint64_t type_at = in.offset();
  value->element_type = ReadType(in, "array element type");
  if (value->element_type == GgufType::kArray) {
    in.Fail("array element type", type_at, ErrorCode::kUnsupported,
            "arrays of arrays are not supported");
  }
  const uint64_t count_at = in.offset();
  value->count = in.Read<uint64_t>("array count");
  const bool strings = value->element_type == GgufType::kString;
  const uint64_t element_bytes = strings ? 8 : GgufTypeBytes(value->element_type);
  in.CheckCount("array count", count_at, value->count, element_bytes, kGgufMaxArrayCount);
  if (!strings) {
    value->data = in.Take(value->count * element_bytes, "array elements");
    return;
  }
  value->strings.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    value->strings.push_back(in.ReadString("array string", kGgufMaxStringBytes));
  }
}

GgufValue ReadValue(BoundedReader& in) {
  GgufValue value{};
  value.type = ReadType(in, "value type");
  value.element_type = value.type;
  value.count = 1;
  if (value.type == GgufType::kArray) {
    ReadArray(in, &value);
  } else if (value.type == GgufType::kString) {
    value.strings.push_back(in.ReadString("string value", kGgufMaxStringBytes));
  } else {
    value.data = in.Take(GgufTypeBytes(value.type), "value");
  }
  return value;
}

GgufMetadata ReadMetadata(BoundedReader& in, uint64_t count) {
  GgufMetadata metadata;
  for (uint64_t i = 0; i < count; ++i) {
    in.Enter("metadata entry", i, count);
    const uint64_t at = in.offset();
    const std::string_view key = in.ReadString("key", kGgufMaxKeyBytes);
    if (key.empty()) in.Fail("key", at, ErrorCode::kCorrupt, "is empty");
    in.Named(key);
    // The index views the file's bytes until all entries stand still.
    if (!metadata.index.emplace(key, i).second)
      in.Fail("key", at, ErrorCode::kCorrupt, "occurs twice");
    metadata.entries.emplace_back(key, ReadValue(in));
  }
  in.Leave();
  metadata.index.clear();
  for (size_t i = 0; i < metadata.entries.size(); ++i)
    metadata.index.emplace(metadata.entries[i].first, i);
  return metadata;
}

// Checks general.alignment; the default where it is absent.
uint64_t AlignmentOf(const GgufMetadata& metadata, const std::string& path) {
  const GgufValue* value = metadata.Find(kGgufAlignmentKey);
  if (value == nullptr) return kDefaultAlignment;
  const bool integer = !value->is_array() && value->type != GgufType::kString &&
                       value->type != GgufType::kBool && value->type != GgufType::kF32 &&
                       value->type != GgufType::kF64;
  const uint64_t v = integer ? value->AsUint().value_or(0) : 0;
  if (!std::has_single_bit(v) || v < kGgufMinAlignment || v > kGgufMaxAlignment) {
    Fail(ErrorCode::kCorrupt,
         "%s: metadata key '%s': wanted a power of two from %" PRIu64 " to %" PRIu64
         ", found %s %s",
         Printable(path, 400).c_str(), kGgufAlignmentKey, kGgufMinAlignment, kGgufMaxAlignment,
         value->TypeText().c_str(), value->ToText().c_str());
  }
  return v;
}

const TensorTypeInfo* ReadTensorType(BoundedReader& in) {
  const uint64_t at = in.offset();
  const uint32_t id = in.Read<uint32_t>("tensor type");
  const TensorTypeInfo* type = FindTensorType(id);
  if (type == nullptr) {
    const char* name = RetiredOrForeignTypeName(id);
    in.Fail(
        "tensor type", at, ErrorCode::kUnsupported,
        name != nullptr
            ? Format("id %u, %s, is not supported; convert the model to a common type", id, name)
            : Format("id %u is no type that this program knows", id));
  }
  return type;
}

std::string DimsText(const std::vector<uint64_t>& dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i)
    text += Format("%s%" PRIu64, i == 0 ? "" : ", ", dims[i]);
  return text + "]";
}

// The bytes of a tensor, every product checked.
uint64_t TensorBytes(const BoundedReader& in, const GgufTensor& tensor, uint64_t at) {
  const TensorTypeInfo& type = *tensor.type;
  if (tensor.dims[0] % type.block_weights != 0) {
    in.Fail("dimension 0", at, ErrorCode::kCorrupt,
            Format("%" PRIu64 " is not a multiple of %u, the block size of %s", tensor.dims[0],
                   type.block_weights, type.name));
  }
  uint64_t weights = 1;
  uint64_t bytes = 0;
  bool fits = CheckedMul(tensor.dims[0] / type.block_weights, type.block_bytes, &bytes) &&
              CheckedAdd(bytes, type.row_header_bytes, &bytes) &&
              CheckedMul(weights, tensor.dims[0], &weights);
  for (size_t i = 1; fits && i < tensor.dims.size(); ++i) {
    fits =
        CheckedMul(bytes, tensor.dims[i], &bytes) && CheckedMul(weights, tensor.dims[i], &weights);
  }
  if (!fits || weights > static_cast<uint64_t>(INT64_MAX) ||
      bytes > static_cast<uint64_t>(INT64_MAX)) {
    in.Fail("dimensions", at, ErrorCode::kCorrupt,
            Format("the size of %s %s is above 2^63", DimsText(tensor.dims).c_str(), type.name));
  }
  return bytes;
}

// One tensor info. `offset` becomes what the file says: relative to the data, a multiple of the
// alignment.
GgufTensor ReadTensorInfo(BoundedReader& in, uint64_t alignment) {
  GgufTensor tensor{};
  uint64_t at = in.offset();
  const std::string_view name = in.ReadString("tensor name", kGgufMaxTensorNameBytes);
  if (name.empty()) in.Fail("tensor name", at, ErrorCode::kCorrupt, "is empty");
  in.Named(name);
  tensor.name = name;
  at = in.offset();
  const uint32_t n_dims = in.Read<uint32_t>("number of dimensions");
  if (n_dims > kGgufMaxDims) {
    in.Fail("number of dimensions", at, ErrorCode::kCorrupt, Format("%u is above 4", n_dims));
  }
  const uint64_t dims_at = in.offset();
  for (uint32_t i = 0; i < n_dims; ++i) {
    at = in.offset();
    const uint64_t dim = in.Read<uint64_t>("dimension");
    if (dim == 0 || dim > static_cast<uint64_t>(INT64_MAX)) {
      in.Fail(
          "dimension", at, ErrorCode::kCorrupt,
          Format("dimension %u is %" PRId64 ", must be at least 1", i, static_cast<int64_t>(dim)));
    }
    tensor.dims.push_back(dim);
  }
  if (n_dims == 0) tensor.dims.push_back(1);  // a scalar
  tensor.type = ReadTensorType(in);
  tensor.bytes = TensorBytes(in, tensor, dims_at);
  at = in.offset();
  tensor.offset = in.Read<uint64_t>("tensor offset");
  if (tensor.offset % alignment != 0) {
    in.Fail("tensor offset", at, ErrorCode::kCorrupt,
            Format("%" PRIu64 " is not a multiple of the alignment %" PRIu64, tensor.offset,
                   alignment));
  }
  return tensor;
}

// Makes offsets absolute and checks that every tensor lies inside the file, and no two on the same
// bytes.
void PlaceTensors(std::span<const uint8_t> bytes, uint64_t infos_end, uint64_t alignment,
                  const std::string& path, std::span<GgufTensor> tensors) {
  if (tensors.empty()) return;  // such a file may end without padding
  const uint64_t data_start =
      (infos_end + alignment - 1) / alignment * alignment;  // infos_end <= file size
  for (GgufTensor& t : tensors) {
    uint64_t begin = 0, end = 0;
    if (!CheckedAdd(data_start, t.offset, &begin) || !CheckedAdd(begin, t.bytes, &end) ||
        end > bytes.size()) {
      Fail(ErrorCode::kCorrupt,
           "%s: tensor '%s': offset: %" PRIu64 " bytes (%s %s) at offset %" PRIu64
           " of the data, which starts at byte %" PRIu64
           ", end behind the file's %zu bytes; is the download complete?",
           Printable(path, 400).c_str(), Printable(t.name).c_str(), t.bytes,
           DimsText(t.dims).c_str(), t.type->name, t.offset, data_start, bytes.size());
    }
    t.offset = begin;
    t.data = bytes.data() + begin;
  }
  std::vector<uint32_t> order(tensors.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return tensors[a].offset < tensors[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const GgufTensor& a = tensors[order[i - 1]];
    const GgufTensor& b = tensors[order[i]];
    if (a.offset + a.bytes > b.offset) {
      Fail(ErrorCode::kCorrupt,
           "%s: tensor '%s': offset: overlaps tensor '%s' (bytes %" PRIu64 " to %" PRIu64
           " and from %" PRIu64 ")",
           Printable(path, 400).c_str(), Printable(b.name).c_str(), Printable(a.name).c_str(),
           a.offset, a.offset + a.bytes, b.offset);
    }
  }
}

}  // namespace

GgufPart ParseGguf(std::span<const uint8_t> bytes, const std::string& path, uint64_t max_tensors) {
  BoundedReader in(bytes, path);
  GgufPart part{};
  part.version = ReadHeader(in, bytes);
  uint64_t at = in.offset();
  const uint64_t n_tensors = in.Read<uint64_t>("tensor count");
  in.CheckCount("tensor count", at, n_tensors, kMinTensorBytes, max_tensors);
  at = in.offset();
  const uint64_t n_keys = in.Read<uint64_t>("metadata count");
  in.CheckCount("metadata count", at, n_keys, kMinKeyValueBytes, kGgufMaxKeys);

  part.metadata = ReadMetadata(in, n_keys);
  part.alignment = AlignmentOf(part.metadata, path);
  for (uint64_t i = 0; i < n_tensors; ++i) {
    in.Enter("tensor", i, n_tensors);
    part.tensors.push_back(ReadTensorInfo(in, part.alignment));
  }
  in.Leave();
  PlaceTensors(bytes, in.offset(), part.alignment, path, part.tensors);
  return part;
}

}  // namespace lutra
