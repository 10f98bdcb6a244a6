// A weight matrix ready to multiply, and the product itself.
//
// Quantized types are repacked into panels (kernels/panel.h) when the matrix is made; F32, F16 and BF16 rows are used where they
// lie. y[token, row] = sum_k w[row, k] * x[token, k].
//   Quantized: activations are quantized once per input (kernels/q8_activations.h); integer-exact inside a unit, one fused
//   multiply-add a unit, in order.   Float types: float activations, 16 partial sums (k % 16) of fused multiply-adds, fixed tree.
// Results do not depend on the thread count, on how tokens are batched or on the SIMD target (but for SetPrefill("fast"), kernels/dispatch.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/amx_bf16.h"
#include "kernels/base/aligned.h"
#include "kernels/base/parallel.h"
#include "kernels/panel_matmul.h"
#include "kernels/q8_activations.h"
#include "kernels/tensor_type.h"

namespace lutra {

// What a matrix wants its input as. kBf16: rounded where many tokens may be (SetPrefill), else floats.
enum class InputKind { kFloat, kBf16, kQ8x256, kQ8x32 };

// The rows of an input in every form that the matrices multiplied with it want. Filled once per input, shared by all of them.
// Owned by one forward pass at a time.
class MatrixInput {
 public:
  MatrixInput(size_t max_tokens, size_t max_cols);

  // Declares n_tokens rows x [n_cols] at x (stride x_stride floats); the data must stay until the products are done. Forms are
  // made by Prepare.
  void Set(const float* x, size_t x_stride, size_t n_tokens, size_t n_cols);
  // Makes one form for all tokens, unless made since Set. Threads of the pool share the work.
  void Prepare(InputKind kind, ThreadPool& pool);

  const float* row(size_t token) const { return x_ + token * x_stride_; }
  size_t x_stride() const { return x_stride_; }
  size_t n_tokens() const { return n_tokens_; }
  size_t n_cols() const { return n_cols_; }
  Q8View q8(InputKind kind) const;
  // Prepared as kBf16 and rounded.
  bool has_bf16() const { return has_bf16_; }
  Bf16View bf16() const { return bf16_.view(); }

  // Bytes the constructor allocates, of the SIMD choice and the kind of prefill in use.
  static size_t PlannedBytes(size_t max_tokens, size_t max_cols);

 private:
  const float* x_ = nullptr;
  size_t x_stride_ = 0, n_tokens_ = 0, n_cols_ = 0;
  Q8Activations q8x256_, q8x32_;
  Bf16Activations bf16_;  // empty where nothing is rounded
  bool has_q8x256_ = false, has_q8x32_ = false, has_bf16_ = false;
};

// Immutable after construction; shared by threads. Movable.
class Matrix {
 public:
  Matrix() = default;
  // rows: [n_rows] rows of RowBytes(type, n_cols) bytes in the GGUF type. Quantized rows are copied (repacked, by the pool's
  // threads); float rows are referenced and must outlive the matrix. Throws Error(kUnsupported) if the type cannot be computed
  // with.
  Matrix(const TensorTypeInfo& type, const uint8_t* rows, size_t n_rows, size_t n_cols,
         ThreadPool& pool);

  bool empty() const { return n_rows_ == 0; }
  size_t n_rows() const { return n_rows_; }
  size_t n_cols() const { return n_cols_; }
  InputKind input_kind() const { return input_; }
  const TensorTypeInfo& type() const { return *type_; }
  size_t packed_bytes() const { return panels_.size(); }
  // True if the bytes given to the constructor are still used.
  bool references_rows() const { return panels_.empty(); }

  // Work is cut into units of 16 rows: [0, n_units()).
  size_t n_units() const { return (n_rows_ + kUnitRows - 1) / kUnitRows; }
  static constexpr size_t kUnitRows = 16;
  // How many units the kernel for that many tokens takes at a time: ranges should be multiples.
  size_t units_at_a_time(size_t n_tokens) const;

  // Rows of units [unit_begin, unit_end) for all tokens of `x` (prepared in input_kind()). y_stride floats a token. Disjoint
  // ranges may run concurrently. Never throws.
  void Multiply(const MatrixInput& x, size_t unit_begin, size_t unit_end, float* y,
                size_t y_stride) const;

 private:
  const TensorTypeInfo* type_ = nullptr;
  size_t n_rows_ = 0, n_cols_ = 0;
  InputKind input_ = InputKind::kFloat;
  AlignedArray<uint8_t> panels_;
  PanelMatrix panel_{};
  PanelMatMulFn multiply_ = nullptr;
  PanelMatMulFn multiply_tiles_ = nullptr;  // for more than kTileMinTokens tokens, or nullptr
  Bf16MatMulFn multiply_bf16_ = nullptr;    // for inputs rounded to bf16, or nullptr
  const uint8_t* rows_ = nullptr;
};

// One product of a phase: y [n_tokens, w.n_rows] = w * x, y_stride floats a token.
struct Product {
  const Matrix* w;
  float* y;
  size_t y_stride;
};

// Computes several products of one input (prepared here in the forms they want), all rows and tokens, on the pool's threads.
void MultiplyAll(std::span<const Product> products, MatrixInput& x, ThreadPool& pool);

// Several products of one input and equally many rows, each thread the same rows of all of them; then, on that thread, finish(begin, end): rows
// [begin, end), all tokens, are there and still in its cache. begin is a multiple of kUnitRows.
void MultiplyTogether(std::span<const Product> products, MatrixInput& x, ThreadPool& pool,
                      FunctionRef<void(size_t, size_t)> finish);

// Float rows: F32, F16 and BF16, per target. Rows [row_begin, row_end), tokens [token_begin, token_end).
void FloatMatMul(uint32_t type_id, const uint8_t* w, size_t row_begin, size_t row_end,
                 size_t n_cols, const float* x, size_t x_stride, size_t token_begin,
                 size_t token_end, float* y, size_t y_stride);

}  // namespace lutra
