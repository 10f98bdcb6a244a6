// Reads little-endian fields from a span of bytes and never past its end: the one way bytes of a
// model file are parsed.
#pragma once

#include <cinttypes>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "kernels/base/error.h"
#include "kernels/quant_format.h"

namespace lutra {

// a * b and a + b without wrapping: false (and *out undefined) if the result does not fit in 64
// bits.
inline bool CheckedMul(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_mul_overflow(a, b, out);
}
inline bool CheckedAdd(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_add_overflow(a, b, out);
}

// A cursor over `bytes`, which must outlive it (as must `file`). Every failure is Error(kCorrupt)
// that names the file, the record (see Enter), the field, its offset and the value found. Not
// thread-safe.
class BoundedReader {
 public:
  BoundedReader(std::span<const uint8_t> bytes, const std::string& file)
      : bytes_(bytes), file_(file) {}

  uint64_t offset() const { return pos_; }
  uint64_t remaining() const { return bytes_.size() - pos_; }

  // From here on messages name record i of n of this kind ("tensor"), and its name once that is
  // known.
  void Enter(const char* kind, uint64_t i, uint64_t n) {
    kind_ = kind;
    index_ = i;
    total_ = n;
    name_ = {};
  }
  void Named(std::string_view name) { name_ = name; }
  void Leave() { kind_ = nullptr; }

  template <class T>
  T Read(const char* field) {
    return LoadLe<T>(Take(sizeof(T), field));
  }
  // The next n bytes, in place.
  const uint8_t* Take(uint64_t n, const char* field) {
    if (n > remaining()) {
      Fail(field, pos_, ErrorCode::kCorrupt,
           Format("needs %" PRIu64 " bytes, the file has %" PRIu64 " more", n, remaining()));
    }
    const uint8_t* p = bytes_.data() + pos_;
    pos_ += n;
    return p;
  }
  // A string: u64 length, then that many bytes, viewed in place. At most max_bytes.
  std::string_view ReadString(const char* field, uint64_t max_bytes) {
    const uint64_t at = pos_;
    const uint64_t n = Read<uint64_t>(field);
    if (n > remaining()) {
      Fail(field, at, ErrorCode::kCorrupt,
           Format("length %" PRIu64 ", but the file has only %" PRIu64 " more bytes", n,
                  remaining()));
    }
    if (n > max_bytes) {
      Fail(field, at, ErrorCode::kCorrupt,
           Format("length %" PRIu64 " is above the limit of %" PRIu64 " bytes", n, max_bytes));
    }
    const uint8_t* p = Take(n, field);
    return {reinterpret_cast<const char*>(p), static_cast<size_t>(n)};
  }
  // Checks that `count` records of at least min_bytes each can still follow, and that there are at
  // most max_count; before anything is allocated for them. `at` is where the count stands.
  void CheckCount(const char* field, uint64_t at, uint64_t count, uint64_t min_bytes,
                  uint64_t max_count) const {
    if (count > remaining() / min_bytes) {
      Fail(field, at, ErrorCode::kCorrupt,
           Format("%" PRIu64 " cannot fit in the %" PRIu64 " bytes that follow", count,
                  remaining()));
    }
    if (count > max_count) {
      Fail(field, at, ErrorCode::kResourceExhausted,
           Format("%" PRIu64 " is above the limit of %" PRIu64, count, max_count));
    }
  }

  // Throws "FILE: KIND I of N 'NAME': FIELD (at byte AT): TEXT".
  [[noreturn]] void Fail(const char* field, uint64_t at, ErrorCode code,
                         const std::string& text) const {
    throw Error(code, Where(field, at) + text);
  }
  // The part of a message before its text.
  std::string Where(const char* field, uint64_t at) const {
    std::string where = Printable(file_, 400) + ": ";
    if (kind_ != nullptr) {
      where += Format("%s %llu of %llu", kind_, static_cast<unsigned long long>(index_ + 1),
                      static_cast<unsigned long long>(total_));
      if (name_.data() != nullptr) where += " '" + Printable(name_, 80) + "'";
      where += ": ";
    }
    return where + Format("%s (at byte %llu): ", field, static_cast<unsigned long long>(at));
  }

 private:
  std::span<const uint8_t> bytes_;
  const std::string& file_;
  uint64_t pos_ = 0;
  const char* kind_ = nullptr;
  uint64_t index_ = 0;
  uint64_t total_ = 0;
  std::string_view name_;
};

}  // namespace lutra
