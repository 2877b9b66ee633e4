// The harmonic membrane on the pixel grid: conjugate gradients, preconditioned by a multigrid cycle on aggregates of 2
// x 2 cells. The sequence of launches depends on the size alone; what decides anything (the scalars of conjugate
// gradients, whether a plane is done) stays on the device.
//
// w is known outside the region from the start and 0 inside, so that the residual at a pixel is the sum of the
// differences to its neighbours. It is taken from w anew wherever it is needed, and so neither stored nor subject to
// the drift of a residual that is updated step by step, which along a mask of length N that hangs on one end the
// inverse would magnify by N^2. Nor is what smoothing leaves on the way down stored: on the way up it is made again,
// out of w.
//
// Memory, in floats a pixel: w, the direction p and the preconditioned residual z are 3, the coarser levels' x and b
// together 2/3; the coarser levels' edges are 1 for each image, not for each channel.
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/operations.hpp"

namespace gpgan::cuda {
namespace {

// Masks of objects take 7 to 10 of them, ragged ones 4 to 8; a wall of one pixel across a wide region, which coarse
// cells straddle, takes 10. Those after a plane's last only look at `change`.
constexpr int kIterations = 12;
// An iteration that changes no pixel by more than this is a plane's last. Each takes the error to a fourth or less.
constexpr float kTolerance = 4e-4F;
// Two steps of Jacobi with these dampings take every frequency of the upper half to 0.22 of itself or less
// (Chebyshev's for 0.5 .. 2).
constexpr float kFirstDamping = 0.562F;
constexpr float kSecondDamping = 1.389F;
constexpr float kUndamped = 1 / kFirstDamping;
// What a coarser level keeps of the outside's hold, as a share of the sum: half as of other edges, and more because
// near the outside a correction that is constant over 2 x 2 cells overshoots.
constexpr float kHold = 0.8F;

constexpr int kThreads = 256;
constexpr int kPixelRows = 32;  // of a tile, and the columns; of words of 32 pixels too
constexpr int kPixelColumns = 64;
constexpr int kCellRows = 16;  // the same of the coarser levels
constexpr int kCellColumns = 32;
// Levels that together have no more cells than this, so that b and x of all fit the shared memory of one block, are the
// work of one block a plane: there a launch would cost more than what it does.
constexpr int kCoarseCells = 6016;
constexpr int kCoarseThreads = 1024;
constexpr int kCoarseEach = (kCoarseCells + kCoarseThreads - 1) / kCoarseThreads;
constexpr int kMostLevels = 64;

// ---------------------------------------------------------------------------------------------------------- memory

struct State {
  double product;  // residual . z
  double energy;   // p . A p
  float alpha, beta;
};

struct Level {
  Size size;
  float* x;                // of each plane
  float* b;                // of each plane
  float* weights;          // of each image: edges to the east, edges to the south, the inverse of the diagonal
  std::uint8_t* occupied;  // tile by tile of each image: is there a cell that touches the region?
};

constexpr Size halved(Size size) { return {(size.height + 1) / 2, (size.width + 1) / 2}; }
constexpr std::int64_t pixel_tiles(Size size) {
  return ceil_div(size.height, kPixelRows) * ceil_div(size.width, kPixelColumns);
}
constexpr std::int64_t cell_tiles(Size size) {
  return ceil_div(size.height, kCellRows) * ceil_div(size.width, kCellColumns);
}
constexpr std::int64_t words_in_row(Size size) { return ceil_div(size.width, 32); }

// Cells of this level and of all coarser ones.
constexpr std::int64_t cells_from(Size size) {
  std::int64_t cells = size.pixels();
  for (; size.pixels() > 1; cells += size.pixels()) size = halved(size);
  return cells;
}

struct Workspace {
  float* w = nullptr;
  float* p = nullptr;
  float* z = nullptr;
  std::uint32_t* bits = nullptr;  // the region, 32 pixels of a row to a word
  std::uint8_t* occupied = nullptr;
  char* zeros_begin = nullptr;  // what is 0 at first
  double* partial = nullptr;
  State* state = nullptr;
  std::uint32_t* change = nullptr;  // the largest of an iteration and plane, as a float's bits; the first is of none
  unsigned* tiles = nullptr;        // how many are occupied, of each image
  unsigned* finished = nullptr;     // tiles of each plane
  char* zeros_end = nullptr;
  char* levels_begin = nullptr;  // x and b of all levels
  char* levels_end = nullptr;
  Level levels[kMostLevels] = {};  // the first is that of pixels
  int count = 0;
  int coarse = 0;  // from this level on in one kernel
  std::int64_t bytes = 0;
};

Workspace workspace(std::int64_t planes, std::int64_t images, Size size, void* scratch) {
  Workspace s;
  const auto begin = reinterpret_cast<std::uintptr_t>(scratch);  // null where only the size is asked for
  const auto take = [&](auto*& pointer, std::int64_t count) {
    constexpr std::int64_t kAlignment = 256;
    pointer =
        reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(begin + static_cast<std::uintptr_t>(s.bytes));
    s.bytes += ceil_div(count * static_cast<std::int64_t>(sizeof(*pointer)), kAlignment) * kAlignment;
  };
  const auto here = [&](char*& pointer) { take(pointer, 0); };
  take(s.w, planes * size.pixels());
  take(s.p, planes * size.pixels());
  take(s.z, planes * size.pixels());
  take(s.bits, images * size.height * words_in_row(size));
  take(s.occupied, images * pixel_tiles(size));
  here(s.zeros_begin);
  take(s.partial, planes * pixel_tiles(size) * 2);
  take(s.state, planes);
  take(s.change, planes * (kIterations + 1));
  take(s.tiles, images);
  take(s.finished, planes);
  here(s.zeros_end);
  s.levels[0].size = size;
  s.count = 1;
  do {
    size = halved(size);
    s.levels[s.count++].size = size;
    if (cells_from(size) > kCoarseCells) s.coarse = s.count;
  } while (size.pixels() > 1);
  if (s.coarse == 0) s.coarse = 1;
  here(s.levels_begin);
  for (int k = 1; k < s.count; ++k) {
    take(s.levels[k].x, planes * s.levels[k].size.pixels());
    take(s.levels[k].b, planes * s.levels[k].size.pixels());
  }
  here(s.levels_end);
  // Without gaps: the kernel of the coarsest levels finds its way along them.
  float* weights = nullptr;
  take(weights, 3 * images * cells_from(s.levels[1].size));
  for (int k = 1; k < s.count; ++k) {
    s.levels[k].weights = weights;
    weights += 3 * images * s.levels[k].size.pixels();
    take(s.levels[k].occupied, images * cell_tiles(s.levels[k].size));
  }
  return s;
}

// ----------------------------------------------------------------------------------------------------------- tiles

// A tile in shared memory and kRing cells around it, numbered from the tile's own first cell.
template <int kHeight, int kWidth, int kRing>
struct Field {
  static constexpr int kRows = kHeight + 2 * kRing;
  static constexpr int kColumns = kWidth + 2 * kRing;
  static constexpr int kCells = kRows * kColumns;
  float* data;

  __device__ float& operator()(int y, int x) const { return data[(y + kRing) * kColumns + x + kRing]; }
  template <typename Body>
  __device__ static void for_cells(Body body) {
    for (int i = static_cast<int>(threadIdx.x); i < kCells; i += kThreads) {
      body(i / kColumns - kRing, i % kColumns - kRing);
    }
  }
  __device__ float around(int y, int x) const {
    const auto& f = *this;
    return (f(y, x - 1) + f(y, x + 1)) + (f(y - 1, x) + f(y + 1, x));
  }
};
template <int kRing>
using PixelField = Field<kPixelRows, kPixelColumns, kRing>;
template <int kRing>
using CellField = Field<kCellRows, kCellColumns, kRing>;

// Where the image is, seen from a tile; far limits are cut so that they are ints.
struct Limits {
  int top, left, bottom, right;
  bool far;  // all of them, from all that a tile of pixels reads

  __device__ Limits(Size size, TileOrigin origin)
      : top(origin.top == 0 ? 0 : -kFar),
        left(origin.left == 0 ? 0 : -kFar),
        bottom(cut(size.height - origin.top)),
        right(cut(size.width - origin.left)),
        far(top < 0 && left < 0 && bottom >= 2 * kPixelRows && right >= 2 * kPixelColumns) {}
  __device__ bool contain(int y, int x) const { return y >= top && y < bottom && x >= left && x < right; }
  // Neighbours in the image.
  __device__ int degree(int y, int x) const {
    if (far) return 4;
    return 4 - (y == top ? 1 : 0) - (y == bottom - 1 ? 1 : 0) - (x == left ? 1 : 0) - (x == right - 1 ? 1 : 0);
  }

 private:
  static constexpr int kFar = 1 << 20;
  __device__ static int cut(std::int64_t i) { return i < kFar ? static_cast<int>(i) : kFar; }
};

__device__ inline float inverse_degree(int degree) {
  return degree == 4 ? 0.25F : (degree == 3 ? 1.0F / 3 : (degree == 2 ? 0.5F : static_cast<float>(degree)));
}

__device__ inline std::int64_t clamped(std::int64_t i, std::int64_t n) { return i < 0 ? 0 : (i < n ? i : n - 1); }

__device__ inline bool is_done(const std::uint32_t* change) {
  return change[blockIdx.y] <= std::bit_cast<std::uint32_t>(kTolerance);
}

// blockIdx.y is a plane.
__device__ inline std::int64_t image_of_plane(std::int64_t images) { return blockIdx.y / (gridDim.y / images); }

__device__ inline bool is_inside(const std::uint32_t* row, std::int64_t x) {
  return (row[x / 32] >> (x % 32) & 1U) != 0;
}

// Sums of all threads in the first element of each row.
__device__ inline void sum_rows(double (&rows)[2][kThreads]) {
  const unsigned i = threadIdx.x;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (i < half) {
      rows[0][i] += rows[0][i + half];
      rows[1][i] += rows[1][i + half];
    }
  }
  __syncthreads();
}

// --------------------------------------------------------------------------------------------- before the iterations

// The region as bits and its occupied tiles; w outside.
__global__ void __launch_bounds__(kThreads)
    begin_membrane_kernel(Planes difference, Planes mask, float* w, std::uint32_t* bits, std::uint8_t* occupied,
                          unsigned* tiles) {
  __shared__ std::uint8_t inside[kPixelRows * kPixelColumns];
  __shared__ unsigned some;
  const Size size = mask.size;
  const TileOrigin origin = tile_origin(size, kPixelRows, kPixelColumns);
  const Limits limits(size, origin);
  const std::int64_t plane = blockIdx.y;
  const std::int64_t image = image_of_plane(mask.channels);
  const float* m = mask.channel(image).data;
  const float* d = difference.channel(plane).data;
  if (threadIdx.x == 0) some = 0;
  __syncthreads();
  PixelField<0>::for_cells([&](int y, int x) {
    bool in = false;
    if (limits.contain(y, x)) {
      const std::int64_t at = (origin.top + y) * size.width + origin.left + x;
      in = m[at] > 0;
      w[plane * size.pixels() + at] = in ? 0.0F : -d[at];
    }
    inside[y * kPixelColumns + x] = in ? 1 : 0;
  });
  __syncthreads();
  if (plane % (gridDim.y / mask.channels) != 0) return;
  constexpr int kWords = kPixelColumns / 32;
  const auto i = static_cast<int>(threadIdx.x);
  if (i < kPixelRows * kWords) {
    const int y = i / kWords;
    const int x = i % kWords * 32;
    std::uint32_t word = 0;
    for (int j = 32; j-- > 0;) word = word << 1 | inside[y * kPixelColumns + x + j];
    if (limits.contain(y, x)) {
      bits[(image * size.height + origin.top + y) * words_in_row(size) + (origin.left + x) / 32] = word;
    }
    if (word != 0) atomicOr(&some, 1U);
  }
  __syncthreads();
  if (i == 0) {
    occupied[image * gridDim.x + blockIdx.x] = static_cast<std::uint8_t>(some);
    if (some != 0) atomicAdd(&tiles[image], 1U);
  }
}

// What a coarser level is made of: the edges of a finer, and the hold of the outside on it.
struct PixelEdges {
  const std::uint32_t* bits;
  Size size;
  __device__ bool inside(std::int64_t y, std::int64_t x) const {
    return y >= 0 && y < size.height && x >= 0 && x < size.width && is_inside(bits + y * words_in_row(size), x);
  }
  __device__ float east(std::int64_t y, std::int64_t x) const { return inside(y, x) && inside(y, x + 1) ? 1.0F : 0.0F; }
  __device__ float south(std::int64_t y, std::int64_t x) const {
    return inside(y, x) && inside(y + 1, x) ? 1.0F : 0.0F;
  }
  __device__ float held(std::int64_t y, std::int64_t x) const {
    if (!inside(y, x)) return 0;
    return (x > 0 && !inside(y, x - 1) ? 1.0F : 0.0F) + (x + 1 < size.width && !inside(y, x + 1) ? 1.0F : 0.0F) +
           (y > 0 && !inside(y - 1, x) ? 1.0F : 0.0F) + (y + 1 < size.height && !inside(y + 1, x) ? 1.0F : 0.0F);
  }
};
struct CellEdges {
  const float* weights;
  const float* hold;
  Size size;
  __device__ float at(const float* values, std::int64_t y, std::int64_t x) const {
    return y >= 0 && y < size.height && x >= 0 && x < size.width ? values[y * size.width + x] : 0.0F;
  }
  __device__ float east(std::int64_t y, std::int64_t x) const { return at(weights, y, x); }
  __device__ float south(std::int64_t y, std::int64_t x) const { return at(weights + size.pixels(), y, x); }
  __device__ float held(std::int64_t y, std::int64_t x) const { return at(hold, y, x); }
};

// Between two cells an edge is what the edges between their children add up to, halved: a sum of two fine edges stands
// for one coarse edge twice as long.
template <typename Edges>
__device__ void weigh(const Edges& fine, Size size, float* weights, float* held, std::uint8_t* occupied) {
  __shared__ unsigned some;
  if (threadIdx.x == 0) some = 0;
  __syncthreads();
  const TileOrigin origin = tile_origin(size, kCellRows, kCellColumns);
  const Limits limits(size, origin);
  CellField<0>::for_cells([&](int cell_y, int cell_x) {
    if (!limits.contain(cell_y, cell_x)) return;
    const std::int64_t at = (origin.top + cell_y) * size.width + origin.left + cell_x;
    const std::int64_t y = 2 * (origin.top + cell_y);
    const std::int64_t x = 2 * (origin.left + cell_x);
    const float hold =
        kHold * ((fine.held(y, x) + fine.held(y, x + 1)) + (fine.held(y + 1, x) + fine.held(y + 1, x + 1)));
    const float west = 0.5F * (fine.east(y, x - 1) + fine.east(y + 1, x - 1));
    const float east = 0.5F * (fine.east(y, x + 1) + fine.east(y + 1, x + 1));
    const float north = 0.5F * (fine.south(y - 1, x) + fine.south(y - 1, x + 1));
    const float south = 0.5F * (fine.south(y + 1, x) + fine.south(y + 1, x + 1));
    const float diagonal = hold + ((west + east) + (north + south));
    held[at] = hold;
    weights[at] = east;
    weights[size.pixels() + at] = south;
    weights[2 * size.pixels() + at] = diagonal > 0 ? 1 / diagonal : 0.0F;
    if (diagonal > 0) atomicOr(&some, 1U);
  });
  __syncthreads();
  if (threadIdx.x == 0) occupied[blockIdx.x] = static_cast<std::uint8_t>(some);
}

__global__ void __launch_bounds__(kThreads) weigh_pixels_kernel(const std::uint32_t* bits, Size fine, Size size,
                                                                float* weights, float* held, std::uint8_t* occupied) {
  const std::int64_t image = blockIdx.y;
  weigh(PixelEdges{bits + image * fine.height * words_in_row(fine), fine}, size, weights + 3 * image * size.pixels(),
        held + image * size.pixels(), occupied + image * gridDim.x);
}

__global__ void __launch_bounds__(kThreads)
    weigh_cells_kernel(const float* fine_weights, const float* fine_held, Size fine, Size size, float* weights,
                       float* held, std::uint8_t* occupied) {
  const std::int64_t image = blockIdx.y;
  weigh(CellEdges{fine_weights + 3 * image * fine.pixels(), fine_held + image * fine.pixels(), fine}, size,
        weights + 3 * image * size.pixels(), held + image * size.pixels(), occupied + image * gridDim.x);
}

// ----------------------------------------------------------------------------------------------------------- pixels

// A tile of pixels, and kRing around it, with the bits that go there.
template <int kRing>
struct PixelTile {
  static constexpr int kRows = kPixelRows + 2 * kRing;
  static constexpr int kWords = kPixelColumns / 32 + 2;
  static_assert(kRing <= 32);
  using Bits = std::uint32_t[kRows][kWords];

  Size size;
  TileOrigin origin;
  Limits limits;
  const Bits& bits;

  __device__ PixelTile(Size image_size, const std::uint32_t* image_bits, Bits& shared)
      : size(image_size),
        origin(tile_origin(image_size, kPixelRows, kPixelColumns)),
        limits(image_size, origin),
        bits(shared) {
    const std::int64_t words = words_in_row(size);
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kWords; i += kThreads) {
      const std::int64_t y = origin.top - kRing + i / kWords;
      const std::int64_t word = origin.left / 32 - 1 + i % kWords;
      shared[i / kWords][i % kWords] =
          y >= 0 && y < size.height && word >= 0 && word < words ? image_bits[y * words + word] : 0;
    }
  }

  __device__ bool inside(int y, int x) const { return (bits[y + kRing][(x + 32) >> 5] >> (x & 31) & 1U) != 0; }
  __device__ std::int64_t at(int y, int x) const { return (origin.top + y) * size.width + origin.left + x; }

  // `first` is kFirstDamping D^-1 r, the first step of smoothing from 0, and all that is kept of r. Here a step from
  // `from`.
  template <typename From, typename First>
  __device__ float smooth(const From& from, const First& first, int y, int x, float damping) const {
    if (!inside(y, x)) return 0;
    const float self = from(y, x);
    const float inverse = inverse_degree(limits.degree(y, x));
    return self + damping * (first(y, x) * kUndamped + inverse * from.around(y, x) - self);
  }
  // A x, which is 0 outside.
  template <typename Values>
  __device__ float applied(const Values& values, int y, int x) const {
    return static_cast<float>(limits.degree(y, x)) * values(y, x) - values.around(y, x);
  }
  template <typename First>
  __device__ float residual(const First& first, int y, int x) const {
    return first(y, x) * kUndamped * static_cast<float>(limits.degree(y, x));
  }

  // first = kFirstDamping D^-1 times the residual of w, x = two steps of smoothing from 0. `x_memory` is w's at first.
  __device__ void smooth_from_zero(const float* w, float* first_memory, float* x_memory) const {
    const PixelField<kRing> known{x_memory};
    PixelField<kRing>::for_cells([&](int y, int x) {
      // The image's border is repeated: no difference to what is beyond it.
      known(y, x) = w[clamped(origin.top + y, size.height) * size.width + clamped(origin.left + x, size.width)];
    });
    __syncthreads();
    const PixelField<kRing - 1> first{first_memory};
    PixelField<kRing - 1>::for_cells([&](int y, int x) {
      const float self = known(y, x);
      const float along = (known(y, x - 1) - self) + (known(y, x + 1) - self);
      const float down = (known(y - 1, x) - self) + (known(y + 1, x) - self);
      first(y, x) = inside(y, x) ? kFirstDamping * inverse_degree(limits.degree(y, x)) * (along + down) : 0.0F;
    });
    __syncthreads();
    const PixelField<kRing - 2> smoothed{x_memory};
    PixelField<kRing - 2>::for_cells(
        [&](int y, int x) { smoothed(y, x) = smooth(first, first, y, x, kSecondDamping); });
  }
};

// The cycle's way down: the residual after smoothing, summed over 2 x 2 pixels, which is the transpose of the constant
// prolongation.
__global__ void __launch_bounds__(kThreads)
    restrict_pixels_kernel(Size size, std::int64_t images, const float* w, const std::uint32_t* bits,
                           const std::uint8_t* occupied, const std::uint32_t* change, float* b) {
  constexpr int kRing = 3;
  using Tile = PixelTile<kRing>;
  __shared__ typename Tile::Bits shared_bits;
  __shared__ float first_memory[PixelField<kRing - 1>::kCells];
  __shared__ float x_memory[PixelField<kRing>::kCells];
  const std::int64_t plane = blockIdx.y;
  const std::int64_t image = image_of_plane(images);
  if (is_done(change) || occupied[image * gridDim.x + blockIdx.x] == 0) return;
  const Tile tile(size, bits + image * size.height * words_in_row(size), shared_bits);
  tile.smooth_from_zero(w + plane * size.pixels(), first_memory, x_memory);
  __syncthreads();
  const PixelField<kRing - 1> first{first_memory};
  const PixelField<kRing - 2> smoothed{x_memory};
  const Size coarse = halved(size);
  b += plane * coarse.pixels();
  Field<kPixelRows / 2, kPixelColumns / 2, 0>::for_cells([&](int cell_y, int cell_x) {
    if (!tile.limits.contain(2 * cell_y, 2 * cell_x)) return;
    float sum = 0;
    for (int i = 0; i < 4; ++i) {
      const int y = 2 * cell_y + i / 2;
      const int x = 2 * cell_x + i % 2;
      if (tile.inside(y, x)) sum += tile.residual(first, y, x) - tile.applied(smoothed, y, x);
    }
    b[(tile.origin.top / 2 + cell_y) * coarse.width + tile.origin.left / 2 + cell_x] = sum;
  });
}

// From the sums of all tiles, in their order: how far to go, and how much of the last direction to keep. p . A p
// follows from z . A z, as A p of the last step is orthogonal to p.
__device__ inline void advance(State& state, double product, double energy) {
  double beta = 0;
  if (state.product > 0) {
    beta = product / state.product;
    const double kept = beta * beta * state.energy;
    if (energy - kept > 0.1 * energy) {
      energy -= kept;
    } else {
      beta = 0;  // where rounding is all that is left the orthogonality is not true
    }
  }
  const bool some = product > 0 && energy > 0;
  state.product = some ? product : 0;
  state.energy = some ? energy : 0;
  state.alpha = some ? static_cast<float>(product / energy) : 0.0F;
  state.beta = some ? static_cast<float>(beta) : 0.0F;
}

// The way up: what the coarser levels say is added, and as many steps of smoothing follow as came before. The tile that
// is finished last takes the scalars from all tiles' sums. Told of 4 blocks a multiprocessor, the compiler takes as
// many registers as it needs; left alone it aims at 5 and spills.
__global__ void __launch_bounds__(kThreads, 4)
    smooth_pixels_kernel(Size size, std::int64_t images, const float* w, const std::uint32_t* bits,
                         const std::uint8_t* occupied, const std::uint32_t* change, const float* coarse_x, float* z,
                         double* partial, const unsigned* tiles, unsigned* finished, State* state) {
  constexpr int kRing = 5;
  using Tile = PixelTile<kRing>;
  __shared__ typename Tile::Bits shared_bits;
  __shared__ float first_memory[PixelField<kRing - 1>::kCells];
  __shared__ float x_memory[PixelField<kRing>::kCells];
  __shared__ float y_memory[PixelField<kRing - 3>::kCells];
  __shared__ double sums[2][kThreads];
  __shared__ bool last;
  const std::int64_t plane = blockIdx.y;
  const std::int64_t image = image_of_plane(images);
  if (is_done(change) || occupied[image * gridDim.x + blockIdx.x] == 0) return;
  const Size coarse = halved(size);
  coarse_x += plane * coarse.pixels();
  const Tile tile(size, bits + image * size.height * words_in_row(size), shared_bits);
  tile.smooth_from_zero(w + plane * size.pixels(), first_memory, x_memory);
  const PixelField<kRing - 1> first{first_memory};
  const PixelField<kRing - 2> before{x_memory};
  PixelField<kRing - 2>::for_cells([&](int y, int x) {  // each thread adds to what it has just written
    if (!tile.inside(y, x)) return;
    before(y, x) += coarse_x[(tile.origin.top + y) / 2 * coarse.width + (tile.origin.left + x) / 2];
  });
  __syncthreads();
  const PixelField<kRing - 3> between{y_memory};
  PixelField<kRing - 3>::for_cells(
      [&](int y, int x) { between(y, x) = tile.smooth(before, first, y, x, kFirstDamping); });
  __syncthreads();
  const PixelField<kRing - 4> after{x_memory};
  PixelField<kRing - 4>::for_cells(
      [&](int y, int x) { after(y, x) = tile.smooth(between, first, y, x, kSecondDamping); });
  __syncthreads();
  float product = 0;
  float energy = 0;
  PixelField<0>::for_cells([&](int y, int x) {
    if (!tile.inside(y, x)) return;
    const float value = after(y, x);
    z[plane * size.pixels() + tile.at(y, x)] = value;
    product += value * tile.residual(first, y, x);
    energy += value * tile.applied(after, y, x);
  });

  sums[0][threadIdx.x] = static_cast<double>(product);
  sums[1][threadIdx.x] = static_cast<double>(energy);
  sum_rows(sums);
  volatile double* const all = partial + plane * gridDim.x * 2;  // other blocks' too
  if (threadIdx.x == 0) {
    all[2 * blockIdx.x] = sums[0][0];
    all[2 * blockIdx.x + 1] = sums[1][0];
    __threadfence();
    last = atomicAdd(&finished[plane], 1U) + 1 == tiles[image];
    __threadfence();
  }
  __syncthreads();
  if (!last) return;
  sums[0][threadIdx.x] = 0;
  sums[1][threadIdx.x] = 0;
  for (std::int64_t i = threadIdx.x; i < gridDim.x; i += kThreads) {
    sums[0][threadIdx.x] += all[2 * i];
    sums[1][threadIdx.x] += all[2 * i + 1];
  }
  sum_rows(sums);
  if (threadIdx.x == 0) {
    finished[plane] = 0;
    advance(state[plane], sums[0][0], sums[1][0]);
  }
}

__global__ void __launch_bounds__(kThreads)
    update_membrane_kernel(Size size, std::int64_t images, const std::uint32_t* bits, const std::uint8_t* occupied,
                           const State* state, const float* z, float* p, float* w, const std::uint32_t* change,
                           std::uint32_t* next_change) {
  __shared__ float largest[kThreads];
  const std::int64_t plane = blockIdx.y;
  const std::int64_t image = image_of_plane(images);
  const float alpha = state[plane].alpha;
  const float beta = state[plane].beta;
  if (is_done(change) || alpha == 0 || occupied[image * gridDim.x + blockIdx.x] == 0) return;
  const TileOrigin origin = tile_origin(size, kPixelRows, kPixelColumns);
  const Limits limits(size, origin);
  bits += image * size.height * words_in_row(size);
  float most = 0;
  PixelField<0>::for_cells([&](int y, int x) {
    if (!limits.contain(y, x)) return;
    if (!is_inside(bits + (origin.top + y) * words_in_row(size), origin.left + x)) return;
    const std::int64_t at = plane * size.pixels() + (origin.top + y) * size.width + origin.left + x;
    const float direction = beta == 0 ? z[at] : z[at] + beta * p[at];  // p is nothing at first
    p[at] = direction;
    w[at] += alpha * direction;
    most = fmaxf(most, fabsf(direction));
  });
  largest[threadIdx.x] = most;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) largest[threadIdx.x] = fmaxf(largest[threadIdx.x], largest[threadIdx.x + half]);
  }
  if (threadIdx.x == 0) atomicMax(&next_change[plane], std::bit_cast<std::uint32_t>(alpha * largest[0]));
}

__global__ void __launch_bounds__(kThreads)
    finish_membrane_kernel(Planes difference, std::int64_t images, const std::uint32_t* bits, const float* w) {
  const Size size = difference.size;
  const std::int64_t plane = blockIdx.y;
  const TileOrigin origin = tile_origin(size, kPixelRows, kPixelColumns);
  const Limits limits(size, origin);
  bits += image_of_plane(images) * size.height * words_in_row(size);
  float* d = difference.channel(plane).data;
  w += plane * size.pixels();
  PixelField<0>::for_cells([&](int y, int x) {
    if (!limits.contain(y, x)) return;
    const std::int64_t at = (origin.top + y) * size.width + origin.left + x;
    d[at] = is_inside(bits + (origin.top + y) * words_in_row(size), origin.left + x) ? d[at] + w[at] : 0.0F;
  });
}

// ------------------------------------------------------------------------------------------------------------ cells

// A tile of cells and kRing around it: the edges and, of b, `first` as of pixels.
template <int kRing>
struct CellTile {
  using Ring = CellField<kRing>;
  struct Memory {
    float first[Ring::kCells], east[Ring::kCells], south[Ring::kCells], inverse[Ring::kCells];
  };
  TileOrigin origin;
  Limits limits;
  Ring first, east, south, inverse;

  __device__ CellTile(Size size, const float* b, const float* weights, Memory& memory)
      : origin(tile_origin(size, kCellRows, kCellColumns)),
        limits(size, origin),
        first{memory.first},
        east{memory.east},
        south{memory.south},
        inverse{memory.inverse} {
    const std::int64_t cells = size.pixels();
    Ring::for_cells([&](int y, int x) {
      const bool some = limits.contain(y, x);
      const std::int64_t at = some ? (origin.top + y) * size.width + origin.left + x : 0;
      east(y, x) = some ? weights[at] : 0.0F;
      south(y, x) = some ? weights[cells + at] : 0.0F;
      inverse(y, x) = some ? weights[2 * cells + at] : 0.0F;
      first(y, x) = some ? kFirstDamping * weights[2 * cells + at] * b[at] : 0.0F;
    });
    __syncthreads();
  }

  template <typename Values>
  __device__ float neighbours(const Values& values, int y, int x) const {
    return (east(y, x - 1) * values(y, x - 1) + east(y, x) * values(y, x + 1)) +
           (south(y - 1, x) * values(y - 1, x) + south(y, x) * values(y + 1, x));
  }
  template <typename Values>
  __device__ float smooth(const Values& from, int y, int x, float damping) const {
    const float self = from(y, x);
    return self + damping * (first(y, x) * kUndamped + inverse(y, x) * neighbours(from, y, x) - self);
  }
  // What is left of b.
  template <typename Values>
  __device__ float residual(const Values& values, int y, int x) const {
    if (!(inverse(y, x) > 0)) return 0;
    return (first(y, x) * kUndamped - values(y, x)) / inverse(y, x) + neighbours(values, y, x);
  }
};

__global__ void __launch_bounds__(kThreads)
    restrict_cells_kernel(Size size, std::int64_t images, const float* b, const float* weights,
                          const std::uint8_t* occupied, const std::uint32_t* change, float* coarse_b) {
  using Tile = CellTile<2>;
  __shared__ typename Tile::Memory memory;
  __shared__ float x_memory[CellField<1>::kCells];
  const std::int64_t plane = blockIdx.y;
  const std::int64_t image = image_of_plane(images);
  if (is_done(change) || occupied[image * gridDim.x + blockIdx.x] == 0) return;
  const Tile tile(size, b + plane * size.pixels(), weights + 3 * image * size.pixels(), memory);
  const CellField<1> smoothed{x_memory};
  CellField<1>::for_cells([&](int y, int x) { smoothed(y, x) = tile.smooth(tile.first, y, x, kSecondDamping); });
  __syncthreads();
  const Size coarse = halved(size);
  coarse_b += plane * coarse.pixels();
  Field<kCellRows / 2, kCellColumns / 2, 0>::for_cells([&](int cell_y, int cell_x) {
    if (!tile.limits.contain(2 * cell_y, 2 * cell_x)) return;
    float sum = 0;
    for (int i = 0; i < 4; ++i) {
      const int y = 2 * cell_y + i / 2;
      const int x = 2 * cell_x + i % 2;
      sum += tile.residual(smoothed, y, x);
    }
    coarse_b[(tile.origin.top / 2 + cell_y) * coarse.width + tile.origin.left / 2 + cell_x] = sum;
  });
}

__global__ void __launch_bounds__(kThreads)
    smooth_cells_kernel(Size size, std::int64_t images, const float* b, const float* weights,
                        const std::uint8_t* occupied, const std::uint32_t* change, const float* coarse_x, float* x) {
  using Tile = CellTile<3>;
  __shared__ typename Tile::Memory memory;
  __shared__ float x_memory[CellField<2>::kCells];
  __shared__ float y_memory[CellField<1>::kCells];
  const std::int64_t plane = blockIdx.y;
  const std::int64_t image = image_of_plane(images);
  if (is_done(change) || occupied[image * gridDim.x + blockIdx.x] == 0) return;
  const Size coarse = halved(size);
  coarse_x += plane * coarse.pixels();
  const Tile tile(size, b + plane * size.pixels(), weights + 3 * image * size.pixels(), memory);
  const CellField<2> before{x_memory};
  CellField<2>::for_cells([&](int y, int i) {
    const float value = tile.smooth(tile.first, y, i, kSecondDamping);
    const std::int64_t at = (tile.origin.top + y) / 2 * coarse.width + (tile.origin.left + i) / 2;
    before(y, i) = tile.inverse(y, i) > 0 ? value + coarse_x[at] : 0.0F;
  });
  __syncthreads();
  const CellField<1> between{y_memory};
  CellField<1>::for_cells([&](int y, int i) { between(y, i) = tile.smooth(before, y, i, kFirstDamping); });
  __syncthreads();
  x += plane * size.pixels();
  CellField<0>::for_cells([&](int y, int i) {
    if (!tile.limits.contain(y, i)) return;
    x[(tile.origin.top + y) * size.width + tile.origin.left + i] = tile.smooth(between, y, i, kSecondDamping);
  });
}

// A level of those that one block works on.
struct CoarseLevel {
  int height, width, cells;
  int at;  // of its first cell
  const float* weights;

  __device__ CoarseLevel(Size size, int level, const float* first_weights, std::int64_t images, std::int64_t image)
      : height(static_cast<int>(size.height)),
        width(static_cast<int>(size.width)),
        cells(height * width),
        at(0),
        weights(first_weights) {
    for (int k = 0; k < level; ++k) {
      at += cells;
      weights += 3 * images * cells;
      height = (height + 1) / 2;
      width = (width + 1) / 2;
      cells = height * width;
    }
    weights += 3 * image * cells;
  }
  __device__ float inverse(int i) const { return weights[2 * cells + i]; }
  // value(cell, y, x), weighted by the edges.
  template <typename Value>
  __device__ float neighbours(int i, Value value) const {
    const int y = i / width;
    const int x = i % width;
    float sum = 0;
    if (x > 0) sum += weights[i - 1] * value(i - 1, y, x - 1);
    if (x + 1 < width) sum += weights[i] * value(i + 1, y, x + 1);
    if (y > 0) sum += weights[cells + i - width] * value(i - width, y - 1, x);
    if (y + 1 < height) sum += weights[cells + i] * value(i + width, y + 1, x);
    return sum;
  }
};

// x = one step of smoothing of what value(cell, y, x) gives, which may be made of x. All threads get here.
template <typename Value>
__device__ void smooth_coarse(const CoarseLevel& level, const float* first, float* x, float damping, Value value) {
  float smoothed[kCoarseEach];
  for (int j = 0; j < kCoarseEach; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kCoarseThreads;
    if (i < level.cells) {
      const float self = value(i, i / level.width, i % level.width);
      const float sum = level.neighbours(i, value);
      smoothed[j] = self + damping * (first[i] * kUndamped + level.inverse(i) * sum - self);
    }
  }
  __syncthreads();
  for (int j = 0; j < kCoarseEach; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kCoarseThreads;
    if (i < level.cells) x[i] = smoothed[j];
  }
  __syncthreads();
}

// The cycle on the coarsest levels, down to a single cell.
__global__ void __launch_bounds__(kCoarseThreads)
    solve_coarse_kernel(Size size, int count, std::int64_t images, const float* weights, const float* first_b,
                        float* first_x, const std::uint32_t* change) {
  __shared__ float all_first[kCoarseCells];
  __shared__ float all_x[kCoarseCells];
  if (is_done(change)) return;
  const std::int64_t plane = blockIdx.y;
  const std::int64_t image = image_of_plane(images);
  const auto level_of = [&](int k) { return CoarseLevel(size, k, weights, images, image); };
  const auto thread = static_cast<int>(threadIdx.x);
  const auto cells = static_cast<int>(size.pixels());
  const CoarseLevel finest = level_of(0);
  for (int i = thread; i < cells; i += kCoarseThreads) {
    all_first[i] = kFirstDamping * finest.inverse(i) * first_b[plane * cells + i];
  }
  __syncthreads();
  for (int k = 0; k + 1 < count; ++k) {
    const CoarseLevel fine = level_of(k);
    const CoarseLevel coarse = level_of(k + 1);
    const float* first = all_first + fine.at;
    float* x = all_x + fine.at;
    smooth_coarse(fine, first, x, kSecondDamping, [&](int i, int, int) { return first[i]; });
    for (int cell = thread; cell < coarse.cells; cell += kCoarseThreads) {
      float sum = 0;
      for (int j = 0; j < 4; ++j) {
        const int cell_y = cell / coarse.width * 2 + j / 2;
        const int cell_x = cell % coarse.width * 2 + j % 2;
        const int i = cell_y * fine.width + cell_x;
        if (cell_y >= fine.height || cell_x >= fine.width || !(fine.inverse(i) > 0)) continue;
        const float around = fine.neighbours(i, [&](int n, int, int) { return x[n]; });
        sum += (first[i] * kUndamped - x[i]) / fine.inverse(i) + around;
      }
      all_first[coarse.at + cell] = kFirstDamping * coarse.inverse(cell) * sum;
    }
    __syncthreads();
  }
  if (thread == 0) {
    const CoarseLevel single = level_of(count - 1);
    all_x[single.at] = all_first[single.at] * kUndamped;
  }
  __syncthreads();
  for (int k = count - 1; k-- > 0;) {
    const CoarseLevel fine = level_of(k);
    const CoarseLevel coarse = level_of(k + 1);
    const float* first = all_first + fine.at;
    const float* above = all_x + coarse.at;
    float* x = all_x + fine.at;
    smooth_coarse(fine, first, x, kFirstDamping, [&](int i, int cell_y, int cell_x) {
      return fine.inverse(i) > 0 ? x[i] + above[cell_y / 2 * coarse.width + cell_x / 2] : 0.0F;
    });
    smooth_coarse(fine, first, x, kSecondDamping, [&](int i, int, int) { return x[i]; });
  }
  for (int i = thread; i < cells; i += kCoarseThreads) first_x[plane * cells + i] = all_x[i];
}

dim3 cell_grid(Size size, std::int64_t planes) { return tile_grid(size, kCellRows, kCellColumns, planes); }

}  // namespace

// ---------------------------------------------------------------------------------------------------- the operation

std::int64_t membrane_scratch_bytes(std::int64_t planes, std::int64_t images, Size size) {
  return workspace(planes, images, size, nullptr).bytes;
}

void launch_membrane(const Planes& difference, const Planes& mask, void* scratch, cudaStream_t stream) {
  const Size size = difference.size;
  const std::int64_t planes = difference.channels;
  const std::int64_t images = mask.channels;
  if (planes == 0 || size.pixels() == 0) return;
  const Workspace s = workspace(planes, images, size, scratch);
  const Level* levels = s.levels;
  const dim3 pixels = tile_grid(size, kPixelRows, kPixelColumns, planes);
  const auto clear = [&](char* begin, const char* end) {
    check(cudaMemsetAsync(begin, 0, static_cast<std::size_t>(end - begin), stream), "cudaMemsetAsync");
  };

  clear(s.zeros_begin, s.zeros_end);
  // More than any tolerance.
  check(cudaMemsetAsync(s.change, 0x7f, static_cast<std::size_t>(planes) * sizeof(*s.change), stream),
        "cudaMemsetAsync");
  GPGAN_LAUNCH(begin_membrane_kernel, pixels, kThreads, stream, difference, mask, s.w, s.bits, s.occupied, s.tiles);
  // The outside's hold lies in x for now.
  GPGAN_LAUNCH(weigh_pixels_kernel, cell_grid(levels[1].size, images), kThreads, stream, s.bits, size, levels[1].size,
               levels[1].weights, levels[1].x, levels[1].occupied);
  for (int k = 2; k < s.count; ++k) {
    const Level& fine = levels[k - 1];
    const Level& l = levels[k];
    GPGAN_LAUNCH(weigh_cells_kernel, cell_grid(l.size, images), kThreads, stream, fine.weights, fine.x, fine.size,
                 l.size, l.weights, l.x, l.occupied);
  }
  clear(s.levels_begin, s.levels_end);  // where no cell is, nobody writes

  const std::uint32_t* change = s.change;
  for (int i = 0; i < kIterations; ++i, change += planes) {
    GPGAN_LAUNCH(restrict_pixels_kernel, pixels, kThreads, stream, size, images, s.w, s.bits, s.occupied, change,
                 levels[1].b);
    for (int k = 1; k < s.coarse; ++k) {
      const Level& l = levels[k];
      GPGAN_LAUNCH(restrict_cells_kernel, cell_grid(l.size, planes), kThreads, stream, l.size, images, l.b, l.weights,
                   l.occupied, change, levels[k + 1].b);
    }
    const Level& coarse = levels[s.coarse];
    GPGAN_LAUNCH(solve_coarse_kernel, dim3(1, static_cast<unsigned>(planes)), kCoarseThreads, stream, coarse.size,
                 s.count - s.coarse, images, coarse.weights, coarse.b, coarse.x, change);
    for (int k = s.coarse; k-- > 1;) {
      const Level& l = levels[k];
      GPGAN_LAUNCH(smooth_cells_kernel, cell_grid(l.size, planes), kThreads, stream, l.size, images, l.b, l.weights,
                   l.occupied, change, levels[k + 1].x, l.x);
    }
    GPGAN_LAUNCH(smooth_pixels_kernel, pixels, kThreads, stream, size, images, s.w, s.bits, s.occupied, change,
                 levels[1].x, s.z, s.partial, s.tiles, s.finished, s.state);
    GPGAN_LAUNCH(update_membrane_kernel, pixels, kThreads, stream, size, images, s.bits, s.occupied, s.state, s.z, s.p,
                 s.w, change, s.change + (i + 1) * planes);
  }
  GPGAN_LAUNCH(finish_membrane_kernel, pixels, kThreads, stream, difference, images, s.bits, s.w);
}

}  // namespace gpgan::cuda
