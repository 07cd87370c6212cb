// Packed weights in a file, so that a tower which was loaded before maps them instead of packing again: a start takes
// the time of a look at the file, and processes share the memory.
//
//   64 bytes   magic, bytes of the file, bytes of the index, its FNV-1a hash, zeros
//   index      a line with the key, then NAME, offset and bytes of each entry, separated by tabs, a line each
//   entries    at multiples of 64 bytes
//
// The key is all that the bytes depend on: what the weights were packed from, for which kernels, and by which version
// of packing. A file with another key, or that is not whole, is replaced. Files go into place by a rename once they are
// on disk, so no process ever sees a part of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "tensor/mapped_file.h"

namespace siglip2 {

class PackedStore {
 public:
  // Opens `path` if it is a whole file with this key; without one, what is added is collected.
  PackedStore(std::string path, std::string key);

  // The entry `name`, or null where there is none of as many bytes.
  const void* find(const std::string& name, std::size_t bytes) const;
  // An entry for the file to write, whose bytes must stay as they are until `save`.
  void add(const std::string& name, const void* data, std::size_t bytes);
  // Writes what was added, unless the file had everything. Never throws: a file that cannot be written is missing next
  // time, no more.
  void save() noexcept;
  // Throws ERR_SIGLIP_CHECKPOINT when the file has been cut since it was opened: to read behind its end would end the
  // process.
  void check_length() const;

 private:
  struct Entry {
    std::string name;
    const void* data;
    std::size_t bytes;
  };
  void read();
  void write() const;

  std::string path_;
  std::string key_;
  std::unique_ptr<MappedFile> file_;
  std::unordered_map<std::string, Entry> kept_;
  std::vector<Entry> added_;
};

}  // namespace siglip2
