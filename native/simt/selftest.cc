#include "simt/selftest.h"

#include "simt/settings.h"
#include "tensor/error.h"

namespace siglip2::simt {
namespace {

constexpr std::uint64_t kSeeds = 8;

std::vector<SelfTest>& tests() {
  static std::vector<SelfTest> all;
  return all;
}

std::string run(const SelfTest& test) {
  std::uint64_t found = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    // The four schedules, twice.
    settings = {seed, 0, static_cast<Schedule>(seed % 4)};
    try {
      test.run(false);
    } catch (const Error& error) {
      return "failed: without a defect: " + std::string(error.what());
    }
    if (test.finding == nullptr) continue;
    settings.launches = 0;
    try {
      test.run(true);
    } catch (const Error& error) {
      if (std::string(error.what()).find(test.finding) == std::string::npos)
        return "failed: the defect is reported as: " + std::string(error.what());
      ++found;
    }
  }
  if (test.finding == nullptr) return "ok";
  if (found == 0) return "failed: the defect is not found";
  return "ok: found with " + std::to_string(found) + " of " + std::to_string(kSeeds) + " seeds";
}

}  // namespace

SelfTestGroup::SelfTestGroup(std::vector<SelfTest> group) {
  tests().insert(tests().end(), group.begin(), group.end());
}

std::string list_self_tests() {
  std::string names;
  for (const SelfTest& test : tests())
    names += std::string(test.name) + "\n";
  return names;
}

std::string run_self_test(const std::string& name) {
  for (const SelfTest& test : tests()) {
    if (name != test.name) continue;
    const Settings before = settings;
    const std::string result = run(test);
    settings = before;
    return result;
  }
  return "failed: there is no self-test of that name";
}

void self_test_expect(bool condition, const std::string& what) {
  if (!condition) throw Error(kErrorCuda, what);
}

}  // namespace siglip2::simt
