// What an importance matrix says about each tensor: how unevenly its columns matter. Source of the measures: llama.cpp's imatrix tool
// (--show-statistics).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/imatrix.h"

namespace lutra {

// Of the mean squared activations of all columns (of all matrices that have data).
struct ImatrixStatistics {
  std::string tensor;  // "attn_q" of "blk.3.attn_q.weight"; else the whole name
  int32_t layer = -1;  // 3; -1 outside the layers
  size_t n = 0;        // columns with data
  double sum = 0, min = 0, max = 0, mean = 0, stddev = 0;
  double active = 0;   // share of columns above 1e-5
  double entropy = 0;  // of the columns' shares of the sum, in bits
  double normalized_entropy =
      0;                // divided by its largest value log2(n); 1: all columns matter alike
  double outliers = 0;  // share of columns more than one standard deviation above the mean
  double cosine =
      0;  // similarity of the sums to those of the same tensor one layer before; 0 in the first
};

// Tensors without data are left out. Ordered by tensor, then by falling sum.
std::vector<ImatrixStatistics> StatisticsOf(const Imatrix& imatrix);

// Averages over the tensors of a layer, weighted by their columns.
struct ImatrixLayerStatistics {
  int32_t layer;
  double sum, outliers, cosine;
};
std::vector<ImatrixLayerStatistics> LayerStatisticsOf(
    const std::vector<ImatrixStatistics>& tensors);

}  // namespace lutra
