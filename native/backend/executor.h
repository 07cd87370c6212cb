// The one thread on which all work of a device is done, in the order in which it was submitted.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace siglip2 {

class Executor {
 public:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Queues a task. It must not throw. The thread starts with the first task; ERR_SIGLIP_OUT_OF_MEMORY when it cannot.
  void submit(std::function<void()> task);
  // Does a task in its turn and returns when it is done, with what it threw. On the executor's own thread it is done at
  // once.
  void run_and_wait(const std::function<void()>& task);
  // Whether this is the executor's thread.
  bool on_thread() const { return std::this_thread::get_id() == thread_.load(); }

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool started_ = false;
  std::atomic<std::thread::id> thread_{};
};

}  // namespace siglip2
