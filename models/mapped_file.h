// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace lutra {

// Movable owner of a read-only mapping. Throws Error(kNotFound, kIo) naming the path.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Tells the kernel that [begin, begin + n) will be read soon, in order / is not needed in memory any more (it can be
  // read again from the file). Hints: never fail. `begin` points into bytes().
  void WillNeed(const uint8_t* begin, size_t n) const;
  void Release(const uint8_t* begin, size_t n) const;

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace lutra
