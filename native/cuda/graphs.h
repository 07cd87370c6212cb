// Work that repeats is started as a whole, as a CUDA graph: an inference server's batches of one shape, every step of
// a training at fixed resolution. All work of a device goes through here.
//
// A pass is divided into sequences, each ended by a copy to the host, a large upload or its length. What is asked for
// is compared with the sequences of earlier passes while it comes. As long as one of them begins in the same way,
// nothing is started. If it ends in the same way too, a graph of it is captured (the second time) and launched; else
// what was held back is started one by one and the rest follows as it comes. So a graph is only ever launched in place
// of exactly the calls that it was made of, the same pointers included; only what uploads contain may differ.
//
// On the executor's thread only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <exception>
#include <list>
#include <vector>

#include "cuda/work_sequence.h"

namespace siglip2::cuda {

class Graphs {
 public:
  explicit Graphs(CudaDevice& device);
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  // Around the work of a pass; work outside is started at once. `abandon` drops what was held back.
  void begin();
  void end();
  void abandon() noexcept;

  // Queue work or hold it back. Throw ERR_SIGLIP_CUDA.
  void queue(const KernelLaunch& launch, void** arguments, const std::size_t* argument_bytes);
  void queue(const DeviceCopy& copy);
  void queue(const ZeroFill& fill);
  // Returns when `host` has been read.
  void upload(void* to, const void* host, std::size_t bytes);
  // False, and nothing is queued, when cuBLASLt does not do it.
  bool queue(const Product& product);

  // Before anything else is asked of the stream: what was held back is in it when this returns.
  void finish();
  // Before memory of the device is given back to it: also drops all graphs, which hold addresses and memory.
  void forget() noexcept;

 private:
  struct Recording {
    Recording() = default;
    ~Recording();
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;
    void drop_graph();

    WorkSequence sequence;
    cudaGraphExec_t graph = nullptr;
    bool refused = false;              // it could not be captured or launched
    unsigned char* uploads = nullptr;  // pinned; the graph reads them
    cudaEvent_t done = nullptr;        // of the last launch
    bool pending = false;              // `done` has been recorded and not waited for
  };

  void begin_sequence();
  // Whether the next piece of work becomes part of a sequence.
  bool records();
  // Whether the last piece of the sequence needs no start any more.
  bool hold();
  void start_held();
  // After an error no part of the pass is repeated.
  void check(cudaError_t status, const char* what);
  void remember();
  void repeat(Recording& recording);
  bool capture(Recording& recording);
  bool launch(Recording& recording);
  void drop_least_recent(bool with_graph);

  CudaDevice& device_;
  bool enabled_;
  bool recording_ = false;
  WorkSequence sequence_;
  // Of the sequence, while it is held back.
  std::vector<unsigned char> upload_data_;
  bool holding_ = false;
  // Those that begin like it.
  std::vector<Recording*> candidates_;
  std::list<Recording> recordings_;  // the most recently used first
  // Why held work could not be started where nothing may be thrown.
  std::exception_ptr failure_;
};

}  // namespace siglip2::cuda
