// What kernels share that give every thread of a block of kTile x kTileRows a column of a tile.
#pragma once

#include <cstdint>

#include "cuda/runtime.hpp"

namespace gpgan::cuda {

constexpr int kTile = 32;     // pixels, both ways: a warp reads 128 bytes of a row
constexpr int kTileRows = 8;  // of threads; each takes every eighth row of its column
constexpr int kTileThreads = kTile * kTileRows;

inline dim3 tile_block() { return {kTile, kTileRows, 1}; }
inline dim3 tile_grid(Size size, std::int64_t planes) { return tile_grid(size, kTile, kTile, planes); }

// How many planes of an image share one plane of the mask, which may stand for one image or for the whole batch.
inline std::int64_t planes_of_mask(const Planes& image, const Planes& mask) { return image.channels / mask.channels; }

template <typename T>
__host__ __device__ constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
__host__ __device__ constexpr T larger(T a, T b) {
  return a < b ? b : a;
}

// A grid has fewer than 2^31 tiles: half as wide a division does, and saves many registers.
__device__ inline TileOrigin tile_origin(Size size) {
  const auto columns = static_cast<unsigned>(ceil_div(size.width, kTile));
  return {static_cast<std::int64_t>(blockIdx.x / columns) * kTile,
          static_cast<std::int64_t>(blockIdx.x % columns) * kTile};
}

__device__ inline int thread_of_tile() { return static_cast<int>(threadIdx.y * kTile + threadIdx.x); }

// body(y, x) for the thread's pixels of the block's tile, those outside left out.
template <typename Body>
__device__ inline void for_tile(Size size, Body body) {
  const TileOrigin origin = tile_origin(size);
  const std::int64_t x = origin.left + threadIdx.x;
  if (x >= size.width) return;
  for (int i = 0; i < kTile; i += kTileRows) {
    const std::int64_t y = origin.top + i + threadIdx.y;
    if (y < size.height) body(y, x);
  }
}

// Does any thread of the block say so? Once in a kernel, by all threads: a second call would meet the first's answer.
__device__ inline bool any_of_block(bool mine) {
  __shared__ unsigned found;
  const bool first = threadIdx.x == 0 && threadIdx.y == 0;
  if (first) found = 0;
  __syncthreads();
  if (mine) atomicOr(&found, 1U);
  __syncthreads();
  return found != 0;
}

}  // namespace gpgan::cuda
