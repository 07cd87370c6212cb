#include "tensor/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "tensor/error.h"
#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

void check_entry(const std::string& path, const TensorEntry& entry) {
  const std::int64_t elements = count_elements(entry.shape);
  const bool fits = elements >= 0 && entry.begin <= entry.end &&
                    entry.end - entry.begin == static_cast<std::uint64_t>(elements) * size_of(entry.dtype);
  if (!fits)
    throw Error(kErrorCheckpoint, path + ": tensor " + entry.name + " covers bytes " + std::to_string(entry.begin) +
                                      " to " + std::to_string(entry.end) + ", which does not fit its shape");
}

}  // namespace

std::int64_t Checkpoint::Tensor::elements() const {
  return count_elements(entry->shape);
}

ConstMatrixView Checkpoint::Tensor::matrix() const {
  const std::int64_t rows = entry->shape.empty() ? 1 : entry->shape[0];
  const std::int64_t columns = rows == 0 ? 0 : elements() / rows;
  return {data, entry->dtype, rows, columns, columns};
}

Checkpoint::Checkpoint(std::vector<CheckpointFile> files) : files_(std::move(files)) {
  for (std::size_t f = 0; f < files_.size(); ++f) {
    const CheckpointFile& file = files_[f];
    std::uint64_t begin = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t end = 0;
    for (std::size_t t = 0; t < file.tensors.size(); ++t) {
      const TensorEntry& entry = file.tensors[t];
      check_entry(file.path, entry);
      begin = std::min(begin, entry.begin);
      end = std::max(end, entry.end);
      if (!index_.emplace(entry.name, Location{f, t}).second)
        throw Error(kErrorCheckpoint, file.path + ": tensor " + entry.name + " occurs more than once");
    }
    if (file.tensors.empty()) begin = 0;
    mappings_.push_back(std::make_unique<MappedFile>(file.path, begin, end));
  }
}

Checkpoint::Tensor Checkpoint::tensor(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) throw Error(kErrorCheckpoint, "the checkpoint has no tensor " + name);
  const TensorEntry& entry = files_[found->second.file].tensors[found->second.tensor];
  mappings_[found->second.file]->check_length();
  return {&entry, entry.begin == entry.end ? nullptr : mappings_[found->second.file]->at(entry.begin)};
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, location] : index_)
    names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

void Checkpoint::release_pages(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) return;
  const TensorEntry& entry = files_[found->second.file].tensors[found->second.tensor];
  mappings_[found->second.file]->release_pages(entry.begin, entry.end);
}

std::string Checkpoint::identity() const {
  std::string text;
  for (const auto& mapping : mappings_) {
    const FileIdentity& id = mapping->identity();
    text += std::to_string(id.device) + ':' + std::to_string(id.inode) + ':' + std::to_string(id.size) + ':' +
            std::to_string(id.modified_nanoseconds) + ';';
  }
  return text;
}

std::string Checkpoint::last_changes() const {
  std::string text;
  for (const auto& mapping : mappings_)
    text += std::to_string(mapping->identity().changed_nanoseconds) + ';';
  return text;
}

std::string Checkpoint::files_identity() const {
  std::string text;
  for (const auto& mapping : mappings_)
    text += std::to_string(mapping->identity().device) + ':' + std::to_string(mapping->identity().inode) + ';';
  return text;
}

TensorStatistics count_non_finite(const Checkpoint::Tensor& tensor) {
  TensorStatistics counts;
  counts.elements = tensor.elements();
  // The exponent is all ones for both; the fraction tells NaN from infinity.
  const auto count = [&](auto word, unsigned fraction_bits, unsigned bits) {
    using Word = decltype(word);
    const auto exponent = static_cast<Word>(((Word{1} << (bits - 1 - fraction_bits)) - 1) << fraction_bits);
    const auto fraction = static_cast<Word>((Word{1} << fraction_bits) - 1);
    for (std::int64_t i = 0; i < counts.elements; ++i) {
      Word value;
      std::memcpy(&value, tensor.data + static_cast<std::size_t>(i) * sizeof(Word), sizeof(Word));
      if ((value & exponent) != exponent) continue;
      ++((value & fraction) != 0 ? counts.nan : counts.infinite);
    }
  };
  if (tensor.entry->dtype == DType::kFloat32) count(std::uint32_t{}, 23, 32);
  if (tensor.entry->dtype == DType::kFloat16) count(std::uint16_t{}, 10, 16);
  if (tensor.entry->dtype == DType::kBFloat16) count(std::uint16_t{}, 7, 16);
  return counts;
}

}  // namespace siglip2
