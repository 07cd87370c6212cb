#include "cuda/matmul_plans.h"

#include <algorithm>

#include "cuda/cuda_device.h"
#include "cuda/kernels.h"
#include "cuda/scratch.h"
#include "ops/convert/convert.h"

namespace siglip2::cuda {
namespace {

// NaFlex batches come in every number of tokens; beyond this many kinds of products all are forgotten.
constexpr std::size_t kMostPlans = 4096;

// What NVIDIA recommends for Hopper and later, and more than it does for the cards before.
constexpr std::size_t kWorkspace = std::size_t{8} << 20;
constexpr std::size_t kWorkspaceSm90 = std::size_t{32} << 20;

cudaDataType cuda_type(DType dtype) {
  return dtype == DType::kBFloat16 ? CUDA_R_16BF : CUDA_R_32F;
}

// In bytes, as far as cuBLASLt cares. Null is aligned to everything.
std::uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | 256;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

}  // namespace

// cuBLASLt thinks in columns: a row-major matrix is the transposed of a column-major one, so it computes Dᵀ = B · Aᵀ,
// and our b is its A.
struct MatmulPlans::Plan {
  const cublaslt::Library* library = nullptr;
  cublaslt::Description description = nullptr;
  cublaslt::Layout a = nullptr;
  cublaslt::Layout b = nullptr;
  cublaslt::Layout c = nullptr;
  cublaslt::Layout d = nullptr;
  cublaslt::Algorithm algorithm{};
};

void MatmulPlans::PlanDeleter::operator()(Plan* plan) const {
  for (const cublaslt::Layout layout : {plan->a, plan->b, plan->c, plan->d})
    if (layout != nullptr) plan->library->layout_destroy(layout);
  if (plan->description != nullptr) plan->library->description_destroy(plan->description);
  delete plan;
}

std::size_t MatmulPlans::KeyHash::operator()(const Key& key) const {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::int64_t part : key)
    hash = (hash ^ static_cast<std::uint64_t>(part)) * 0x100000001b3;
  return static_cast<std::size_t>(hash ^ hash >> 32);
}

MatmulPlans::MatmulPlans(CudaDevice& device) : device_(device) {
  library_ = cublaslt::open_library(&notice_);
  if (library_ == nullptr) return;
  const int status = library_->create(&handle_);
  if (status == cublaslt::kSuccess) return;
  handle_ = nullptr;
  notice_ = "cuBLASLt does not start on this GPU (status " + std::to_string(status) +
            "): matrix products run on this package's own kernels, which are slower";
}

std::size_t MatmulPlans::workspace_bytes() const {
  return device_.properties().major >= 9 ? kWorkspaceSm90 : kWorkspace;
}

MatmulPlans::Key MatmulPlans::key_of(const MatmulArgs& args, const void* bias) {
  const std::int64_t depth = args.a_transposed ? args.a.rows : args.a.columns;
  const std::int64_t alignments = std::int64_t{alignment_of(args.a.data)} << 40 |
                                  std::int64_t{alignment_of(args.b.data)} << 30 |
                                  std::int64_t{alignment_of(args.c.data)} << 20 |
                                  std::int64_t{alignment_of(args.d.data)} << 10 | std::int64_t{alignment_of(bias)};
  const std::int64_t flags = std::int64_t{args.a_transposed} | std::int64_t{args.b_transposed} << 1 |
                             std::int64_t{args.gelu} << 2 | std::int64_t{bias != nullptr} << 3 |
                             std::int64_t{args.c.data != nullptr} << 4 | std::int64_t{args.c.data == args.d.data} << 5;
  return {args.d.rows,
          args.d.columns,
          depth,
          args.a.stride,
          args.b.stride,
          args.c.data == nullptr ? 0 : args.c.stride,
          args.d.stride,
          static_cast<std::int64_t>(args.a.dtype),
          static_cast<std::int64_t>(args.d.dtype),
          alignments,
          flags};
}

MatmulPlans::PlanPointer MatmulPlans::make(const MatmulArgs& args, const void* bias) {
  PlanPointer plan(new Plan);
  plan->library = library_;
  bool good = library_->description_create(&plan->description, cublaslt::kCompute32F, CUDA_R_32F) == cublaslt::kSuccess;
  const auto set = [&](int attribute, auto value) {
    good = good && library_->description_set(plan->description, attribute, &value, sizeof(value)) == cublaslt::kSuccess;
  };
  set(cublaslt::kTransposeA, args.b_transposed ? cublaslt::kPlain : cublaslt::kTransposed);
  set(cublaslt::kTransposeB, args.a_transposed ? cublaslt::kTransposed : cublaslt::kPlain);
  if (bias != nullptr) {
    set(cublaslt::kEpilogue, args.gelu ? cublaslt::kEpilogueGeluBias : cublaslt::kEpilogueBias);
    set(cublaslt::kBiasPointer, bias);
  } else {
    set(cublaslt::kEpilogue, args.gelu ? cublaslt::kEpilogueGelu : cublaslt::kEpilogueNone);
  }
  const auto layout = [&](cublaslt::Layout* made, const ConstMatrixView& view) {
    good = good && library_->layout_create(made, cuda_type(view.dtype), static_cast<std::uint64_t>(view.columns),
                                           static_cast<std::uint64_t>(view.rows), view.stride) == cublaslt::kSuccess;
  };
  layout(&plan->a, args.b);
  layout(&plan->b, args.a);
  layout(&plan->c, args.c.data == nullptr ? ConstMatrixView(args.d) : args.c);
  layout(&plan->d, args.d);

  cublaslt::Preference preference = nullptr;
  good = good && library_->preference_create(&preference) == cublaslt::kSuccess;
  const auto prefer = [&](int attribute, auto value) {
    good = good && library_->preference_set(preference, attribute, &value, sizeof(value)) == cublaslt::kSuccess;
  };
  prefer(cublaslt::kMaxWorkspaceBytes, static_cast<std::uint64_t>(workspace_bytes()));
  // Parts of sums are not rounded to bfloat16 before they are added.
  if (args.d.dtype == DType::kBFloat16) prefer(cublaslt::kReductionSchemes, cublaslt::kReduceInComputeType);
  prefer(cublaslt::kMinAlignmentA, alignment_of(args.b.data));
  prefer(cublaslt::kMinAlignmentB, alignment_of(args.a.data));
  prefer(cublaslt::kMinAlignmentC, alignment_of(args.c.data == nullptr ? args.d.data : args.c.data));
  prefer(cublaslt::kMinAlignmentD, alignment_of(args.d.data));
  cublaslt::Found found{};
  int count = 0;
  good = good && library_->search(handle_, plan->description, plan->a, plan->b, plan->c, plan->d, preference, 1, &found,
                                  &count) == cublaslt::kSuccess;
  if (preference != nullptr) library_->preference_destroy(preference);
  if (!good || count == 0 || found.status != cublaslt::kSuccess || found.workspace_bytes > workspace_bytes())
    return nullptr;
  plan->algorithm = found.algorithm;
  return plan;
}

MatmulPlans::PlanPointer& MatmulPlans::plan_of(const MatmulArgs& args, const void* bias) {
  const Key key = key_of(args, bias);
  const auto known = plans_.find(key);
  if (known != plans_.end()) return known->second;
  if (plans_.size() >= kMostPlans) plans_.clear();
  return plans_[key] = make(args, bias);
}

bool MatmulPlans::start(const MatmulArgs& args, const void* bias, void* workspace) {
  const PlanPointer& plan = plan_of(args, bias);
  if (plan == nullptr) return false;
  if (bias != nullptr &&
      library_->description_set(plan->description, cublaslt::kBiasPointer, &bias, sizeof(bias)) != cublaslt::kSuccess)
    return false;
  const float one = 1;
  const float zero = 0;
  const bool adds = args.c.data != nullptr;
  return library_->matmul(handle_, plan->description, &args.factor, args.b.data, plan->a, args.a.data, plan->b,
                          adds ? &one : &zero, adds ? args.c.data : args.d.data, plan->c, args.d.data, plan->d,
                          &plan->algorithm, workspace, workspace_bytes(), device_.stream()) == cublaslt::kSuccess;
}

bool MatmulPlans::run(const MatmulArgs& args, const void* bias, void* workspace) {
  if (!knows(args, bias)) return false;
  if (start(args, bias, workspace)) return true;
  // Either the device is dead, and then this throws, or the algorithm does not run here after all.
  const cudaError_t state = cudaStreamQuery(device_.stream());
  if (state != cudaErrorNotReady) device_.check(state, "cublasLtMatmul");
  plan_of(args, bias) = nullptr;
  return false;
}

bool matmul_available(OpContext& context) {
  CudaDevice& device = CudaDevice::of(context);
  device.enter();
  return device.matmul_plans().available();
}

bool matmul(OpContext& context, const MatmulArgs& args) {
  CudaDevice& device = CudaDevice::of(context);
  device.enter();
  MatmulPlans& plans = device.matmul_plans();
  const std::int64_t depth = args.a_transposed ? args.a.rows : args.a.columns;
  if (!plans.available() || args.d.rows == 0 || args.d.columns == 0 || depth == 0) return false;
  Scratch scratch(context);
  void* const workspace = scratch.allocate<unsigned char>(static_cast<std::int64_t>(plans.workspace_bytes()));
  const void* bias = args.bias;
  if (args.bias != nullptr && args.d.dtype == DType::kBFloat16) {
    const MatrixView rounded{scratch.allocate<std::uint16_t>(args.d.columns), DType::kBFloat16, 1, args.d.columns,
                             args.d.columns};
    convert_cuda(context, {ConstMatrixView(args.bias, DType::kFloat32, 1, args.d.columns, args.d.columns), rounded});
    bias = rounded.data;
  }
  return !context.planning && device.graphs().queue(Product{args, bias, workspace});
}

}  // namespace siglip2::cuda
