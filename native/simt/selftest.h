// The emulated device's tests of itself: kernels with one defect, which must be found, and their corrected twins, which
// must pass; and the layouts of matrix instructions. Run by the command "selftest NAME"; see control.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/op_table.h"
#include "cuda/runtime.h"

namespace siglip2::simt {

struct SelfTest {
  const char* name;
  // Part of what the defective kernel's error must say; null when there is no defective kernel.
  const char* finding;
  // Throws when something is wrong.
  void (*run)(bool defective);
};

// At start-up, by the files that hold tests.
class SelfTestGroup {
 public:
  explicit SelfTestGroup(std::vector<SelfTest> tests);
};

// One name a line.
std::string list_self_tests();
// "ok: …" or "failed: …".
std::string run_self_test(const std::string& name);

void self_test_expect(bool condition, const std::string& what);

// Device memory that holds `count` values.
template <typename T>
class SelfTestMemory {
 public:
  explicit SelfTestMemory(const std::vector<T>& values)
      : count_(values.size()), data_(static_cast<T*>(cuda::runtime::allocate(nullptr, count_ * sizeof(T)))) {
    cuda::runtime::copy_to_device(context_, data_, values.data(), count_ * sizeof(T));
  }
  ~SelfTestMemory() { cuda::runtime::release(nullptr, data_); }
  SelfTestMemory(const SelfTestMemory&) = delete;
  SelfTestMemory& operator=(const SelfTestMemory&) = delete;

  T* data() const { return data_; }
  std::int64_t size() const { return static_cast<std::int64_t>(count_); }
  std::vector<T> read() {
    std::vector<T> values(count_);
    cuda::runtime::copy_to_host(context_, values.data(), data_, count_ * sizeof(T));
    return values;
  }

 private:
  OpContext context_;
  std::size_t count_;
  T* data_;
};

}  // namespace siglip2::simt
