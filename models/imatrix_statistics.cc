#include "models/imatrix_statistics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string_view>

namespace lutra {
namespace {

constexpr double kActive = 1e-5;

// "blk.3.attn_q.weight": 3 and "attn_q".
void ParseName(std::string_view name, ImatrixStatistics* out) {
  out->tensor = name;
  if (!name.starts_with("blk.")) return;
  const char* end = name.data() + name.size();
  int32_t layer = 0;
  const auto [rest, error] = std::from_chars(name.data() + 4, end, layer);
  if (error != std::errc() || rest == end || *rest != '.') return;
  out->layer = layer;
  std::string_view tensor(rest + 1, static_cast<size_t>(end - rest - 1));
  if (tensor.ends_with(".weight")) tensor.remove_suffix(7);
  out->tensor = tensor;
}

double Cosine(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return 0;
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa > 0 && bb > 0 ? ab / (std::sqrt(aa) * std::sqrt(bb)) : 0;
}

}  // namespace

std::vector<ImatrixStatistics> StatisticsOf(const Imatrix& imatrix) {
  std::vector<ImatrixStatistics> all;
  std::vector<double> means;
  for (const auto& [name, entry] : imatrix.entries) {
    means.clear();
    for (uint64_t m = 0; m < entry.n_matrices; ++m) {
      const double count = static_cast<double>(entry.counts[m]);
      if (!(count > 0)) continue;
      for (uint64_t i = 0; i < entry.n_columns; ++i) {
        means.push_back(static_cast<double>(entry.sums[m * entry.n_columns + i]) / count);
      }
    }
    if (means.empty()) continue;
    ImatrixStatistics s;
    ParseName(name, &s);
    s.n = means.size();
    const double n = static_cast<double>(s.n);
    s.min = *std::min_element(means.begin(), means.end());
    s.max = *std::max_element(means.begin(), means.end());
    for (const double v : means) s.sum += v;
    s.mean = s.sum / n;
    size_t active = 0, outliers = 0;
    double variance = 0;
    for (const double v : means) {
      variance += (v - s.mean) * (v - s.mean) / n;
      active += v > kActive;
      const double share = s.sum > 0 ? v / s.sum : 0;
      if (share > 0) s.entropy -= share * std::log2(share);
    }
    s.stddev = std::sqrt(variance);
    for (const double v : means) outliers += s.stddev > 0 && v - s.mean > s.stddev;
    s.active = static_cast<double>(active) / n;
    s.outliers = static_cast<double>(outliers) / n;
    s.normalized_entropy = s.n > 1 ? s.entropy / std::log2(n) : 0;
    if (s.layer > 0) {
      const auto before = imatrix.entries.find("blk." + std::to_string(s.layer - 1) +
                                               name.substr(name.find('.', 4)));
      if (before != imatrix.entries.end()) s.cosine = Cosine(entry.sums, before->second.sums);
    }
    all.push_back(std::move(s));
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const ImatrixStatistics& a, const ImatrixStatistics& b) {
                     return a.tensor != b.tensor ? a.tensor < b.tensor : a.sum > b.sum;
                   });
  return all;
}

std::vector<ImatrixLayerStatistics> LayerStatisticsOf(
    const std::vector<ImatrixStatistics>& tensors) {
  std::map<int32_t, ImatrixLayerStatistics> layers;
  std::map<int32_t, double> columns;
  for (const ImatrixStatistics& t : tensors) {
    if (t.layer < 0) continue;
    const double n = static_cast<double>(t.n);
    ImatrixLayerStatistics& l = layers[t.layer];
    l.layer = t.layer;
    l.sum += n * t.sum;
    l.outliers += n * t.outliers;
    l.cosine += n * t.cosine;
    columns[t.layer] += n;
  }
  std::vector<ImatrixLayerStatistics> out;
  for (const auto& [layer, l] : layers) {
    const double n = columns[layer];
    out.push_back({layer, l.sum / n, l.outliers / n, l.cosine / n});
  }
  return out;
}

}  // namespace lutra
