// The tensors of one or more safetensors files, mapped. Headers are parsed and validated by lib/model/safetensors.ts;
// what arrives here is checked once more where memory safety depends on it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/mapped_file.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

struct TensorEntry {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // bytes of the file
  std::uint64_t end = 0;
};

struct CheckpointFile {
  std::string path;
  std::vector<TensorEntry> tensors;
};

class Checkpoint {
 public:
  // Maps, of every file, the range that holds its listed tensors. Throws ERR_SIGLIP_CHECKPOINT.
  explicit Checkpoint(std::vector<CheckpointFile> files);

  // A stored tensor. `data` has no alignment.
  struct Tensor {
    const TensorEntry* entry;
    const char* data;
    std::size_t bytes() const { return static_cast<std::size_t>(entry->end - entry->begin); }
    std::int64_t elements() const;
    // The tensor as a matrix: all dimensions but the first flattened.
    ConstMatrixView matrix() const;
  };

  // Throws ERR_SIGLIP_CHECKPOINT when there is none of that name, or its file no longer holds it.
  Tensor tensor(const std::string& name) const;
  bool contains(const std::string& name) const { return index_.count(name) != 0; }
  std::vector<std::string> names() const;

  // Says that a tensor will not be read soon; see MappedFile::release_pages.
  void release_pages(const std::string& name) const;

  // The same for checkpoints of the same files in the same state.
  std::string identity() const;
  // When the files last changed, by the system's clock, which unlike modification times nobody can set.
  std::string last_changes() const;
  // The same for checkpoints of the same files in any state.
  std::string files_identity() const;

 private:
  struct Location {
    std::size_t file;
    std::size_t tensor;
  };
  std::vector<CheckpointFile> files_;
  std::vector<std::unique_ptr<MappedFile>> mappings_;
  std::unordered_map<std::string, Location> index_;
};

// Counts of values that are not finite.
struct TensorStatistics {
  std::int64_t elements = 0;
  std::int64_t nan = 0;
  std::int64_t infinite = 0;
};
TensorStatistics count_non_finite(const Checkpoint::Tensor& tensor);

}  // namespace siglip2
