// A stream of the fake CUDA runtime: work waits until something asks for its end.
#pragma once

#include <deque>
#include <functional>

struct CUstream_st {
  std::deque<std::function<void()>> work;
};
