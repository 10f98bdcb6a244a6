#include "models/temporary_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace lutra {
namespace {

constexpr std::string_view kMark = ".partial-";

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// "123-0"
bool IsSerial(std::string_view text) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos || dash == 0 || dash + 1 == text.size()) return false;
  return text.find_first_not_of("0123456789-") == std::string_view::npos &&
         text.find('-', dash + 1) == std::string_view::npos;
}

// Removes temporary files of `target` that nobody holds the lock of: their writers were killed.
void RemoveLeftovers(const std::string& target) {
  const std::string base = target.substr(target.rfind('/') + 1) + std::string(kMark);
  std::error_code error;
  for (std::filesystem::directory_iterator it(FolderOf(target), error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(base) || !IsSerial(std::string_view(name).substr(base.size()))) continue;
    const int fd = ::open(it->path().c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0 && ::unlink(it->path().c_str()) == 0) {
      Log(LogLevel::kWarning, "%s: left by a run that was killed, removed",
          Printable(it->path().string(), 400).c_str());
    }
    ::close(fd);
  }
}

}  // namespace

TemporaryFile::TemporaryFile(const std::string& target) : target_(target) {
  struct stat st;
  if (::stat(target.c_str(), &st) == 0 && !S_ISREG(st.st_mode)) {
    Fail(ErrorCode::kInvalidArgument,
         "%s: exists and is not a regular file: name another file to write",
         Printable(target_, 400).c_str());
  }
  RemoveLeftovers(target);
  Create();
  buffer_.reserve(kBufferBytes);
}

void TemporaryFile::Create() {
  static std::atomic<unsigned> serial{0};
  for (;;) {
    name_ = target_ + Format("%s%ld-%u", kMark.data(), static_cast<long>(::getpid()), serial++);
    fd_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno == EEXIST) continue;  // of a process that had this number
    if (fd_ < 0) FailIo("cannot create");
    // Another process may have taken the file for a leftover before it was locked. Where locks are not to be had, nobody does.
    struct stat st;
    const bool taken = ::flock(fd_, LOCK_EX | LOCK_NB) != 0
                           ? errno == EWOULDBLOCK
                           : ::fstat(fd_, &st) == 0 && st.st_nlink == 0;
    if (!taken) return;
    ::close(std::exchange(fd_, -1));
    ::unlink(name_.c_str());
  }
}

TemporaryFile::~TemporaryFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!renamed_) ::unlink(name_.c_str());
}

void TemporaryFile::Write(std::span<const uint8_t> bytes) {
  bytes_ += bytes.size();
  if (buffer_.size() + bytes.size() > kBufferBytes) {
    WriteNow(buffer_);
    buffer_.clear();
    if (bytes.size() >= kBufferBytes) {
      WriteNow(bytes);
      return;
    }
  }
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

void TemporaryFile::Rewrite(std::span<const uint8_t> bytes) {
  Flush();
  if (::lseek(fd_, 0, SEEK_SET) != 0) FailIo("cannot write");
  WriteNow(bytes);
  if (::lseek(fd_, 0, SEEK_END) < 0) FailIo("cannot write");
}

void TemporaryFile::Flush() {
  WriteNow(buffer_);
  buffer_.clear();
}

void TemporaryFile::Commit() {
  Flush();
  if (::fsync(fd_) != 0 && errno != EINVAL) FailIo("cannot write to disk");
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0) FailIo("cannot write to disk");
  if (::rename(name_.c_str(), target_.c_str()) != 0) FailIo("cannot rename");
  renamed_ = true;
  // The new name itself: best effort, the data is safe.
  const int fd = ::open(FolderOf(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}

void TemporaryFile::WriteNow(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) FailIo("cannot write");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void TemporaryFile::FailIo(const char* what) const {
  const int error = errno;
  Fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "%s: %s: %s",
       Printable(target_, 400).c_str(), what, std::strerror(error));
}

}  // namespace lutra
