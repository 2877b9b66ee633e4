// G: a separable symmetric filter with reflecting borders.
#include <cmath>
#include <vector>

#include "core/spectrum.hpp"
#include "cuda/operations.hpp"
#include "cuda/tile.hpp"

namespace gpgan::cuda {
namespace {

constexpr int kMostFused = 8;  // the largest radius of both axes in one kernel

template <int kRadius>
struct HalfKernel {
  float taps[kRadius + 1];  // centre first
};

// The tile with its halo, then its columns' sums, then the rows'.
template <int kRadius>
__global__ void __launch_bounds__(kTileThreads)
    gaussian_blur_kernel(Planes image, HalfKernel<kRadius> kernel, Planes out) {
  constexpr int kSide = kTile + 2 * kRadius;
  __shared__ float tile[kSide][kSide];
  __shared__ float sums[kTile][kSide];
  const Planes from = image.channel(blockIdx.y);
  const Planes to = out.channel(blockIdx.y);
  const TileOrigin origin = tile_origin(out.size);
  for (int i = thread_of_tile(); i < kSide * kSide; i += kTileThreads) {
    const std::int64_t y = reflect(origin.top - kRadius + i / kSide, from.size.height);
    const std::int64_t x = reflect(origin.left - kRadius + i % kSide, from.size.width);
    tile[i / kSide][i % kSide] = from.row(y)[x];
  }
  __syncthreads();
  for (int i = thread_of_tile(); i < kTile * kSide; i += kTileThreads) {
    const int y = i / kSide;
    const int x = i % kSide;
    float sum = kernel.taps[0] * tile[y + kRadius][x];
    for (int t = 1; t <= kRadius; ++t) {
      sum += kernel.taps[t] * (tile[y + kRadius - t][x] + tile[y + kRadius + t][x]);
    }
    sums[y][x] = sum;
  }
  __syncthreads();
  for_tile(to.size, [&](std::int64_t y, std::int64_t x) {
    const float* row = sums[y - origin.top];
    const int at = static_cast<int>(threadIdx.x) + kRadius;
    float sum = kernel.taps[0] * row[at];
    for (int t = 1; t <= kRadius; ++t) sum += kernel.taps[t] * (row[at - t] + row[at + t]);
    to.row(y)[x] = sum;
  });
}

// One axis with a kernel of any width, a piece of it at a time.
template <bool kDown>
__global__ void __launch_bounds__(kTileThreads, 4)
    wide_blur_kernel(Planes image, std::int64_t radius, double sigma, double scale, Planes out) {
  constexpr int kPiece = kTileThreads;
  constexpr int kPixels = kTile / kTileRows;  // of a thread
  __shared__ float taps[kPiece];
  const Planes from = image.channel(blockIdx.y);
  const Planes to = out.channel(blockIdx.y);
  const TileOrigin origin = tile_origin(out.size);
  const std::int64_t x = origin.left + threadIdx.x;
  const std::int64_t top = origin.top + threadIdx.y;
  float sums[kPixels] = {};
  for (std::int64_t begin = 0; begin <= radius; begin += kPiece) {
    const std::int64_t mine = begin + thread_of_tile();
    const double at = static_cast<double>(mine) / sigma;
    taps[thread_of_tile()] = mine <= radius ? static_cast<float>(scale * exp(-0.5 * at * at)) : 0.0F;
    __syncthreads();
    const auto count = static_cast<int>(smaller<std::int64_t>(kPiece, radius + 1 - begin));
    for (int k = 0; k < kPixels; ++k) {
      const std::int64_t y = top + k * kTileRows;
      if (x >= to.size.width || y >= to.size.height) continue;
      float sum = 0;
      for (int t = 0; t < count; ++t) {
        const std::int64_t distance = begin + t;
        float both = 0;
        if constexpr (kDown) {
          both = from.row(reflect(y + distance, from.size.height))[x];
          if (distance > 0) both += from.row(reflect(y - distance, from.size.height))[x];
        } else {
          both = from.row(y)[reflect(x + distance, from.size.width)];
          if (distance > 0) both += from.row(y)[reflect(x - distance, from.size.width)];
        }
        sum += taps[t] * both;
      }
      sums[k] += sum;
    }
    __syncthreads();
  }
  for (int k = 0; k < kPixels; ++k) {
    const std::int64_t y = top + k * kTileRows;
    if (x < to.size.width && y < to.size.height) to.row(y)[x] = sums[k];
  }
}

template <int kRadius>
void launch_fused(const Planes& image, const std::vector<double>& kernel, const Planes& out, cudaStream_t stream) {
  if constexpr (kRadius <= kMostFused) {
    if (kernel.size() != kRadius + 1) return launch_fused<kRadius + 1>(image, kernel, out, stream);
    HalfKernel<kRadius> half;
    for (int t = 0; t <= kRadius; ++t) half.taps[t] = static_cast<float>(kernel[static_cast<std::size_t>(t)]);
    GPGAN_LAUNCH(gaussian_blur_kernel<kRadius>, tile_grid(out.size, out.channels), tile_block(), stream, image, half,
                 out);
  }
}

}  // namespace

void launch_gaussian_blur(const Planes& image, double sigma, const Planes& out, float* scratch, cudaStream_t stream) {
  const std::vector<double> kernel = core::gaussian_kernel(sigma);
  const auto radius = static_cast<std::int64_t>(kernel.size()) - 1;
  if (radius <= kMostFused) return launch_fused<1>(image, kernel, out, stream);
  const Planes half{scratch, image.channels, image.size};
  const dim3 grid = tile_grid(out.size, out.channels);
  GPGAN_LAUNCH(wide_blur_kernel<true>, grid, tile_block(), stream, image, radius, sigma, kernel[0], half);
  GPGAN_LAUNCH(wide_blur_kernel<false>, grid, tile_block(), stream, half, radius, sigma, kernel[0], out);
}

}  // namespace gpgan::cuda
