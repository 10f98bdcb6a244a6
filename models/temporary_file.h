// A file that takes its name only when it is complete.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lutra {

// Written under a temporary name in the folder of `target`; Commit makes it durable and renames it. Without Commit the
// destructor removes it, and what stood under the name before stays. Throws Error(kIo, kNotFound) naming the target;
// kInvalidArgument if something other than a regular file is there. Not thread-safe.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& target);
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile();

  void Write(std::span<const uint8_t> bytes);
  void Commit();

  const std::string& target() const { return target_; }

 private:
  static constexpr size_t kBufferBytes = size_t{1} << 20;

  void WriteNow(std::span<const uint8_t> bytes);
  [[noreturn]] void FailIo(const char* what) const;

  const std::string target_;
  std::string name_;
  int fd_ = -1;
  bool renamed_ = false;
  std::vector<uint8_t> buffer_;
};

}  // namespace lutra
