// A model loaded for a test, with threads, scratch and a cache of its own.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "models/model.h"

namespace lutra::testing {

// The pages of one sequence, filled with NaN: what is read before it is written shows.
class Pages {
 public:
  Pages(const KvLayout& layout, size_t n_positions) {
    for (size_t p = 0; p * kKvPage < n_positions; ++p) {
      pages_.emplace_back(layout.page_bytes());
      std::memset(pages_.back().data(), 0xFF, layout.page_bytes());
      pointers_.push_back(pages_.back().data());
    }
  }
  uint8_t* const* data() const { return pointers_.data(); }

 private:
  std::vector<AlignedArray<uint8_t>> pages_;
  std::vector<uint8_t*> pointers_;
};

class ModelRun {
 public:
  // Batches of up to max_tokens, all of which may want logits.
  ModelRun(GgufFile file, int threads, KvType kv_type, size_t max_tokens) : pool_(threads) {
    model_ = Model::Load(std::move(file), pool_);
    decoder_ = std::make_unique<Decoder>(*model_, pool_, kv_type, max_tokens, max_tokens);
  }
  // `bytes` must outlive this.
  ModelRun(const std::vector<uint8_t>& bytes, int threads, KvType kv_type, size_t max_tokens)
      : ModelRun(GgufFile::FromBytes(bytes, "test.gguf"), threads, kv_type, max_tokens) {}

  const Model& model() const { return *model_; }
  Decoder& decoder() { return *decoder_; }
  size_t n_vocab() const { return model_->hparams().n_vocab; }

  // [ids.size(), n_vocab]: the logits after each prefix of a sequence that is fed in parts of
  // `chunk` tokens.
  std::vector<float> Logits(std::span<const int32_t> ids, size_t chunk) {
    const Pages pages(decoder_->kv_layout(), ids.size());
    std::vector<float> out;
    std::vector<BatchToken> batch;
    for (size_t begin = 0; begin < ids.size(); begin += chunk) {
      batch.clear();
      for (size_t i = begin; i < std::min(ids.size(), begin + chunk); ++i) {
        batch.push_back({ids[i], static_cast<int32_t>(i), pages.data(), true});
      }
      decoder_->Forward(batch);
      for (size_t i = 0; i < batch.size(); ++i) {
        const std::span<const float> l = decoder_->logits(i);
        out.insert(out.end(), l.begin(), l.end());
      }
    }
    return out;
  }
  std::vector<float> Logits(std::span<const int32_t> ids) {
    return Logits(ids, decoder_->max_tokens());
  }

 private:
  ThreadPool pool_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Decoder> decoder_;
};

// Greatest difference over the greatest number of b.
template <class A, class B>
double RelativeDifference(const std::vector<A>& a, const std::vector<B>& b) {
  double difference = 0, greatest = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(d <= difference)) difference = d;  // NaN too
    greatest = std::max(greatest, std::fabs(static_cast<double>(b[i])));
  }
  return a.size() == b.size() ? difference / greatest : HUGE_VAL;
}

// Root mean square of the difference over that of b.
inline double RmsDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, sum = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    sum += static_cast<double>(b[i]) * b[i];
  }
  return a.size() == b.size() ? std::sqrt(difference / sum) : HUGE_VAL;
}

}  // namespace lutra::testing
