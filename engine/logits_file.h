// Files of log probabilities, in the form of llama.cpp's perplexity tool (--kl-divergence-base), to compare models that do not fit
// into memory together.
//
//   "_logits_"  i32 n_ctx  i32 n_vocab  i32 n_windows  i32 tokens[n_windows * n_ctx]      little-endian
//   for each window, for its positions [n_ctx / 2, n_ctx - 1): f32 step, f32 min_log_prob, u16 codes[n_vocab], and one more code
//   of padding if n_vocab is odd (kernels/log_softmax.h: LogProbCodes).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/eval_windows.h"
#include "kernels/log_softmax.h"
#include "models/mapped_file.h"
#include "models/temporary_file.h"

namespace lutra {

// Writes a file that has its name only once it is complete.
class LogitsFileWriter {
 public:
  // Windows without a stride only. Throws Error(kInvalidArgument, kIo, kNotFound).
  LogitsFileWriter(const std::string& path, const EvalWindows& windows, uint32_t n_vocab);

  // The log probabilities after scored position scored_begin + slot of the current window. Different slots concurrently.
  void Encode(size_t slot, std::span<const float> logits, const ExpSum& sum, double log_sum);
  // Once all slots are encoded. Throws Error(kIo).
  void WriteWindow();
  // After the last window.
  void Commit() { file_.Commit(); }

 private:
  TemporaryFile file_;
  size_t row_codes_;              // u16 a row, the two floats included
  std::vector<uint16_t> window_;  // [n_scored, row_codes_]
};

// Immutable, mapped; shared by threads.
class LogitsFile {
 public:
  // Throws Error: kNotFound, kIo, kCorrupt (not such a file, truncated, numbers out of range).
  explicit LogitsFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  uint32_t n_ctx() const { return n_ctx_; }
  uint32_t n_vocab() const { return n_vocab_; }
  size_t n_windows() const { return n_windows_; }
  // [n_windows * n_ctx]
  std::vector<int32_t> Tokens() const;
  // What EvalWindows starts with. bos as there. Throws Error(kInvalidArgument) if there are fewer windows than asked for.
  EvalWindows Windows(int32_t bos, int64_t max_windows) const;

  struct Row {
    LogProbCodes scale;
    const uint16_t* codes;  // [n_vocab]
  };
  // The scale is as the file has it: perhaps no number.
  Row RowAt(size_t window, size_t slot) const;
  // Tells the system that a window is not needed any more, and checks that the file is still whole.
  void Release(size_t window) const;

 private:
  const uint8_t* WindowBytes(size_t window) const;

  MappedFile file_;
  uint32_t n_ctx_ = 0, n_vocab_ = 0;
  size_t n_windows_ = 0, n_scored_ = 0, row_bytes_ = 0;
};

}  // namespace lutra
