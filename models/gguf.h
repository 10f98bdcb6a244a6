// GGUF files: reading (memory-mapped, split files joined) with every count, offset, type and size
// checked before use. Source: the GGUF specification, versions 2 and 3, little-endian.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/tensor_type.h"
#include "models/mapped_file.h"

namespace lutra {

enum class GgufType : uint32_t {  // fixed by GGUF, never renumber
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
const char* GgufTypeName(GgufType type);  // "u8", ..., "string", "array"
// Bytes of one value: 1, 2, 4 or 8; 0 for strings and arrays.
uint64_t GgufTypeBytes(GgufType type);

// Limits on what a file may hold, so that memory stays in proportion to its size. No known model
// comes near them.
inline constexpr uint64_t kGgufMaxKeys = 65'536;
inline constexpr uint64_t kGgufMaxTensors = 131'072;     // all parts together
inline constexpr uint64_t kGgufMaxKeyBytes = 65'535;     // fixed by the specification
inline constexpr uint64_t kGgufMaxTensorNameBytes = 63;  // fixed by the specification
inline constexpr uint64_t kGgufMaxStringBytes = uint64_t{1} << 30;
inline constexpr uint64_t kGgufMaxArrayCount = uint64_t{1} << 30;
inline constexpr uint64_t kGgufMaxDims = 4;
inline constexpr uint64_t kGgufMinAlignment = 8;  // the specification: a multiple of 8
inline constexpr uint64_t kGgufMaxAlignment = uint64_t{1} << 20;
inline constexpr uint64_t kGgufMaxParts = 65'535;  // split.count is a u16

// One metadata value. Views into the mapped file: valid as long as the GgufFile lives.
struct GgufValue {
  GgufType type;          // kArray for arrays
  GgufType element_type;  // of arrays; otherwise == type
  uint64_t count;         // elements of an array; 1 for a scalar
  const uint8_t*
      data;  // numbers and bools: packed little-endian values (unaligned); strings: see `strings`
  std::vector<std::string_view> strings;  // kString: one entry; arrays of strings: all of them

  bool is_array() const { return type == GgufType::kArray; }
  // Element i as a number (i < count; bools as 0/1; not for strings).
  double AsDouble(uint64_t i = 0) const;
  // Element i as an integer; nullopt for strings, and for floats that are not whole numbers in
  // range.
  std::optional<int64_t> AsInt(uint64_t i = 0) const;
  // u64 values above INT64_MAX do not fit AsInt: this one gives them. Negative numbers: nullopt.
  std::optional<uint64_t> AsUint(uint64_t i = 0) const;

  // The value as text that is safe to print: numbers, true/false, strings in quotes and cut after
  // max_string_bytes, at most max_elements of an array ("[1, 2, ... 98 more]").
  std::string ToText(uint64_t max_elements = 8, size_t max_string_bytes = 60) const;
  // "u32", "array of 5 strings", ...
  std::string TypeText() const;
};

struct GgufTensor {
  std::string name;
  std::vector<uint64_t>
      dims;  // as in the file: dims[0] is the contiguous one; at least one entry, at most 4
  const TensorTypeInfo* type;
  uint64_t bytes;       // RowBytes(type, dims[0]) * product of the others
  uint64_t offset;      // in its file, absolute
  const uint8_t* data;  // [bytes], in the mapping
  uint32_t part;        // which file of a split model
  uint64_t n_weights() const;
  // dims[i], or 1 beyond the stored ones.
  uint64_t dim(size_t i) const { return i < dims.size() ? dims[i] : 1; }
};

// A whole model: one file, or all parts of a split one. Immutable after Open; safe to share between
// threads.
class GgufFile {
 public:
  // Opens `path`; "-00001-of-0000N" names open all N parts (the metadata is the first part's).
  // Throws Error: kNotFound, kIo, kCorrupt (file, field, offset, value), kUnsupported (version 1,
  // big-endian, unknown tensor types), kInvalidArgument (another part than the first: the message
  // names the first), kResourceExhausted (the limits above).
  static GgufFile Open(const std::string& path);
  // The same over bytes in memory (tests, fuzzing), which must outlive the file; `name` stands for
  // the path in messages. Not for split models.
  static GgufFile FromBytes(std::span<const uint8_t> bytes, const std::string& name);
  // The same over a mapping (MappedFile::Memory, MappedFile::View) that it takes.
  static GgufFile FromMapping(MappedFile mapping);

  GgufFile(GgufFile&&) noexcept;
  GgufFile& operator=(GgufFile&&) noexcept;
  ~GgufFile();

  const std::string& path() const { return path_; }
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  uint64_t file_bytes() const;  // all parts
  // Of which are memory that Release gives back (MappedFile::Memory).
  uint64_t memory_bytes() const;
  size_t n_parts() const { return parts_.size(); }
  // Of FromBytes: one part, a view of the bytes.
  const MappedFile& part(size_t i) const { return *parts_[i]; }
  // Makes the bytes of a part writable (MappedFile::Edit): what is changed is seen by everybody who reads tensors through this file.
  uint8_t* Edit(size_t i) { return parts_[i]->Edit(); }
  // Throws Error(kIo) if a part became shorter since it was mapped. Loaders call it when they have
  // read all tensors.
  void CheckNotTruncated() const;

  // Metadata in file order, and by key (nullptr if absent).
  const std::vector<std::pair<std::string, GgufValue>>& metadata() const { return metadata_; }
  const GgufValue* Find(std::string_view key) const;

  // Typed access. nullopt if the key is absent; Error(kCorrupt) naming file, key, type found and
  // wanted if it has another type or a value out of range. Integers convert among integer types
  // with a range check.
  std::optional<uint32_t> GetU32(std::string_view key) const;
  std::optional<uint64_t> GetU64(std::string_view key) const;
  std::optional<int32_t> GetI32(std::string_view key) const;
  std::optional<float> GetF32(std::string_view key) const;  // f32 or f64, must be finite
  std::optional<bool> GetBool(std::string_view key) const;
  std::optional<std::string_view> GetString(std::string_view key) const;
  // Arrays; empty optional if absent. Element types: strings; f32 (f64 converts), not NaN; any
  // integer that fits.
  const std::vector<std::string_view>* GetStrings(std::string_view key) const;
  std::optional<std::vector<float>> GetF32s(std::string_view key) const;
  std::optional<std::vector<int32_t>> GetI32s(std::string_view key) const;
  // A scalar or an array of exactly n: n values (a scalar is repeated). Error otherwise.
  std::optional<std::vector<uint32_t>> GetU32PerLayer(std::string_view key, size_t n) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* FindTensor(std::string_view name) const;

 private:
  GgufFile() = default;
  // Reads parts_[part]; the first one gives the metadata, all give tensors.
  void ReadPart(uint32_t part);
  void OpenOtherParts();
  void IndexTensors();
  [[noreturn]] void FailType(std::string_view key, const GgufValue& value,
                             const char* wanted) const;

  std::string path_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  std::vector<std::unique_ptr<MappedFile>> parts_;
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::unordered_map<std::string_view, size_t> key_index_;  // views of metadata_
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;  // views of tensors_
};

}  // namespace lutra
