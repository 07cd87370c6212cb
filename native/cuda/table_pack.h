// Host arrays of several types that go to the device in one copy: the tables and work lists of a launch.
//
//   TablePack pack;
//   const auto jobs = pack.add(job_vector);           // a place in the pack
//   const TableMemory memory(context, scratch, pack, partial_bytes);
//   launch(…, memory.at(jobs), memory.rest<float>());
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "cuda/runtime.h"
#include "cuda/scratch.h"

namespace siglip2::cuda {

template <typename T>
struct TablePlace {
  std::int64_t offset;
  std::int64_t count;
};

class TablePack {
 public:
  template <typename T>
  TablePlace<T> add(const std::vector<T>& table) {
    constexpr std::int64_t kAlignment = 256;
    const auto offset = static_cast<std::int64_t>(bytes_.size());
    const std::size_t size = table.size() * sizeof(T);
    bytes_.resize((bytes_.size() + size + kAlignment - 1) / kAlignment * kAlignment);
    if (size > 0) std::memcpy(bytes_.data() + offset, table.data(), size);
    return {offset, static_cast<std::int64_t>(table.size())};
  }
  const std::vector<unsigned char>& bytes() const { return bytes_; }

 private:
  std::vector<unsigned char> bytes_;
};

// The pack on the device, followed by `rest_bytes` bytes with any contents, in one piece of scratch memory.
class TableMemory {
 public:
  TableMemory(OpContext& context, Scratch& scratch, const TablePack& pack, std::int64_t rest_bytes = 0)
      : pack_bytes_(static_cast<std::int64_t>(pack.bytes().size())),
        memory_(scratch.allocate<unsigned char>(pack_bytes_ + rest_bytes)) {
    if (!context.planning) runtime::stage_to_device(context, memory_, pack.bytes().data(), pack.bytes().size());
  }

  template <typename T>
  const T* at(TablePlace<T> place) const {
    return reinterpret_cast<const T*>(memory_ + place.offset);
  }
  template <typename T>
  T* rest() const {
    return reinterpret_cast<T*>(memory_ + pack_bytes_);
  }

 private:
  std::int64_t pack_bytes_;
  unsigned char* memory_;
};

}  // namespace siglip2::cuda
