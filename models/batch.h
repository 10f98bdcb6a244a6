// What a forward pass works on: tokens of any sequences, and where their keys and values live. `models` sees spans and never
// allocates a cache; the engine owns it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kv_cache.h"
#include "models/hparams.h"

namespace lutra {

// Where the keys and values of a page of kKvPage positions lie: layer by layer, KV head by KV head, each as kv_cache.h says.
class KvLayout {
 public:
  KvLayout(const Hparams& h, KvType type);

  KvType type() const { return head_.type; }
  size_t page_bytes() const { return page_bytes_; }
  const KvHeadLayout& head() const { return head_; }
  size_t head_offset(size_t layer, size_t head) const {
    return layer_offset_[layer] + head * head_.bytes;
  }

 private:
  KvHeadLayout head_;
  size_t page_bytes_ = 0;
  std::vector<size_t> layer_offset_;
};

struct BatchToken {
  int32_t token;  // within the vocabulary
  int32_t pos;  // >= 0; earlier positions of the sequence are in the cache or earlier in this batch
  uint8_t* const*
      pages;  // of the sequence: page p holds positions [p * kKvPage, ...); enough for pos
  bool want_logits;
  bool want_hidden = false;  // the normed output of the last layer, instead of logits
};

}  // namespace lutra
