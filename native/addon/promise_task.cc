#include "addon/promise_task.h"

#include <exception>
#include <utility>

#include "addon/arguments.h"

namespace siglip2::addon {

struct Environment::Completion {
  std::uint64_t id;
  Finish finish;
  std::exception_ptr error;
};

void Environment::create(Napi::Env env) {
  auto* const environment = new Environment(env);
  env.SetInstanceData<Environment>(environment);
  // Runs before the thread-safe function's own clean-up, which was registered earlier.
  env.AddCleanupHook([](Environment* ending) { ending->close(); }, environment);
}

Environment::Environment(Napi::Env env) : channel_(std::make_shared<Channel>()) {
  channel_->function = Function::New(env, "siglip2", 0, 1, this);
  // Only pending work keeps the process alive.
  channel_->function.Unref(env);
}

Environment::~Environment() {
  close();
}

void Environment::close() {
  {
    const std::lock_guard<std::mutex> lock(channel_->mutex);
    if (!channel_->open) return;
    channel_->open = false;
  }
  for (auto& [id, pending] : pending_)
    pending.cancel->cancel();
  pending_.clear();
  channel_->function.Abort();
}

Napi::Promise Environment::submit(Napi::Env env, Executor& executor, std::shared_ptr<CancelToken> cancel, Work work) {
  if (!cancel) cancel = std::make_shared<CancelToken>();
  const std::uint64_t id = next_++;
  // Its completion arrives on this thread, so it cannot arrive before the promise is there.
  executor.submit([channel = channel_, cancel, work = std::move(work), id]() mutable {
    auto completion = std::make_unique<Completion>();
    completion->id = id;
    try {
      cancel->check();
      completion->finish = work();
    } catch (...) {
      completion->error = std::current_exception();
    }
    // Inputs are freed here rather than on the JavaScript thread.
    work = nullptr;
    const std::lock_guard<std::mutex> lock(channel->mutex);
    if (!channel->open) return;
    if (channel->function.NonBlockingCall(completion.get()) == napi_ok) completion.release();
  });
  auto deferred = Napi::Promise::Deferred::New(env);
  if (pending_.empty()) channel_->function.Ref(env);
  pending_.emplace(id, Pending{deferred, std::move(cancel)});
  return deferred.Promise();
}

void Environment::call_javascript(Napi::Env env, Napi::Function, Environment* environment, Completion* raw) {
  const std::unique_ptr<Completion> completion(raw);
  // Without an environment the queue is being emptied at its end: nobody is left to tell.
  if (static_cast<napi_env>(env) == nullptr) return;
  environment->complete(env, *completion);
}

void Environment::complete(Napi::Env env, const Completion& completion) {
  const auto found = pending_.find(completion.id);
  if (found == pending_.end()) return;
  const Napi::Promise::Deferred deferred = found->second.deferred;
  pending_.erase(found);
  if (pending_.empty()) channel_->function.Unref(env);

  const Napi::HandleScope scope(env);
  try {
    try {
      if (completion.error) std::rethrow_exception(completion.error);
      deferred.Resolve(completion.finish(env));
    } catch (const Napi::Error& error) {
      deferred.Reject(error.Value());
    } catch (...) {
      deferred.Reject(to_javascript_error(env, std::current_exception()).Value());
    }
  } catch (const Napi::Error&) {
    // A worker that is being terminated runs no more JavaScript: nobody is left to tell.
  }
}

}  // namespace siglip2::addon
