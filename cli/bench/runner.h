// Runs a test: prompt and generation over random tokens, timed the way llama-bench times them.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cli/bench/machine.h"
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
  int delay_s = 0;  // before each test
  const std::atomic<bool>* cancel =
      nullptr;  // looked at between forward passes; then Error(kCancelled)
  std::function<void(const std::string& what)> progress;
  std::function<std::optional<Roofline>(int threads)>
      roofline;  // asked before a test is measured; may be empty
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

  // Makes room for a context of n_ctx tokens, so that tests at growing depths find what the ones before left.
  void Reserve(const TestSpec& spec, int n_ctx);

  // n_streams sequences that decode together: each gets n_prompt tokens, one after the other, then every pass adds a token to all.
  struct Batched {
    double prompt_seconds, decode_seconds;
  };
  Batched RunBatched(const TestSpec& spec, int n_streams, const RunOptions& options);

  // Measures one test. Throws Error: kResourceExhausted with the plan if memory does not suffice, kInvalidArgument for a KV cache
  // of two types.
  BenchRecord Run(const TestSpec& spec, const RunOptions& options);

 private:
  // Makes pool, decoder and cache fit the test: a cache of n_pages pages, a decoder for `logits` of a pass's tokens.
  void Prepare(const TestSpec& spec, size_t n_pages, int logits);
  uint8_t* const* Pages(int stream, int n_ctx) const;
  // Feeds n random tokens from position `pos` on.
  void Prompt(const TestSpec& spec, uint8_t* const* pages, int pos, int n);
  // The same one token at a time; appends the time of each to *token_ns, unless null.
  void Generate(int pos, int n, std::vector<uint64_t>* token_ns);
  Work WorkOf(const TestSpec& spec) const;
  int32_t RandomToken() { return static_cast<int32_t>(random_() % model_->hparams().n_vocab); }
  void CheckCancelled() const;

  ModelSource source_;
  std::unique_ptr<Model> model_;
  double load_ms_ = 0;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Decoder> decoder_;
  int decoder_tokens_ = 0, decoder_logits_ = 0;  // that it takes a pass
  KvType kv_type_ = KvType::kF16;
  AlignedArray<uint8_t> cache_;
  std::vector<uint8_t*> pages_;
  int filled_ = 0;  // positions from 0 on that hold keys and values of some tokens
  std::vector<BatchToken> batch_;
  std::mt19937 random_{1};
  EnergyMeter energy_;
  const std::atomic<bool>* cancel_ = nullptr;
};

}  // namespace lutra::bench
