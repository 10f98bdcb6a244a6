// Importance matrices: for every weight matrix the squared activations that met its columns, summed
// over a text. Reading of both forms: GGUF (llama.cpp) and the older binary one (".dat").
// Source: llama.cpp tools/imatrix (facts of the formats).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lutra {

// What was seen of one weight tensor. A tensor of experts has a matrix an expert, one behind the
// other as in the tensor; all others have one matrix.
struct ImatrixEntry {
  uint64_t n_matrices = 1;
  uint64_t n_columns = 0;
  // [n_matrices, n_columns]: sums of x^2 over `counts` rows of activations. In the older form the
  // unit of counts is a chunk, and sums are the mean over rows times that.
  std::vector<float> sums;
  std::vector<float> counts;  // [n_matrices]

  // sums / counts of one matrix, column by column; all 1 where its count is 0. Finite and >= 0.
  std::vector<float> Means(uint64_t matrix) const;
};

struct Imatrix {
  std::string path;
  bool legacy = false;  // from the older form
  std::vector<std::string> datasets;
  uint32_t chunk_count = 0;                                  // chunks that were seen; 0: not told
  uint32_t chunk_size = 0;                                   // tokens a chunk; 0: not told
  std::map<std::string, ImatrixEntry, std::less<>> entries;  // by the weight's name

  // The form is told by the first bytes. Throws Error: kNotFound, kIo, kCorrupt (file, entry,
  // value: also for values that are negative or not finite).
  static Imatrix Read(const std::string& path);
  // The same over bytes in memory; `name` stands for the path.
  static Imatrix FromBytes(std::span<const uint8_t> bytes, const std::string& name);

  // The entry of a weight, or of the one that meets the same activations (a gate for its up
  // product, and what fused tensors are called); nullptr if there is none.
  const ImatrixEntry* Find(std::string_view weight) const;
};

}  // namespace lutra
