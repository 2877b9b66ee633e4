// What the parts of one CUDA backend share: the stream that is theirs for the moment, and memory that one after the
// other uses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/runtime.hpp"

namespace gpgan::cuda {

// What cudaMalloc gives is aligned to this, and so is what cuFFT would take for itself; parts of a workspace are, too.
constexpr std::int64_t kAlignment = 256;
constexpr std::int64_t aligned(std::int64_t bytes) { return ceil_div(bytes, kAlignment) * kAlignment; }

// One piece of memory, as large as the largest that anybody has reserved. Whoever reserves more than before moves it:
// data() is to be asked for at each use.
class Workspace {
 public:
  void reserve(std::int64_t bytes) {
    if (bytes <= memory_.size()) return;
    memory_ = {};  // first, so that never both are there
    memory_ = DeviceArray<std::byte>(bytes);
  }
  [[nodiscard]] std::byte* data() const { return memory_.data(); }
  template <typename T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(memory_.data());
  }

 private:
  DeviceArray<std::byte> memory_;
};

struct Context {
  cudaStream_t stream = nullptr;
  Workspace workspace;
  DeviceArray<std::uint8_t> touched;  // by image of the batch: whether some pixel of its mask is above 0
};

}  // namespace gpgan::cuda
