// The one thread on which all work of a device is done, in the order in which it was submitted.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace siglip2 {

class Executor {
 public:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Queues a task. It must not throw. The thread starts with the first task; ERR_SIGLIP_OUT_OF_MEMORY when it cannot.
  void submit(std::function<void()> task);

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool started_ = false;
};

}  // namespace siglip2
