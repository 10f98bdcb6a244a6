// Aligned, uninitialised arrays: the one place that allocates memory for numbers.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace lutra {

inline constexpr size_t kAlignment = 64;  // a cache line; the widest SIMD vector we use
inline constexpr size_t kHugePage = size_t{2} << 20;

// At least kHugePage bytes, aligned to kHugePage, in huge pages as far as the system gives them and they are filled whole: weights are read
// in long runs, where small pages cost translations and stop prefetching. Freed by std::free. nullptr if out of memory.
void* AllocateHuge(size_t bytes);

// Owns `size` trivially constructible elements, aligned to `kAlignment`, not initialised. Movable, not copyable.
// Throws std::bad_alloc.
template <class T>
class AlignedArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedArray() = default;
  explicit AlignedArray(size_t size)
      : data_(size == 0 ? nullptr : static_cast<T*>(Allocate(size))), size_(size) {}
  AlignedArray(AlignedArray&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  AlignedArray& operator=(AlignedArray&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }

 private:
  static void* Allocate(size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(size, sizeof(T), &bytes) ||
        __builtin_add_overflow(bytes, kAlignment - 1, &bytes)) {
      throw std::bad_alloc();
    }
    bytes = bytes / kAlignment * kAlignment;
    void* p = bytes < kHugePage ? std::aligned_alloc(kAlignment, bytes) : AllocateHuge(bytes);
    if (p == nullptr) throw std::bad_alloc();
    return p;
  }
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T[], Free> data_;
  size_t size_ = 0;
};

}  // namespace lutra
