// The harmonic membrane: Laplacian(w) = 0 (5 points) on the pixels of a region, w given on the pixels just outside,
// neighbours beyond the image dropped. w is smooth away from the region's seam, so that the unknowns are pixels along
// it and cells of 2, 4, 8, ... pixels farther in: their number, and the time, grow with the seam and not with the area.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/backend.hpp"
#include "cpu/bit_plane.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

class Membrane {
 public:
  static constexpr std::int64_t kMaxChannels = 4;

  // w of all channels at pixel (y, x), which lies outside the region and next to it. Refers to a callable
  // boundary(y, x, float* values), which may be called from several threads.
  class Boundary {
   public:
    template <typename Body>
    Boundary(const Body& body)  // NOLINT(google-explicit-constructor): any callable is one
        : context_(&body), call_([](const void* context, std::int64_t y, std::int64_t x, float* values) {
            (*static_cast<const Body*>(context))(y, x, values);
          }) {}
    void operator()(std::int64_t y, std::int64_t x, float* values) const { call_(context_, y, x, values); }

   private:
    const void* context_;
    void (*call_)(const void*, std::int64_t, std::int64_t, float*);
  };

  explicit Membrane(int threads) : threads_(threads) {}

  // Solves for 1 to 4 channels. What was allocated for one region is used again for the next.
  void solve(const BitPlane& inside, std::int64_t channels, Boundary boundary);

  // w on a rectangle, within the image, of cells of 2^level pixels: cell (y, x) covers the pixels from (2^level y,
  // 2^level x). At level 0, pixels, it is 0 outside the region; at others the mean over the cell, the outside taken as
  // 0, where the cells of the solution are that small, and interpolated where they are larger. Channel c of row y goes
  // to out + c * channel_stride + y * row_stride.
  void read(int level, std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width, float* out,
            std::int64_t row_stride, std::int64_t channel_stride) const;

  // The smallest cells of the solution in a rectangle of pixels are of 2^level pixels; -1 if no region is there.
  [[nodiscard]] int finest_level(std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width) const;

  // out += w averaged over the areas of out's pixels, w = 0 outside the region.
  void add_area_average(const core::Planes& out) const;

  struct Counts {
    std::int64_t cells = 0;   // unknowns in each channel, in whole blocks
    std::int64_t blocks = 0;  // of 4 x 4 cells, the multigrid's included
    int levels = 0;
    int steps = 0;  // of conjugate gradients
  };
  [[nodiscard]] const Counts& counts() const { return counts_; }

 private:
  // Of 4 x 4 cells, row by row: one vector.
  struct alignas(64) Cells {
    float at[16];
  };
  // The blocks of cells of 2^k pixels. They have numbers: 0 is nowhere and always 0, then come the leaves, whose cells
  // are the unknowns, then the refined, whose cells are aggregates of four, then ghosts: what leaves next to larger
  // ones see there.
  struct Level {
    std::int64_t rows = 0, columns = 0;  // of blocks
    std::int32_t leaves = 0, refined = 0, ghosts = 0;
    BitPlane any, full;                                 // block by block: some pixel inside, all
    BitPlane smooth;                                    // far enough from the seam for cells of this level
    BitPlane leaf_at, refined_at;                       // where blocks exist
    std::vector<std::int32_t> leaf_rank, refined_rank;  // number of the first block of each word

    std::vector<std::int32_t> top, left;   // where a block is, in blocks
    std::vector<std::int32_t> links;       // four a block: its neighbours to the west, east, north and south
    std::vector<std::int32_t> children;    // four a refined block, of the finer level; 0 where nothing is inside
    std::vector<std::int32_t> parent;      // 4 * number in the coarser level + quadrant
    std::vector<std::uint8_t> plain;       // all edges weigh 1, or lead to what is 0
    std::vector<std::uint8_t> regular;     // all edges weigh 1 and lead to this level
    std::vector<std::uint16_t> edges;      // at level 0, four a block: cells with a neighbour inside
    std::vector<Cells> weights;            // at others, four a block: of the edges
    std::vector<Cells> held;               // what the neighbours outside add to the diagonal
    std::vector<Cells> inner;              // the equation's diagonal less the edges between levels
    std::vector<Cells> diagonal, inverse;  // of the multigrid's operator, inverse 0 where nothing is inside
    std::vector<Cells> composite;          // the diagonal of the equation, where leaves have smaller neighbours

    // By block and channel.
    std::vector<Cells> x, r, b;   // of the multigrid cycle
    std::vector<Cells> residual;  // of the equation
    std::vector<Cells> direction, product, solution;

    [[nodiscard]] std::int32_t count() const { return leaves + refined; }
    [[nodiscard]] std::int32_t find(std::int64_t y, std::int64_t x_) const;
  };
  // Between a leaf (fine) and one of twice its cell size (coarse) on one side of it.
  struct Interface {
    std::int32_t fine, ghost, coarse;
    std::uint8_t side, half;
    float weight[4];  // of the edges
  };
  struct Chunk {
    std::int32_t level, begin, end;
  };
  using Sums = double[kMaxChannels];
  template <int kChannels>
  class Solver;

  // Where read() writes.
  struct Window {
    std::int64_t top, left, height, width;
    float* out;
    std::int64_t row_stride, channel_stride;
    [[nodiscard]] float* at(std::int64_t channel, std::int64_t y, std::int64_t x) const {
      return out + channel * channel_stride + (y - top) * row_stride + (x - left);
    }
  };
  // The window without what is beyond the image; `scratch` is for the windows of the coarser levels.
  void fill_window(int k, Window window, float* scratch) const;
  // The block row's cells from `begin_row` on; 0 where there is neither a block nor, with `coarser`, something larger.
  void copy_blocks(int k, const Window& window, std::int64_t block_row, const BitPlane* coarser) const;
  [[nodiscard]] const Level& level(int k) const { return *levels_[static_cast<std::size_t>(k)]; }

  int threads_;
  std::int64_t height_ = 0, width_ = 0, channels_ = 0;
  int count_ = 0;  // levels in use
  std::vector<std::unique_ptr<Level>> levels_;
  std::vector<std::vector<Interface>> interfaces_;  // by the level of the fine side
  std::vector<Cells> right_side_;                   // of level 0; 0 at all others
  std::vector<Chunk> chunks_;                       // of all leaves
  std::vector<double> partial_;                     // sums by chunk and channel
  BitPlane scratch_[2];
  Counts counts_;
};

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
