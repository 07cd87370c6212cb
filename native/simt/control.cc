#include "simt/control.h"

#include <sstream>
#include <string>

#include "simt/device_memory.h"
#include "simt/selftest.h"
#include "simt/settings.h"
#include "simt/sites.h"
#include "simt/work_record.h"
#include "tensor/error.h"

namespace siglip2::simt {
namespace {

constexpr const char* kSchedules[] = {"round-robin", "reverse", "ahead", "random"};

std::uint64_t number(const std::string& text) {
  if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != std::string::npos)
    throw Error(kErrorCuda, "not a number: \"" + text + "\"");
  return std::stoull(text);
}

void set_schedule(const std::string& name) {
  if (name == "mixed") {
    settings.schedule.reset();
    return;
  }
  for (int i = 0; i < static_cast<int>(std::size(kSchedules)); ++i) {
    if (name != kSchedules[i]) continue;
    settings.schedule = static_cast<Schedule>(i);
    return;
  }
  throw Error(kErrorCuda, "there is no schedule \"" + name + "\"");
}

std::string statistics() {
  const Statistics& counts = block.statistics;
  std::ostringstream text;
  text << "launches " << counts.launches << "\nblocks " << counts.blocks << "\nthreads " << counts.threads
       << "\nmultiplications " << counts.multiplications << "\nmatrix_loads " << counts.matrix_loads
       << "\nasync_copies " << counts.async_copies << "\nbarriers " << counts.barriers << "\nglobal_bytes_read "
       << counts.global_bytes_read << "\nglobal_bytes_written " << counts.global_bytes_written << "\nshared_bytes_read "
       << counts.shared_bytes_read << "\nshared_bytes_written " << counts.shared_bytes_written << "\n";
  return text.str();
}

std::string obey(const std::string& command) {
  std::istringstream words(command);
  std::string verb, first, second;
  words >> verb >> first >> second;
  if (verb == "seed") {
    settings.seed = number(first);
    settings.launches = 0;
  } else if (verb == "schedule") {
    set_schedule(first);
  } else if (verb == "sites" && first == "list") {
    return list_sites();
  } else if (verb == "sites" && (first == "on" || first == "off")) {
    record_sites(first == "on");
  } else if (verb == "drop" && first == "none") {
    drop_no_site();
  } else if (verb == "drop") {
    drop_site(first, second);
  } else if (verb == "work" && first == "list") {
    return list_work();
  } else if (verb == "work" && (first == "on" || first == "off")) {
    record_work(first == "on");
  } else if (verb == "memory-limit") {
    limit_device_memory(number(first));
  } else if (verb == "statistics") {
    return statistics();
  } else if (verb == "selftest" && first == "list") {
    return list_self_tests();
  } else if (verb == "selftest") {
    return run_self_test(first);
  } else {
    throw Error(kErrorCuda, "the emulated device does not know the command \"" + command + "\"");
  }
  return "";
}

}  // namespace

const char* control(const char* command) {
  static std::string answer;
  answer = obey(command);
  return answer.c_str();
}

}  // namespace siglip2::simt
