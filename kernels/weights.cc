#include "kernels/weights.h"

#include <algorithm>
#include <utility>

#include "kernels/amx_matmul.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/dequantize.h"
#include "kernels/dispatch.h"
#include "kernels/formats/float_formats.h"
#include "kernels/pack.h"

namespace lutra {

namespace {

bool RoundsToBf16() {
  return PrefillIsFast() && FindTileBf16MatMul(Bf16::kInfo.type_id) != nullptr;
}

}  // namespace

MatrixInput::MatrixInput(size_t max_tokens, size_t max_cols)
    : q8x256_(max_tokens, max_cols),
      q8x32_(max_tokens, max_cols),
      bf16_(RoundsToBf16() ? max_tokens : 0, max_cols) {}

size_t MatrixInput::PlannedBytes(size_t max_tokens, size_t max_cols) {
  return 2 * Q8Activations::PlannedBytes(max_tokens, max_cols) +
         Bf16Activations::PlannedBytes(RoundsToBf16() ? max_tokens : 0, max_cols);
}

void MatrixInput::Set(const float* x, size_t x_stride, size_t n_tokens, size_t n_cols) {
  x_ = x;
  x_stride_ = x_stride;
  n_tokens_ = n_tokens;
  n_cols_ = n_cols;
  has_q8x256_ = has_q8x32_ = has_bf16_ = false;
}

void MatrixInput::Prepare(InputKind kind, ThreadPool& pool) {
  if (kind == InputKind::kFloat) return;
  if (kind == InputKind::kBf16) {
    if (has_bf16_ || bf16_.empty() || n_tokens_ <= kTileMinTokens || !PrefillIsFast()) return;
    has_bf16_ = true;
    bf16_.Reshape(n_tokens_, n_cols_);
    pool.For(bf16_.view().n_blocks() * bf16_.view().n_tiles(),
             [&](size_t part) { bf16_.SetPart(part, x_, x_stride_); });
    return;
  }
  const bool super = kind == InputKind::kQ8x256;
  bool& has = super ? has_q8x256_ : has_q8x32_;
  if (has) return;
  has = true;
  Q8Activations& q8 = super ? q8x256_ : q8x32_;
  q8.Reshape(super ? Activations::kQ8x256 : Activations::kQ8x32, n_tokens_, n_cols_);
  // A row takes microseconds: one alone is not worth a hand-over.
  if (n_tokens_ == 1) {
    q8.SetRow(0, x_);
  } else {
    pool.For(n_tokens_, [&](size_t t) { q8.SetRow(t, row(t)); });
  }
}

Q8View MatrixInput::q8(InputKind kind) const {
  Q8View view = kind == InputKind::kQ8x256 ? q8x256_.view() : q8x32_.view();
  view.fast = PrefillIsFast();
  return view;
}

Matrix::Matrix(const TensorTypeInfo& type, const uint8_t* rows, size_t n_rows, size_t n_cols,
               ThreadPool& pool)
    : type_(&type), n_rows_(n_rows), n_cols_(n_cols) {
  if (!type.readable || FindDequantizer(type.id) == nullptr) {
    Fail(ErrorCode::kUnsupported, "tensor type %s (id %u) cannot be computed with", type.name,
         type.id);
  }
  const Packer* packer = FindPacker(type.id);
  if (packer == nullptr) {
    rows_ = rows;
    multiply_bf16_ = FindTileBf16MatMul(type.id);
    if (multiply_bf16_ != nullptr) input_ = InputKind::kBf16;
    return;
  }
  input_ = packer->activations == Activations::kQ8x256 ? InputKind::kQ8x256 : InputKind::kQ8x32;
  multiply_ = FindPanelMatMul(type.id);
  multiply_tiles_ = FindTilePanelMatMul(type.id);
  LUTRA_CHECK(multiply_ != nullptr);
  const size_t panel_bytes = packer->panel_bytes(n_cols);
  panels_ = AlignedArray<uint8_t>(n_units() * panel_bytes);
  panel_ = {panels_.data(), panel_bytes, n_rows, packer->table};
  // Neighbouring units to one thread, about a huge page of them: packing asks for the unit that follows ahead, and two threads that touch a
  // fresh huge page at once would both clear it.
  const size_t threads = static_cast<size_t>(pool.n_threads());
  const size_t per_chunk =
      std::clamp<size_t>(n_units() / (threads * 4), 1, kHugePage / panel_bytes + 1);
  pool.For((n_units() + per_chunk - 1) / per_chunk, [&](size_t chunk) {
    const size_t end = std::min(n_units(), (chunk + 1) * per_chunk);
    for (size_t u = chunk * per_chunk; u < end; ++u) {
      packer->pack(rows, n_rows, n_cols, u * kUnitRows, panels_.data() + u * panel_bytes);
    }
  });
}

void Matrix::Multiply(const MatrixInput& x, size_t unit_begin, size_t unit_end, float* y,
                      size_t y_stride) const {
  LUTRA_DCHECK(x.n_cols() == n_cols_);
  if (multiply_ != nullptr) {
    const bool tiles = multiply_tiles_ != nullptr && x.n_tokens() > kTileMinTokens;
    (tiles ? multiply_tiles_ : multiply_)(panel_, x.q8(input_), unit_begin, unit_end, y, y_stride);
  } else if (multiply_bf16_ != nullptr && x.has_bf16()) {
    multiply_bf16_(rows_, unit_begin * kUnitRows, std::min(n_rows_, unit_end * kUnitRows), x.bf16(),
                   y, y_stride);
  } else {
    FloatMatMul(type_->id, rows_, unit_begin * kUnitRows, std::min(n_rows_, unit_end * kUnitRows),
                n_cols_, x.row(0), x.x_stride(), 0, x.n_tokens(), y, y_stride);
  }
}

size_t Matrix::units_at_a_time(size_t n_tokens) const {
  const bool tiles = multiply_tiles_ != nullptr || (multiply_bf16_ != nullptr && PrefillIsFast());
  if (tiles && n_tokens > kTileMinTokens) return kTilePanels;
  return n_tokens > 4 ? 2 : 1;
}

namespace {

// Who computes what of `units`: in rounds of one share a thread, each of half of what is left, so that streams of weights are long and the
// threads still end together. Shares are whole groups as the kernels for that many tokens want them.
class Shares {
 public:
  Shares(std::span<const Product> products, size_t units, size_t n_tokens, const ThreadPool& pool)
      : units_(units), threads_(static_cast<size_t>(pool.n_threads())) {
    size_t group = 1;
    for (const Product& p : products) group = std::max(group, p.w->units_at_a_time(n_tokens));
    // Large groups only while every thread gets some.
    if (group > 2) group = std::clamp<size_t>(units / (threads_ * 3) / 2 * 2, 2, group);
    group_ = group;
    // What is done with the results wants to find them in L2.
    constexpr size_t kMostResults = 128 * 1024;
    most_ = std::max(group, kMostResults / (Matrix::kUnitRows * n_tokens) / group * group);
    Walk([&](size_t, size_t, size_t n) {
      n_ += n;
      return false;
    });
  }
  size_t n() const { return n_; }
  // Units [first, second) of share i < n().
  std::pair<size_t, size_t> at(size_t i) const {
    std::pair<size_t, size_t> found;
    Walk([&](size_t begin, size_t size, size_t n) {
      if (i >= n) {
        i -= n;
        return false;
      }
      found = {begin + i * size, std::min(units_, begin + (i + 1) * size)};
      return true;
    });
    return found;
  }

 private:
  // Calls visit(first unit, units of a share, shares) for each round until it returns true.
  template <class Visit>
  void Walk(Visit visit) const {
    for (size_t begin = 0; begin < units_;) {
      const size_t left = units_ - begin;
      const size_t half = (left / (2 * threads_) + group_ - 1) / group_ * group_;
      const size_t size = std::clamp(half, group_, most_);
      const size_t n = std::min(threads_, (left + size - 1) / size);
      if (visit(begin, size, n)) return;
      begin += n * size;
    }
  }

  size_t units_, threads_, group_, most_, n_ = 0;
};

}  // namespace

void MultiplyTogether(std::span<const Product> products, MatrixInput& x, ThreadPool& pool,
                      FunctionRef<void(size_t, size_t)> finish) {
  const size_t n_rows = products[0].w->n_rows(), units = products[0].w->n_units();
  for (const Product& p : products) {
    LUTRA_DCHECK(p.w->n_rows() == n_rows);
    x.Prepare(p.w->input_kind(), pool);
  }
  const Shares shares(products, units, x.n_tokens(), pool);
  pool.For(shares.n(), [&](size_t i) {
    const auto [begin, end] = shares.at(i);
    for (const Product& p : products) p.w->Multiply(x, begin, end, p.y, p.y_stride);
    finish(begin * Matrix::kUnitRows, std::min(n_rows, end * Matrix::kUnitRows));
  });
}

void MultiplyAll(std::span<const Product> products, MatrixInput& x, ThreadPool& pool) {
  size_t units = 0;
  for (const Product& p : products) {
    x.Prepare(p.w->input_kind(), pool);
    units += p.w->n_units();
  }
  const Shares shares(products, units, x.n_tokens(), pool);
  pool.For(shares.n(), [&](size_t i) {
    auto [begin, end] = shares.at(i);
    size_t left = end - begin;
    for (const Product& p : products) {
      if (left == 0) break;
      const size_t n = p.w->n_units();
      if (begin >= n) {
        begin -= n;
        continue;
      }
      const size_t take = std::min(left, n - begin);
      p.w->Multiply(x, begin, begin + take, p.y, p.y_stride);
      left -= take;
      begin = 0;
    }
  });
}

}  // namespace lutra
