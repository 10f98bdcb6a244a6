// What is said about repeated measurements.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lutra::bench {

// All of the following give 0 for too few values.
double Mean(std::span<const double> x);
// Of a sample (n - 1), as llama-bench prints it.
double StandardDeviation(std::span<const double> x);
// Linear between the two nearest values; q within [0, 1].
double Quantile(std::span<const double> x, double q);
double Median(std::span<const double> x);
// 1.4826 times the median distance from the median: the standard deviation of normal data, and hardly moved by outliers.
double RobustSpread(std::span<const double> x);

// Percentile bootstrap of the median (Efron 1979): where the median of such samples lies with probability `level`.
struct Interval {
  double low, high;
};
Interval BootstrapMedian(std::span<const double> x, double level = 0.95, int n_resamples = 10'000,
                         uint64_t seed = 1);

}  // namespace lutra::bench
