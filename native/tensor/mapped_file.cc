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

[[noreturn]] void throw_system_error(const std::string& path, const char* action) {
  throw Error(kErrorCheckpoint, path + ": cannot " + action + ": " + std::strerror(errno));
}

std::uint64_t page_size() {
  return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

MappedFile::MappedFile(const std::string& path, std::uint64_t begin, std::uint64_t end) : path_(path) {
  // Not blocking: opening a named pipe would wait for its other end.
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_ < 0) throw_system_error(path, "open the file");
  try {
    map(begin, end);
  } catch (...) {
    close(file_);
    throw;
  }
}

void MappedFile::map(std::uint64_t begin, std::uint64_t end) {
  struct stat status{};
  if (fstat(file_, &status) != 0) throw_system_error(path_, "read the file's size");
  if (!S_ISREG(status.st_mode)) throw Error(kErrorCheckpoint, path_ + ": expected a regular file");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (begin > end || end > size)
    throw Error(kErrorCheckpoint, path_ + ": bytes " + std::to_string(begin) + " to " + std::to_string(end) +
                                      " were expected, but the file has " + std::to_string(size));
#if defined(__APPLE__)
  const timespec &modified = status.st_mtimespec, &changed = status.st_ctimespec;
#else
  const timespec &modified = status.st_mtim, &changed = status.st_ctim;
#endif
  const auto nanoseconds = [](const timespec& time) {
    return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
  };
  identity_ = {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino), size,
               nanoseconds(modified), nanoseconds(changed)};
  base_offset_ = begin / page_size() * page_size();
  mapped_bytes_ = static_cast<std::size_t>(end - base_offset_);
  if (mapped_bytes_ == 0) return;
  void* const mapping = mmap(nullptr, mapped_bytes_, PROT_READ, MAP_SHARED, file_, static_cast<off_t>(base_offset_));
  if (mapping == MAP_FAILED) throw_system_error(path_, "map the file");
  base_ = static_cast<const char*>(mapping);
}

MappedFile::~MappedFile() {
  if (base_ != nullptr) munmap(const_cast<char*>(base_), mapped_bytes_);
  close(file_);
}

void MappedFile::check_length() const {
  struct stat status{};
  if (fstat(file_, &status) != 0) throw_system_error(path_, "read the file's size");
  if (static_cast<std::uint64_t>(status.st_size) < base_offset_ + mapped_bytes_)
    throw Error(kErrorCheckpoint,
                path_ + ": the file has been cut to " + std::to_string(status.st_size) + " bytes since it was opened");
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
