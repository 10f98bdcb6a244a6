#include "models/model_quality.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"

namespace lutra {
namespace {

std::string Key(const char* name) { return std::string(kQualityPrefix) + name; }

// Calls f(name, member) for every scalar.
template <class Quality, class F>
void EachScalar(Quality& q, F f) {
  f("tensor_bytes", q.tensor_bytes);
  f("reference", q.reference);
  f("text", q.text);
  f("text_sha256", q.text_sha256);
  f("text_bytes", q.text_bytes);
  f("context", q.context);
  f("chunks", q.chunks);
  f("tokens", q.tokens);
  f("perplexity", q.perplexity.value);
  f("perplexity_error", q.perplexity.error);
  f("reference_perplexity", q.reference_perplexity.value);
  f("reference_perplexity_error", q.reference_perplexity.error);
  f("perplexity_ratio", q.perplexity_ratio.value);
  f("perplexity_ratio_error", q.perplexity_ratio.error);
  f("kl_divergence", q.kl_divergence.value);
  f("kl_divergence_error", q.kl_divergence.error);
  f("kl_divergence_99", q.kl_divergence_99);
  f("kl_divergence_max", q.kl_divergence_max);
  f("same_top", q.same_top.value);
  f("same_top_error", q.same_top.error);
  f("importance", q.importance);
}

// Reads a key into a member, which stays as it is if there is no such key.
struct Reader {
  const GgufFile& file;
  template <class T>
  static void Take(const std::optional<T>& value, auto* to) {
    if (value) *to = *value;
  }
  void operator()(const char* name, std::string& to) const { Take(file.GetString(Key(name)), &to); }
  void operator()(const char* name, uint64_t& to) const { Take(file.GetU64(Key(name)), &to); }
  void operator()(const char* name, uint32_t& to) const { Take(file.GetU32(Key(name)), &to); }
  void operator()(const char* name, float& to) const { Take(file.GetF32(Key(name)), &to); }
  void operator()(const char* name, bool& to) const { Take(file.GetBool(Key(name)), &to); }
};

}  // namespace

void ModelQuality::Write(GgufWriter* writer) const {
  EachScalar(*this, [&](const char* name, const auto& value) { writer->Set(Key(name), value); });
  writer->SetArray(Key("tensor_errors"), tensor_errors);
}

std::optional<ModelQuality> ModelQuality::Read(const GgufFile& file) {
  ModelQuality q;
  EachScalar(q, Reader{file});
  uint64_t bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) bytes += tensor.bytes;
  if (q.tensor_bytes != bytes) return std::nullopt;
  q.tensor_errors = file.GetF32s(Key("tensor_errors")).value_or(std::vector<float>());
  if (q.tensor_errors.size() != file.tensors().size()) {
    Fail(ErrorCode::kCorrupt, "%s: key '%stensor_errors': has %zu values for %zu tensors",
         Printable(file.path(), 400).c_str(), kQualityPrefix.data(), q.tensor_errors.size(),
         file.tensors().size());
  }
  return q;
}

std::vector<size_t> ModelQuality::WorstTensors(size_t n) const {
  std::vector<size_t> order;
  for (size_t i = 0; i < tensor_errors.size(); ++i) {
    if (tensor_errors[i] > 0.0f) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return tensor_errors[a] > tensor_errors[b]; });
  order.resize(std::min(order.size(), n));
  return order;
}

}  // namespace lutra
