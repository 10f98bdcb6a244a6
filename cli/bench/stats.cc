#include "cli/bench/stats.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace lutra::bench {

double Mean(std::span<const double> x) {
  if (x.empty()) return 0;
  double sum = 0;
  for (const double v : x) sum += v;
  return sum / static_cast<double>(x.size());
}

double StandardDeviation(std::span<const double> x) {
  if (x.size() < 2) return 0;
  const double mean = Mean(x);
  double sum = 0;
  for (const double v : x) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / static_cast<double>(x.size() - 1));
}

double Quantile(std::span<const double> x, double q) {
  if (x.empty()) return 0;
  std::vector<double> sorted(x.begin(), x.end());
  std::sort(sorted.begin(), sorted.end());
  const double at = q * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(at);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double part = at - static_cast<double>(below);
  return sorted[below] + part * (sorted[below + 1] - sorted[below]);
}

double Median(std::span<const double> x) { return Quantile(x, 0.5); }

double RobustSpread(std::span<const double> x) {
  const double median = Median(x);
  std::vector<double> distance;
  for (const double v : x) distance.push_back(std::abs(v - median));
  return 1.4826 * Median(distance);
}

Interval BootstrapMedian(std::span<const double> x, double level, int n_resamples, uint64_t seed) {
  if (x.empty()) return {0, 0};
  std::mt19937_64 random(seed);
  std::vector<double> medians, sample(x.size());
  for (int i = 0; i < n_resamples; ++i) {
    for (double& v : sample) v = x[random() % x.size()];
    medians.push_back(Median(sample));
  }
  return {Quantile(medians, (1 - level) / 2), Quantile(medians, (1 + level) / 2)};
}

}  // namespace lutra::bench
