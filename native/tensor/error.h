// The one exception type of the native core. It carries the `ERR_SIGLIP_…` code that JavaScript will see; the border
// (addon/) turns it into a SiglipError, and nothing in between catches it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// Thrown across shared-library borders (the device libraries are opened at run time), so its type information must be
// visible to all of them.
#if defined(__GNUC__)
#define SIGLIP2_VISIBLE __attribute__((visibility("default")))
#else
#define SIGLIP2_VISIBLE
#endif

namespace siglip2 {

// Machine-readable facts of an error, shown to JavaScript as `error.details`.
struct ErrorDetail {
  std::string key;
  std::int64_t value;
};

class SIGLIP2_VISIBLE Error : public std::runtime_error {
 public:
  // `code` is the full code, for instance "ERR_SIGLIP_SHAPE"; it must be a string literal.
  Error(const char* code, const std::string& message, std::vector<ErrorDetail> details = {})
      : std::runtime_error(message), code_(code), details_(std::move(details)) {}

  const char* code() const { return code_; }
  const std::vector<ErrorDetail>& details() const { return details_; }

 private:
  const char* code_;
  std::vector<ErrorDetail> details_;
};

inline constexpr const char* kErrorShape = "ERR_SIGLIP_SHAPE";
inline constexpr const char* kErrorCheckpoint = "ERR_SIGLIP_CHECKPOINT";
inline constexpr const char* kErrorConfig = "ERR_SIGLIP_CONFIG";
inline constexpr const char* kErrorOutOfMemory = "ERR_SIGLIP_OUT_OF_MEMORY";
inline constexpr const char* kErrorCuda = "ERR_SIGLIP_CUDA";
inline constexpr const char* kErrorNoDevice = "ERR_SIGLIP_NO_DEVICE";
inline constexpr const char* kErrorAborted = "ERR_SIGLIP_ABORTED";
inline constexpr const char* kErrorDisposed = "ERR_SIGLIP_DISPOSED";
inline constexpr const char* kErrorUnsupported = "ERR_SIGLIP_UNSUPPORTED";
inline constexpr const char* kErrorImage = "ERR_SIGLIP_IMAGE";

}  // namespace siglip2
