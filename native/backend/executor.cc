#include "backend/executor.h"

#include <thread>
#include <utility>

namespace siglip2 {

void Executor::submit(std::function<void()> task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!started_) {
    // Detached: an executor lives as long as the process, and exit must not wait for work that nobody will read.
    std::thread([this] { loop(); }).detach();
    started_ = true;
  }
  tasks_.push_back(std::move(task));
  wake_.notify_one();
}

void Executor::loop() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return !tasks_.empty(); });
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace siglip2
