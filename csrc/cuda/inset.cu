// Erosion of the mask, so that the seam lies inside the object.
#include <cmath>
#include <cstdint>

#include "cuda/operations.hpp"
#include "cuda/tile.hpp"

namespace gpgan::cuda {
namespace {

// ------------------------------------------------------------------------------------------------------- erosion
// The minimum over a pixel and its 4-neighbours inside the image, kSteps times. Pixels outside are no smaller than any;
// that steps lead through them does no harm, as there is a way inside that is no longer.
template <int kSteps>
__global__ void __launch_bounds__(kTileThreads) erode_kernel(Planes mask, Planes out) {
  constexpr int kSide = kTile + 2 * kSteps;
  __shared__ float tiles[2][kSide][kSide];
  const Planes from = mask.channel(blockIdx.y);
  const Planes to = out.channel(blockIdx.y);
  const TileOrigin origin = tile_origin(out.size);
  for (int i = thread_of_tile(); i < kSide * kSide; i += kTileThreads) {
    const std::int64_t y = origin.top - kSteps + i / kSide;
    const std::int64_t x = origin.left - kSteps + i % kSide;
    const bool inside = y >= 0 && y < from.size.height && x >= 0 && x < from.size.width;
    tiles[0][i / kSide][i % kSide] = inside ? from.row(y)[x] : INFINITY;
  }
  __syncthreads();
  for (int step = 1; step <= kSteps; ++step) {
    const float(&before)[kSide][kSide] = tiles[(step - 1) % 2];
    float(&after)[kSide][kSide] = tiles[step % 2];
    const int side = kSide - 2 * step;  // what the steps before have left right
    for (int i = thread_of_tile(); i < side * side; i += kTileThreads) {
      const int y = step + i / side;
      const int x = step + i % side;
      const float vertical = fminf(before[y - 1][x], before[y + 1][x]);
      const float horizontal = fminf(before[y][x - 1], before[y][x + 1]);
      after[y][x] = fminf(before[y][x], fminf(vertical, horizontal));
    }
    __syncthreads();
  }
  for_tile(to.size, [&](std::int64_t y, std::int64_t x) {
    to.row(y)[x] = tiles[kSteps % 2][y - origin.top + kSteps][x - origin.left + kSteps];
  });
}

// ---------------------------------------------------------------------------------------------------- components
// Union-find: a pixel's label is the index of a pixel of its component that does not come after it, a root's its own.
// Labels count from the plane's first pixel.
using Label = std::uint32_t;

// Others may be changing it.
__device__ inline Label read_label(Label* label) { return atomicOr(label, 0U); }

__device__ inline Label find_root(Label* labels, Label i) {
  for (;;) {
    const Label next = read_label(labels + i);
    if (next == i) return i;
    i = next;
  }
}

// Where a root was given another parent meanwhile, that one is still to be joined.
__device__ inline void unite(Label* labels, Label a, Label b) {
  for (;;) {
    a = find_root(labels, a);
    b = find_root(labels, b);
    if (a == b) return;
    const Label high = larger(a, b);
    const Label low = smaller(a, b);
    const Label old = atomicMin(labels + high, low);
    if (old == high) return;
    a = old;
    b = low;
  }
}

// When all is joined.
__device__ inline Label settled_root(const Label* labels, Label i) {
  while (labels[i] != i) i = labels[i];
  return i;
}

// The components of each tile by itself.
__global__ void __launch_bounds__(kTileThreads) label_tiles_kernel(Planes mask, Label* labels) {
  __shared__ Label local[kTile * kTile];
  __shared__ std::uint8_t inside[kTile][kTile];
  const Planes plane = mask.channel(blockIdx.y);
  const TileOrigin origin = tile_origin(mask.size);
  for (int i = thread_of_tile(); i < kTile * kTile; i += kTileThreads) {
    const std::int64_t y = origin.top + i / kTile;
    const std::int64_t x = origin.left + i % kTile;
    local[i] = static_cast<Label>(i);
    inside[i / kTile][i % kTile] = y < mask.size.height && x < mask.size.width && plane.row(y)[x] > 0 ? 1 : 0;
  }
  __syncthreads();
  for (int i = thread_of_tile(); i < kTile * kTile; i += kTileThreads) {
    const int y = i / kTile;
    const int x = i % kTile;
    if (inside[y][x] == 0) continue;
    const bool left = x > 0 && inside[y][x - 1] != 0;
    const bool above = y > 0 && inside[y - 1][x] != 0;
    const auto at = static_cast<Label>(i);
    if (left) unite(local, at, at - 1);
    // Else it is joined by way of the left.
    if (above && !(left && inside[y - 1][x - 1] != 0)) unite(local, at, at - kTile);
  }
  __syncthreads();
  for_tile(mask.size, [&](std::int64_t y, std::int64_t x) {
    const auto i = static_cast<int>((y - origin.top) * kTile + x - origin.left);
    const Label root = settled_root(local, static_cast<Label>(i));
    const std::int64_t root_y = origin.top + root / kTile;
    const std::int64_t root_x = origin.left + root % kTile;
    labels[blockIdx.y * mask.size.pixels() + y * mask.size.width + x] =
        static_cast<Label>(root_y * mask.size.width + root_x);
  });
}

// Joins each tile's first row and first column to what is before them: half of the threads a row, half a column.
__global__ void __launch_bounds__(2 * kTile) join_tiles_kernel(Planes mask, Label* labels) {
  const TileOrigin origin = tile_origin(mask.size);
  const std::int64_t width = mask.size.width;
  const float* m = mask.channel(blockIdx.y).data;
  Label* of_plane = labels + blockIdx.y * mask.size.pixels();
  const bool row = threadIdx.x < kTile;
  const std::int64_t i = threadIdx.x % kTile;
  const std::int64_t y = origin.top + (row ? 0 : i);
  const std::int64_t x = origin.left + (row ? i : 0);
  if (y >= mask.size.height || x >= width || (row ? y : x) == 0) return;
  const std::int64_t at = y * width + x;
  const std::int64_t across = row ? width : 1;
  const std::int64_t along = row ? 1 : width;
  if (!(m[at] > 0 && m[at - across] > 0)) return;
  // Where the pixels before are a pair too, they have joined both sides.
  if (i > 0 && m[at - along] > 0 && m[at - along - across] > 0) return;
  unite(of_plane, static_cast<Label>(at), static_cast<Label>(at - across));
}

// A flag at the root of each component of which something is left. Of pixels that hang together inside a tile the first
// speaks for all.
__global__ void __launch_bounds__(kTileThreads)
    mark_survivors_kernel(Planes eroded, const Label* labels, unsigned* survives) {
  const std::int64_t first = blockIdx.y * eroded.size.pixels();
  const TileOrigin origin = tile_origin(eroded.size);
  const float* e = eroded.channel(blockIdx.y).data;
  const std::int64_t width = eroded.size.width;
  for_tile(eroded.size, [&](std::int64_t y, std::int64_t x) {
    const std::int64_t at = y * width + x;
    if (!(e[at] > 0)) return;
    if (x > origin.left && e[at - 1] > 0) return;
    if (y > origin.top && e[at - width] > 0) return;
    atomicOr(survives + first + settled_root(labels + first, static_cast<Label>(at)), 1U);
  });
}

// Only pixels that the erosion took ask for their component.
__global__ void __launch_bounds__(kTileThreads)
    take_eroded_kernel(Planes mask, Planes eroded, const Label* labels, const unsigned* survives) {
  const std::int64_t first = blockIdx.y * mask.size.pixels();
  float* m = mask.data + first;
  for_tile(mask.size, [&](std::int64_t y, std::int64_t x) {
    const std::int64_t at = y * mask.size.width + x;
    const float value = eroded.data[first + at];
    const bool taken = m[at] > 0 && !(value > 0);
    if (taken && survives[first + settled_root(labels + first, static_cast<Label>(at))] == 0) return;
    m[at] = value;
  });
}

template <int kSteps>
void launch_erode(const Planes& mask, const Planes& out, cudaStream_t stream) {
  GPGAN_LAUNCH(erode_kernel<kSteps>, tile_grid(mask.size, mask.channels), tile_block(), stream, mask, out);
}

// As many steps as one launch can take of `pixels`; says how many.
int launch_erode(const Planes& mask, std::int64_t pixels, const Planes& out, cudaStream_t stream) {
  if (pixels >= 8) return launch_erode<8>(mask, out, stream), 8;
  if (pixels >= 4) return launch_erode<4>(mask, out, stream), 4;
  if (pixels >= 2) return launch_erode<2>(mask, out, stream), 2;
  return launch_erode<1>(mask, out, stream), 1;
}

}  // namespace

// Two masks in turn, of which one holds the flags in the end, and the labels.
std::int64_t inset_scratch_bytes(std::int64_t planes, Size size) {
  static_assert(sizeof(float) == sizeof(Label) && sizeof(float) == sizeof(unsigned));
  return 3 * planes * size.pixels() * static_cast<std::int64_t>(sizeof(float));
}

void launch_inset(const Planes& mask, int pixels, void* scratch, cudaStream_t stream) {
  if (pixels <= 0) return;
  if (mask.size.pixels() > 0xffffffffLL) {
    throw InvalidArgument("mask", "at most 2^32 - 1 pixels", std::to_string(mask.size.pixels()));
  }
  Planes eroded{static_cast<float*>(scratch), mask.channels, mask.size};
  Planes other{eroded.data + eroded.floats(), mask.channels, mask.size};
  auto* labels = reinterpret_cast<Label*>(other.data + other.floats());
  // No two pixels lie further apart than that.
  std::int64_t left = smaller<std::int64_t>(pixels, mask.size.height + mask.size.width);
  left -= launch_erode(mask, left, eroded, stream);
  while (left > 0) {
    left -= launch_erode(eroded, left, other, stream);
    std::swap(eroded, other);
  }
  auto* survives = reinterpret_cast<unsigned*>(other.data);
  check(cudaMemsetAsync(survives, 0, static_cast<std::size_t>(other.floats()) * sizeof(*survives), stream),
        "cudaMemsetAsync");
  const dim3 grid = tile_grid(mask.size, mask.channels);
  GPGAN_LAUNCH(label_tiles_kernel, grid, tile_block(), stream, mask, labels);
  GPGAN_LAUNCH(join_tiles_kernel, grid, 2 * kTile, stream, mask, labels);
  GPGAN_LAUNCH(mark_survivors_kernel, grid, tile_block(), stream, eroded, labels, survives);
  GPGAN_LAUNCH(take_eroded_kernel, grid, tile_block(), stream, mask, eroded, labels, survives);
}

}  // namespace gpgan::cuda
