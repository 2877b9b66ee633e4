// Every change of size: between the levels of the pyramid, and to and from the generator's.
#include "cuda/operations.hpp"
#include "cuda/tile.hpp"

namespace gpgan::cuda {
namespace {

// ------------------------------------------------------------------------------ between the levels of the pyramid
// Along the rows on the way into shared memory, where neighbours' reads meet in the cache; down the columns from there.

__global__ void __launch_bounds__(kTileThreads) downsample_kernel(Planes image, Planes out) {
  __shared__ float sums[2 * kTile + 2][kTile];
  const Planes from = image.channel(blockIdx.y);
  const Planes to = out.channel(blockIdx.y);
  const TileOrigin origin = tile_origin(out.size);
  const std::int64_t x = origin.left + threadIdx.x;
  if (x < to.size.width) {
    const std::int64_t width = from.size.width;
    const std::int64_t a = reflect(2 * x - 1, width);
    const std::int64_t b = reflect(2 * x, width);
    const std::int64_t c = reflect(2 * x + 1, width);
    const std::int64_t d = reflect(2 * x + 2, width);
    const auto rows = static_cast<int>(smaller<std::int64_t>(kTile, to.size.height - origin.top));
    for (int i = static_cast<int>(threadIdx.y); i < 2 * rows + 2; i += kTileRows) {
      const float* row = from.row(reflect(2 * origin.top - 1 + i, from.size.height));
      sums[i][threadIdx.x] = 0.125F * (row[a] + row[d]) + 0.375F * (row[b] + row[c]);
    }
  }
  __syncthreads();
  for_tile(to.size, [&](std::int64_t y, std::int64_t column) {
    const auto i = static_cast<int>(2 * (y - origin.top));
    const int j = static_cast<int>(threadIdx.x);
    to.row(y)[column] = 0.125F * (sums[i][j] + sums[i + 3][j]) + 0.375F * (sums[i + 1][j] + sums[i + 2][j]);
  });
}

// Keys' kernel at the distances of the two phases: an even pixel lies a quarter of a coarse pixel before its own coarse
// pixel's centre, an odd one a quarter after it.
constexpr float kAt025 = 0.8671875F;
constexpr float kAt075 = 0.2265625F;
constexpr float kAt125 = -0.0703125F;
constexpr float kAt175 = -0.0234375F;

// `v` are the four coarse values around, in order.
__device__ inline float expand(bool odd, float v0, float v1, float v2, float v3) {
  return odd ? kAt125 * v0 + kAt025 * v1 + kAt075 * v2 + kAt175 * v3
             : kAt175 * v0 + kAt075 * v1 + kAt025 * v2 + kAt125 * v3;
}

__global__ void __launch_bounds__(kTileThreads) upsample_kernel(Planes image, Planes out) {
  __shared__ float sums[kTile / 2 + 4][kTile];
  const Planes from = image.channel(blockIdx.y);
  const Planes to = out.channel(blockIdx.y);
  const TileOrigin origin = tile_origin(out.size);
  const std::int64_t x = origin.left + threadIdx.x;
  if (x < to.size.width) {
    const std::int64_t width = from.size.width;
    const bool odd = x % 2 != 0;
    const std::int64_t first = x / 2 - (odd ? 1 : 2);
    const std::int64_t a = reflect(first, width);
    const std::int64_t b = reflect(first + 1, width);
    const std::int64_t c = reflect(first + 2, width);
    const std::int64_t d = reflect(first + 3, width);
    for (int i = static_cast<int>(threadIdx.y); i < kTile / 2 + 4; i += kTileRows) {
      const float* row = from.row(reflect(origin.top / 2 - 2 + i, from.size.height));
      sums[i][threadIdx.x] = expand(odd, row[a], row[b], row[c], row[d]);
    }
  }
  __syncthreads();
  for_tile(to.size, [&](std::int64_t y, std::int64_t column) {
    const bool odd = y % 2 != 0;
    const auto i = static_cast<int>((y - origin.top) / 2) + (odd ? 1 : 0);
    const int j = static_cast<int>(threadIdx.x);
    to.row(y)[column] = expand(odd, sums[i][j], sums[i + 1][j], sums[i + 2][j], sums[i + 3][j]);
  });
}

// --------------------------------------------------------------------------------------------- between any two sizes
// One axis: output pixel i is the sum of weight(t) * input pixel index(t), t = 0..count() - 1.

// Keys' bicubic at half-pixel centres.
struct CubicTaps {
  std::int64_t begin, from;
  float fraction;

  __device__ CubicTaps(std::int64_t i, std::int64_t from_, std::int64_t to) : from(from_) {
    const double step = static_cast<double>(from_) / static_cast<double>(to);
    const double at = (static_cast<double>(i) + 0.5) * step - 0.5;
    const double left = floor(at);
    begin = static_cast<std::int64_t>(left) - 1;
    fraction = static_cast<float>(at - left);
  }
  __device__ static constexpr std::int64_t count() { return 4; }
  __device__ std::int64_t index(std::int64_t t) const { return reflect(begin + t, from); }
  // Factored so that nothing cancels.
  __device__ float weight(std::int64_t t) const {
    const float f = fraction;
    const float g = 1 - fraction;
    if (t == 0) return -0.5F * f * g * g;
    if (t == 1) return (1.5F * f - 2.5F) * f * f + 1;
    if (t == 2) return (1.5F * g - 2.5F) * g * g + 1;
    return -0.5F * g * f * f;
  }
};

// Each input pixel by how much of the output pixel it covers. In units of 1 / to of an input pixel all edges are whole
// numbers.
struct AreaTaps {
  std::int64_t begin, number;
  float first, middle, last;

  __device__ AreaTaps(std::int64_t i, std::int64_t from, std::int64_t to) {
    const std::int64_t left = i * from;
    const std::int64_t right = left + from;
    begin = left / to;
    const std::int64_t end = (right - 1) / to;
    number = end - begin + 1;
    const auto all = static_cast<float>(from);
    first = static_cast<float>(smaller(right, (begin + 1) * to) - left) / all;
    middle = static_cast<float>(to) / all;
    last = static_cast<float>(right - end * to) / all;
  }
  __device__ std::int64_t count() const { return number; }
  __device__ std::int64_t index(std::int64_t t) const { return begin + t; }
  __device__ float weight(std::int64_t t) const { return t == 0 ? first : (t == number - 1 ? last : middle); }
};

template <typename RowTaps, typename ColumnTaps>
__global__ void __launch_bounds__(kTileThreads, 4) resample_kernel(Planes image, Planes out) {
  const Planes from = image.channel(blockIdx.y);
  const Planes to = out.channel(blockIdx.y);
  const TileOrigin origin = tile_origin(out.size);
  const ColumnTaps columns(origin.left + threadIdx.x, from.size.width, to.size.width);
  for_tile(to.size, [&](std::int64_t y, std::int64_t x) {
    const RowTaps rows(y, from.size.height, to.size.height);
    float total = 0;
    for (std::int64_t t = 0; t < rows.count(); ++t) {
      const float* row = from.row(rows.index(t));
      float sum = 0;
      for (std::int64_t s = 0; s < columns.count(); ++s) sum += columns.weight(s) * row[columns.index(s)];
      total += rows.weight(t) * sum;
    }
    to.row(y)[x] = total;
  });
}

__global__ void __launch_bounds__(kTileThreads) resample_nearest_kernel(Planes mask, Planes out) {
  const Planes from = mask.channel(blockIdx.y);
  const Planes to = out.channel(blockIdx.y);
  const auto source = [](std::int64_t i, std::int64_t n, std::int64_t of) { return (2 * i + 1) * n / (2 * of); };
  const TileOrigin origin = tile_origin(out.size);
  const std::int64_t from_x = source(origin.left + threadIdx.x, from.size.width, to.size.width);
  for_tile(to.size, [&](std::int64_t y, std::int64_t x) {
    to.row(y)[x] = from.row(source(y, from.size.height, to.size.height))[from_x];
  });
}

// Where an output pixel is the mean of many: `threads` of them for each output pixel, `columns` beside one another.
constexpr int kAreaThreads = 256;

__global__ void __launch_bounds__(kAreaThreads)
    area_average_kernel(Planes image, Planes out, int threads, int columns) {
  __shared__ float partial[kAreaThreads];
  const Planes from = image.channel(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % threads;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * (kAreaThreads / threads) + thread / threads;
  float sum = 0;
  if (at < out.size.pixels()) {
    const AreaTaps across(at % out.size.width, from.size.width, out.size.width);
    const AreaTaps down(at / out.size.width, from.size.height, out.size.height);
    for (std::int64_t s = lane % columns; s < across.count(); s += columns) {
      const float* column = from.row(down.index(0)) + across.index(s);
      float of_column = 0;
      for (std::int64_t t = lane / columns; t < down.count(); t += threads / columns) {
        of_column += down.weight(t) * column[t * from.size.width];
      }
      sum += across.weight(s) * of_column;
    }
  }
  partial[thread] = sum;
  __syncthreads();
  if (lane != 0 || at >= out.size.pixels()) return;
  float total = 0;
  for (int i = 0; i < threads; ++i) total += partial[thread + i];
  out.channel(blockIdx.y).data[at] = total;
}

template <typename RowTaps, typename ColumnTaps>
void launch_resample(const Planes& image, const Planes& out, cudaStream_t stream) {
  GPGAN_LAUNCH((resample_kernel<RowTaps, ColumnTaps>), tile_grid(out.size, out.channels), tile_block(), stream, image,
               out);
}

}  // namespace

void launch_downsample(const Planes& image, const Planes& out, cudaStream_t stream) {
  GPGAN_LAUNCH(downsample_kernel, tile_grid(out.size, out.channels), tile_block(), stream, image, out);
}

void launch_upsample(const Planes& image, const Planes& out, cudaStream_t stream) {
  GPGAN_LAUNCH(upsample_kernel, tile_grid(out.size, out.channels), tile_block(), stream, image, out);
}

void launch_resize(const Planes& image, const Planes& out, cudaStream_t stream) {
  const bool lower = out.size.height < image.size.height;
  const bool narrower = out.size.width < image.size.width;
  if (lower && narrower) {
    launch_area_average(image, out, stream);
  } else if (lower) {
    launch_resample<AreaTaps, CubicTaps>(image, out, stream);
  } else if (narrower) {
    launch_resample<CubicTaps, AreaTaps>(image, out, stream);
  } else {
    launch_resample<CubicTaps, CubicTaps>(image, out, stream);
  }
}

void launch_resample_bicubic(const Planes& image, const Planes& out, cudaStream_t stream) {
  launch_resample<CubicTaps, CubicTaps>(image, out, stream);
}

void launch_resample_nearest(const Planes& mask, const Planes& out, cudaStream_t stream) {
  GPGAN_LAUNCH(resample_nearest_kernel, tile_grid(out.size, out.channels), tile_block(), stream, mask, out);
}

void launch_area_average(const Planes& image, const Planes& out, cudaStream_t stream) {
  const std::int64_t share = image.size.pixels() / out.size.pixels();
  if (share < 32) {
    launch_resample<AreaTaps, AreaTaps>(image, out, stream);
    return;
  }
  // A warp each where that fills a device, else a block; as many beside one another as an output pixel is wide.
  constexpr std::int64_t kManyWarps = 4096;
  const int threads = out.floats() >= kManyWarps || share < kAreaThreads ? 32 : kAreaThreads;
  int columns = 1;
  while (columns < 32 && columns < image.size.width / out.size.width) columns *= 2;
  GPGAN_LAUNCH(area_average_kernel, tile_grid({1, out.size.pixels()}, 1, kAreaThreads / threads, out.channels),
               kAreaThreads, stream, image, out, threads, columns);
}

}  // namespace gpgan::cuda
