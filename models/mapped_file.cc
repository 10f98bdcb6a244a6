#include "models/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/base/error.h"

namespace lutra {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// [begin, begin + n) widened (outward) or narrowed (inward) to whole pages.
void Advise(const uint8_t* begin, size_t n, int advice, bool outward) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  uintptr_t first = reinterpret_cast<uintptr_t>(begin);
  uintptr_t last = first + n;
  if (outward) {
    first = first / page * page;
  } else {
    first = (first + page - 1) / page * page;
    last = last / page * page;
  }
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, advice);
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const std::string shown = Printable(path, 400);
  if (fd.get() < 0) {
    Fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "%s: cannot open: %s", shown.c_str(),
         std::strerror(errno));
  }
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) {
    Fail(ErrorCode::kIo, "%s: cannot stat: %s", shown.c_str(), std::strerror(errno));
  }
  if (!S_ISREG(st.st_mode)) {
    Fail(ErrorCode::kIo, "%s: not a regular file%s", shown.c_str(),
         S_ISDIR(st.st_mode) ? " but a directory: name the .gguf file in it" : "");
  }
  size_ = static_cast<size_t>(st.st_size);
  if (size_ == 0) return;  // mmap refuses empty files; an empty span says the same
  void* p = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (p == MAP_FAILED) {
    Fail(ErrorCode::kIo, "%s: cannot map %zu bytes: %s", shown.c_str(), size_, std::strerror(errno));
  }
  data_ = static_cast<const uint8_t*>(p);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::WillNeed(const uint8_t* begin, size_t n) const { Advise(begin, n, MADV_WILLNEED, true); }
void MappedFile::Release(const uint8_t* begin, size_t n) const { Advise(begin, n, MADV_DONTNEED, false); }

}  // namespace lutra
