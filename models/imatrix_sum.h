// Adding up importance matrices, and writing them in both forms. Source of the forms: llama.cpp tools/imatrix (facts).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "models/imatrix.h"

namespace lutra {

// What was seen so far, in double. Not thread-safe.
class ImatrixSum {
 public:
  struct Entry {
    uint64_t n_columns = 0;
    std::vector<double> sums;    // [n_matrices, n_columns] of x^2
    std::vector<double> counts;  // [n_matrices] rows
  };

  // chunk_size: tokens a chunk. What files of the older form say in chunks is taken times that.
  explicit ImatrixSum(uint32_t chunk_size) : chunk_size_(chunk_size) {}

  // Adds all entries and the data sets. Throws Error(kInvalidArgument) naming both files' sizes if an entry has another shape here.
  void Add(const Imatrix& imatrix);
  // Adds to one entry, made if it is not there: sums [n_matrices, n_columns], counts [n_matrices]. `from` names the origin in errors.
  void Add(const std::string& weight, std::span<const double> sums, std::span<const double> counts,
           const std::string& from);
  // Behind the others, unless it is the last one already.
  void AddDataset(const std::string& name);

  const std::map<std::string, Entry>& entries() const { return entries_; }
  uint32_t chunk_size() const { return chunk_size_; }
  // The rows of the busiest matrix, in whole chunks.
  uint32_t chunk_count() const;

  // As float. Throws Error(kCorrupt) naming the tensor if a sum is no number or infinite: the model is broken.
  Imatrix Result() const;

 private:
  uint32_t chunk_size_;
  std::map<std::string, Entry> entries_;
  std::vector<std::string> datasets_;
};

enum class ImatrixForm { kGguf, kLegacy };

// Complete or not at all. The older form leaves out entries without any count and writes 1 for matrices that have none. Throws
// Error(kIo, kNotFound).
void WriteImatrix(const Imatrix& imatrix, ImatrixForm form, const std::string& path);

// Weights of experts that the text did not reach, e.g. "blk.3.ffn_up_exps.weight: 5 of 64 matrices have no data"; one a tensor.
std::vector<std::string> ImatrixGaps(const Imatrix& imatrix);

}  // namespace lutra
