#include "models/imatrix_sum.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <limits>

#include "kernels/base/error.h"
#include "models/gguf_writer.h"
#include "models/temporary_file.h"

namespace lutra {
namespace {

constexpr uint32_t kF32Type = 0;  // fixed by GGUF

template <class T>
std::span<const uint8_t> BytesOf(const T* values, size_t n) {
  return {reinterpret_cast<const uint8_t*>(values), n * sizeof(T)};
}

void WriteGguf(const Imatrix& imatrix, const std::string& path) {
  GgufWriter writer;
  writer.Set("general.type", "imatrix");
  writer.SetArray("imatrix.datasets", imatrix.datasets);
  writer.Set("imatrix.chunk_count", imatrix.chunk_count);
  writer.Set("imatrix.chunk_size", imatrix.chunk_size);
  for (const auto& [weight, entry] : imatrix.entries) {
    const bool one = entry.n_matrices == 1;
    const uint64_t sums_dims[] = {entry.n_columns, entry.n_matrices},
                   counts_dims[] = {1, entry.n_matrices};
    writer.AddTensor(weight + ".in_sum2", std::span(sums_dims, one ? 1 : 2), kF32Type,
                     BytesOf(entry.sums.data(), entry.sums.size()));
    writer.AddTensor(weight + ".counts", std::span(counts_dims, one ? 1 : 2), kF32Type,
                     BytesOf(entry.counts.data(), entry.counts.size()));
  }
  writer.Write(path);
}

void WriteLegacy(const Imatrix& imatrix, const std::string& path) {
  TemporaryFile file(path);
  const auto write_int = [&](uint64_t n) {
    const int32_t value =
        static_cast<int32_t>(std::min<uint64_t>(n, std::numeric_limits<int32_t>::max()));
    file.Write(BytesOf(&value, 1));
  };
  const auto write_text = [&](const std::string& text) {
    write_int(text.size());
    file.Write(BytesOf(text.data(), text.size()));
  };
  const auto max_count = [](const ImatrixEntry& e) {
    return *std::max_element(e.counts.begin(), e.counts.end());
  };
  uint64_t n = 0;
  for (const auto& [weight, entry] : imatrix.entries) n += max_count(entry) > 0;
  write_int(n);
  const double chunk = std::max(1u, imatrix.chunk_size);
  std::vector<float> values;
  for (const auto& [weight, entry] : imatrix.entries) {
    if (!(max_count(entry) > 0)) continue;
    // At least 1: rounded up.
    const double n_calls = std::ceil(static_cast<double>(max_count(entry)) / chunk);
    write_text(weight);
    write_int(static_cast<uint64_t>(n_calls));
    write_int(entry.sums.size());
    values.resize(entry.sums.size());
    for (uint64_t m = 0; m < entry.n_matrices; ++m) {
      const double count = static_cast<double>(entry.counts[m]);
      for (uint64_t i = 0; i < entry.n_columns; ++i) {
        const size_t at = m * entry.n_columns + i;
        const double mean = count > 0 ? static_cast<double>(entry.sums[at]) / count : 1.0;
        values[at] = static_cast<float>(std::min(mean * n_calls, 3.0e38));
      }
    }
    file.Write(BytesOf(values.data(), values.size()));
  }
  write_int(imatrix.chunk_count);
  write_text(imatrix.datasets.empty() ? "" : imatrix.datasets.back());
  file.Commit();
}

}  // namespace

void ImatrixSum::Add(const std::string& weight, std::span<const double> sums,
                     std::span<const double> counts, const std::string& from) {
  Entry& e = entries_[weight];
  if (e.sums.empty()) {
    e.n_columns = sums.size() / counts.size();
    e.sums.assign(sums.begin(), sums.end());
    e.counts.assign(counts.begin(), counts.end());
    return;
  }
  // The older form does not tell how many matrices its values are: one count stands for all.
  const bool fits = e.sums.size() == sums.size() && (e.counts.size() == counts.size() ||
                                                     e.counts.size() == 1 || counts.size() == 1);
  if (!fits) {
    Fail(ErrorCode::kInvalidArgument,
         "%s: '%s' has %zu sums in %zu matrices, here it has %zu in %zu: importance matrices of "
         "different models cannot be added",
         Printable(from, 400).c_str(), Printable(weight, 80).c_str(), sums.size(), counts.size(),
         e.sums.size(), e.counts.size());
  }
  if (e.counts.size() < counts.size()) {
    e.counts.resize(counts.size(), e.counts[0]);
    e.n_columns = sums.size() / counts.size();
  }
  for (size_t i = 0; i < sums.size(); ++i) e.sums[i] += sums[i];
  for (size_t i = 0; i < e.counts.size(); ++i) e.counts[i] += counts[counts.size() == 1 ? 0 : i];
}

void ImatrixSum::Add(const Imatrix& imatrix) {
  const double unit = imatrix.legacy ? chunk_size_ : 1.0;
  std::vector<double> sums, counts;
  for (const auto& [weight, entry] : imatrix.entries) {
    sums.assign(entry.sums.begin(), entry.sums.end());
    counts.assign(entry.counts.begin(), entry.counts.end());
    for (double& v : sums) v *= unit;
    for (double& v : counts) v *= unit;
    Add(weight, sums, counts, imatrix.path);
  }
  for (const std::string& d : imatrix.datasets) datasets_.push_back(d);
}

void ImatrixSum::AddDataset(const std::string& name) {
  if (datasets_.empty() || datasets_.back() != name) datasets_.push_back(name);
}

uint32_t ImatrixSum::chunk_count() const {
  double most = 0;
  for (const auto& [weight, e] : entries_)
    most = std::max(most, *std::max_element(e.counts.begin(), e.counts.end()));
  return static_cast<uint32_t>(std::min(most / chunk_size_, 4294967295.0));
}

Imatrix ImatrixSum::Result() const {
  Imatrix out;
  out.datasets = datasets_;
  out.chunk_count = chunk_count();
  out.chunk_size = chunk_size_;
  for (const auto& [weight, e] : entries_) {
    ImatrixEntry entry;
    entry.n_matrices = e.counts.size();
    entry.n_columns = e.n_columns;
    entry.sums.assign(e.sums.begin(), e.sums.end());
    entry.counts.assign(e.counts.begin(), e.counts.end());
    for (size_t i = 0; i < entry.sums.size(); ++i) {
      if (std::isfinite(entry.sums[i])) continue;
      Fail(ErrorCode::kCorrupt,
           "%s: the activations of column %zu of matrix %zu sum to %g: they overflow or are no "
           "numbers",
           Printable(weight, 80).c_str(), i % e.n_columns, i / e.n_columns, e.sums[i]);
    }
    out.entries.emplace(weight, std::move(entry));
  }
  return out;
}

void WriteImatrix(const Imatrix& imatrix, ImatrixForm form, const std::string& path) {
  form == ImatrixForm::kGguf ? WriteGguf(imatrix, path) : WriteLegacy(imatrix, path);
}

std::vector<std::string> ImatrixGaps(const Imatrix& imatrix) {
  std::vector<std::string> lines;
  for (const auto& [weight, entry] : imatrix.entries) {
    const auto empty = std::count(entry.counts.begin(), entry.counts.end(), 0.0f);
    if (empty == 0) continue;
    lines.push_back(Format("%s: %td of %" PRIu64 " matrices have no data",
                           Printable(weight, 80).c_str(), empty, entry.n_matrices));
  }
  return lines;
}

}  // namespace lutra
