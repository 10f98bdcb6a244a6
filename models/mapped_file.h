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
  // Bytes that live elsewhere (and must outlive this), behind the same interface; `name` stands for
  // the path.
  static MappedFile View(std::span<const uint8_t> bytes, const std::string& name);
  // Zeroed memory behind the same interface, to be filled through writable(). What is released
  // beyond the kept bytes is gone for good and reads as zeros. Throws Error(kResourceExhausted).
  static MappedFile Memory(size_t size, const std::string& name);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  uint8_t* writable() { return memory_ ? const_cast<uint8_t*>(data_) : nullptr; }
  // Of memory: Release leaves what begins in the first `kept` bytes.
  void Keep(size_t kept) { kept_ = kept; }
  // True if Release gives memory back that counts as used now (Memory).
  bool is_memory() const { return memory_; }

  // Makes the bytes writable: changes are this mapping's own, the file keeps what it has. Release would undo them. Throws
  // Error(kIo).
  uint8_t* Edit();

  // Tells the kernel that [begin, begin + n) will be read soon, in order / is not needed in memory
  // any more (of a file it can be read again). Hints: never fail. `begin` points into bytes().
  void WillNeed(const uint8_t* begin, size_t n) const;
  void Release(const uint8_t* begin, size_t n) const;

  // Throws Error(kIo) if the file became shorter since it was mapped: reading what was cut off
  // would raise SIGBUS. A file that was replaced by another under its name (rename) is still whole
  // in the mapping.
  void CheckNotTruncated() const;

 private:
  MappedFile() = default;

  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool owned_ = false;   // false: a view, nothing to unmap
  bool memory_ = false;  // anonymous, not a file
  size_t kept_ = 0;      // of memory
  uint64_t device_ = 0;  // which file was mapped
  uint64_t inode_ = 0;
};

}  // namespace lutra
