// What the cases of runtime_program have in common.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <string>

#include "backend/device_library.h"
#include "tensor/error.h"

extern "C" const siglip2::DeviceLibrary* siglip2_device_library(int version);

namespace siglip2::cuda::test {

inline std::mt19937 generator;

inline std::int64_t random_between(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(generator);
}

#define CHECK(condition)                                          \
  do {                                                            \
    if (!(condition)) {                                           \
      std::printf("line %d: not so: %s\n", __LINE__, #condition); \
      std::exit(1);                                               \
    }                                                             \
  } while (false)

inline const DeviceLibrary& library() {
  return *siglip2_device_library(kDeviceLibraryVersion);
}

inline OpContext open() {
  CHECK(library().count() == 1);
  return {1, library().open(0), false};
}

struct Caught {
  std::string code;
  std::string message;
  std::map<std::string, std::int64_t> details;
  bool has(const char* text) const { return message.find(text) != std::string::npos; }
};

inline Caught catch_error(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    Caught caught{error.code(), error.what(), {}};
    for (const ErrorDetail& detail : error.details())
      caught.details[detail.key] = detail.value;
    return caught;
  }
  CHECK(!"an error was expected");
  return {};
}

// The cases of CUDA graphs, in graphs_cases.cc.
void graphs();
void graph_errors();
void no_graphs();
void graph_products();

}  // namespace siglip2::cuda::test
