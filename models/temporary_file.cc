#include "models/temporary_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/base/error.h"

namespace lutra {

TemporaryFile::TemporaryFile(const std::string& target) : target_(target) {
  struct stat st;
  if (::stat(target.c_str(), &st) == 0 && !S_ISREG(st.st_mode)) {
    Fail(ErrorCode::kInvalidArgument,
         "%s: exists and is not a regular file: name another file to write",
         Printable(target_, 400).c_str());
  }
  static std::atomic<unsigned> serial{0};
  name_ = target + Format(".partial-%ld-%u", static_cast<long>(::getpid()), serial++);
  fd_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) FailIo("cannot create");
  buffer_.reserve(kBufferBytes);
}

TemporaryFile::~TemporaryFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!renamed_) ::unlink(name_.c_str());
}

void TemporaryFile::Write(std::span<const uint8_t> bytes) {
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

void TemporaryFile::Commit() {
  WriteNow(buffer_);
  if (::fsync(fd_) != 0 && errno != EINVAL) FailIo("cannot write to disk");
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0) FailIo("cannot write to disk");
  if (::rename(name_.c_str(), target_.c_str()) != 0) FailIo("cannot rename");
  renamed_ = true;
  // The new name itself: best effort, the data is safe.
  const size_t slash = target_.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : target_.substr(0, slash + 1);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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
