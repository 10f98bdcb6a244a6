#include "engine/logits_file.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/base/error.h"

namespace lutra {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[8] = {'_', 'l', 'o', 'g', 'i', 't', 's', '_'};
constexpr size_t kHeaderBytes = sizeof kMagic + 3 * sizeof(int32_t);

size_t RowCodes(uint32_t n_vocab) { return (size_t{n_vocab} + 1) / 2 * 2 + 4; }

template <class T>
std::span<const uint8_t> BytesOf(const T* values, size_t n) {
  return {reinterpret_cast<const uint8_t*>(values), n * sizeof(T)};
}

}  // namespace

LogitsFileWriter::LogitsFileWriter(const std::string& path, const EvalWindows& windows,
                                   uint32_t n_vocab)
    : file_(path), row_codes_(RowCodes(n_vocab)), window_(windows.n_scored() * row_codes_) {
  if (windows.scored_begin() != windows.n_ctx() / 2) {
    Fail(ErrorCode::kInvalidArgument,
         "%s: a file of log probabilities cannot be written with a stride",
         Printable(path, 400).c_str());
  }
  const int32_t header[3] = {static_cast<int32_t>(windows.n_ctx()), static_cast<int32_t>(n_vocab),
                             static_cast<int32_t>(windows.size())};
  file_.Write(BytesOf(kMagic, sizeof kMagic));
  file_.Write(BytesOf(header, 3));
  file_.Write(BytesOf(windows.tokens().data(), windows.size() * windows.n_ctx()));
}

void LogitsFileWriter::Encode(size_t slot, std::span<const float> logits, const ExpSum& sum,
                              double log_sum) {
  uint16_t* row = &window_[slot * row_codes_];
  const LogProbCodes scale =
      EncodeLogProbs(logits.data(), logits.size(), sum, static_cast<float>(log_sum), row + 4);
  std::memcpy(row, &scale.step, sizeof(float));
  std::memcpy(row + 2, &scale.min_log_prob, sizeof(float));
}

void LogitsFileWriter::WriteWindow() { file_.Write(BytesOf(window_.data(), window_.size())); }

LogitsFile::LogitsFile(const std::string& path) : file_(path) {
  const std::span<const uint8_t> bytes = file_.bytes();
  const std::string name = Printable(path, 400);
  if (bytes.size() < kHeaderBytes || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    Fail(ErrorCode::kCorrupt,
         "%s: is no file of log probabilities (it does not begin with \"_logits_\")", name.c_str());
  }
  int32_t header[3];
  std::memcpy(header, bytes.data() + sizeof kMagic, sizeof header);
  if (header[0] < 4 || static_cast<uint32_t>(header[0]) > kMaxContext || header[1] < 1 ||
      header[2] < 1) {
    Fail(ErrorCode::kCorrupt, "%s: header says a context of %d, a vocabulary of %d and %d chunks",
         name.c_str(), header[0], header[1], header[2]);
  }
  n_ctx_ = static_cast<uint32_t>(header[0]);
  n_vocab_ = static_cast<uint32_t>(header[1]);
  n_windows_ = static_cast<size_t>(header[2]);
  n_scored_ = n_ctx_ - 1 - n_ctx_ / 2;
  row_bytes_ = RowCodes(n_vocab_) * sizeof(uint16_t);
  // At most 2^31 * (2^24 * 4 + 2^23 * 2^33): beyond 64 bits, so in floating point first.
  const double wanted =
      static_cast<double>(kHeaderBytes) +
      static_cast<double>(n_windows_) *
          (4.0 * n_ctx_ + static_cast<double>(n_scored_) * static_cast<double>(row_bytes_));
  if (static_cast<double>(bytes.size()) < wanted) {
    Fail(ErrorCode::kCorrupt,
         "%s: has %zu bytes; %zu chunks of %u tokens with a vocabulary of %u take %.0f",
         name.c_str(), bytes.size(), n_windows_, n_ctx_, n_vocab_, wanted);
  }
  const std::vector<int32_t> tokens = Tokens();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || static_cast<uint32_t>(tokens[i]) >= n_vocab_) {
      Fail(ErrorCode::kCorrupt, "%s: token %zu is %d, outside the vocabulary of %u", name.c_str(),
           i, tokens[i], n_vocab_);
    }
  }
}

std::vector<int32_t> LogitsFile::Tokens() const {
  std::vector<int32_t> tokens(n_windows_ * n_ctx_);
  std::memcpy(tokens.data(), file_.bytes().data() + kHeaderBytes, tokens.size() * sizeof(int32_t));
  return tokens;
}

EvalWindows LogitsFile::Windows(int32_t bos, int64_t max_windows) const {
  return EvalWindows(Tokens(), bos, {n_ctx_, max_windows, 0, 0});
}

const uint8_t* LogitsFile::WindowBytes(size_t window) const {
  return file_.bytes().data() + kHeaderBytes + n_windows_ * n_ctx_ * sizeof(int32_t) +
         window * n_scored_ * row_bytes_;
}

LogitsFile::Row LogitsFile::RowAt(size_t window, size_t slot) const {
  const uint8_t* bytes = WindowBytes(window) + slot * row_bytes_;
  Row row;
  std::memcpy(&row.scale.step, bytes, sizeof(float));
  std::memcpy(&row.scale.min_log_prob, bytes + sizeof(float), sizeof(float));
  // Every part of the file is a multiple of 4 bytes long.
  row.codes = reinterpret_cast<const uint16_t*>(bytes + 2 * sizeof(float));
  return row;
}

void LogitsFile::Release(size_t window) const {
  file_.Release(WindowBytes(window), n_scored_ * row_bytes_);
  file_.CheckNotTruncated();
}

}  // namespace lutra
