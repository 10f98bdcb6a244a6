// Writes blocks of a format from integers: where a block keeps its indexes, scales, table bits and biases is found by asking
// the format's own reading functions (quant_format.h), so that packing needs no second description of the layout.
//
// It works for every format whose fields are bits of their own: a bit of the block takes part in one index, one scale, one
// table bit or one bias. Formats that weave fields together (codebooks, pairs, parities) write their indexes themselves.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/quant_format.h"

namespace lutra {

template <QuantFormat F, bool kPlainIndexes = true>
class BlockPacker {
 public:
  using Block = typename F::Block;
  static constexpr size_t kWeights = F::kInfo.block_weights;
  static constexpr size_t kGroups = kWeights / F::kGroup;

  // Thread-safe; the tables are made at the first call.
  static const BlockPacker& Get() {
    static const BlockPacker packer;
    return packer;
  }

  // The values that Scale() can take, ascending.
  const std::vector<int>& scales() const { return scales_; }
  // The largest Bias().
  int max_bias() const { return max_bias_; }

  // The fields of `block` must be zero before; `scale` one of scales().
  void SetScale(Block* block, size_t g, int scale) const {
    Scatter(block, scale_[g], scale_code_[g][static_cast<size_t>(scale + 128)]);
  }
  void SetShifted(Block* block, size_t g, bool shifted) const {
    if (shifted != shifted_if_zero_) Scatter(block, shifted_[g], 1);
  }
  void SetBias(Block* block, size_t g, int bias) const {
    Scatter(block, bias_[g], static_cast<uint32_t>(bias));
  }
  void SetIndex(Block* block, size_t i, int index) const {
    const uint32_t v = static_cast<uint32_t>(index) ^ index_of_zero_;
    uint8_t* bytes = reinterpret_cast<uint8_t*>(block);
    for (size_t r = 0; r < n_runs_; ++r) {
      const Run& run = runs_[r][i];
      bytes[run.byte] =
          static_cast<uint8_t>(bytes[run.byte] | ((v >> run.from & run.mask) << run.shift));
    }
  }

 private:
  static constexpr size_t kBits = sizeof(Block) * 8;
  static constexpr size_t kMaxField = 8;

  // Bits of the block, the lowest of the value first.
  struct Field {
    size_t n = 0;
    std::array<uint16_t, kMaxField> bit{};
  };
  // Neighbouring bits of one byte that hold neighbouring bits of an index.
  struct Run {
    uint16_t byte = 0;
    uint8_t shift = 0, from = 0, mask = 0;
  };

  static Block Zero() {
    Block b;
    std::memset(&b, 0, sizeof b);
    return b;
  }
  static void Flip(Block* b, size_t bit) {
    uint8_t* bytes = reinterpret_cast<uint8_t*>(b);
    bytes[bit / 8] = static_cast<uint8_t>(bytes[bit / 8] ^ 1u << bit % 8);
  }
  static void Scatter(Block* b, const Field& field, uint32_t value) {
    for (size_t k = 0; k < field.n; ++k) {
      if (value >> k & 1) Flip(b, field.bit[k]);
    }
  }
  // The bits that change read(block), in block order.
  template <class Read>
  static Field BitsOf(Read read) {
    Field field;
    Block b = Zero();
    const int at_zero = read(b);
    for (size_t bit = 0; bit < kBits; ++bit) {
      Flip(&b, bit);
      if (read(b) != at_zero) {
        LUTRA_CHECK(field.n < kMaxField);
        field.bit[field.n++] = static_cast<uint16_t>(bit);
      }
      Flip(&b, bit);
    }
    return field;
  }
  // Orders the bits of a plain field by what they are worth.
  template <class Read>
  static void Sort(Field* field, Read read) {
    Field sorted;
    sorted.n = field->n;
    Block b = Zero();
    const int at_zero = read(b);
    for (size_t k = 0; k < field->n; ++k) {
      Flip(&b, field->bit[k]);
      const unsigned worth = static_cast<unsigned>(read(b) ^ at_zero);
      LUTRA_CHECK(std::has_single_bit(worth) &&
                  std::countr_zero(worth) < static_cast<int>(field->n));
      sorted.bit[static_cast<size_t>(std::countr_zero(worth))] = field->bit[k];
      Flip(&b, field->bit[k]);
    }
    *field = sorted;
  }

  BlockPacker() {
    for (size_t g = 0; g < kGroups; ++g) {
      const auto read_scale = [g](const Block& b) { return F::Scale(b, g); };
      scale_[g] = BitsOf(read_scale);
      for (uint32_t code = 0; code < 1u << scale_[g].n; ++code) {
        Block b = Zero();
        Scatter(&b, scale_[g], code);
        const int scale = F::Scale(b, g);
        scale_code_[g][static_cast<size_t>(scale + 128)] = static_cast<uint8_t>(code);
        if (g == 0) scales_.push_back(scale);
      }
      if constexpr (F::kShift != 0) {
        shifted_[g] = BitsOf([g](const Block& b) { return static_cast<int>(F::Shifted(b, g)); });
        shifted_if_zero_ = F::Shifted(Zero(), g);  // a format may store "not shifted" as 1
        LUTRA_CHECK(shifted_[g].n == 1);
      }
      if constexpr (F::kHasBias) {
        const auto read_bias = [g](const Block& b) { return F::Bias(b, g); };
        bias_[g] = BitsOf(read_bias);
        Sort(&bias_[g], read_bias);
        max_bias_ = bias_[g].n == 0 ? F::Bias(Zero(), g) : (1 << bias_[g].n) - 1;
      }
    }
    std::sort(scales_.begin(), scales_.end());
    scales_.erase(std::unique(scales_.begin(), scales_.end()), scales_.end());
    if constexpr (kPlainIndexes) FindIndexes();
  }

  void FindIndexes() {
    index_of_zero_ = static_cast<uint32_t>(F::Index(Zero(), 0));
    for (size_t i = 0; i < kWeights; ++i) {
      const auto read = [i](const Block& b) { return F::Index(b, i); };
      Field field = BitsOf(read);
      Sort(&field, read);
      size_t n = 0;
      for (size_t k = 0; k < field.n;) {
        size_t end = k + 1;
        while (end < field.n && field.bit[end] == field.bit[k] + (end - k) &&
               field.bit[end] / 8 == field.bit[k] / 8)
          ++end;
        LUTRA_CHECK(n < kMaxRuns);
        runs_[n++][i] = {static_cast<uint16_t>(field.bit[k] / 8),
                         static_cast<uint8_t>(field.bit[k] % 8), static_cast<uint8_t>(k),
                         static_cast<uint8_t>((1u << (end - k)) - 1)};
        k = end;
      }
      n_runs_ = n > n_runs_ ? n : n_runs_;
    }
  }

  static constexpr size_t kMaxRuns = 3;

  std::array<Field, kGroups> scale_, shifted_, bias_;
  std::array<std::array<uint8_t, 256>, kGroups> scale_code_{};
  std::vector<int> scales_;
  int max_bias_ = 0;
  bool shifted_if_zero_ = false;
  uint32_t index_of_zero_ = 0;
  size_t n_runs_ = 0;
  std::array<std::array<Run, kWeights>, kMaxRuns> runs_{};
};

}  // namespace lutra
