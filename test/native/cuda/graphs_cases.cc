// Cases of runtime_program: passes whose work repeats, against the same work done at once on the host.
#include <dlfcn.h>

#include <cstring>
#include <random>
#include <stdexcept>
#include <vector>

#include "cuda/cublaslt.h"
#include "cuda/prim/launch.h"
#include "fake_runtime.h"
#include "program.h"

namespace siglip2::cuda::test {
namespace {

constexpr int kBuffers = 5;
constexpr std::int64_t kValues = 300;   // of a buffer
constexpr std::int64_t kLarge = 70000;  // of the last one, whose uploads end a sequence

// Small, because large blocks are slow under the sanitizers; a fourth is more than the pool keeps.
OpContext open_small() {
  fake::state.memory = std::size_t{16} << 20;
  return open();
}

// With bytes that mean nothing between its fields.
struct Mix {
  std::int32_t* to;
  std::uint8_t shift;
  const std::int32_t* from;
  std::int64_t count;
};

void mix(Mix args, std::int32_t factor) {
  for (std::int64_t i = 0; i < args.count; ++i)
    args.to[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(args.to[i]) * 3u +
                                           (static_cast<std::uint32_t>(args.from[i]) << args.shift) +
                                           static_cast<std::uint32_t>(factor));
}

void mix_twice(Mix args, std::int32_t factor) {
  mix(args, factor);
  mix(args, factor);
}

// A batch of some shape: the same one always asks for the same work. Shapes of one family begin alike.
struct Shape {
  unsigned family;
  int common;    // pieces of work that it has in common with its family
  unsigned own;  // what comes then
  int own_count;
};

class Model {
 public:
  explicit Model(OpContext context) : context_(context), host_(kBuffers) {
    fake::add_function(mix);
    for (int i = 0; i < kBuffers; ++i) {
      host_[i].assign(size_of_buffer(i), 0);
      device_[i] = allocate(i);
    }
    reset();
  }

  // New contents, outside of passes.
  void reset() {
    for (int i = 0; i < kBuffers; ++i) {
      const auto first = static_cast<std::uint32_t>(generator());
      for (std::size_t place = 0; place < host_[i].size(); ++place)
        host_[i][place] = static_cast<std::int32_t>(first + place * 0x9E3779B1u);
      table().copy_to_device(context_, device_[i], host_[i].data(), bytes(i));
    }
  }

  // To a new place in memory.
  void move(int buffer) {
    void* const moved = allocate(buffer);
    table().copy_on_device(context_, moved, device_[buffer], bytes(buffer));
    table().release(context_.device, device_[buffer]);
    device_[buffer] = static_cast<std::int32_t*>(moved);
  }

  void check() {
    for (int i = 0; i < kBuffers; ++i) {
      std::vector<std::int32_t> found(host_[i].size());
      table().copy_to_host(context_, found.data(), device_[i], bytes(i));
      CHECK(found == host_[i]);
    }
  }

  // One pass. `stop` pieces are done, then it throws.
  void pass(const Shape& shape, int stop = -1) {
    table().begin_pass(context_.device);
    try {
      std::mt19937 family(shape.family);
      std::mt19937 own(shape.own);
      for (int i = 0; i < shape.common + shape.own_count; ++i) {
        if (i == stop) throw std::runtime_error("stopped");
        piece(i < shape.common ? family : own);
      }
      table().end_pass(context_.device);
    } catch (...) {
      table().abandon_pass(context_.device);
      throw;
    }
  }

  // Memory for a short time in the middle of a pass, which is too large to be kept.
  bool frees_in_pass = false;

 private:
  static const OpTable& table() { return *library().table; }
  static std::size_t size_of_buffer(int buffer) {
    return static_cast<std::size_t>(buffer == kBuffers - 1 ? kLarge : kValues);
  }
  static std::size_t bytes(int buffer) { return 4 * size_of_buffer(buffer); }
  std::int32_t* allocate(int buffer) {
    return static_cast<std::int32_t*>(table().allocate(context_.device, bytes(buffer)));
  }

  void piece(std::mt19937& choices) {
    const unsigned kind = choices() % 16;
    const int to = static_cast<int>(choices() % (kBuffers - 1));
    const int from = static_cast<int>(choices() % kBuffers);
    const std::size_t count = 1 + choices() % (kValues - 1);
    if (kind == 0) {
      table().fill_zero(context_, device_[to], 4 * count);
      std::fill_n(host_[to].begin(), count, 0);
    } else if (kind == 1 && from != to) {
      table().copy_on_device(context_, device_[to], device_[from], 4 * count);
      std::copy_n(host_[from].begin(), count, host_[to].begin());
    } else if (kind <= 4) {
      upload(to, count);
    } else if (kind == 5) {
      if (from == kBuffers - 1) upload(from, kLarge);
    } else if (kind == 6) {
      if (from != 0) return;
      std::vector<std::int32_t> found(count);
      table().copy_to_host(context_, found.data(), device_[to], 4 * count);
      CHECK(std::equal(found.begin(), found.end(), host_[to].begin()));
    } else {
      Mix args;
      const int noise = static_cast<int>(generator());
      std::memset(static_cast<void*>(&args), noise, sizeof args);
      args.to = device_[to];
      args.shift = static_cast<std::uint8_t>(choices() % 5);
      args.from = device_[from];
      args.count = static_cast<std::int64_t>(count);
      const auto factor = static_cast<std::int32_t>(choices());
      // Some need shared memory that must be asked for.
      launch(context_, "mix", mix, {1, 32, kind == 7 ? std::size_t{60} << 10 : 0}, {}, args, factor);
      args.to = host_[to].data();
      args.from = host_[from].data();
      mix(args, factor);
    }
    if (!frees_in_pass || random_between(0, 20) != 0) return;
    void* const memory = table().allocate(context_.device, fake::state.memory / 4);
    table().release(context_.device, memory);
  }

  // Different values each time, in memory that is written over afterwards.
  void upload(int to, std::size_t count) {
    std::vector<std::int32_t> values(count);
    const auto first = static_cast<std::int32_t>(generator() & 0xffffff);
    for (std::size_t i = 0; i < count; ++i)
      values[i] = first + static_cast<std::int32_t>(i);
    std::copy(values.begin(), values.end(), host_[to].begin());
    table().copy_to_device(context_, device_[to], values.data(), 4 * count);
    std::fill(values.begin(), values.end(), -1);
  }

  OpContext context_;
  std::vector<std::vector<std::int32_t>> host_;
  std::int32_t* device_[kBuffers];
};

Shape random_shape(int kinds) {
  const auto kind = static_cast<unsigned>(random_between(0, kinds - 1));
  return {1 + kind % 3, static_cast<int>(5 + kind % 3 * 20), 100 + kind, static_cast<int>(kind % 7 * 9)};
}

// Nothing but launches.
void launches(OpContext& context, std::int32_t* to, const std::int32_t* from, int count, std::int32_t factor) {
  const OpTable& table = *library().table;
  table.begin_pass(context.device);
  for (int i = 0; i < count; ++i)
    launch(context, "mix", mix, {}, {}, Mix{to, 1, from, 8}, factor + 100000 * i);
  table.end_pass(context.device);
}

}  // namespace

// A pass in which one number makes another of one piece of work.
void one_differs(OpContext& context, std::int32_t* to, std::int32_t* from, int number) {
  const OpTable& table = *library().table;
  const auto is = [&](int which) { return number == which ? 1 : 0; };
  const std::int32_t values[3] = {1, 2, 3};
  table.begin_pass(context.device);
  for (int i = 0; i < 8; ++i)
    launch(context, "mix", mix, {}, {}, Mix{to, 1, from, 8}, 5);
  table.copy_on_device(context, to + is(1), from, 8);
  table.copy_on_device(context, to, from + is(2), 8);
  table.copy_on_device(context, to, from, 4 + 4 * static_cast<std::size_t>(is(3)));
  table.fill_zero(context, to + is(4), 8);
  table.fill_zero(context, to, 4 + 4 * static_cast<std::size_t>(is(5)));
  table.copy_to_device(context, to + is(6), values, 8);
  table.copy_to_device(context, to, values, 4 + 4 * static_cast<std::size_t>(is(7)));
  launch(context, "mix", is(8) == 1 ? mix_twice : mix, {}, {}, Mix{to, 1, from, 8}, 5);
  launch(context, "mix", mix, {1 + is(9), 32 + 32 * is(10), static_cast<std::size_t>(is(11)), 1 + is(12)}, {},
         Mix{to, 1, from, 8}, 5);
  if (is(13) == 1)
    table.fill_zero(context, to, 4);
  else
    table.copy_on_device(context, to, from, 4);
  table.end_pass(context.device);
}

void graphs() {
  OpContext context = open_small();
  const OpTable& table = *library().table;
  fake::add_function(mix);
  fake::add_function(mix_twice);
  auto* const to = static_cast<std::int32_t*>(table.allocate(context.device, 32));
  auto* const from = static_cast<std::int32_t*>(table.allocate(context.device, 32));
  // Started at once, then captured, then launched as a whole.
  launches(context, to, from, 20, 5);
  CHECK(fake::state.launches == 20 && fake::state.captures == 0);
  launches(context, to, from, 20, 5);
  CHECK(fake::state.launches == 20 && fake::state.captures == 1 && fake::state.graph_launches == 1);
  launches(context, to, from, 20, 5);
  CHECK(fake::state.launches == 20 && fake::state.captures == 1 && fake::state.graph_launches == 2);
  // An argument differs; one more; one less; too few for a graph.
  launches(context, to, from, 20, 6);
  launches(context, to, from, 21, 5);
  launches(context, to, from, 19, 5);
  CHECK(fake::state.launches == 80 && fake::state.captures == 1 && fake::state.graph_launches == 2);
  for (int i = 0; i < 3; ++i)
    launches(context, to, from, 5, 7);
  CHECK(fake::state.launches == 95 && fake::state.captures == 1);
  // Shapes that never come again leave those alone that do, and do not pile up.
  for (int i = 0; i < 100; ++i)
    launches(context, to, from, 10, 1000 + i);
  launches(context, to, from, 20, 5);
  CHECK(fake::state.captures == 1 && fake::state.graph_launches == 3);
  for (int i = 0; i < 140; ++i) {
    launches(context, to, from, 10, 2000 + i / 2);
    if (i % 10 == 0) launches(context, to, from, 20, 5);
  }
  CHECK(fake::state.captures == 71 && fake::state.graphs == 64);
  // Long ones are cut.
  for (int i = 0; i < 3; ++i)
    launches(context, to, from, 600, 3);
  CHECK(fake::state.captures == 74 && fake::state.graph_launches == 3 + 70 + 14 + 6);
  for (int number = 0; number <= 13; ++number) {
    const int captures = fake::state.captures;
    one_differs(context, to, from, number);
    CHECK(fake::state.captures == captures);
    one_differs(context, to, from, number);
    CHECK(fake::state.captures == captures + 1);
  }
  // What was seen once is forgotten after many others.
  const int captured = fake::state.captures;
  for (int i = 0; i <= 64; ++i)
    launches(context, to, from, 10, 3000 + i);
  launches(context, to, from, 10, 3000);
  CHECK(fake::state.captures == captured);
  // Work outside of passes is never held back.
  const int launched = fake::state.launches;
  launch(context, "mix", mix, {}, {}, Mix{to, 1, from, 8}, 5);
  CHECK(fake::state.launches == launched + 1);
  // When memory goes back to the device, graphs go.
  table.release(context.device, table.allocate(context.device, fake::state.memory / 2));
  CHECK(fake::state.graphs == 0);

  const std::size_t pinned = fake::state.pinned;
  Model model(context);
  const int before = fake::state.graph_launches;
  for (int round = 0; round < 300; ++round) {
    const int kinds = round < 150 ? 8 : 60;
    const Shape shape = random_shape(kinds);
    model.frees_in_pass = round % 100 > 80;
    if (random_between(0, 15) == 0) {
      try {
        model.pass(shape, static_cast<int>(random_between(0, 40)));
      } catch (const std::runtime_error&) {
        model.reset();
      }
    } else {
      model.pass(shape);
    }
    if (random_between(0, 3) == 0) model.check();
    if (random_between(0, 25) == 0) model.move(static_cast<int>(random_between(0, kBuffers - 1)));
    CHECK(fake::state.graphs <= 64 && cudaGetLastError() == cudaSuccess);
  }
  model.check();
  CHECK(fake::state.graph_launches > before + 100);
  table.release(context.device, table.allocate(context.device, fake::state.memory / 2));
  CHECK(fake::state.graphs == 0 && fake::state.pinned == pinned);
}

// Every call that a capture needs fails at some time. Then results are right, or the pass throws and later ones are
// right.
void graph_errors() {
  OpContext context = open_small();
  Model model(context);
  const char* const calls[] = {"cudaEventCreate",      "cudaHostAlloc",   "cudaStreamBeginCapture",
                               "cudaLaunchKernel",     "cudaMemcpyAsync", "cudaStreamEndCapture",
                               "cudaGraphInstantiate", "cudaGraphLaunch", "cudaMemsetAsync"};
  int thrown = 0;
  for (int round = 0; round < 400; ++round) {
    fake::state.failures.clear();
    const char* const call = calls[random_between(0, 8)];
    const bool often = std::strncmp(call, "cudaL", 5) == 0 || std::strncmp(call, "cudaM", 5) == 0;
    if (round % 2 == 1)
      fake::state.failures[call] = {static_cast<int>(random_between(0, often ? 30 : 1)), cudaErrorLaunchOutOfResources};
    try {
      model.pass(random_shape(12));
    } catch (const Error& error) {
      ++thrown;
      CHECK(std::string(error.code()) == "ERR_SIGLIP_CUDA");
      CHECK(often);
      fake::state.failures.clear();
      model.reset();
    }
    fake::state.failures.clear();
    if (random_between(0, 3) == 0) model.check();
    // So that refused ones are tried again.
    if (random_between(0, 20) == 0)
      library().table->release(context.device, library().table->allocate(context.device, fake::state.memory / 2));
    CHECK(cudaGetLastError() == cudaSuccess);
  }
  model.check();

  // What was held back cannot be started when memory goes back in the middle of a pass: the pass says so at its end.
  const OpTable& table = *library().table;
  auto* const memory = static_cast<std::int32_t*>(table.allocate(context.device, 64));
  launches(context, memory, memory + 8, 20, 5);
  table.begin_pass(context.device);
  launch(context, "mix", mix, {}, {}, Mix{memory, 1, memory + 8, 8}, 5);
  fake::state.failures["cudaLaunchKernel"] = {0, cudaErrorLaunchOutOfResources};
  table.release(context.device, table.allocate(context.device, fake::state.memory / 2));
  CHECK(catch_error([&] { table.end_pass(context.device); }).has("mix"));
  table.abandon_pass(context.device);
  launches(context, memory, memory + 8, 20, 5);
  CHECK(thrown > 0 && fake::state.graph_launches > 100);
}

// Products are known again, too, with their biases and workspace; those without an algorithm are left to the caller.
void graph_products() {
  OpContext context = open();
  const OpTable& table = *library().table;
  constexpr std::int64_t kSize = 16;
  auto* const memory = static_cast<float*>(table.allocate(context.device, 4 * kSize * kSize * 4));
  const auto matrix = [&](int index) {
    return MatrixView{memory + index * kSize * kSize, DType::kFloat32, kSize, kSize, kSize};
  };
  std::vector<float> values(4 * kSize * kSize);
  std::vector<float> expected;
  for (int round = 0; round < 6; ++round) {
    if (round == 3) fake::state.failures["cudaGraphLaunch"] = {0, cudaErrorLaunchOutOfResources};
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(static_cast<int>((i * 7 + static_cast<std::size_t>(round / 2)) % 5) - 2) / 8;
    table.begin_pass(context.device);
    table.copy_to_device(context, memory, values.data(), 4 * values.size());
    for (int i = 0; i < 9; ++i) {
      MatmulArgs args;
      args.a = matrix(i % 3);
      args.b = matrix((i + 1) % 3);
      args.d = matrix(3);
      args.bias = matrix(0).as<float>() + i;
      if (i % 2 == 1) args.c = args.d;
      CHECK(matmul(context, args));
      // No algorithm.
      args.a.columns = args.b.columns = 13;
      CHECK(!matmul(context, args));
    }
    // A bias that is rounded in a launch of its own.
    auto* const halves = matrix(1).as<std::uint16_t>();
    const MatrixView half{halves, DType::kBFloat16, 4, 4, 4};
    MatmulArgs args;
    args.a = args.b = half;
    args.bias = matrix(2).as<float>();
    args.d = {halves + 64, DType::kBFloat16, 4, 4, 4};
    CHECK(matmul(context, args));
    std::vector<float> found(values.size());
    table.copy_to_host(context, found.data(), memory, 4 * found.size());
    table.end_pass(context.device);
    // Each input comes twice in a row: once one by one or captured, once not.
    if (round % 2 == 1) CHECK(std::memcmp(found.data(), expected.data(), 4 * found.size()) == 0);
    expected = found;
  }
  CHECK(fake::state.captures == 1 && fake::state.graph_launches == 2);

  // A pass with a product that is refused when it is started is not remembered.
  void* const file = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_NOLOAD);
  CHECK(file != nullptr);
  MatmulArgs args;
  args.a = args.b = matrix(0).slice_rows(0, 5);
  args.d = {matrix(3).data, DType::kFloat32, 5, 5, 5};
  const auto refuse = reinterpret_cast<void (*)(int)>(dlsym(file, "fake_refuse"));
  for (int round = 0; round < 6; ++round) {
    // So many other kinds that all are forgotten, and the refused one is asked for again.
    MatmulArgs other = args;
    other.a.columns = other.b.columns = 13;
    for (int i = 0; i < 4100 && round % 2 == 1; ++i) {
      ++other.a.stride;
      matmul(context, other);
    }
    table.begin_pass(context.device);
    // In the last rounds what comes before it is held back.
    const int others = round < 2 ? 9 : 10;
    for (int i = 0; i < others; ++i)
      CHECK(matmul(context, args));
    if (round % 2 == 1 || round == 0) {
      refuse(round == 5 ? 0 : 1);
      MatmulArgs refused = args;
      refused.gelu = true;
      CHECK(matmul(context, refused) == (round == 5));
      refuse(0);
    }
    table.end_pass(context.device);
  }
  CHECK(fake::state.captures == 2);
}

void no_graphs() {
  setenv("SIGLIP2_CUDA_GRAPHS", "0", 1);
  OpContext context = open_small();
  Model model(context);
  for (int round = 0; round < 60; ++round) {
    model.pass(random_shape(6));
    model.check();
  }
  CHECK(fake::state.captures == 0 && fake::state.graph_launches == 0);
}

}  // namespace siglip2::cuda::test
