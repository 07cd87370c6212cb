#include "cuda/cublaslt_library.h"

#include <cstdlib>
#include <cstring>
#include <type_traits>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace siglip2::cuda::cublaslt {
namespace {

#if defined(_WIN32)
constexpr const char* kNames[] = {"cublasLt64_13.dll", "cublasLt64_12.dll"};

void* open_file(const char* name) {
  return reinterpret_cast<void*>(LoadLibraryA(name));
}
void* find_function(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}
#else
// Where the loader looks, then where NVIDIA's installer puts it, which is not always one of these places.
constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.13",
                                  "/usr/local/cuda/lib64/libcublasLt.so.12"};

void* open_file(const char* name) {
  return dlopen(name, RTLD_NOW | RTLD_LOCAL);
}
void* find_function(void* library, const char* name) {
  return dlsym(library, name);
}
#endif

struct Opened {
  Library library{};
  bool complete = false;
  std::string notice;

  Opened() {
    const char* const wanted = std::getenv("SIGLIP2_CUBLASLT");
    if (wanted != nullptr && std::strcmp(wanted, "0") == 0) {
      notice = "cuBLASLt is turned off by SIGLIP2_CUBLASLT=0: matrix products run on this package's own kernels";
      return;
    }
    void* file = nullptr;
    for (const char* name : kNames)
      if ((file = open_file(name)) != nullptr) break;
    if (file == nullptr) {
      notice = "cuBLASLt 12 or 13 was not found: matrix products run on this package's own kernels, which are slower";
      return;
    }
    complete = true;
    const auto find = [&](auto& function, const char* name) {
      void* const found = find_function(file, name);
      if (found == nullptr) {
        complete = false;
        notice = std::string("cuBLASLt has no function ") + name +
                 ": matrix products run on this package's own kernels, which are slower";
      }
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
    };
    find(library.create, "cublasLtCreate");
    find(library.description_create, "cublasLtMatmulDescCreate");
    find(library.description_set, "cublasLtMatmulDescSetAttribute");
    find(library.description_destroy, "cublasLtMatmulDescDestroy");
    find(library.layout_create, "cublasLtMatrixLayoutCreate");
    find(library.layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(library.preference_create, "cublasLtMatmulPreferenceCreate");
    find(library.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    find(library.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(library.search, "cublasLtMatmulAlgoGetHeuristic");
    find(library.matmul, "cublasLtMatmul");
  }
};

}  // namespace

const Library* open_library(std::string* notice) {
  // Stays open as long as the process: work may be running at its end.
  static const auto* const opened = new Opened;
  *notice = opened->notice;
  return opened->complete ? &opened->library : nullptr;
}

}  // namespace siglip2::cuda::cublaslt
