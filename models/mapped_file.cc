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
    Fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "%s: cannot open: %s",
         shown.c_str(), std::strerror(errno));
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
    Fail(ErrorCode::kIo, "%s: cannot map %zu bytes: %s", shown.c_str(), size_,
         std::strerror(errno));
  }
  data_ = static_cast<const uint8_t*>(p);
  owned_ = true;
  device_ = static_cast<uint64_t>(st.st_dev);
  inode_ = static_cast<uint64_t>(st.st_ino);
  try {
    CheckNotTruncated();
  } catch (...) {
    ::munmap(p, size_);
    throw;
  }
}

MappedFile MappedFile::View(std::span<const uint8_t> bytes, const std::string& name) {
  MappedFile file;
  file.path_ = name;
  file.data_ = bytes.data();
  file.size_ = bytes.size();
  return file;
}

MappedFile MappedFile::Memory(size_t size, const std::string& name) {
  void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    Fail(ErrorCode::kResourceExhausted, "%s: cannot get %zu bytes of memory: %s",
         Printable(name, 400).c_str(), size, std::strerror(errno));
  }
  MappedFile file;
  file.path_ = name;
  file.data_ = static_cast<const uint8_t*>(p);
  file.size_ = size;
  file.owned_ = file.memory_ = true;
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(owned_, other.owned_);
  std::swap(memory_, other.memory_);
  std::swap(kept_, other.kept_);
  std::swap(device_, other.device_);
  std::swap(inode_, other.inode_);
  return *this;
}

MappedFile::~MappedFile() {
  if (owned_) ::munmap(const_cast<uint8_t*>(data_), size_);
}

uint8_t* MappedFile::Edit() {
  uint8_t* data = const_cast<uint8_t*>(data_);
  if (owned_ && !memory_ && ::mprotect(data, size_, PROT_READ | PROT_WRITE) != 0) {
    Fail(ErrorCode::kIo, "%s: cannot get a private copy: %s", Printable(path_, 400).c_str(),
         std::strerror(errno));
  }
  return data;
}

void MappedFile::WillNeed(const uint8_t* begin, size_t n) const {
  if (owned_ && !memory_) Advise(begin, n, MADV_WILLNEED, true);
}
void MappedFile::Release(const uint8_t* begin, size_t n) const {
  if (!owned_) return;  // it would erase somebody's memory
  if (memory_ && begin < data_ + kept_) return;
  Advise(begin, n, MADV_DONTNEED, false);
}

void MappedFile::CheckNotTruncated() const {
  struct stat st;
  if (!owned_ || memory_ || ::stat(path_.c_str(), &st) != 0) return;
  const bool same =
      static_cast<uint64_t>(st.st_dev) == device_ && static_cast<uint64_t>(st.st_ino) == inode_;
  if (same && static_cast<uint64_t>(st.st_size) < size_) {
    Fail(ErrorCode::kIo,
         "%s: became shorter while it was read: %zu bytes, now %lld; is it still being written?",
         Printable(path_, 400).c_str(), size_, static_cast<long long>(st.st_size));
  }
}

}  // namespace lutra
