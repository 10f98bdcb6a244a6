// A file that takes its name only when it is complete.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lutra {

// Written under a temporary name in the folder of `target` ("TARGET.partial-PID-N", locked while it is written); Commit makes it
// durable and renames it. Without Commit the destructor removes it, and what stood under the name before stays. What a process that
// was killed left of an earlier file for the same target is removed first. Throws Error(kIo, kNotFound) naming the target;
// kInvalidArgument if something other than a regular file is there. Not thread-safe.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& target);
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile();

  void Write(std::span<const uint8_t> bytes);
  // Writes again what begins the file; what was written by now is at least as long.
  void Rewrite(std::span<const uint8_t> bytes);
  // All that was written can be read under temporary_name() then.
  void Flush();
  void Commit();

  const std::string& target() const { return target_; }
  const std::string& temporary_name() const { return name_; }
  uint64_t bytes() const { return bytes_; }  // written

 private:
  static constexpr size_t kBufferBytes = size_t{1} << 20;

  void Create();
  void WriteNow(std::span<const uint8_t> bytes);
  [[noreturn]] void FailIo(const char* what) const;

  const std::string target_;
  std::string name_;
  int fd_ = -1;
  bool renamed_ = false;
  uint64_t bytes_ = 0;
  std::vector<uint8_t> buffer_;
};

}  // namespace lutra
