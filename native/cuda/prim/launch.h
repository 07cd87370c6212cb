// Starting kernels, and saying what they touch.
//
// Every launch declares the matrices and arrays of global memory it may read and write. Hardware does not look at that;
// the emulated device refuses every access outside it, padding between rows included. While a pass is planned
// (context.planning) launches do nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <tuple>
#include <type_traits>

#include "backend/op_table.h"
#include "cuda/language.h"
#include "cuda/runtime.h"
#if defined(SIGLIP2_SIMT)
#include "simt/work_record.h"
#endif

namespace siglip2::cuda {

// A range of global memory: `rows` rows of `row_bytes` bytes, `stride_bytes` apart. Writing includes reading.
struct Access {
  const void* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t row_bytes = 0;
  std::int64_t stride_bytes = 0;
  bool writable = false;
};

// Absent matrices and arrays (null) declare nothing.
inline Access reads(const ConstMatrixView& view) {
  const auto size = static_cast<std::int64_t>(size_of(view.dtype));
  return {view.data, view.data == nullptr ? 0 : view.rows, view.columns * size, view.stride * size, false};
}
inline Access writes(const MatrixView& view) {
  Access access = reads(view);
  access.writable = true;
  return access;
}
template <typename T>
Access reads(const T* data, std::int64_t count) {
  return {data, data == nullptr || count == 0 ? 0 : 1, count * static_cast<std::int64_t>(sizeof(T)), 0, false};
}
template <typename T>
Access writes(T* data, std::int64_t count) {
  Access access = reads(data, count);
  access.writable = true;
  return access;
}

struct LaunchShape {
  std::int64_t blocks = 1;  // at most 2^31 − 1; 0 launches nothing
  int threads = 128;        // of a block, a multiple of 32
  std::size_t shared_bytes = 0;
  std::int64_t blocks_y = 1;  // at most 65535
};

// Zeroes the bytes of a value that mean nothing, where the compiler can: so equal arguments are equal as bytes, and a
// sequence of launches can be known again (cuda/graphs.h).
template <typename T>
void clear_padding([[maybe_unused]] T& value) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
  __builtin_clear_padding(&value);
#endif
#endif
}

// Queues kernel(args…) on the context's stream. Throws ERR_SIGLIP_CUDA when it cannot be started.
template <typename... Parameters, typename... Arguments>
void launch(OpContext& context, const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            std::span<const Access> accesses, Arguments... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  if (context.planning || shape.blocks == 0 || shape.blocks_y == 0) return;
#if defined(SIGLIP2_SIMT)
  if (simt::work_recorded) {
    [&](Parameters... parameters) {
      (clear_padding(parameters), ...);
      const std::span<const std::byte> bytes[] = {std::as_bytes(std::span(&parameters, 1))...};
      simt::record_launch(name, reinterpret_cast<const void*>(kernel),
                          {static_cast<std::uintptr_t>(shape.blocks), static_cast<std::uintptr_t>(shape.blocks_y),
                           static_cast<std::uintptr_t>(shape.threads), shape.shared_bytes},
                          bytes);
    }(static_cast<Parameters>(arguments)...);
  }
  simt::GlobalMemory memory;
  for (const Access& access : accesses)
    memory.add(access.data, access.rows, access.row_bytes, access.stride_bytes, access.writable);
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> parameters;
  } const call{kernel, {static_cast<Parameters>(arguments)...}};
  const auto run = [](const void* data) {
    const Call& made = *static_cast<const Call*>(data);
    std::apply(made.kernel, made.parameters);
  };
  simt::launch(name, shape.blocks, shape.blocks_y, shape.threads, shape.shared_bytes, memory,
               {run, &call, sizeof call});
#else
  // The runtime wants the address of each argument, in the kernel's own type.
  [&](Parameters... parameters) {
    (clear_padding(parameters), ...);
    void* addresses[] = {&parameters..., nullptr};
    const std::size_t bytes[] = {sizeof(parameters)..., 0};
    runtime::launch(context, name, reinterpret_cast<const void*>(kernel), shape.blocks, shape.blocks_y, shape.threads,
                    shape.shared_bytes, addresses, bytes);
  }(static_cast<Parameters>(arguments)...);
#endif
}
template <typename... Parameters, typename... Arguments>
void launch(OpContext& context, const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            std::initializer_list<Access> accesses, Arguments... arguments) {
  launch(context, name, kernel, shape, std::span<const Access>(accesses.begin(), accesses.size()), arguments...);
}

}  // namespace siglip2::cuda
