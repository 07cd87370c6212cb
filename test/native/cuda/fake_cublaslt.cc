// A cuBLASLt for tests, with the arguments and the column-major meaning of NVIDIA's, in plain loops. It takes the
// declarations of the code under test; that these are NVIDIA's is checked elsewhere, against its header.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/cublaslt_library.h"
#include "fake_stream.h"

namespace lt = siglip2::cuda::cublaslt;

namespace siglip2::cuda::cublaslt {
struct HandleData {};
struct DescriptionData {
  std::int32_t transpose_a = 0, transpose_b = 0;
  std::uint32_t epilogue = 1;
  const void* bias = nullptr;
};
struct LayoutData {
  cudaDataType type;
  std::uint64_t rows, columns;
  std::int64_t stride;
};
struct PreferenceData {};
}  // namespace siglip2::cuda::cublaslt

namespace {

float load(cudaDataType type, const void* data, std::int64_t index) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[index];
  const std::uint32_t bits = std::uint32_t{static_cast<const std::uint16_t*>(data)[index]} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void store(cudaDataType type, void* data, std::int64_t index, float value) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(data)[index] = value;
    return;
  }
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  static_cast<std::uint16_t*>(data)[index] = static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void set(void* to, std::size_t size, const void* value, std::size_t bytes) {
  if (bytes == size) std::memcpy(to, value, bytes);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

int searches = 0;
EXPORT int fake_searches() {
  return searches;
}

int refusals = 0;
EXPORT void fake_refuse(int products) {
  refusals = products;
}

EXPORT int cublasLtCreate(lt::Handle* handle) {
  *handle = new lt::HandleData;
  return 0;
}
EXPORT int cublasLtMatmulDescCreate(lt::Description* description, int compute, cudaDataType scale) {
  *description = new lt::DescriptionData;
  return compute == 68 && scale == CUDA_R_32F ? 0 : 15;
}
EXPORT int cublasLtMatmulDescSetAttribute(lt::Description description, int attribute, const void* value,
                                          std::size_t bytes) {
  if (attribute == 3) set(&description->transpose_a, 4, value, bytes);
  if (attribute == 4) set(&description->transpose_b, 4, value, bytes);
  if (attribute == 7) set(&description->epilogue, 4, value, bytes);
  if (attribute == 8) set(&description->bias, 8, value, bytes);
  return 0;
}
EXPORT int cublasLtMatmulDescDestroy(lt::Description description) {
  delete description;
  return 0;
}
EXPORT int cublasLtMatrixLayoutCreate(lt::Layout* layout, cudaDataType type, std::uint64_t rows, std::uint64_t columns,
                                      std::int64_t stride) {
  *layout = new lt::LayoutData{type, rows, columns, stride};
  return 0;
}
EXPORT int cublasLtMatrixLayoutDestroy(lt::Layout layout) {
  delete layout;
  return 0;
}
EXPORT int cublasLtMatmulPreferenceCreate(lt::Preference* preference) {
  *preference = new lt::PreferenceData;
  return 0;
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(lt::Preference, int, const void*, std::size_t) {
  return 0;
}
EXPORT int cublasLtMatmulPreferenceDestroy(lt::Preference preference) {
  delete preference;
  return 0;
}
// Knows no algorithm for depths of 13, for tests of what happens then.
EXPORT int cublasLtMatmulAlgoGetHeuristic(lt::Handle, lt::Description description, lt::Layout a, lt::Layout b,
                                          lt::Layout c, lt::Layout d, lt::Preference, int, lt::Found* found,
                                          int* count) {
  ++searches;
  const std::uint64_t depth = description->transpose_a != 0 ? a->rows : a->columns;
  const bool fits = depth == (description->transpose_b != 0 ? b->columns : b->rows) && c->type == d->type &&
                    a->type == b->type && c->rows == d->rows && c->columns == d->columns;
  *count = fits && depth != 13 ? 1 : 0;
  *found = {};
  return 0;
}
EXPORT int cublasLtMatmul(lt::Handle, lt::Description description, const void* alpha, const void* a, lt::Layout la,
                          const void* b, lt::Layout lb, const void* beta, const void* c, lt::Layout lc, void* d,
                          lt::Layout ld, const lt::Algorithm*, void* workspace, std::size_t workspace_bytes,
                          cudaStream_t stream) {
  if (refusals > 0 && refusals-- > 0) return 14;
  const float alpha_value = *static_cast<const float*>(alpha);
  const float beta_value = *static_cast<const float*>(beta);
  stream->queue([=, op = *description, la = *la, lb = *lb, lc = *lc, ld = *ld] {
    std::memset(workspace, 0xEE, workspace_bytes);
    const std::uint64_t depth = op.transpose_a != 0 ? la.rows : la.columns;
    for (std::uint64_t column = 0; column < ld.columns; ++column) {
      for (std::uint64_t row = 0; row < ld.rows; ++row) {
        double sum = 0;
        for (std::uint64_t k = 0; k < depth; ++k) {
          const std::int64_t ia = op.transpose_a != 0 ? k + row * la.stride : row + k * la.stride;
          const std::int64_t ib = op.transpose_b != 0 ? column + k * lb.stride : k + column * lb.stride;
          sum += static_cast<double>(load(la.type, a, ia)) * load(lb.type, b, ib);
        }
        double value = alpha_value * sum;
        if (beta_value != 0) value += beta_value * load(lc.type, c, row + column * lc.stride);
        if ((op.epilogue & 4) != 0) value += load(ld.type, op.bias, row);
        if ((op.epilogue & 32) != 0)
          value = 0.5 * value * (1 + std::tanh(0.7978845608028654 * (value + 0.044715 * value * value * value)));
        store(ld.type, d, row + column * ld.stride, static_cast<float>(value));
      }
    }
  });
  return 0;
}
