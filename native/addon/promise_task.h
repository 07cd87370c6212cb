// Native work behind promises.
//
// Work runs on an executor thread and touches no JavaScript value: its inputs have been copied, and its result is a
// function that makes the JavaScript value later, on the environment's own thread. An environment (the main thread or
// a worker) may end while its work runs; the work is then cancelled, finishes by itself, and its result is dropped.
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "backend/cancel.h"
#include "backend/executor.h"

namespace siglip2::addon {

// Makes the promise's value, on the JavaScript thread.
using Finish = std::function<Napi::Value(Napi::Env)>;
// Runs on the executor thread; may throw.
using Work = std::function<Finish()>;

// What the addon keeps for one environment.
class Environment {
 public:
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }
  // Creates the environment's instance data.
  static void create(Napi::Env env);
  ~Environment();

  // Queues work on the executor and returns the promise of its result. `cancel` is set when the environment ends.
  Napi::Promise submit(Napi::Env env, Executor& executor, std::shared_ptr<CancelToken> cancel, Work work);

 private:
  struct Completion;
  struct Channel;
  struct Pending {
    Napi::Promise::Deferred deferred;
    std::shared_ptr<CancelToken> cancel;
  };

  explicit Environment(Napi::Env env);
  void close();
  void complete(Napi::Env env, const Completion& completion);
  static void call_javascript(Napi::Env env, Napi::Function, Environment* environment, Completion* completion);

  using Function = Napi::TypedThreadSafeFunction<Environment, Completion, call_javascript>;

  // Shared with running work, which may outlive the environment.
  struct Channel {
    std::mutex mutex;
    bool open = true;
    Function function;
  };

  std::shared_ptr<Channel> channel_;
  std::unordered_map<std::uint64_t, Pending> pending_;
  std::uint64_t next_ = 0;
};

}  // namespace siglip2::addon
