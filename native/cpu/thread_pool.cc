// A pool whose threads sleep on one atomic word.
//
// The word holds the number of the current job and how many threads take part in it. A thread that takes part cannot
// miss a job, because the caller waits for each of them to report; a thread that does not take part reads nothing of
// the job but this word. Between jobs threads spin for some microseconds, since the operations of a model follow each
// other closely, and then sleep.
#include "cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/memory.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace siglip2::cpu {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(40);

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins for a short while, then sleeps until `word` differs from `old`.
template <typename T>
T wait_for_change(const std::atomic<T>& word, T old) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    for (int i = 0; i < 64; ++i) {
      const T now = word.load(std::memory_order_acquire);
      if (now != old) return now;
      relax();
    }
    if (std::chrono::steady_clock::now() - start > kSpinTime) break;
  }
  word.wait(old, std::memory_order_acquire);
  return word.load(std::memory_order_acquire);
}

class Pool {
 public:
  void run(std::int64_t count, int threads, RangeFunction function, void* state) {
    if (count <= 0) return;
    const std::lock_guard<std::mutex> turn(turn_);
    if (threads > count) threads = static_cast<int>(count);
    if (threads < 1) threads = 1;
    if (threads > kMostThreads) threads = kMostThreads;
    threads = start_workers(threads);

    function_ = function;
    state_ = state;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    error_ = nullptr;
    if (threads > 1) {
      remaining_.store(threads - 1, std::memory_order_relaxed);
      job_.store((((job_.load(std::memory_order_relaxed) >> kThreadBits) + 1) << kThreadBits) |
                     static_cast<std::uint64_t>(threads),
                 std::memory_order_release);
      job_.notify_all();
    }
    work(0);
    if (threads > 1) {
      for (int left = remaining_.load(std::memory_order_acquire); left != 0;)
        left = wait_for_change(remaining_, left);
    }
    if (error_) std::rethrow_exception(error_);
  }

  void* scratch(int worker, std::size_t bytes) { return scratch_[static_cast<std::size_t>(worker)]->get(bytes); }

 private:
  static constexpr int kThreadBits = 16;
  static constexpr int kMostThreads = (1 << kThreadBits) - 1;

  // Returns how many of the threads there are: fewer where the system, or a container's limit, grants no more.
  int start_workers(int threads) {
    scratch_.reserve(static_cast<std::size_t>(threads));
    while (static_cast<int>(scratch_.size()) < threads) {
      const int worker = static_cast<int>(scratch_.size());
      auto scratch = std::make_unique<Scratch>();
      if (worker > 0) {
        const std::uint64_t seen = job_.load(std::memory_order_relaxed);
        try {
          std::thread([this, worker, seen] { loop(worker, seen); }).detach();
        } catch (const std::system_error&) {
          return worker;
        }
      }
      scratch_.push_back(std::move(scratch));
    }
    return threads;
  }

  void loop(int worker, std::uint64_t seen) {
    for (;;) {
      seen = wait_for_change(job_, seen);
      const int threads = static_cast<int>(seen & ((std::uint64_t{1} << kThreadBits) - 1));
      if (worker >= threads) continue;
      work(worker);
      if (remaining_.fetch_sub(1, std::memory_order_acq_rel) == 1) remaining_.notify_one();
    }
  }

  void work(int worker) {
    try {
      for (;;) {
        const std::int64_t index = next_.fetch_add(1, std::memory_order_relaxed);
        if (index >= count_) return;
        function_(state_, index, worker);
      }
    } catch (...) {
      next_.store(count_, std::memory_order_relaxed);
      const std::lock_guard<std::mutex> lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  std::mutex turn_;
  RangeFunction function_ = nullptr;
  void* state_ = nullptr;
  std::int64_t count_ = 0;
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) std::atomic<std::uint64_t> job_{0};
  alignas(64) std::atomic<int> remaining_{0};
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::vector<std::unique_ptr<Scratch>> scratch_;
};

// Never destroyed: its threads may still be asleep in it while the process exits.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

}  // namespace

void parallel_for(std::int64_t count, int threads, RangeFunction function, void* state) {
  pool().run(count, threads, function, state);
}

void* worker_scratch(int worker, std::size_t bytes) {
  return pool().scratch(worker, bytes);
}

}  // namespace siglip2::cpu
