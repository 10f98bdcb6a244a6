// Builds GGUF files for tests, right or wrong on purpose. Independent of models/gguf_writer.h:
// bytes are emitted straight from the specification, and every field of the result is listed, so
// that tests can break each of them.
//
//   GgufBuilder b;
//   b.Set("llama.block_count", uint32_t{2}).Set("general.architecture", "llama");
//   b.SetArray<float>("tokenizer.ggml.scores", {0.5f, 1.0f});
//   b.F32("output_norm.weight", {2}, {1.0f, 1.0f});
//   b.Tensor("token_embd.weight", {64, 512}, type_id, bytes);      // zeros without the last
//   argument b.FindTensor("token_embd.weight")->offset = 1;                 // a fault const
//   std::vector<uint8_t> file = b.Build();
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "kernels/tensor_type.h"

namespace lutra::testing {

enum class GgufField {
  kMagic,
  kVersion,
  kTensorCount,
  kKeyCount,
  kKeyLength,
  kValueType,
  kStringLength,
  kArrayType,
  kArrayCount,
  kNumber,
  kNameLength,
  kNDims,
  kDim,
  kTensorType,
  kOffset,
};

class GgufBuilder {
 public:
  struct Entry {
    std::string key;
    uint32_t type_id;
    std::vector<uint8_t> value;  // everything after the type id
    // Fields inside `value`, relative to it.
    struct Part {
      GgufField kind;
      size_t at;
      size_t bytes;
    };
    std::vector<Part> parts;
  };
  struct TensorSpec {
    std::string name;
    std::vector<uint64_t> dims;
    uint32_t type_id;
    std::vector<uint8_t> bytes;
    std::optional<uint32_t> n_dims;  // instead of dims.size()
    std::optional<uint64_t> offset;  // instead of the place where the bytes are put
  };
  struct Field {
    GgufField kind;
    size_t at;
    size_t bytes;
  };

  // Faults of the header: what is written instead of the truth.
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> n_tensors;
  std::optional<uint64_t> n_keys;
  // How tensors are laid out. The key general.alignment is not set by this: see Alignment().
  uint64_t alignment = 32;
  bool pad_last = true;

  GgufBuilder& Alignment(uint32_t n) {
    alignment = n;
    return Set("general.alignment", n);
  }

  // A scalar: bool, any integer of 1, 2, 4 or 8 bytes, float, double. Replaces the key's earlier
  // value.
  template <class T>
  requires std::is_arithmetic_v<T> GgufBuilder& Set(std::string_view key, T value) {
    std::vector<uint8_t> bytes;
    Append(&bytes, value);
    return Put({std::string(key), TypeId<T>(), bytes, {{GgufField::kNumber, 0, sizeof(T)}}});
  }
  GgufBuilder& Set(std::string_view key, std::string_view text) {
    Entry entry{std::string(key), kStringId, {}, {}};
    AppendString(&entry, text);
    return Put(std::move(entry));
  }
  GgufBuilder& Set(std::string_view key, const char* text) {
    return Set(key, std::string_view(text));
  }

  template <class T>
  GgufBuilder& SetArray(std::string_view key, const std::vector<T>& values) {
    Entry entry{std::string(key), kArrayId, {}, {}};
    AppendArrayHead(&entry, TypeId<T>(), values.size());
    for (const T value : values) {
      entry.parts.push_back({GgufField::kNumber, entry.value.size(), sizeof(T)});
      Append(&entry.value, value);
    }
    return Put(std::move(entry));
  }
  GgufBuilder& SetArray(std::string_view key, const std::vector<std::string>& values) {
    Entry entry{std::string(key), kArrayId, {}, {}};
    AppendArrayHead(&entry, kStringId, values.size());
    for (const std::string& value : values) AppendString(&entry, value);
    return Put(std::move(entry));
  }
  // Any type id and bytes, right or wrong.
  GgufBuilder& SetRaw(std::string_view key, uint32_t type_id, std::vector<uint8_t> value) {
    return Put({std::string(key), type_id, std::move(value), {}});
  }
  // Like SetRaw, but a second value where the key is there already.
  GgufBuilder& AddRaw(std::string_view key, uint32_t type_id, std::vector<uint8_t> value) {
    entries.push_back({std::string(key), type_id, std::move(value), {}});
    return *this;
  }
  GgufBuilder& Remove(std::string_view key) {
    std::erase_if(entries, [&](const Entry& e) { return e.key == key; });
    return *this;
  }

  // dims[0] is the contiguous one. Without bytes: zeros, as many as the type needs. References stay
  // valid.
  TensorSpec& Tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type_id,
                     std::vector<uint8_t> bytes) {
    return tensors.emplace_back(TensorSpec{std::string(name), std::move(dims), type_id,
                                           std::move(bytes), std::nullopt, std::nullopt});
  }
  TensorSpec& Tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type_id) {
    uint64_t bytes = 0;
    if (const TensorTypeInfo* type = FindTensorType(type_id); type != nullptr && !dims.empty()) {
      bytes = RowBytes(*type, dims[0]);
      for (size_t i = 1; i < dims.size(); ++i) bytes *= dims[i];
    }
    return Tensor(name, std::move(dims), type_id, std::vector<uint8_t>(bytes));
  }
  TensorSpec& F32(std::string_view name, std::vector<uint64_t> dims,
                  const std::vector<float>& values) {
    std::vector<uint8_t> bytes(values.size() * sizeof(float));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return Tensor(name, std::move(dims), 0, std::move(bytes));
  }
  TensorSpec* FindTensor(std::string_view name) {
    for (TensorSpec& t : tensors) {
      if (t.name == name) return &t;
    }
    return nullptr;
  }

  // The file. Also fills fields().
  std::vector<uint8_t> Build() {
    fields_.clear();
    std::vector<uint8_t> out(magic.begin(), magic.end());
    fields_.push_back({GgufField::kMagic, 0, magic.size()});
    Emit(&out, GgufField::kVersion, version);
    Emit<uint64_t>(&out, GgufField::kTensorCount, n_tensors.value_or(tensors.size()));
    Emit<uint64_t>(&out, GgufField::kKeyCount, n_keys.value_or(entries.size()));
    for (const Entry& entry : entries) {
      Emit<uint64_t>(&out, GgufField::kKeyLength, entry.key.size());
      out.insert(out.end(), entry.key.begin(), entry.key.end());
      Emit(&out, GgufField::kValueType, entry.type_id);
      for (const Entry::Part& part : entry.parts)
        fields_.push_back({part.kind, out.size() + part.at, part.bytes});
      out.insert(out.end(), entry.value.begin(), entry.value.end());
    }
    uint64_t offset = 0;
    for (const TensorSpec& tensor : tensors) {
      Emit<uint64_t>(&out, GgufField::kNameLength, tensor.name.size());
      out.insert(out.end(), tensor.name.begin(), tensor.name.end());
      Emit(&out, GgufField::kNDims,
           tensor.n_dims.value_or(static_cast<uint32_t>(tensor.dims.size())));
      for (const uint64_t dim : tensor.dims) Emit(&out, GgufField::kDim, dim);
      Emit(&out, GgufField::kTensorType, tensor.type_id);
      Emit(&out, GgufField::kOffset, tensor.offset.value_or(offset));
      offset += PadTo(tensor.bytes.size());
    }
    header_bytes_ = out.size();
    if (tensors.empty()) return out;
    out.resize(PadTo(out.size()));
    for (size_t i = 0; i < tensors.size(); ++i) {
      out.insert(out.end(), tensors[i].bytes.begin(), tensors[i].bytes.end());
      if (i + 1 < tensors.size() || pad_last) out.resize(PadTo(out.size()));
    }
    return out;
  }
  // Of the latest Build: where each field lies; and where the tensor infos end.
  const std::vector<Field>& fields() const { return fields_; }
  size_t header_bytes() const { return header_bytes_; }

  void WriteFile(const std::string& path) {
    const std::vector<uint8_t> bytes = Build();
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    if (!out.good()) std::fprintf(stderr, "cannot write %s\n", path.c_str());
  }

  std::vector<Entry> entries;
  std::deque<TensorSpec> tensors;

  static constexpr uint32_t kStringId = 8;
  static constexpr uint32_t kArrayId = 9;
  template <class T>
  static constexpr uint32_t TypeId() {
    if constexpr (std::is_same_v<T, bool>)
      return 7;
    else if constexpr (std::is_same_v<T, float>)
      return 6;
    else if constexpr (std::is_same_v<T, double>)
      return 12;
    else if constexpr (sizeof(T) == 1)
      return std::is_signed_v<T> ? 1 : 0;
    else if constexpr (sizeof(T) == 2)
      return std::is_signed_v<T> ? 3 : 2;
    else if constexpr (sizeof(T) == 4)
      return std::is_signed_v<T> ? 5 : 4;
    else
      return std::is_signed_v<T> ? 11 : 10;
  }
  template <class T>
  static void Append(std::vector<uint8_t>* out, T value) {
    uint8_t bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out->insert(out->end(), bytes, bytes + sizeof(T));
  }

 private:
  GgufBuilder& Put(Entry entry) {
    for (Entry& e : entries) {
      if (e.key == entry.key) {
        e = std::move(entry);
        return *this;
      }
    }
    entries.push_back(std::move(entry));
    return *this;
  }
  static void AppendString(Entry* entry, std::string_view text) {
    entry->parts.push_back({GgufField::kStringLength, entry->value.size(), 8});
    Append<uint64_t>(&entry->value, text.size());
    entry->value.insert(entry->value.end(), text.begin(), text.end());
  }
  static void AppendArrayHead(Entry* entry, uint32_t type_id, uint64_t count) {
    entry->parts.push_back({GgufField::kArrayType, 0, 4});
    entry->parts.push_back({GgufField::kArrayCount, 4, 8});
    Append(&entry->value, type_id);
    Append(&entry->value, count);
  }
  template <class T>
  void Emit(std::vector<uint8_t>* out, GgufField kind, T value) {
    fields_.push_back({kind, out->size(), sizeof(T)});
    Append(out, value);
  }
  uint64_t PadTo(uint64_t n) const { return (n + alignment - 1) / alignment * alignment; }

  std::vector<Field> fields_;
  size_t header_bytes_ = 0;
};

}  // namespace lutra::testing
