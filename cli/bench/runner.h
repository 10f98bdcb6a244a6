// Runs a test: prompt and generation over random tokens, timed the way llama-bench times them.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cli/bench/record.h"
#include "engine/engine.h"

namespace lutra::bench {

// Where weights come from.
struct ModelSource {
  std::string path;       // a GGUF file, or
  std::string synthetic;  // "SHAPE:TYPE" of models/synthetic.h
  std::string Name() const { return synthetic.empty() ? path : "synthetic " + synthetic; }
};

struct RunOptions {
  int repetitions = 5;
  bool warmup = true;
  int delay_s = 0;                            // before each test
  const std::atomic<bool>* cancel = nullptr;  // looked at between forward passes; then Error(kCancelled)
  std::function<void(const std::string& what)> progress;
};

// A loaded model with what its forward passes need, rebuilt only where a test needs it otherwise. Belongs to one thread.
class BenchModel {
 public:
  // `load_threads` pack the weights. Throws what loading throws.
  BenchModel(const ModelSource& source, int load_threads, const LoadProgress& progress = {});

  const Model& model() const { return *model_; }
  double load_ms() const { return load_ms_; }
  // "llama 1.2B IQ4_K": architecture, weights, the type most of the bytes have.
  std::string Description() const;
  uint64_t TensorBytes() const;
  uint64_t TensorWeights() const;

  // Measures one test. Throws Error: kResourceExhausted with the plan if memory does not suffice, kInvalidArgument for a KV cache
  // of two types.
  BenchRecord Run(const TestSpec& spec, const RunOptions& options);

 private:
  // Makes pool, decoder and cache fit the test.
  void Prepare(const TestSpec& spec);
  // Feeds n random tokens from position `pos` on.
  void Prompt(const TestSpec& spec, int pos, int n);
  void Generate(int pos, int n, std::vector<uint64_t>* token_ns);
  int32_t RandomToken() { return static_cast<int32_t>(random_() % model_->hparams().n_vocab); }
  void CheckCancelled() const;

  ModelSource source_;
  std::unique_ptr<Model> model_;
  double load_ms_ = 0;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Decoder> decoder_;
  int decoder_batch_ = 0;
  KvType kv_type_ = KvType::kF16;
  AlignedArray<uint8_t> cache_;
  std::vector<uint8_t*> pages_;
  int filled_ = 0;  // positions from 0 on that a test at a depth may find in the cache
  std::vector<BatchToken> batch_;
  std::mt19937 random_{1};
  const std::atomic<bool>* cancel_ = nullptr;
};

}  // namespace lutra::bench
