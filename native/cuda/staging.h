// The way between host memory that may be paged and the device: through pinned memory, in pieces, so that copying a
// piece on the host overlaps with moving another.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>

namespace siglip2::cuda {

class CudaDevice;

class Staging {
 public:
  // Throws ERR_SIGLIP_CUDA or ERR_SIGLIP_OUT_OF_MEMORY.
  explicit Staging(CudaDevice& device);
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Returns when `host` has been read; the device's copy is queued.
  void to_device(void* device, const void* host, std::size_t bytes);
  // Returns when all queued work is done and `host` written.
  void to_host(void* host, const void* device, std::size_t bytes);

 private:
  // Small copies follow each other in a piece; its event is recorded when it is full, and waited for before it is
  // filled again.
  struct Piece {
    Piece() = default;
    ~Piece();
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;

    unsigned char* memory = nullptr;
    cudaEvent_t done = nullptr;
    bool pending = false;  // `done` has been recorded and not waited for
  };
  static constexpr std::size_t kPieceBytes = std::size_t{8} << 20;
  static constexpr int kUpPieces = 4;
  static constexpr int kDownPieces = 2;

  void make(Piece& piece);
  void wait(Piece& piece);
  void record(Piece& piece);

  CudaDevice& device_;
  std::mutex mutex_;
  Piece up_[kUpPieces];
  int current_ = 0;
  std::size_t used_ = 0;  // of the current piece
  Piece down_[kDownPieces];
};

}  // namespace siglip2::cuda
