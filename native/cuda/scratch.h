// Device memory that an operation needs only while it runs, and the way of small host arrays (offsets, work lists, ids)
// to the device and of results back.
//
//   Scratch scratch(context);
//   const std::int32_t* offsets = scratch.upload(args.query_offsets, args.sequences + 1);
//   float* partial_sums = scratch.allocate<float>(blocks * width);
//
// Memory comes from one block of the device, handed out as a stack; it is given back when the Scratch goes, which is
// right because later work is queued behind this operation's. While a pass is planned, bytes are only counted, and the
// block grows before the work starts; outside of passes it grows when needed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/op_table.h"

namespace siglip2::cuda {

class Scratch {
 public:
  explicit Scratch(OpContext& context);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Memory for `count` values, aligned to 256 bytes, with any contents.
  template <typename T>
  T* allocate(std::int64_t count) {
    return static_cast<T*>(allocate_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
  // A copy of host memory, which may be changed as soon as this returns. Null for null.
  template <typename T>
  const T* upload(const T* host, std::int64_t count) {
    if (host == nullptr) return nullptr;
    T* const memory = allocate<T>(count);
    upload_bytes(memory, host, static_cast<std::size_t>(count) * sizeof(T));
    return memory;
  }
  // Waits for all queued work, then copies. Nothing while planning.
  template <typename T>
  void download(T* host, const T* device, std::int64_t count) {
    download_bytes(host, device, static_cast<std::size_t>(count) * sizeof(T));
  }

 private:
  void* allocate_bytes(std::size_t bytes);
  void upload_bytes(void* device, const void* host, std::size_t bytes);
  void download_bytes(void* host, const void* device, std::size_t bytes);

  OpContext& context_;
  std::size_t start_;
};

}  // namespace siglip2::cuda
