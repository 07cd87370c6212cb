#include "tensor/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tensor/error.h"

namespace siglip2 {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int value) : value_(value) {}
  ~FileDescriptor() {
    if (value_ >= 0) close(value_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

[[noreturn]] void throw_system_error(const std::string& path, const char* action) {
  throw Error(kErrorCheckpoint, path + ": cannot " + action + ": " + std::strerror(errno));
}

std::uint64_t page_size() {
  return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

MappedFile::MappedFile(const std::string& path, std::uint64_t begin, std::uint64_t end) {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) throw_system_error(path, "open the file");
  struct stat status{};
  if (fstat(file.get(), &status) != 0) throw_system_error(path, "read the file's size");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (begin > end || end > size)
    throw Error(kErrorCheckpoint, path + ": bytes " + std::to_string(begin) + " to " + std::to_string(end) +
                                      " were expected, but the file has " + std::to_string(size));
#if defined(__APPLE__)
  const timespec& modified = status.st_mtimespec;
#else
  const timespec& modified = status.st_mtim;
#endif
  identity_ = {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino), size,
               static_cast<std::int64_t>(modified.tv_sec) * 1'000'000'000 + modified.tv_nsec};
  base_offset_ = begin / page_size() * page_size();
  mapped_bytes_ = static_cast<std::size_t>(end - base_offset_);
  if (mapped_bytes_ == 0) return;
  void* const mapping =
      mmap(nullptr, mapped_bytes_, PROT_READ, MAP_SHARED, file.get(), static_cast<off_t>(base_offset_));
  if (mapping == MAP_FAILED) throw_system_error(path, "map the file");
  base_ = static_cast<const char*>(mapping);
}

MappedFile::~MappedFile() {
  if (base_ != nullptr) munmap(const_cast<char*>(base_), mapped_bytes_);
}

void MappedFile::release_pages(std::uint64_t begin, std::uint64_t end) const {
  const std::uint64_t page = page_size();
  const std::uint64_t first = (begin + page - 1) / page * page;
  const std::uint64_t last = end / page * page;
  if (base_ == nullptr || first < base_offset_ || first >= last) return;
  // Advice only: the pages come back from the file when they are read again.
  (void)madvise(const_cast<char*>(at(first)), static_cast<std::size_t>(last - first), MADV_DONTNEED);
}

}  // namespace siglip2
