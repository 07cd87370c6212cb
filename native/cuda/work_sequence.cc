#include "cuda/work_sequence.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "cuda/cuda_device.h"

namespace siglip2::cuda {
namespace {

constexpr std::size_t kAlignment = 16;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

auto fields_of(const ConstMatrixView& view) {
  return std::tuple(view.data, view.dtype, view.rows, view.columns, view.stride);
}

auto fields_of(const Product& product) {
  const MatmulArgs& args = product.args;
  return std::tuple(fields_of(args.a), fields_of(args.b), args.a_transposed, args.b_transposed, args.bias, args.gelu,
                    fields_of(args.c), fields_of(args.d), args.factor, product.bias, product.workspace);
}

}  // namespace

cudaError_t start(const KernelLaunch& launch, void** arguments, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(launch.blocks), static_cast<unsigned>(launch.blocks_y));
  return cudaLaunchKernel(launch.kernel, grid, dim3(static_cast<unsigned>(launch.threads)), arguments,
                          launch.shared_bytes, stream);
}

cudaError_t start(const DeviceCopy& copy, cudaStream_t stream) {
  return cudaMemcpyAsync(copy.to, copy.from, copy.bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t start(const ZeroFill& fill, cudaStream_t stream) {
  return cudaMemsetAsync(fill.memory, 0, fill.bytes, stream);
}

bool Product::operator==(const Product& other) const {
  return fields_of(*this) == fields_of(other);
}

void WorkSequence::clear() {
  work_.clear();
  arguments_.clear();
  argument_data_.clear();
  upload_bytes_ = 0;
}

void WorkSequence::append(const KernelLaunch& launch, void* const* arguments, const std::size_t* argument_bytes) {
  Work work{launch, arguments_.size()};
  for (; arguments[work.argument_count] != nullptr; ++work.argument_count) {
    const std::size_t bytes = argument_bytes[work.argument_count];
    const std::size_t place = argument_data_.size();
    arguments_.push_back({place, bytes});
    argument_data_.resize(place + aligned(bytes));
    std::memcpy(argument_data_.data() + place, arguments[work.argument_count], bytes);
  }
  work_.push_back(work);
}

void WorkSequence::append_upload(void* to, std::size_t bytes) {
  work_.push_back({Upload{to, bytes, upload_bytes_}});
  upload_bytes_ += aligned(bytes);
}

bool WorkSequence::continues(const WorkSequence& other) const {
  const std::size_t index = work_.size() - 1;
  if (index >= other.work_.size() || !(work_[index] == other.work_[index])) return false;
  const Work& work = work_[index];
  if (work.argument_count == 0) return true;
  const auto first = arguments_.begin() + static_cast<std::ptrdiff_t>(work.first_argument);
  const auto end = first + static_cast<std::ptrdiff_t>(work.argument_count);
  if (!std::equal(first, end, other.arguments_.begin() + static_cast<std::ptrdiff_t>(work.first_argument)))
    return false;
  const std::size_t place = first->place;
  const std::size_t bytes = aligned((end - 1)->place + (end - 1)->bytes) - place;
  return std::memcmp(argument_data_.data() + place, other.argument_data_.data() + place, bytes) == 0;
}

const char* WorkSequence::name(std::size_t index) const {
  struct Names {
    const char* operator()(const KernelLaunch& launch) { return launch.name; }
    const char* operator()(const DeviceCopy&) { return "copy on the device"; }
    const char* operator()(const ZeroFill&) { return "cudaMemset"; }
    const char* operator()(const Upload&) { return "copy to the device"; }
    const char* operator()(const Product&) { return "cublasLtMatmul"; }
  };
  return std::visit(Names{}, work_[index].kind);
}

cudaError_t WorkSequence::start(std::size_t index, CudaDevice& device, const unsigned char* uploads) const {
  const Work& work = work_[index];
  const cudaStream_t stream = device.stream();
  if (const auto* const launch = std::get_if<KernelLaunch>(&work.kind)) {
    std::vector<void*> addresses;
    for (std::size_t i = 0; i < work.argument_count; ++i)
      // The runtime reads arguments, though it does not say so.
      addresses.push_back(const_cast<unsigned char*>(argument_data_.data()) +
                          arguments_[work.first_argument + i].place);
    addresses.push_back(nullptr);
    return siglip2::cuda::start(*launch, addresses.data(), stream);
  }
  if (const auto* const copy = std::get_if<DeviceCopy>(&work.kind)) return siglip2::cuda::start(*copy, stream);
  if (const auto* const fill = std::get_if<ZeroFill>(&work.kind)) return siglip2::cuda::start(*fill, stream);
  if (const auto* const upload = std::get_if<Upload>(&work.kind))
    return cudaMemcpyAsync(upload->to, uploads + upload->place, upload->bytes, cudaMemcpyHostToDevice, stream);
  const auto& product = std::get<Product>(work.kind);
  return device.matmul_plans().start(product.args, product.bias, product.workspace) ? cudaSuccess
                                                                                    : cudaErrorNotSupported;
}

}  // namespace siglip2::cuda
