#include "cuda/graphs.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "cuda/cuda_device.h"

namespace siglip2::cuda {
namespace {

// Shorter sequences gain nothing.
constexpr std::size_t kLeastWork = 8;
// Longer ones are cut, so that the device begins while the rest is asked for.
constexpr std::size_t kMostWork = 256;
// Larger uploads (pixels, patches) end a sequence: they would be copied twice and hold pinned memory.
constexpr std::size_t kLargestUpload = std::size_t{256} << 10;
constexpr std::size_t kMostUploadBytes = std::size_t{4} << 20;  // of a sequence
// Sequences that are remembered: those with a graph, and those that were seen once. Each kind is bounded by itself, so
// that shapes which never come again do not drive out the ones that do.
constexpr std::ptrdiff_t kMostGraphs = 64;
constexpr std::ptrdiff_t kMostSeen = 64;

// Also off where each kernel is waited for, to find one that fails.
bool wanted() {
  const auto is = [](const char* name, std::string_view value) {
    const char* const found = std::getenv(name);
    return found != nullptr && found == value;
  };
  return !is("SIGLIP2_CUDA_GRAPHS", "0") && !is("CUDA_LAUNCH_BLOCKING", "1");
}

}  // namespace

void Graphs::Recording::drop_graph() {
  if (graph == nullptr) return;
  // A graph that is running goes when it is done.
  if (cudaGraphExecDestroy(graph) != cudaSuccess) (void)cudaGetLastError();
  graph = nullptr;
}

Graphs::Recording::~Recording() {
  if (pending && cudaEventSynchronize(done) != cudaSuccess) (void)cudaGetLastError();
  drop_graph();
  if (done != nullptr && cudaEventDestroy(done) != cudaSuccess) (void)cudaGetLastError();
  if (uploads != nullptr && cudaFreeHost(uploads) != cudaSuccess) (void)cudaGetLastError();
}

Graphs::Graphs(CudaDevice& device) : device_(device), enabled_(wanted()) {}

void Graphs::begin() {
  if (!enabled_) return;
  recording_ = true;
  begin_sequence();
}

void Graphs::end() {
  finish();
  recording_ = false;
}

void Graphs::abandon() noexcept {
  recording_ = false;
  failure_ = nullptr;
}

void Graphs::begin_sequence() {
  sequence_.clear();
  upload_data_.clear();
  candidates_.clear();
  for (Recording& recording : recordings_)
    candidates_.push_back(&recording);
  holding_ = !candidates_.empty();
}

void Graphs::check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  abandon();
  device_.fail(status, what);
}

bool Graphs::records() {
  if (sequence_.size() == kMostWork) finish();
  return recording_;
}

bool Graphs::hold() {
  if (!holding_) return false;
  std::erase_if(candidates_, [&](const Recording* recording) { return !sequence_.continues(recording->sequence); });
  if (candidates_.empty()) start_held();
  return true;
}

void Graphs::start_held() {
  holding_ = false;
  for (std::size_t i = 0; i < sequence_.size(); ++i) {
    if (const Upload* const upload = sequence_.upload(i))
      device_.staging().to_device(upload->to, upload_data_.data() + upload->place, upload->bytes);
    else
      check(sequence_.start(i, device_, nullptr), sequence_.name(i));
  }
}

void Graphs::queue(const KernelLaunch& launch, void** arguments, const std::size_t* argument_bytes) {
  if (records()) {
    sequence_.append(launch, arguments, argument_bytes);
    if (hold()) return;
  }
  check(start(launch, arguments, device_.stream()), launch.name);
}

void Graphs::queue(const DeviceCopy& copy) {
  if (records()) {
    sequence_.append(copy);
    if (hold()) return;
  }
  check(start(copy, device_.stream()), "copy on the device");
}

void Graphs::queue(const ZeroFill& fill) {
  if (records()) {
    sequence_.append(fill);
    if (hold()) return;
  }
  check(start(fill, device_.stream()), "cudaMemset");
}

void Graphs::upload(void* to, const void* host, std::size_t bytes) {
  if (bytes > kLargestUpload) {
    finish();
  } else if (records()) {
    sequence_.append_upload(to, bytes);
    if (holding_) {
      upload_data_.resize(sequence_.upload_bytes());
      std::memcpy(upload_data_.data() + sequence_.upload(sequence_.size() - 1)->place, host, bytes);
    }
    if (hold()) return;
  }
  device_.staging().to_device(to, host, bytes);
}

bool Graphs::queue(const Product& product) {
  MatmulPlans& plans = device_.matmul_plans();
  device_.started("cublasLtMatmul");
  if (!records()) return plans.run(product.args, product.bias, product.workspace);
  if (!plans.knows(product.args, product.bias)) return false;
  sequence_.append(product);
  if (hold()) return true;
  if (plans.run(product.args, product.bias, product.workspace)) return true;
  // It would be held back before this is known.
  abandon();
  return false;
}

void Graphs::finish() {
  if (failure_ != nullptr) std::rethrow_exception(std::exchange(failure_, nullptr));
  if (!recording_) return;
  const auto found = std::find_if(candidates_.begin(), candidates_.end(), [&](const Recording* recording) {
    return recording->sequence.size() == sequence_.size();
  });
  if (holding_ && found != candidates_.end()) {
    repeat(**found);
  } else {
    if (holding_) start_held();
    remember();
  }
  begin_sequence();
}

void Graphs::forget() noexcept {
  try {
    if (recording_ && holding_) start_held();
  } catch (...) {
    failure_ = std::current_exception();
  }
  holding_ = false;
  candidates_.clear();
  recordings_.clear();
}

void Graphs::drop_least_recent(bool with_graph) {
  const auto is = [&](const Recording& recording) { return (recording.graph != nullptr) == with_graph; };
  const std::ptrdiff_t most = with_graph ? kMostGraphs : kMostSeen;
  if (std::count_if(recordings_.begin(), recordings_.end(), is) <= most) return;
  recordings_.erase(std::prev(std::find_if(recordings_.rbegin(), recordings_.rend(), is).base()));
}

void Graphs::remember() {
  if (sequence_.size() < kLeastWork || sequence_.upload_bytes() > kMostUploadBytes) return;
  recordings_.emplace_front().sequence = sequence_;
  drop_least_recent(false);
}

void Graphs::repeat(Recording& recording) {
  const auto is = [&](const Recording& other) { return &other == &recording; };
  recordings_.splice(recordings_.begin(), recordings_, std::find_if(recordings_.begin(), recordings_.end(), is));
  if (recording.graph == nullptr && !recording.refused) recording.refused = !capture(recording);
  if (recording.graph != nullptr && launch(recording)) return drop_least_recent(true);
  start_held();
}

// What fails here fails again when the work is started one by one, if it is worth a message: so errors are forgotten.
bool Graphs::capture(Recording& recording) {
  if (sequence_.upload_bytes() != 0) {
    void* uploads = nullptr;
    cudaError_t status = cudaHostAlloc(&uploads, sequence_.upload_bytes(), cudaHostAllocDefault);
    recording.uploads = static_cast<unsigned char*>(uploads);
    if (status == cudaSuccess) status = cudaEventCreateWithFlags(&recording.done, cudaEventDisableTiming);
    if (status != cudaSuccess) {
      (void)cudaGetLastError();
      return false;
    }
  }

  // Other threads may ask about the device's memory meanwhile.
  if (cudaStreamBeginCapture(device_.stream(), cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    (void)cudaGetLastError();
    return false;
  }
  cudaError_t status = cudaSuccess;
  for (std::size_t i = 0; i < sequence_.size() && status == cudaSuccess; ++i)
    status = sequence_.start(i, device_, recording.uploads);
  // After an error, too: until then the stream takes no other work.
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(device_.stream(), &graph);
  if (status == cudaSuccess) status = ended;
  if (status == cudaSuccess) status = cudaGraphInstantiateWithFlags(&recording.graph, graph, 0);
  if (graph != nullptr) (void)cudaGraphDestroy(graph);
  if (status == cudaSuccess) return true;
  recording.graph = nullptr;
  (void)cudaGetLastError();
  return false;
}

bool Graphs::launch(Recording& recording) {
  if (recording.pending) check(cudaEventSynchronize(recording.done), "waiting for queued work");
  recording.pending = false;
  if (!upload_data_.empty()) std::memcpy(recording.uploads, upload_data_.data(), upload_data_.size());
  if (cudaGraphLaunch(recording.graph, device_.stream()) != cudaSuccess) {
    (void)cudaGetLastError();
    recording.drop_graph();
    recording.refused = true;
    return false;
  }
  if (upload_data_.empty()) return true;
  check(cudaEventRecord(recording.done, device_.stream()), "cudaEventRecord");
  recording.pending = true;
  return true;
}

}  // namespace siglip2::cuda
