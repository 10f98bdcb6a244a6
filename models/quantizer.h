// A model file in, the same model in other tensor types out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/parallel.h"
#include "models/gguf.h"
#include "models/imatrix.h"
#include "models/model_quality.h"
#include "models/quantize_mix.h"

namespace lutra {

struct QuantizeOptions {
  const QuantizeMix* mix = nullptr;  // required
  bool pure = false;                 // the mix's default type for every tensor
  bool leave_output = false;         // output.weight stays as it is
  const TensorTypeInfo* output_type = nullptr;
  const TensorTypeInfo* embedding_type = nullptr;
  // {regular expression (ECMAScript, searched in the name), type}; the first that matches decides, before everything else.
  std::vector<std::pair<std::string, const TensorTypeInfo*>> tensor_types;

  const Imatrix* imatrix = nullptr;
  // Weights whose names hold one of these: the only ones that use the importance matrix / that do not use it.
  std::vector<std::string> include_weights, exclude_weights;
  bool ignore_imatrix_rules = false;  // go on without importances for types that want them
  bool allow_requantize = false;      // the source may be quantized already

  // {key, value as "int:4", "float:0.5", "bool:true", "str:text"}.
  std::vector<std::pair<std::string, std::string>> override_kv;
  bool keep_split = false;  // as many files as the source has
};

struct TensorPlan {
  const GgufTensor* tensor = nullptr;
  const TensorTypeInfo* type = nullptr;  // tensor->type: copied as it is
  uint64_t bytes = 0;
  bool converts() const { return type != tensor->type; }
};

// What will be done, decided before anything is written.
struct QuantizePlan {
  std::vector<TensorPlan> tensors;  // in file order
  uint64_t n_weights = 0;
  uint64_t bytes = 0;  // of all tensors
  uint64_t source_bytes = 0;
  uint64_t n_converted = 0;  // weights of tensors that are converted
  uint32_t file_type = 0;
  std::vector<std::string> warnings;  // a line each
  double bits_per_weight() const {
    return n_weights == 0 ? 0.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(n_weights);
  }
};

// Chooses the types. Throws Error: kInvalidArgument (a bad expression, a type that wants an importance matrix and has none, an
// importance matrix of another model), kUnsupported (a quantized source without allow_requantize).
QuantizePlan PlanQuantize(const GgufFile& file, const QuantizeOptions& options);

struct QuantizeProgress {
  const TensorPlan* tensor = nullptr;
  size_t i_tensor = 0, n_tensors = 0;
  uint64_t weights_done = 0, n_weights = 0;
  uint64_t bytes_written = 0;
};

// What the written file is to tell about itself.
struct QuantizeQuality {
  ModelQuality known;  // before anything is written
  // Fills in the rest, from the complete model under a temporary name. tensor_errors are there already.
  std::function<void(const std::string& temporary_name, ModelQuality* quality)> measure;
};

// Writes `path` (or, with keep_split, "-00001-of-0000N" files named after it). Nothing appears under a final name before it is
// complete and on disk. Memory: a few slabs of rows, whatever the size of the model. Calls progress between slabs, on the
// calling thread; what it throws stops the work and removes what was written.
// With `quality` (not with several files) measures the errors of tensors, calls it and stores what it tells.
// Throws Error: kIo (also when the disk is too full, before anything is written), kCorrupt (a weight that is not finite: names
// tensor and row), kInvalidArgument (path is the source), what `quality` throws.
void WriteQuantized(const GgufFile& file, const QuantizeOptions& options, const QuantizePlan& plan,
                    ThreadPool* pool, const std::string& path,
                    const std::function<void(const QuantizeProgress&)>& progress,
                    const QuantizeQuality* quality = nullptr);

// Of a row and what it was rounded to: sums of importance * (x - y)^2 and importance * x^2 (1 for no importances).
struct RowError {
  double error = 0, square = 0;
  void operator+=(const RowError& other) {
    error += other.error;
    square += other.square;
  }
  double relative() const { return square > 0.0 ? error / square : 0.0; }
};
RowError ErrorOf(std::span<const float> x, std::span<const float> y,
                 std::span<const float> importance);

// Importances of one matrix (dims 2 and 3 counted through) of a tensor; empty if there are none. Throws Error(kInvalidArgument) if
// the entry has another number of columns.
std::vector<float> ImportanceOf(const QuantizeOptions& options, const GgufTensor& tensor,
                                uint64_t matrix);

}  // namespace lutra
