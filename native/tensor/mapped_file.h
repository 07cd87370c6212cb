// A range of a file in memory, read-only. The only file that knows about mmap is mapped_file.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace siglip2 {

// What tells one file from another, whatever name it is reached by.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t modified_nanoseconds = 0;
  std::int64_t changed_nanoseconds = 0;  // of contents, name or owner, by the clock of the system alone
};

class MappedFile {
 public:
  // Maps the bytes [begin, end). Throws ERR_SIGLIP_CHECKPOINT when the file cannot be read or is shorter.
  MappedFile(const std::string& path, std::uint64_t begin, std::uint64_t end);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Throws ERR_SIGLIP_CHECKPOINT when the file has become shorter than what is mapped: reading beyond its new end would
  // end the process. To be called before reading, since another process may cut the file at any time.
  void check_length() const;

  // The byte at `offset` of the file, which must lie in the mapped range.
  const char* at(std::uint64_t offset) const { return base_ + (offset - base_offset_); }
  const FileIdentity& identity() const { return identity_; }

  // Says that the bytes [begin, end) will not be read soon, so that they stop counting as this process's memory.
  void release_pages(std::uint64_t begin, std::uint64_t end) const;

 private:
  void map(std::uint64_t begin, std::uint64_t end);

  std::string path_;
  int file_ = -1;  // open as long as the mapping
  FileIdentity identity_;
  const char* base_ = nullptr;
  std::uint64_t base_offset_ = 0;
  std::size_t mapped_bytes_ = 0;
};

}  // namespace siglip2
