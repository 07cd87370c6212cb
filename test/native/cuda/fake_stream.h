// A stream of the fake CUDA runtime: work waits until something asks for its end.
#pragma once

#include <deque>
#include <functional>
#include <utility>
#include <vector>

struct CUstream_st {
  void queue(std::function<void()> piece) {
    if (capturing)
      captured.push_back(std::move(piece));
    else
      work.push_back(std::move(piece));
  }

  std::deque<std::function<void()>> work;
  bool capturing = false;
  bool invalidated = false;  // something was asked that may not be while capturing
  std::vector<std::function<void()>> captured;
};
