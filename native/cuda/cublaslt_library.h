// cuBLASLt as it is opened at run time: the few of its types, numbers and functions that are used here, declared anew
// so that nothing of it is needed to build. They are the same in cuBLAS 12 and 13.
#pragma once

#include <cuda_runtime_api.h>
#include <library_types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace siglip2::cuda::cublaslt {

using Handle = struct HandleData*;
using Description = struct DescriptionData*;  // of a product
using Layout = struct LayoutData*;            // of a matrix
using Preference = struct PreferenceData*;    // what a search looks for

struct Algorithm {
  std::uint64_t data[8];
};

struct Found {
  Algorithm algorithm;
  std::size_t workspace_bytes;
  int status;  // the other fields are valid when it is success
  float waves;
  int reserved[4];
};

inline constexpr int kSuccess = 0;  // cublasStatus_t

inline constexpr int kCompute32F = 68;  // cublasComputeType_t: float32, without TF32

// cublasOperation_t
inline constexpr std::int32_t kPlain = 0;
inline constexpr std::int32_t kTransposed = 1;

// cublasLtMatmulDescAttributes_t
inline constexpr int kTransposeA = 3;
inline constexpr int kTransposeB = 4;
inline constexpr int kEpilogue = 7;
inline constexpr int kBiasPointer = 8;

// cublasLtEpilogue_t; the bias is added first
inline constexpr std::uint32_t kEpilogueNone = 1;
inline constexpr std::uint32_t kEpilogueBias = 4;
inline constexpr std::uint32_t kEpilogueGelu = 32;  // by tanh
inline constexpr std::uint32_t kEpilogueGeluBias = 36;

// cublasLtMatmulPreferenceAttributes_t
inline constexpr int kMaxWorkspaceBytes = 1;
inline constexpr int kReductionSchemes = 3;
inline constexpr int kMinAlignmentA = 5;
inline constexpr int kMinAlignmentB = 6;
inline constexpr int kMinAlignmentC = 7;
inline constexpr int kMinAlignmentD = 8;

// cublasLtReductionScheme_t, a mask: where parts of a sum meet that several blocks have computed. Without a bit there
// is one part; the other schemes add parts in the type of the output.
inline constexpr std::uint32_t kReduceInComputeType = 2;

struct Library {
  int (*create)(Handle*);
  int (*description_create)(Description*, int compute_type, cudaDataType scale_type);
  int (*description_set)(Description, int attribute, const void* value, std::size_t bytes);
  int (*description_destroy)(Description);
  int (*layout_create)(Layout*, cudaDataType type, std::uint64_t rows, std::uint64_t columns, std::int64_t stride);
  int (*layout_destroy)(Layout);
  int (*preference_create)(Preference*);
  int (*preference_set)(Preference, int attribute, const void* value, std::size_t bytes);
  int (*preference_destroy)(Preference);
  int (*search)(Handle, Description, Layout a, Layout b, Layout c, Layout d, Preference, int most, Found* found,
                int* count);
  int (*matmul)(Handle, Description, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta,
                const void* c, Layout, void* d, Layout, const Algorithm*, void* workspace, std::size_t workspace_bytes,
                cudaStream_t);
};

// Opened on first use; null, with the reason in `notice`, when there is none.
const Library* open_library(std::string* notice);

}  // namespace siglip2::cuda::cublaslt
