// Writes GGUF files, version 3, little-endian.
// Source: the GGUF specification; layout rules as in models/gguf.h.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/tensor_type.h"
#include "models/gguf.h"
#include "models/temporary_file.h"

namespace lutra {

// Takes the next bytes of a tensor. Throws Error(kIo) when they cannot be written.
using GgufByteSink = std::function<void(std::span<const uint8_t>)>;
// Hands the bytes of a tensor, in order, to the sink; may throw.
using GgufTensorSource = std::function<void(const GgufByteSink&)>;

// Collects metadata and tensors, then writes them in the order they were given. Not thread-safe.
// Mistakes of the caller (a duplicate tensor, a row that is no multiple of its block, a source that
// gives too few bytes, what GgufFile would refuse to read) raise Error(kInvalidArgument).
class GgufWriter {
 public:
  // Setting a key again replaces its value in place. The alignment of tensors is the key
  // general.alignment (u32).
  void Set(std::string_view key, uint8_t value) { SetNumber(key, GgufType::kU8, value); }
  void Set(std::string_view key, int8_t value) { SetNumber(key, GgufType::kI8, value); }
  void Set(std::string_view key, uint16_t value) { SetNumber(key, GgufType::kU16, value); }
  void Set(std::string_view key, int16_t value) { SetNumber(key, GgufType::kI16, value); }
  void Set(std::string_view key, uint32_t value) { SetNumber(key, GgufType::kU32, value); }
  void Set(std::string_view key, int32_t value) { SetNumber(key, GgufType::kI32, value); }
  void Set(std::string_view key, uint64_t value) { SetNumber(key, GgufType::kU64, value); }
  void Set(std::string_view key, int64_t value) { SetNumber(key, GgufType::kI64, value); }
  void Set(std::string_view key, float value) { SetNumber(key, GgufType::kF32, value); }
  void Set(std::string_view key, double value) { SetNumber(key, GgufType::kF64, value); }
  void Set(std::string_view key, bool value) {
    SetNumber(key, GgufType::kBool, static_cast<uint8_t>(value));
  }
  void Set(std::string_view key, std::string_view value);
  void Set(std::string_view key, const char* value) { Set(key, std::string_view(value)); }

  // Arrays: of the number types above (bools as bytes: SetBools) and of strings.
  template <class T>
  void SetArray(std::string_view key, std::span<const T> values) {
    SetNumbers(key, TypeOf<T>(),
               {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()},
               values.size());
  }
  template <class T>
  void SetArray(std::string_view key, const std::vector<T>& values) {
    SetArray(key, std::span<const T>(values));
  }
  void SetArray(std::string_view key, const std::vector<std::string>& values);
  void SetArray(std::string_view key, const std::vector<std::string_view>& values);
  void SetBools(std::string_view key, std::span<const uint8_t> values);  // each 0 or 1

  // A value of another file, unchanged.
  void Set(std::string_view key, const GgufValue& value);
  // True if there was such a key.
  bool Remove(std::string_view key);

  // dims[0] is the contiguous one, 1 to 4 of them. The bytes must stay where they are until the
  // file is written.
  void AddTensor(std::string_view name, std::span<const uint64_t> dims, uint32_t type_id,
                 std::span<const uint8_t> bytes);
  // The bytes come from `source` when the file is written: exactly as many as the shape needs.
  void AddTensor(std::string_view name, std::span<const uint64_t> dims, uint32_t type_id,
                 GgufTensorSource source);
  void AddTensor(std::string_view name, std::initializer_list<uint64_t> dims, uint32_t type_id,
                 std::span<const uint8_t> bytes) {
    AddTensor(name, std::span<const uint64_t>(dims.begin(), dims.size()), type_id, bytes);
  }
  void AddTensor(std::string_view name, std::initializer_list<uint64_t> dims, uint32_t type_id,
                 GgufTensorSource source) {
    AddTensor(name, std::span<const uint64_t>(dims.begin(), dims.size()), type_id,
              std::move(source));
  }

  size_t n_tensors() const { return tensors_.size(); }
  // Bytes the file will have.
  uint64_t FileBytes() const;

  // Writes a temporary file beside `path`, makes it durable and renames it: `path` is never
  // half-written, and what was there stays until the new file is complete. Error(kIo) naming the
  // path; kInvalidArgument if something other than a regular file is there. The temporary file is
  // removed when anything throws.
  void Write(const std::string& path) const;
  // The same but for the name: all bytes can be read under the temporary one, and Commit does the rest.
  std::unique_ptr<TemporaryFile> WriteTemporary(const std::string& path) const;
  // Writes the metadata again into what WriteTemporary gave; keys were Set anew since, to values of as many bytes as before.
  void RewriteMetadata(TemporaryFile* file) const;
  std::vector<uint8_t> WriteToBytes() const;
  // Hands all FileBytes() bytes to the sink, in order.
  void WriteTo(const GgufByteSink& sink) const;

 private:
  struct Entry {
    std::string key;
    GgufType type;
    GgufType element_type;         // of arrays
    uint64_t count;                // of arrays
    std::vector<uint8_t> encoded;  // the value as in the file, without type and count
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;
    uint32_t type_id;
    uint64_t bytes;
    GgufTensorSource source;
  };

  template <class T>
  static constexpr GgufType TypeOf() {
    if constexpr (std::is_same_v<T, uint8_t>)
      return GgufType::kU8;
    else if constexpr (std::is_same_v<T, int8_t>)
      return GgufType::kI8;
    else if constexpr (std::is_same_v<T, uint16_t>)
      return GgufType::kU16;
    else if constexpr (std::is_same_v<T, int16_t>)
      return GgufType::kI16;
    else if constexpr (std::is_same_v<T, uint32_t>)
      return GgufType::kU32;
    else if constexpr (std::is_same_v<T, int32_t>)
      return GgufType::kI32;
    else if constexpr (std::is_same_v<T, uint64_t>)
      return GgufType::kU64;
    else if constexpr (std::is_same_v<T, int64_t>)
      return GgufType::kI64;
    else if constexpr (std::is_same_v<T, float>)
      return GgufType::kF32;
    else {
      static_assert(std::is_same_v<T, double>, "no GGUF number type");
      return GgufType::kF64;
    }
  }
  template <class T>
  void SetNumber(std::string_view key, GgufType type, T value) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&value);
    Put({std::string(key), type, type, 1, {bytes, bytes + sizeof(T)}});
  }
  void SetNumbers(std::string_view key, GgufType type, std::span<const uint8_t> bytes,
                  uint64_t count);
  void Put(Entry entry);
  uint64_t Alignment() const;
  std::vector<uint8_t> Header(uint64_t alignment) const;  // padded up to the data

  std::vector<Entry> entries_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, size_t> entry_index_;
  std::unordered_map<std::string, size_t> tensor_index_;
};

}  // namespace lutra
