#include "cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "cuda/cuda_device.h"
#include "tensor/error.h"

namespace siglip2::cuda {
namespace {

constexpr std::size_t kAlignment = 256;

}  // namespace

Staging::Staging(CudaDevice& device) : device_(device) {
  for (Piece& piece : up_)
    make(piece);
  for (Piece& piece : down_)
    make(piece);
}

Staging::Piece::~Piece() {
  if (done != nullptr) (void)cudaEventDestroy(done);
  if (memory != nullptr) (void)cudaFreeHost(memory);
}

void Staging::make(Piece& piece) {
  device_.check(cudaEventCreateWithFlags(&piece.done, cudaEventDisableTiming), "cudaEventCreate");
  void* memory = nullptr;
  const cudaError_t status = cudaHostAlloc(&memory, kPieceBytes, cudaHostAllocDefault);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    throw Error(kErrorOutOfMemory, "the system does not give the GPU memory that stays in place for copies",
                {{"requestedBytes", static_cast<std::int64_t>(kPieceBytes)}});
  }
  device_.check(status, "cudaHostAlloc");
  piece.memory = static_cast<unsigned char*>(memory);
}

void Staging::wait(Piece& piece) {
  if (!piece.pending) return;
  device_.check(cudaEventSynchronize(piece.done), "waiting for queued work");
  piece.pending = false;
}

void Staging::record(Piece& piece) {
  device_.check(cudaEventRecord(piece.done, device_.stream()), "cudaEventRecord");
  piece.pending = true;
}

void Staging::to_device(void* device, const void* host, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto* to = static_cast<unsigned char*>(device);
  const auto* from = static_cast<const unsigned char*>(host);
  while (bytes != 0) {
    if (used_ == kPieceBytes) {
      record(up_[current_]);
      current_ = (current_ + 1) % kUpPieces;
      used_ = 0;
    }
    Piece& piece = up_[current_];
    if (used_ == 0) wait(piece);
    const std::size_t count = std::min(bytes, kPieceBytes - used_);
    std::memcpy(piece.memory + used_, from, count);
    // Before the copy is queued: if that fails, the place is still lost to it.
    const unsigned char* const staged = piece.memory + used_;
    used_ = std::min(kPieceBytes, (used_ + count + kAlignment - 1) / kAlignment * kAlignment);
    device_.check(cudaMemcpyAsync(to, staged, count, cudaMemcpyHostToDevice, device_.stream()), "copy to the device");
    to += count;
    from += count;
    bytes -= count;
  }
}

void Staging::to_host(void* host, const void* device, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto* const to = static_cast<unsigned char*>(host);
  const auto* const from = static_cast<const unsigned char*>(device);
  const std::size_t pieces = (bytes + kPieceBytes - 1) / kPieceBytes;
  const auto start = [&](std::size_t index) {
    Piece& piece = down_[index % kDownPieces];
    const std::size_t offset = index * kPieceBytes;
    device_.check(cudaMemcpyAsync(piece.memory, from + offset, std::min(kPieceBytes, bytes - offset),
                                  cudaMemcpyDeviceToHost, device_.stream()),
                  "copy from the device");
    record(piece);
  };
  // Left over by a copy that threw.
  for (Piece& piece : down_)
    wait(piece);
  if (pieces != 0) start(0);
  for (std::size_t index = 0; index < pieces; ++index) {
    if (index + 1 < pieces) start(index + 1);
    Piece& piece = down_[index % kDownPieces];
    wait(piece);
    const std::size_t offset = index * kPieceBytes;
    std::memcpy(to + offset, piece.memory, std::min(kPieceBytes, bytes - offset));
  }
  device_.settled();
}

}  // namespace siglip2::cuda
