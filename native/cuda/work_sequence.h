// Work of a device as data: what was asked of its stream, in order, so that a sequence can be compared with an earlier
// one, and started later than it was asked for.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "cuda/cublaslt.h"

namespace siglip2::cuda {

class CudaDevice;

struct KernelLaunch {
  const char* name;
  const void* kernel;
  std::int64_t blocks;
  std::int64_t blocks_y;
  int threads;
  std::size_t shared_bytes;

  bool operator==(const KernelLaunch&) const = default;
};

struct DeviceCopy {
  void* to;
  const void* from;
  std::size_t bytes;

  bool operator==(const DeviceCopy&) const = default;
};

struct ZeroFill {
  void* memory;
  std::size_t bytes;

  bool operator==(const ZeroFill&) const = default;
};

// From the host. What is copied is no part of a sequence: it may differ from one time to the next.
struct Upload {
  void* to;
  std::size_t bytes;
  std::size_t place;  // of the bytes among those of all uploads of the sequence

  bool operator==(const Upload&) const = default;
};

struct Product {
  MatmulArgs args;
  const void* bias;  // in the type of d
  void* workspace;

  bool operator==(const Product& other) const;
};

cudaError_t start(const KernelLaunch& launch, void** arguments, cudaStream_t stream);
cudaError_t start(const DeviceCopy& copy, cudaStream_t stream);
cudaError_t start(const ZeroFill& fill, cudaStream_t stream);

class WorkSequence {
 public:
  void clear();
  void append(const KernelLaunch& launch, void* const* arguments, const std::size_t* argument_bytes);
  void append(const DeviceCopy& copy) { work_.push_back({copy}); }
  void append(const ZeroFill& fill) { work_.push_back({fill}); }
  void append(const Product& product) { work_.push_back({product}); }
  void append_upload(void* to, std::size_t bytes);

  std::size_t size() const { return work_.size(); }
  // Of all uploads, each beginning at a multiple of 16.
  std::size_t upload_bytes() const { return upload_bytes_; }

  // Whether the last piece of work, here, is the one at the same place there. What is before it has been compared.
  bool continues(const WorkSequence& other) const;

  // Queues a piece; `uploads` are the bytes of all uploads, in pinned memory that stays until the stream has read them.
  // Asks nothing else of the stream, so that it may be capturing. Returns what CUDA says, and for a product that
  // cuBLASLt refuses cudaErrorNotSupported.
  cudaError_t start(std::size_t index, CudaDevice& device, const unsigned char* uploads) const;
  // Null unless the piece is an upload.
  const Upload* upload(std::size_t index) const { return std::get_if<Upload>(&work_[index].kind); }
  // For messages.
  const char* name(std::size_t index) const;

 private:
  struct Work {
    std::variant<KernelLaunch, DeviceCopy, ZeroFill, Upload, Product> kind;
    // Of a launch: its arguments.
    std::size_t first_argument = 0;
    std::size_t argument_count = 0;

    bool operator==(const Work&) const = default;
  };
  struct Argument {
    std::size_t place;  // in argument_data_
    std::size_t bytes;

    bool operator==(const Argument&) const = default;
  };

  std::vector<Work> work_;
  std::vector<Argument> arguments_;
  std::vector<unsigned char> argument_data_;
  std::size_t upload_bytes_ = 0;
};

}  // namespace siglip2::cuda
