// What a quantized model lost, as its file tells it: the keys lutra.quality.*.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/gguf.h"
#include "models/gguf_writer.h"

namespace lutra {

inline constexpr std::string_view kQualityPrefix = "lutra.quality.";

// Measured against the model it was quantized from, over the chunks of a text. Values are those of engine/kl_divergence.h, errors
// standard errors.
struct ModelQuality {
  struct Value {
    float value = 0, error = 0;
  };
  uint64_t tensor_bytes =
      0;  // of the file described: other programs carry keys over to files they are not true of
  std::string reference;    // file name of the source
  std::string text;         // file name
  std::string text_sha256;  // of all its bytes, hexadecimal
  uint64_t text_bytes = 0;
  uint32_t context = 0;  // tokens a chunk
  uint32_t chunks = 0;   // measured; 0: only the tensors were
  uint64_t tokens = 0;   // scored
  Value perplexity, reference_perplexity, perplexity_ratio, kl_divergence, same_top;
  float kl_divergence_99 = 0, kl_divergence_max = 0;  // percentile, maximum
  // Root of sum importance * (w - w')^2 / sum importance * w^2, tensor by tensor in file order; 0 for those that were copied.
  std::vector<float> tensor_errors;
  bool importance = false;  // errors are weighted by an importance matrix

  // The same strings and number of tensors always take the same bytes.
  void Write(GgufWriter* writer) const;
  // nullopt if the file has none that is its own. Throws Error(kCorrupt) for values that are no such thing.
  static std::optional<ModelQuality> Read(const GgufFile& file);

  // Indexes of the tensors with the largest errors, at most n, largest first.
  std::vector<size_t> WorstTensors(size_t n) const;
};

}  // namespace lutra
