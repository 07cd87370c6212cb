// Kernels whose instructions are known, for check-kernels.mjs: it trusts its instruction counts on an architecture only
// when these come out right. Each name says what must be found.
#include <cstdint>

extern "C" __global__ void probe_wide_load_and_store(const float4* input, float4* output) {
  output[threadIdx.x] = input[threadIdx.x];
}

extern "C" __global__ void probe_narrow_load_and_store(const unsigned char* input, unsigned short* output) {
  output[threadIdx.x] = input[threadIdx.x];
}

// A run-time index into an array of a thread goes through local memory.
extern "C" __global__ void probe_local_memory(const float* input, float* output, int count) {
  float values[100];
  for (int i = 0; i < 100; ++i)
    values[i] = input[i * count];
  float sum = 0;
  for (int i = 0; i < count; ++i)
    sum += values[(i * 7 + count) % 100];
  output[0] = sum;
}

extern "C" __global__ void probe_wide_copy_and_product(const uint32_t* input, float* output) {
  extern __shared__ char shared[];
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(input) : "memory");
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
  uint32_t a[4];
  float d[4] = {};
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
               : "r"(address)
               : "memory");
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[1]), "r"(a[2]));
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(d[1]));
  output[threadIdx.x] = d[0] + power;
}

extern "C" __global__ void probe_narrow_copy(const uint32_t* input) {
  extern __shared__ char shared[];
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(input) : "memory");
  asm volatile("cp.async.wait_all;" ::: "memory");
}
