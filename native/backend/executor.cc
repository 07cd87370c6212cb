#include "backend/executor.h"

#include <exception>
#include <future>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "tensor/error.h"

namespace siglip2 {

void Executor::submit(std::function<void()> task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!started_) {
    // Detached: an executor lives as long as the process, and exit must not wait for work that nobody will read.
    try {
      std::thread([this] { loop(); }).detach();
    } catch (const std::system_error& error) {
      throw Error(kErrorOutOfMemory,
                  std::string("the system does not let this process start a thread: ") + error.what());
    }
    started_ = true;
  }
  tasks_.push_back(std::move(task));
  wake_.notify_one();
}

void Executor::run_and_wait(const std::function<void()>& task) {
  if (on_thread()) return task();
  std::promise<void> done;
  submit([&] {
    try {
      task();
      done.set_value();
    } catch (...) {
      done.set_exception(std::current_exception());
    }
  });
  done.get_future().get();
}

void Executor::loop() {
  thread_ = std::this_thread::get_id();
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
