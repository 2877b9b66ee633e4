// The CUDA runtime as this library uses it: every call checked, every handle owned.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "core/backend.hpp"
#include "gpgan/error.hpp"

// Starts kernel(...) on `stream`. A kernel with commas in its template arguments goes in parentheses. Where the sources
// are compiled for the CPU, the header that stands for the runtime's defines its own.
#ifndef GPGAN_LAUNCH
#define GPGAN_LAUNCH(kernel, grid, block, stream, ...)     \
  do {                                                     \
    kernel<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__); \
    ::gpgan::cuda::check(cudaGetLastError(), #kernel);     \
  } while (false)
#endif

namespace gpgan::cuda {

using core::Planes;
using core::Size;

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // or the next launch would be told of this one's failure
    throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
  }
}

// Makes a device the current one, and at the end the one that was so before. Never throws: status() says how it
// went.
class DeviceScope {
 public:
  explicit DeviceScope(int device) : status_(cudaGetDevice(&before_)) {
    if (status_ == cudaSuccess && device != before_) status_ = set(device);
    changed_ = status_ == cudaSuccess && device != before_;
  }
  ~DeviceScope() {
    if (changed_) static_cast<void>(set(before_));
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
  [[nodiscard]] cudaError_t status() const { return status_; }

 private:
  static cudaError_t set(int device) {
    const cudaError_t status = cudaSetDevice(device);
    if (status != cudaSuccess) static_cast<void>(cudaGetLastError());  // not the next launch's
    return status;
  }

  int before_ = 0;
  cudaError_t status_;
  bool changed_ = false;
};

// Owning memory of the current device: `count` elements of T, not initialised.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::int64_t count) : count_(count) {
    if (count > 0) check(cudaMalloc(reinterpret_cast<void**>(&data_), bytes()), "cudaMalloc");
  }
  ~DeviceArray() {
    if (data_ != nullptr) cudaFree(data_);
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] std::int64_t size() const { return count_; }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(count_) * sizeof(T); }

 private:
  T* data_ = nullptr;
  std::int64_t count_ = 0;
};

// Blocks of kernels that work on tiles: x counts a plane's tiles row by row (it alone may go beyond 65535), y the
// planes.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline dim3 tile_grid(Size size, int tile_height, int tile_width, std::int64_t planes) {
  const std::int64_t tiles = ceil_div(size.height, tile_height) * ceil_div(size.width, tile_width);
  if (tiles > 0x7fffffff || planes > 0xffff) {
    throw InvalidArgument(
        "shape", "an image, and a batch, that one launch can cover",
        std::to_string(size.height) + " x " + std::to_string(size.width) + ", " + std::to_string(planes) + " planes");
  }
  return {static_cast<unsigned>(tiles), static_cast<unsigned>(planes), 1};
}

// Blocks of kernels that stride over elements: enough to fill a device.
inline dim3 stride_grid(std::int64_t count, int threads) {
  constexpr std::int64_t kMostBlocks = 8192;
  const std::int64_t blocks = ceil_div(count, threads);
  return {static_cast<unsigned>(blocks < 1 ? 1 : (blocks > kMostBlocks ? kMostBlocks : blocks)), 1, 1};
}

#if defined(__CUDACC__) || defined(GPGAN_CUDA_ON_CPU)
// Where a block's tile begins.
struct TileOrigin {
  std::int64_t top, left;
};
__device__ inline TileOrigin tile_origin(Size size, int tile_height, int tile_width) {
  // There are no more tiles than x of a grid can count: a division of 32 bits does, and takes a tenth of one of 64.
  const auto columns = static_cast<unsigned>(ceil_div(size.width, tile_width));
  return {static_cast<std::int64_t>(blockIdx.x / columns) * tile_height,
          static_cast<std::int64_t>(blockIdx.x % columns) * tile_width};
}

__device__ inline std::int64_t first_element() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t element_stride() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

// The pixel that a half-sample symmetric border shows at i: -1 is 0, n is n - 1, and so on without end.
__device__ inline std::int64_t reflect(std::int64_t i, std::int64_t n) {
  if (i >= 0 && i < n) return i;  // nearly always, and the rest is slow
  const std::int64_t period = 2 * n;
  i %= period;
  if (i < 0) i += period;
  return i < n ? i : period - 1 - i;
}
#endif

}  // namespace gpgan::cuda
