#include "models/imatrix.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/base/error.h"
#include "models/bounded_reader.h"
#include "models/gguf.h"
#include "models/mapped_file.h"

namespace lutra {
namespace {

constexpr std::string_view kSumsSuffix = ".in_sum2";
constexpr std::string_view kCountsSuffix = ".counts";
constexpr uint64_t kMaxEntries = kGgufMaxTensors;
constexpr uint64_t kMaxNameBytes = 4096;

void CheckValues(const std::string& file, const std::string& entry, const char* what,
                 std::span<const float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i]) && values[i] >= 0.0f) continue;
    Fail(ErrorCode::kCorrupt, "%s: entry '%s': %s %zu is %g: it must be finite and not negative",
         Printable(file, 400).c_str(), Printable(entry, 80).c_str(), what, i,
         static_cast<double>(values[i]));
  }
}

std::vector<float> Floats(const GgufTensor& tensor, const std::string& file) {
  if (tensor.type->id != 0) {
    Fail(ErrorCode::kCorrupt, "%s: tensor '%s' has type %s, an importance matrix holds F32",
         Printable(file, 400).c_str(), Printable(tensor.name, 80).c_str(), tensor.type->name);
  }
  std::vector<float> values(tensor.n_weights());
  std::memcpy(values.data(), tensor.data, values.size() * sizeof(float));
  return values;
}

Imatrix FromGguf(const GgufFile& file) {
  Imatrix out;
  out.path = file.path();
  const auto kind = file.GetString("general.type");
  if (kind && *kind != "imatrix") {
    Fail(ErrorCode::kCorrupt, "%s: general.type is '%s': this is no importance matrix",
         Printable(out.path, 400).c_str(), Printable(*kind, 40).c_str());
  }
  if (const auto* datasets = file.GetStrings("imatrix.datasets")) {
    for (const std::string_view d : *datasets) out.datasets.emplace_back(d);
  }
  out.chunk_count = file.GetU32("imatrix.chunk_count").value_or(0);
  out.chunk_size = file.GetU32("imatrix.chunk_size").value_or(0);
  for (const GgufTensor& tensor : file.tensors()) {
    if (!tensor.name.ends_with(kSumsSuffix)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - kSumsSuffix.size());
    ImatrixEntry entry;
    entry.n_columns = tensor.dim(0);
    entry.n_matrices = tensor.n_weights() / tensor.dim(0);
    entry.sums = Floats(tensor, out.path);
    const GgufTensor* counts = file.FindTensor(name + std::string(kCountsSuffix));
    if (counts == nullptr || counts->n_weights() != entry.n_matrices) {
      Fail(ErrorCode::kCorrupt, "%s: entry '%s': needs a tensor '%s%s' of %" PRIu64 " counts",
           Printable(out.path, 400).c_str(), Printable(name, 80).c_str(),
           Printable(name, 80).c_str(), std::string(kCountsSuffix).c_str(), entry.n_matrices);
    }
    entry.counts = Floats(*counts, out.path);
    CheckValues(out.path, name, "sum", entry.sums);
    CheckValues(out.path, name, "count", entry.counts);
    out.entries.emplace(name, std::move(entry));
  }
  if (out.entries.empty()) {
    Fail(ErrorCode::kCorrupt,
         "%s: holds no importance matrix (no tensor's name ends in '%s'): make one with lutra "
         "imatrix",
         Printable(out.path, 400).c_str(), std::string(kSumsSuffix).c_str());
  }
  return out;
}

// i32 n; n x {i32 bytes, name, i32 n_calls, i32 n_values, f32 values}; then perhaps i32 n_chunks and
// i32 bytes, data set. The values do not tell how many matrices they are: a tensor of experts has
// all behind each other, and whoever uses the entry knows the columns.
Imatrix FromLegacy(std::span<const uint8_t> bytes, const std::string& name) {
  Imatrix out;
  out.path = name;
  out.legacy = true;
  BoundedReader in(bytes, name);
  const auto read_count = [&](const char* field, uint64_t min_bytes, uint64_t max) {
    const uint64_t at = in.offset();
    const int32_t n = in.Read<int32_t>(field);
    if (n < 0) in.Fail(field, at, ErrorCode::kCorrupt, Format("%d is negative", n));
    in.CheckCount(field, at, static_cast<uint64_t>(n), min_bytes, max);
    return static_cast<uint64_t>(n);
  };
  const uint64_t n = read_count("number of entries", 12, kMaxEntries);
  if (n == 0) {
    in.Fail("number of entries", 0, ErrorCode::kCorrupt, "there is none: no importance matrix");
  }
  for (uint64_t i = 0; i < n; ++i) {
    in.Enter("entry", i, n);
    const uint64_t name_bytes = read_count("length of its name", 1, kMaxNameBytes);
    const uint8_t* p = in.Take(name_bytes, "name");
    const std::string weight(reinterpret_cast<const char*>(p), name_bytes);
    in.Named(weight);
    const uint64_t at = in.offset();
    const int32_t n_calls = in.Read<int32_t>("number of calls");
    if (n_calls < 0) in.Fail("number of calls", at, ErrorCode::kCorrupt, Format("%d", n_calls));
    ImatrixEntry entry;
    entry.n_columns = read_count("number of values", sizeof(float), uint64_t{1} << 31);
    if (entry.n_columns == 0) in.Fail("number of values", at, ErrorCode::kCorrupt, "0");
    entry.sums.resize(entry.n_columns);
    std::memcpy(entry.sums.data(), in.Take(entry.n_columns * sizeof(float), "values"),
                entry.n_columns * sizeof(float));
    // Without a count the values are means already.
    entry.counts = {n_calls > 0 ? static_cast<float>(n_calls) : 1.0f};
    CheckValues(name, weight, "value", entry.sums);
    out.entries.insert_or_assign(weight, std::move(entry));
  }
  in.Leave();
  if (in.remaining() >= 4) {
    const int32_t chunks = in.Read<int32_t>("number of chunks");
    out.chunk_count = chunks > 0 ? static_cast<uint32_t>(chunks) : 0;
  }
  if (in.remaining() >= 4) {
    const uint64_t length = read_count("length of the data set's name", 1, kMaxNameBytes);
    const uint8_t* p = in.Take(length, "name of the data set");
    out.datasets.emplace_back(reinterpret_cast<const char*>(p), length);
  }
  return out;
}

bool IsGguf(std::span<const uint8_t> bytes) {
  return bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0;
}

// Fused products record under one name only.
constexpr std::pair<std::string_view, std::string_view> kAliases[] = {
    {"ffn_gate_exps", "ffn_up_exps"},
    {"ffn_gate_exps", "ffn_gate_up_exps"},
    {"ffn_up_exps", "ffn_gate_up_exps"},
    {"ffn_up_exps", "ffn_gate_exps"},
    {"ffn_gate_up_exps", "ffn_up_exps"},
    {"ffn_gate_up_exps", "ffn_gate_exps"},
    {"ffn_gate.weight", "ffn_up.weight"},
    {"ffn_up.weight", "ffn_gate.weight"},
    {"ffn_gate_shexp", "ffn_up_shexp"},
    {"ffn_up_shexp", "ffn_gate_shexp"},
    {"attn_v_b", "attn_kv_b"},
    {"attn_kv_b", "attn_v_b"},
};

}  // namespace

std::vector<float> ImatrixEntry::Means(uint64_t matrix) const {
  std::vector<float> means(n_columns, 1.0f);
  const float count = counts[matrix];
  if (count > 0.0f) {
    for (uint64_t i = 0; i < n_columns; ++i) {
      // A sum over a tiny count may leave the range of floats.
      means[i] = std::min(sums[matrix * n_columns + i] / count, 3.0e38f);
    }
  }
  return means;
}

Imatrix Imatrix::Read(const std::string& path) {
  const MappedFile file(path);
  if (IsGguf(file.bytes())) return FromGguf(GgufFile::Open(path));
  return FromLegacy(file.bytes(), path);
}

Imatrix Imatrix::FromBytes(std::span<const uint8_t> bytes, const std::string& name) {
  return IsGguf(bytes) ? FromGguf(GgufFile::FromBytes(bytes, name)) : FromLegacy(bytes, name);
}

const ImatrixEntry* Imatrix::Find(std::string_view weight) const {
  if (const auto it = entries.find(weight); it != entries.end()) return &it->second;
  for (const auto& [from, to] : kAliases) {
    const size_t at = weight.find(from);
    if (at == std::string_view::npos) continue;
    std::string other(weight);
    other.replace(at, from.size(), to);
    if (const auto it = entries.find(other); it != entries.end()) return &it->second;
  }
  return nullptr;
}

}  // namespace lutra
