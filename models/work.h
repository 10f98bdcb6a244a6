// What a forward pass must read and compute at least: the numbers that say how near the machine's limit a speed is.
#pragma once

#include <cstdint>

#include "models/batch.h"
#include "models/model.h"

namespace lutra {

struct Work {
  double weight_bytes = 0;  // of tensors as they are in the file, each once
  double kv_bytes = 0;      // keys and values read, each once, and written
  double int8_ops = 0;      // two a multiply-add, of quantized matrices
  double float_ops = 0;     // the same of F32, F16 and BF16 matrices, and of attention

  double bytes() const { return weight_bytes + kv_bytes; }
  double ops() const { return int8_ops + float_ops; }
  Work& operator+=(const Work& other);
};

// Of one pass of n_tokens consecutive positions from first_pos on, n_logits of which want logits. Of experts, the expected number
// touched by tokens that choose evenly and independently (exact for one token); everything else is exact.
Work WorkOfPass(const Model& model, const KvLayout& kv, size_t first_pos, size_t n_tokens,
                size_t n_logits);

}  // namespace lutra
