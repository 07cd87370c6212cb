// cuBLASLt on one device: the algorithm chosen for each kind of product, kept because asking takes longer than
// starting.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "cuda/cublaslt.h"
#include "cuda/cublaslt_library.h"

namespace siglip2::cuda {

class CudaDevice;

class MatmulPlans {
 public:
  // On the thread whose device it is.
  explicit MatmulPlans(CudaDevice& device);

  bool available() const { return handle_ != nullptr; }
  // Why not, for inspect(); empty when it is.
  const std::string& notice() const { return notice_; }
  std::size_t workspace_bytes() const;

  // Whether there is an algorithm for such a product. `bias`, here and below, is in the type of d.
  bool knows(const MatmulArgs& args, const void* bias) { return plan_of(args, bias) != nullptr; }
  // Queues a product that is known, and asks nothing else of the stream, so that it may be capturing. False when
  // cuBLASLt refuses.
  bool start(const MatmulArgs& args, const void* bias, void* workspace);
  // See matmul() in cuda/cublaslt.h.
  bool run(const MatmulArgs& args, const void* bias, void* workspace);

 private:
  // All that an algorithm is chosen by.
  using Key = std::array<std::int64_t, 11>;
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };
  struct Plan;
  struct PlanDeleter {
    void operator()(Plan* plan) const;
  };
  using PlanPointer = std::unique_ptr<Plan, PlanDeleter>;

  static Key key_of(const MatmulArgs& args, const void* bias);
  PlanPointer make(const MatmulArgs& args, const void* bias);
  PlanPointer& plan_of(const MatmulArgs& args, const void* bias);

  CudaDevice& device_;
  const cublaslt::Library* library_ = nullptr;
  cublaslt::Handle handle_ = nullptr;
  std::string notice_;
  // Null for products that cuBLASLt has no algorithm for.
  std::unordered_map<Key, PlanPointer, KeyHash> plans_;
};

}  // namespace siglip2::cuda
