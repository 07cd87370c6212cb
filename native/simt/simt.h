// An emulated GPU: runs kernels on the host, one fiber a thread, and looks for what hardware would let pass in silence.
//
// What a kernel does with memory reaches the engine in two ways: primitives (cuda/prim/) call the functions below, and
// kernel files are compiled with -fsanitize=thread, whose hooks around every load and store the engine defines
// (memory_hooks.cc). A launch that breaks a rule throws ERR_SIGLIP_CUDA with the kernel, block, thread and line.
// docs/kernels/emulator.md says what is checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace siglip2::simt {

// A place in a kernel's source.
struct Site {
  const char* file = "";
  int line = 0;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

struct Coordinates {
  unsigned x = 0, y = 0, z = 0;
};

// The same for a thread as long as it lives, so that compilers may ask once.
#define SIGLIP2_SIMT_CONSTANT __attribute__((const))
SIGLIP2_SIMT_CONSTANT unsigned thread_index();
SIGLIP2_SIMT_CONSTANT unsigned block_index_x();
SIGLIP2_SIMT_CONSTANT unsigned block_index_y();
SIGLIP2_SIMT_CONSTANT unsigned block_threads();
SIGLIP2_SIMT_CONSTANT unsigned grid_blocks_x();
SIGLIP2_SIMT_CONSTANT unsigned grid_blocks_y();
SIGLIP2_SIMT_CONSTANT unsigned char* shared_memory();
#undef SIGLIP2_SIMT_CONSTANT

// The global memory that one launch declares.
class GlobalMemory {
 public:
  void add(const void* data, std::int64_t rows, std::int64_t row_bytes, std::int64_t stride_bytes, bool writable);

  struct Range {
    std::uintptr_t begin, end, row_bytes, stride_bytes;
    bool writable;
  };
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

// A kernel with its parameters: `run(data)` calls it. The `bytes` at `data` may be read by the kernel's threads.
struct KernelCall {
  void (*run)(const void* data);
  const void* data;
  std::size_t bytes;
};

// Runs the kernel once for every thread of the grid. Throws siglip2::Error when it breaks a rule.
void launch(const char* name, std::int64_t blocks, std::int64_t blocks_y, int threads, std::size_t shared_bytes,
            const GlobalMemory& memory, const KernelCall& kernel);

// What primitives do; see cuda/prim/. Only for code that a launch runs.
void block_barrier(Site site);
void named_barrier_wait(int id, int threads, Site site);
void named_barrier_arrive(int id, int threads, Site site);
void warp_barrier(Site site);
void shuffle(const void* value, void* result, std::size_t bytes, int source, Site site);
std::uint32_t ballot(bool predicate, Site site);
void async_copy(void* shared, const void* source, int bytes, bool valid, Site site);
void async_copy_commit(Site site);
void async_copy_wait(int pending, Site site);
void load_matrices(std::uint32_t* registers, int count, bool transposed, const void* shared_row, Site site);
void multiply(float* accumulator, const std::uint32_t* a, const std::uint32_t* b, int depth, Site site);
void check_alignment(const void* address, std::size_t bytes, Site site);
bool in_bounds(bool condition, Site site);
// A value within `relative_error` of `value`: a function of the value that differs between seeds, not between launches.
float jitter(float value, float relative_error = 1.0f / (1 << 22));

}  // namespace siglip2::simt
