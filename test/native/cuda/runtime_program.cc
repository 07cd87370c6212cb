// Tests of native/cuda/ on the fake CUDA runtime: `runtime_program CASE SEED` exits with 0 or says what is wrong.
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "backend/device_library.h"
#include "cuda/cuda_device.h"
#include "cuda/kernels.h"
#include "cuda/prim/launch.h"
#include "cuda/runtime.h"
#include "cuda/scratch.h"
#include "fake_runtime.h"
#include "ops/convert/convert.h"
#include "program.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void fill_kernels(OpTable&) {}

// In place of the kernel.
void round_values(const float* from, std::uint16_t* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, from + i, 4);
    to[i] = static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}
void convert_cuda(OpContext& context, const ConvertArgs& args) {
  fake::add_function(round_values);
  launch(context, "convert", round_values, {}, {}, args.input.as<float>(), args.output.as<std::uint16_t>(),
         args.input.columns);
}

}  // namespace siglip2::cuda

using namespace siglip2;              // NOLINT: a test program
using namespace siglip2::cuda::test;  // NOLINT
namespace {

void start(OpContext& context, const char* name, fake::Kernel kernel, std::size_t shared_bytes = 0) {
  fake::Kernel* pointer = &kernel;
  void* arguments[] = {&pointer, nullptr};
  const std::size_t bytes[] = {sizeof(pointer), 0};
  cuda::runtime::launch(context, name, name, 1, 1, 32, shared_bytes, arguments, bytes);
}

std::vector<unsigned char> random_bytes(std::size_t count) {
  std::vector<unsigned char> bytes(count);
  const auto first = static_cast<unsigned char>(generator());
  for (std::size_t i = 0; i < count; ++i)
    bytes[i] = static_cast<unsigned char>(first + i * 7 + (i >> 12));
  return bytes;
}

// Uploads are read from the caller's memory before the call returns, and from pinned memory before that is used again.
void copies() {
  OpContext context = open();
  const OpTable& table = *library().table;
  struct Copy {
    void* device;
    std::vector<unsigned char> expected;
  };
  std::vector<Copy> copies;
  for (int i = 0; i < 40; ++i) {
    const auto bytes =
        static_cast<std::size_t>(i % 10 == 9 ? random_between(1 << 20, 20 << 20) : random_between(0, 70000));
    if (i == 25)
      copies.push_back({nullptr, random_bytes(std::size_t{45} << 20)});
    else
      copies.push_back({nullptr, random_bytes(bytes)});
    Copy& copy = copies.back();
    copy.device = table.allocate(context.device, copy.expected.size());
    std::vector<unsigned char> source = copy.expected;
    table.copy_to_device(context, copy.device, source.data(), source.size());
    std::fill(source.begin(), source.end(), 0xDD);
  }
  void* const other = table.allocate(context.device, copies[25].expected.size());
  table.copy_on_device(context, other, copies[25].device, copies[25].expected.size());
  table.fill_zero(context, copies[25].device, 1000);
  for (std::size_t i = 0; i < copies.size(); ++i) {
    std::vector<unsigned char> result(copies[i].expected.size(), 0xDD);
    table.copy_to_host(context, result.data(), i == 25 ? other : copies[i].device, result.size());
    CHECK(result == copies[i].expected);
  }
  std::vector<unsigned char> zeros(1001, 0xDD);
  table.copy_to_host(context, zeros.data(), copies[25].device, zeros.size());
  for (int i = 0; i < 1000; ++i)
    CHECK(zeros[i] == 0);
  CHECK(zeros[1000] == copies[25].expected[1000]);
}

void memory() {
  OpContext context = open();
  const OpTable& table = *library().table;
  void* const first = table.allocate(context.device, 100000);
  void* const empty = table.allocate(context.device, 0);
  CHECK(empty != nullptr && empty != first);
  const int mallocs = fake::state.mallocs;
  table.release(context.device, first);
  void* const again = table.allocate(context.device, 90000);
  CHECK(again == first && fake::state.mallocs == mallocs);
  // A block of twice the size would be wasted.
  table.release(context.device, again);
  void* const small = table.allocate(context.device, 1000);
  CHECK(small != first && fake::state.mallocs == mallocs + 1);
  table.release(context.device, nullptr);

  // Kept blocks go back when memory is short, and no others.
  table.release(context.device, small);
  table.release(context.device, table.allocate(context.device, std::size_t{4} << 20));
  const std::size_t most = fake::state.memory - (std::size_t{4} << 20);
  void* const large = table.allocate(context.device, most);
  CHECK(large != nullptr && fake::state.frees == 3);
  const Caught caught = catch_error([&] { table.allocate(context.device, std::size_t{16} << 20); });
  CHECK(caught.code == "ERR_SIGLIP_OUT_OF_MEMORY");
  CHECK(caught.details.at("requestedBytes") == std::int64_t{16} << 20);
  CHECK(caught.details.at("freeBytes") == static_cast<std::int64_t>(fake::state.memory - fake::state.used));
  CHECK(catch_error([&] { table.allocate(context.device, SIZE_MAX); }).code == "ERR_SIGLIP_OUT_OF_MEMORY");
  // Too large to keep.
  table.release(context.device, large);
  CHECK(fake::state.blocks.count(large) == 0);
  CHECK(table.allocate(context.device, most) != nullptr);
}

void errors() {
  OpContext context = open();
  const OpTable& table = *library().table;
  fake::state.next_launch = cudaErrorInvalidConfiguration;
  const Caught refused = catch_error([&] { start(context, "attention", [] {}); });
  CHECK(refused.code == "ERR_SIGLIP_CUDA" && refused.has("attention") && !refused.has("restart"));
  CHECK(cudaGetLastError() == cudaSuccess);
  fake::state.next_launch = cudaErrorNoKernelImageForDevice;
  CHECK(catch_error([&] { start(context, "attention", [] {}); }).has("npm run build:cuda"));
  fake::state.next_launch = cudaErrorMemoryAllocation;
  CHECK(catch_error([&] { start(context, "attention", [] {}); }).code == "ERR_SIGLIP_OUT_OF_MEMORY");

  // The device goes on.
  int runs = 0;
  start(context, "gelu", [&] { ++runs; });
  start(context, "layer_norm", [&] { ++runs; }, 48 << 10);
  CHECK(fake::state.function_attributes == 0);
  start(context, "attention", [&] { ++runs; }, 100 << 10);
  start(context, "attention", [&] { ++runs; }, 90 << 10);
  CHECK(fake::state.function_attributes == 1);
  start(context, "attention", [&] { ++runs; }, 200 << 10);
  CHECK(fake::state.function_attributes == 2);
  const Caught large = catch_error([&] { start(context, "attention", [] {}, 228 << 10); });
  CHECK(large.code == "ERR_SIGLIP_CUDA" && large.has("shared memory"));
  float value = 0;
  void* const memory = table.allocate(context.device, 4);
  table.copy_to_host(context, &value, memory, 4);
  CHECK(runs == 5);
}

void sticky() {
  OpContext context = open();
  const OpTable& table = *library().table;
  void* const memory = table.allocate(context.device, 4);
  void* const large = table.allocate(context.device, fake::state.memory / 2);
  start(context, "gelu", [] {});
  start(context, "sigmoid_loss", [] { fake::state.sticky = cudaErrorIllegalAddress; });
  float value = 0;
  const Caught first = catch_error([&] { table.copy_to_host(context, &value, memory, 4); });
  CHECK(first.code == "ERR_SIGLIP_CUDA" && first.has("cudaErrorIllegalAddress") && first.has("restart"));
  CHECK(first.has("gelu, sigmoid_loss"));
  const std::function<void()> calls[] = {
      [&] { table.allocate(context.device, 4); },
      [&] { table.copy_to_host(context, &value, memory, 4); },
      [&] { table.copy_to_device(context, memory, &value, 4); },
      [&] { table.copy_on_device(context, memory, memory, 4); },
      [&] { table.fill_zero(context, memory, 4); },
      [&] { start(context, "gelu", [] {}); },
      [&] { library().timer_start(context); },
      [&] { library().flush_l2(context); },
      [&] { cuda::matmul(context, {}); },
  };
  for (const auto& call : calls) {
    const Caught later = catch_error(call);
    CHECK(later.code == "ERR_SIGLIP_CUDA" && later.has("restart the process"));
    CHECK(later.has("cudaErrorIllegalAddress") && later.has("sigmoid_loss"));
  }
  table.release(context.device, memory);
  table.release(context.device, large);
  DeviceFacts facts;
  library().facts(0, &facts);
  CHECK(std::strstr(facts.notice, "restart") != nullptr);
}

void no_driver() {
  fake::state.count_error = cudaErrorInsufficientDriver;
  fake::state.driver_version = 0;
  CHECK(library().count() == 0);
  CHECK(std::strstr(library().reason(), "no NVIDIA driver") != nullptr);
  CHECK(catch_error([] { library().open(0); }).code == "ERR_SIGLIP_NO_DEVICE");
}
void old_driver() {
  fake::state.count_error = cudaErrorInsufficientDriver;
  fake::state.driver_version = 12080;
  CHECK(library().count() == 0);
  CHECK(std::strstr(library().reason(), "knows CUDA 12.8") != nullptr);
}
void no_device() {
  fake::state.count_error = cudaErrorNoDevice;
  CHECK(library().count() == 0 && std::strstr(library().reason(), "CUDA_VISIBLE_DEVICES") != nullptr);
}
void old_device() {
  fake::state.capability_major = 7;
  CHECK(library().count() == 0 && std::strstr(library().reason(), "sm_70") != nullptr);
}

void facts() {
  OpContext context = open();
  DeviceFacts facts;
  library().facts(0, &facts);
  CHECK(std::string(facts.name) == "fake GPU" && std::string(facts.architecture) == "sm_90");
  CHECK(facts.memory_bytes == fake::state.memory && facts.multiprocessors == 4 && facts.driver_version == 13000);
  void* const memory = library().table->allocate(context.device, 5000);
  library().facts(0, &facts);
  CHECK(facts.free_bytes == fake::state.memory - fake::state.used);
  library().table->release(context.device, memory);
  library().facts(0, &facts);
  CHECK(fake::state.used != 0 && facts.free_bytes == fake::state.memory);
  CHECK(siglip2_device_library(kDeviceLibraryVersion + 1) == nullptr);
  // Both are in the stream's order.
  library().timer_start(context);
  library().flush_l2(context);
  CHECK(library().timer_stop(context) == 1.5);
  CHECK(catch_error([] { library().open(1); }).code == "ERR_SIGLIP_NO_DEVICE");
}

// Memory that was handed out outlives the growth of the block behind it.
void scratch() {
  OpContext context = open();
  const OpTable& table = *library().table;
  {
    cuda::Scratch outer(context);
    auto* const first = outer.allocate<float>(10);
    std::memset(first, 0, 40);
    {
      cuda::Scratch inner(context);
      auto* const second = inner.allocate<float>(1 << 20);
      std::memset(second, 0xFF, 4 << 20);
      CHECK(table.allocate(context.device, 40) != first);
    }
    for (int i = 0; i < 10; ++i)
      CHECK(first[i] == 0);
  }
  const int mallocs = fake::state.mallocs;
  table.start_planning(context.device);
  OpContext plan = context;
  plan.planning = true;
  {
    cuda::Scratch counted(plan);
    counted.allocate<float>(3 << 20);
  }
  CHECK(table.planned_bytes(context.device) == std::size_t{12} << 20 && fake::state.mallocs == mallocs);
  table.start_running(context.device);
  CHECK(fake::state.mallocs == mallocs + 1);
  {
    cuda::Scratch planned(context);
    std::memset(planned.allocate<float>(3 << 20), 0, 12 << 20);
  }
  CHECK(fake::state.mallocs == mallocs + 1);
}

float from_bits(std::uint16_t half) {
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

struct RandomMatrix {
  RandomMatrix(OpContext& context, std::int64_t rows, std::int64_t columns, DType dtype)
      : view{nullptr, dtype, rows, columns, columns + random_between(0, 3)} {
    const auto count = static_cast<std::size_t>(rows * view.stride);
    view.data = library().table->allocate(context.device, count * size_of(dtype));
    for (std::size_t i = 0; i < count; ++i) {
      const float value = std::uniform_real_distribution<float>(-1, 1)(generator);
      if (dtype == DType::kFloat32) {
        view.as<float>()[i] = value;
      } else {
        std::uint32_t bits;
        std::memcpy(&bits, &value, 4);
        view.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(bits >> 16);
      }
    }
  }
  double at(std::int64_t row, std::int64_t column) const {
    const std::int64_t index = row * view.stride + column;
    return view.dtype == DType::kFloat32 ? view.as<float>()[index] : from_bits(view.as<std::uint16_t>()[index]);
  }
  MatrixView view;
};

// What is asked of cuBLASLt, in its column-major words, is the product of the contract.
void matmul() {
  OpContext context = open();
  DeviceFacts facts;
  library().facts(0, &facts);
  CHECK(facts.notice[0] == '\0');
  void* const file = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_NOLOAD);
  CHECK(file != nullptr);
  const auto searches = reinterpret_cast<int (*)()>(dlsym(file, "fake_searches"));
  for (int round = 0; round < 60; ++round) {
    const std::int64_t rows = random_between(1, 20), columns = random_between(1, 20), depth = random_between(1, 12);
    const DType in = round % 2 == 0 ? DType::kFloat32 : DType::kBFloat16;
    const DType out = round % 3 == 0 ? DType::kFloat32 : in;
    cuda::MatmulArgs args;
    args.a_transposed = random_between(0, 1) == 1;
    args.b_transposed = random_between(0, 1) == 1;
    const RandomMatrix a(context, args.a_transposed ? depth : rows, args.a_transposed ? rows : depth, in);
    const RandomMatrix b(context, args.b_transposed ? depth : columns, args.b_transposed ? columns : depth, in);
    const RandomMatrix bias(context, 1, columns, DType::kFloat32);
    const RandomMatrix c(context, rows, columns, out);
    const RandomMatrix d(context, rows, columns, out);
    const std::int64_t adds = random_between(0, 2);  // nothing, c, d itself
    args.a = a.view;
    args.b = b.view;
    if (random_between(0, 1) == 1) args.bias = bias.view.as<float>();
    if (adds == 0) args.gelu = random_between(0, 1) == 1;
    if (adds == 1) args.c = c.view;
    if (adds == 2) args.c = d.view;
    args.d = d.view;
    if (random_between(0, 1) == 1) args.factor = 0.25f;
    std::vector<double> expected;
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) {
        double value = args.bias == nullptr ? 0 : bias.at(0, column);
        for (std::int64_t k = 0; k < depth; ++k)
          value += args.factor * (args.a_transposed ? a.at(k, row) : a.at(row, k)) *
                   (args.b_transposed ? b.at(k, column) : b.at(column, k));
        if (adds == 1) value += c.at(row, column);
        if (adds == 2) value += d.at(row, column);
        if (args.gelu)
          value = 0.5 * value * (1 + std::tanh(0.7978845608028654 * (value + 0.044715 * value * value * value)));
        expected.push_back(value);
      }
    }
    const int before = searches();
    CHECK(cuda::matmul(context, args));
    CHECK(searches() <= before + 1);
    float end = 0;
    library().table->copy_to_host(context, &end, d.view.data, 2);
    const double tolerance = out == DType::kFloat32 ? 1e-5 : 0.03;
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t column = 0; column < columns; ++column)
        CHECK(std::abs(d.at(row, column) - expected[row * columns + column]) < tolerance);
    // Padding between rows is nobody's; asked again, the choice is known.
    if (adds == 2) continue;
    const int known = searches();
    CHECK(cuda::matmul(context, args) && searches() == known);
  }

  // No algorithm: nothing is queued, every time.
  const RandomMatrix a(context, 3, 13, DType::kFloat32), b(context, 4, 13, DType::kFloat32);
  const RandomMatrix d(context, 3, 4, DType::kFloat32);
  cuda::MatmulArgs args;
  args.a = a.view;
  args.b = b.view;
  args.d = d.view;
  const double kept = d.at(1, 1);
  CHECK(!cuda::matmul(context, args) && !cuda::matmul(context, args) && d.at(1, 1) == kept);

  // A plan counts the workspace and leaves the rest to the caller's own kernel.
  library().table->start_planning(context.device);
  OpContext plan = context;
  plan.planning = true;
  CHECK(!cuda::matmul(plan, args));
  CHECK(library().table->planned_bytes(context.device) == std::size_t{32} << 20);
}

void no_cublaslt() {
  OpContext context = open();
  DeviceFacts facts;
  library().facts(0, &facts);
  CHECK(std::strstr(facts.notice, "cuBLASLt") != nullptr && std::strstr(facts.notice, "slower") != nullptr);
  const RandomMatrix a(context, 3, 5, DType::kFloat32), d(context, 3, 3, DType::kFloat32);
  cuda::MatmulArgs args;
  args.a = a.view;
  args.b = a.view;
  args.d = d.view;
  CHECK(!cuda::matmul(context, args));
}

}  // namespace

int main(int count, char** arguments) {
  const std::map<std::string, void (*)()> cases{
      {"copies", copies},       {"memory", memory},
      {"errors", errors},       {"sticky", sticky},
      {"no-driver", no_driver}, {"old-driver", old_driver},
      {"no-device", no_device}, {"old-device", old_device},
      {"facts", facts},         {"scratch", scratch},
      {"matmul", matmul},       {"no-cublaslt", no_cublaslt},
      {"graphs", graphs},       {"graph-errors", graph_errors},
      {"no-graphs", no_graphs}, {"graph-products", graph_products},
  };
  if (count != 3 || cases.count(arguments[1]) == 0) return 2;
  generator.seed(static_cast<unsigned>(std::atoi(arguments[2])));
  try {
    cases.at(arguments[1])();
  } catch (const Error& error) {
    std::printf("%s: %s\n", error.code(), error.what());
    return 1;
  }
  return 0;
}
