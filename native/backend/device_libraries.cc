#include "backend/device_libraries.h"

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <system_error>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace siglip2 {
namespace {

namespace fs = std::filesystem;

#if defined(_WIN32)
constexpr const char* kSuffix = ".dll";
#elif defined(__APPLE__)
constexpr const char* kSuffix = ".dylib";
#else
constexpr const char* kSuffix = ".so";
#endif

struct Entry {
  const char* name;
  bool present;
};

// The first entry that a table lacks, or null.
const char* missing_entry(const OpTable& table) {
#define SIGLIP2_ENTRY(name)      \
  Entry {                        \
    #name, table.name != nullptr \
  }
  const Entry entries[] = {
      SIGLIP2_ENTRY(allocate),
      SIGLIP2_ENTRY(release),
      SIGLIP2_ENTRY(copy_to_device),
      SIGLIP2_ENTRY(copy_to_host),
      SIGLIP2_ENTRY(copy_on_device),
      SIGLIP2_ENTRY(fill_zero),
      SIGLIP2_ENTRY(start_planning),
      SIGLIP2_ENTRY(start_running),
      SIGLIP2_ENTRY(planned_bytes),
      SIGLIP2_ENTRY(begin_pass),
      SIGLIP2_ENTRY(end_pass),
      SIGLIP2_ENTRY(abandon_pass),
      SIGLIP2_ENTRY(packed_weight_bytes),
      SIGLIP2_ENTRY(pack_weight),
      SIGLIP2_ENTRY(linear),
      SIGLIP2_ENTRY(linear_backward),
      Entry{"mlp", true},  // may be missing
      SIGLIP2_ENTRY(layer_norm),
      SIGLIP2_ENTRY(layer_norm_backward),
      SIGLIP2_ENTRY(gelu),
      SIGLIP2_ENTRY(gelu_backward),
      SIGLIP2_ENTRY(attention),
      SIGLIP2_ENTRY(attention_backward),
      Entry{"self_attention", true},  // likewise
      SIGLIP2_ENTRY(map_pool),
      SIGLIP2_ENTRY(map_pool_backward),
      SIGLIP2_ENTRY(probe_keys),
      SIGLIP2_ENTRY(probe_keys_backward),
      SIGLIP2_ENTRY(position_embedding),
      SIGLIP2_ENTRY(position_embedding_backward),
      SIGLIP2_ENTRY(token_embedding),
      SIGLIP2_ENTRY(token_embedding_backward),
      SIGLIP2_ENTRY(l2_normalize),
      SIGLIP2_ENTRY(l2_normalize_backward),
      SIGLIP2_ENTRY(sigmoid_loss),
      SIGLIP2_ENTRY(adam),
      SIGLIP2_ENTRY(sum_of_squares),
      SIGLIP2_ENTRY(convert),
      SIGLIP2_ENTRY(patchify_images),
      SIGLIP2_ENTRY(patchify_pixels),
  };
#undef SIGLIP2_ENTRY
  // From `allocate` on the table is nothing but entries.
  static_assert(sizeof(entries) / sizeof(entries[0]) == (sizeof(OpTable) - offsetof(OpTable, allocate)) / sizeof(void*),
                "an entry of OpTable is missing above");
  for (const Entry& entry : entries)
    if (!entry.present) return entry.name;
  return nullptr;
}

// The folder that this code's own binary lies in; empty when the system does not say.
fs::path own_folder() {
#if defined(_WIN32)
  HMODULE module = nullptr;
  wchar_t path[32768];
  if (GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                         reinterpret_cast<LPCWSTR>(&own_folder), &module) == 0 ||
      GetModuleFileNameW(module, path, 32768) == 0)
    return {};
  return fs::path(path).parent_path();
#else
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code ignored;
  return fs::absolute(info.dli_fname, ignored).parent_path();
#endif
}

// Beside the addon; or, when that is a prebuilt binary (prebuilds/PLATFORM/), where the package builds.
fs::path find_file(const std::string& name) {
  const fs::path folder = own_folder();
  for (const fs::path& place : {folder, folder / ".." / ".." / "build" / "Release"}) {
    const fs::path file = (place / (name + kSuffix)).lexically_normal();
    std::error_code ignored;
    if (fs::exists(file, ignored)) return file;
  }
  return {};
}

// The library's exported function. Null, and `reason` says why, when it cannot be opened.
DeviceLibraryFunction open_file(const fs::path& file, std::string& reason) {
  constexpr const char* kFunction = "siglip2_device_library";
#if defined(_WIN32)
  const HMODULE module = LoadLibraryW(file.c_str());
  if (module == nullptr) {
    reason = "error " + std::to_string(GetLastError());
    return nullptr;
  }
  const auto function = reinterpret_cast<DeviceLibraryFunction>(GetProcAddress(module, kFunction));
#else
  void* const module = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    const char* const error = dlerror();
    reason = error == nullptr ? "unknown error" : error;
    return nullptr;
  }
  const auto function = reinterpret_cast<DeviceLibraryFunction>(dlsym(module, kFunction));
#endif
  if (function == nullptr) reason = std::string("it has no function ") + kFunction;
  return function;
}

OpenedLibrary open_library(const std::string& name, const std::string& how_to_build) {
  OpenedLibrary opened;
  const fs::path file = find_file(name);
  if (file.empty()) {
    opened.reason = "the library " + name + " is not built: " + how_to_build;
    return opened;
  }
  std::string why;
  const DeviceLibraryFunction function = open_file(file, why);
  if (function == nullptr) {
    opened.reason = file.string() + " cannot be opened: " + why;
    return opened;
  }
  const DeviceLibrary* const library = function(kDeviceLibraryVersion);
  if (library == nullptr) {
    opened.reason = file.string() + " belongs to another version of siglip2; build it again: " + how_to_build;
    return opened;
  }
  if (const char* const missing = missing_entry(*library->table)) {
    opened.reason = file.string() + " lacks the operation " + missing + "; build it again: " + how_to_build;
    return opened;
  }
  opened.library = library;
  opened.devices = library->count();
  if (opened.devices <= 0) {
    opened.devices = 0;
    opened.reason = library->reason();
  }
  return opened;
}

std::atomic<bool> simt_opened{false};

}  // namespace

// Never destroyed, as devices are not.
const OpenedLibrary& cuda_library() {
  static const auto* const opened = new OpenedLibrary(open_library("siglip2-cuda", "npm run build:cuda"));
  return *opened;
}

const OpenedLibrary& simt_library() {
  static const auto* const opened = new OpenedLibrary(open_library("siglip2-simt", "npm run build:native"));
  simt_opened.store(true);
  return *opened;
}

bool simt_library_opened() {
  return simt_opened.load();
}

}  // namespace siglip2
