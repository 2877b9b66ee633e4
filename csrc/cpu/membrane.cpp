// See membrane.hpp. Conjugate gradients, preconditioned with one multigrid cycle: the conjugate gradients make it right
// for any region, however ragged; the multigrid makes it need about ten steps for any size.
//
// A couples the cells inside with one another; a neighbour outside adds to the diagonal, and its value to the
// right-hand side. Neighbours beyond the image do neither. Between leaves of different size flows 2/3 of the difference
// of their centres, 3/2 of the smaller's side apart. That keeps A symmetric and is a first approximation only; once it
// is nearly solved, what the second order adds goes to the right-hand side.
#include "cpu/membrane.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"
#include "cpu/simd.hpp"
#include "cpu/vectorize.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

constexpr int kMaxSteps = 200;
// Conjugate gradients stop when a step changes no cell by more than this; the first run, whose residual drifts,
// sooner. The whole stops when a run on a true residual had no more to change than a few of its last steps.
constexpr float kTolerance = 3e-4F;
constexpr float kFirstTolerance = 4e-3F;
constexpr double kSettled = 3e-3;
constexpr int kMaxRounds = 10;
// Two steps of Jacobi with these dampings take every frequency of the upper half to 0.22 of itself or less
// (Chebyshev's for 0.5 .. 2).
constexpr float kFirstDamping = 0.562F;
constexpr float kSecondDamping = 1.389F;
constexpr int kCoarsestRepeats = 8;
// What a coarser level keeps of the outside's hold, as a share of the sum: half as of other edges, and more because
// near the outside a correction that is constant over 2 x 2 cells overshoots.
constexpr float kHold = 0.8F;
// Cells of 2^k pixels lie at least 2 * clearance(k) * 2^k pixels from the outside. At 2 or more, levels of leaves that
// touch differ by one. Most blocks are those that level 1 leaves to level 0; 3 at level 1 would only make the error
// of a tenth of a level of 255 a third of that.
constexpr int clearance(int level) { return level == 1 ? 2 : 3; }
constexpr std::int64_t kChunk = 64;        // blocks that are summed up together
constexpr std::int64_t kChunkWork = 4096;  // and what they weigh in parallel_for
constexpr std::int64_t kSide = 4;          // cells along a block
constexpr int kWest = 0;
constexpr int kEast = 1;
constexpr int kNorth = 2;
constexpr int kSouth = 3;

// Along each side: the first cell, the step to the next, the step into the block, and the first cell on the other side.
struct Edge {
  int first, step, inward, opposite;
};
constexpr Edge kEdges[4] = {{0, 4, 1, 3}, {3, 4, -1, 0}, {0, 1, 4, 12}, {12, 1, -4, 0}};

// ------------------------------------------------------------------------------------ 4 x 4 cells in registers

#if defined(GPGAN_TARGET_X86_64_V4) && !defined(__clang__)
typedef float V16 __attribute__((vector_size(64)));  // NOLINT(modernize-use-using): its attribute
typedef int I16 __attribute__((vector_size(64)));    // NOLINT(modernize-use-using)

struct Block {
  V16 v;
};
template <typename Cells>
inline Block load(const Cells& from) {
  Block block;
  std::memcpy(&block.v, from.at, sizeof block.v);
  return block;
}
template <typename Cells>
inline void store(Block block, Cells& to) {
  std::memcpy(to.at, &block.v, sizeof block.v);
}
inline Block operator+(Block a, Block b) { return {a.v + b.v}; }
inline Block operator-(Block a, Block b) { return {a.v - b.v}; }
inline Block operator*(Block a, Block b) { return {a.v * b.v}; }
inline Block operator*(float a, Block b) { return {a * b.v}; }
inline Block larger_size(Block a, Block b) {
  const V16 size = b.v < 0 ? -b.v : b.v;
  return {a.v < size ? size : a.v};
}
inline Block zero() { return {V16{}}; }

// The neighbour on one side of every cell: `other` is the block there.
inline Block from_west(Block self, Block other) {
  return {__builtin_shuffle(self.v, other.v, I16{19, 0, 1, 2, 23, 4, 5, 6, 27, 8, 9, 10, 31, 12, 13, 14})};
}
inline Block from_east(Block self, Block other) {
  return {__builtin_shuffle(self.v, other.v, I16{1, 2, 3, 16, 5, 6, 7, 20, 9, 10, 11, 24, 13, 14, 15, 28})};
}
inline Block from_north(Block self, Block other) {
  return {__builtin_shuffle(self.v, other.v, I16{28, 29, 30, 31, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})};
}
inline Block from_south(Block self, Block other) {
  return {__builtin_shuffle(self.v, other.v, I16{4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19})};
}
// Sums over 2 x 2 cells of four blocks that lie in a square.
inline Block sum_squares(const Block (&b)[4]) {
  Block half[2];
  for (int i = 0; i < 2; ++i) {
    const V16 l = b[2 * i].v;
    const V16 r = b[2 * i + 1].v;
    const V16 a = __builtin_shuffle(l, r, I16{0, 2, 16, 18, 8, 10, 24, 26, 1, 3, 17, 19, 9, 11, 25, 27});
    const V16 c = __builtin_shuffle(l, r, I16{4, 6, 20, 22, 12, 14, 28, 30, 5, 7, 21, 23, 13, 15, 29, 31});
    half[i].v = a + c;  // even columns in the first half, odd ones in the second
  }
  const V16 even = __builtin_shuffle(half[0].v, half[1].v, I16{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23});
  const V16 odd =
      __builtin_shuffle(half[0].v, half[1].v, I16{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
  return {even + odd};
}
// One quadrant, each cell over 2 x 2.
inline Block spread(Block b, std::int32_t quadrant) {
  const I16 first{0, 0, 1, 1, 0, 0, 1, 1, 4, 4, 5, 5, 4, 4, 5, 5};
  return {__builtin_shuffle(b.v, first + ((quadrant & 2) * 4 + (quadrant & 1) * 2))};
}
#else
typedef float V4 __attribute__((vector_size(16)));  // NOLINT(modernize-use-using): its attribute
typedef int I4 __attribute__((vector_size(16)));    // NOLINT(modernize-use-using)
#if defined(__clang__)
#define GPGAN_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define GPGAN_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, I4{__VA_ARGS__})
#endif

struct Block {
  V4 row[4];
};
template <typename Cells>
inline Block load(const Cells& from) {
  Block block;
  std::memcpy(block.row, from.at, sizeof block.row);
  return block;
}
template <typename Cells>
inline void store(Block block, Cells& to) {
  std::memcpy(to.at, block.row, sizeof block.row);
}
inline Block operator+(Block a, Block b) {
  return {{a.row[0] + b.row[0], a.row[1] + b.row[1], a.row[2] + b.row[2], a.row[3] + b.row[3]}};
}
inline Block operator-(Block a, Block b) {
  return {{a.row[0] - b.row[0], a.row[1] - b.row[1], a.row[2] - b.row[2], a.row[3] - b.row[3]}};
}
inline Block operator*(Block a, Block b) {
  return {{a.row[0] * b.row[0], a.row[1] * b.row[1], a.row[2] * b.row[2], a.row[3] * b.row[3]}};
}
inline Block operator*(float a, Block b) { return {{a * b.row[0], a * b.row[1], a * b.row[2], a * b.row[3]}}; }
inline Block larger_size(Block a, Block b) {
  for (int i = 0; i < 4; ++i) {
    const V4 size = b.row[i] < 0 ? -b.row[i] : b.row[i];
    a.row[i] = a.row[i] < size ? size : a.row[i];
  }
  return a;
}
inline Block zero() { return {{V4{}, V4{}, V4{}, V4{}}}; }

inline Block from_west(Block self, Block other) {
  for (int i = 0; i < 4; ++i) self.row[i] = GPGAN_SHUFFLE(self.row[i], other.row[i], 7, 0, 1, 2);
  return self;
}
inline Block from_east(Block self, Block other) {
  for (int i = 0; i < 4; ++i) self.row[i] = GPGAN_SHUFFLE(self.row[i], other.row[i], 1, 2, 3, 4);
  return self;
}
inline Block from_north(Block self, Block other) { return {{other.row[3], self.row[0], self.row[1], self.row[2]}}; }
inline Block from_south(Block self, Block other) { return {{self.row[1], self.row[2], self.row[3], other.row[0]}}; }
inline Block sum_squares(const Block (&b)[4]) {
  Block out;
  for (int i = 0; i < 4; ++i) {
    const Block& west = b[i / 2 * 2];
    const Block& east = b[i / 2 * 2 + 1];
    const V4 l = west.row[i % 2 * 2] + west.row[i % 2 * 2 + 1];
    const V4 r = east.row[i % 2 * 2] + east.row[i % 2 * 2 + 1];
    out.row[i] = GPGAN_SHUFFLE(l, r, 0, 2, 4, 6) + GPGAN_SHUFFLE(l, r, 1, 3, 5, 7);
  }
  return out;
}
inline Block spread(Block b, std::int32_t quadrant) {
  Block out;
  for (int i = 0; i < 4; i += 2) {
    const V4 row = b.row[(quadrant & 2) + i / 2];
    out.row[i] = (quadrant & 1) != 0 ? GPGAN_SHUFFLE(row, row, 2, 2, 3, 3) : GPGAN_SHUFFLE(row, row, 0, 0, 1, 1);
    out.row[i + 1] = out.row[i];
  }
  return out;
}
#endif

// ------------------------------------------------------------------------------------------------- bits of planes

// to = from by squares of 2 x 2: whether any bit is set, or all of those that are in the plane.
void halve_any(const BitPlane& from, BitPlane& to) {
  for (std::int64_t y = 0; y < to.height(); ++y) {
    const std::uint64_t* a = from.row(2 * y);
    const std::uint64_t* b = from.row(std::min(2 * y + 1, from.height() - 1));
    for (std::int64_t i = 0; i < from.stride(); ++i) {
      const std::uint64_t w = a[i] | b[i];
      to.row(y)[i / 2] |= compress_even(w | w >> 1) << (i % 2 * 32);
    }
  }
}
void halve_all(const BitPlane& from, BitPlane& to) {
  for (std::int64_t y = 0; y < to.height(); ++y) {
    const std::uint64_t* a = from.row(2 * y);
    const std::uint64_t* b = from.row(std::min(2 * y + 1, from.height() - 1));
    for (std::int64_t i = 0; i < from.stride(); ++i) {
      std::uint64_t w = a[i] & b[i];
      if (i + 1 == from.stride()) w |= ~from.last_word();
      to.row(y)[i / 2] |= compress_even(w & w >> 1) << (i % 2 * 32);
    }
    if (to.stride() > 0) to.row(y)[to.stride() - 1] &= to.last_word();
  }
}

// to = the bits whose neighbours up to `steps` away, diagonally too, are all set; beyond the plane all are.
void erode_box(const BitPlane& from, int steps, BitPlane& rows, BitPlane& to) {
  rows.resize(from.height(), from.width());
  to.resize(from.height(), from.width());
  const std::int64_t words = from.stride();
  for (std::int64_t y = 0; y < from.height(); ++y) {
    const std::uint64_t* in = from.row(y);
    const auto word = [&](std::int64_t i) {
      if (i < 0 || i >= words) return ~std::uint64_t{0};
      return i + 1 == words ? in[i] | ~from.last_word() : in[i];
    };
    for (std::int64_t i = 0; i < words; ++i) {
      std::uint64_t w = word(i);
      for (int s = 1; s <= steps; ++s) {
        w &= (word(i) << s | word(i - 1) >> (64 - s)) & (word(i) >> s | word(i + 1) << (64 - s));
      }
      rows.row(y)[i] = i + 1 == words ? w & from.last_word() : w;
    }
  }
  for (std::int64_t y = 0; y < from.height(); ++y) {
    std::uint64_t* out = to.row(y);
    std::copy(rows.row(y), rows.row(y) + words, out);
    const std::int64_t last = std::min(y + steps, from.height() - 1);
    for (std::int64_t k = std::max<std::int64_t>(y - steps, 0); k <= last; ++k) {
      for (std::int64_t i = 0; i < words; ++i) out[i] &= rows.row(k)[i];
    }
  }
}

// Six bits from (y, x) on, 0 beyond the plane; x may be -1.
std::uint32_t six_bits(const BitPlane& plane, std::int64_t y, std::int64_t x) {
  if (y < 0 || y >= plane.height()) return 0;
  const std::uint64_t* row = plane.row(y);
  if (x < 0) return static_cast<std::uint32_t>(row[0] << 1) & 63U;
  const std::int64_t word = x / 64;
  const auto shift = static_cast<unsigned>(x % 64);
  std::uint64_t bits = row[word] >> shift;
  if (shift > 58 && word + 1 < plane.stride()) bits |= row[word + 1] << (64 - shift);
  return static_cast<std::uint32_t>(bits) & 63U;
}

// Weights have few bits, so that sums of them are exact: a constant must not leak through rounded diagonals, and far
// from the only seam of a long strip even a little matters.
float rounded(double weight) { return static_cast<float>(std::round(weight * 1024) / 1024); }

// How much of cell i lies in an image of n pixels.
double extent(std::int64_t i, int level, std::int64_t n) {
  const auto size = static_cast<double>(std::int64_t{1} << level);
  return std::clamp((static_cast<double>(n) - static_cast<double>(i) * size) / size, 0.0, 1.0);
}

}  // namespace

std::int32_t Membrane::Level::find(std::int64_t y, std::int64_t x_) const {
  if (y < 0 || y >= rows || x_ < 0 || x_ >= columns) return 0;
  const std::int64_t word = y * leaf_at.stride() + x_ / 64;
  const std::uint64_t bit = std::uint64_t{1} << (x_ % 64);
  const std::uint64_t leaf = leaf_at.row(0)[word];
  if ((leaf & bit) != 0) return leaf_rank[word] + std::popcount(leaf & (bit - 1));
  const std::uint64_t other = refined_at.row(0)[word];
  if ((other & bit) != 0) return refined_rank[word] + std::popcount(other & (bit - 1));
  return 0;
}

// All of it for a number of channels that the compiler knows.
template <int kChannels>
class Membrane::Solver {
 public:
  explicit Solver(Membrane& membrane) : m_(membrane), threads_(membrane.threads_) {}

  void run(const BitPlane& inside, const Boundary& boundary) {
    make_planes(inside);
    for (int k = 0; k < m_.count_; ++k) number(k);
    for (int k = 0; k < m_.count_; ++k) link(k);
    allocate();
    weigh_pixels(inside, boundary);
    for (int k = 1; k < m_.count_; ++k) weigh(k);
    // The residual that conjugate gradients update step by step drifts from the true one by float32 rounding, and
    // along a mask of length N that hangs on one end its inverse grows that by N^2: measure it anew, and go on from
    // there. The first run is also what the edges between levels are corrected with.
    conjugate_gradients(kFirstTolerance);
    for (int round = 0; round < kMaxRounds; ++round) {
      true_residual();
      if (conjugate_gradients(kTolerance) < kSettled) break;
    }
    fill_means();
  }

 private:
  Level& level(int k) { return *m_.levels_[static_cast<std::size_t>(k)]; }
  std::vector<Interface>& interfaces(int k) { return m_.interfaces_[static_cast<std::size_t>(k)]; }

  // --------------------------------------------------------------------------------------------- where blocks are

  void make_planes(const BitPlane& inside) {
    std::int64_t rows = (m_.height_ + kSide - 1) / kSide;
    std::int64_t columns = (m_.width_ + kSide - 1) / kSide;
    m_.count_ = 0;
    for (;; rows = (rows + 1) / 2, columns = (columns + 1) / 2) {
      const int k = m_.count_++;
      if (m_.levels_.size() < static_cast<std::size_t>(m_.count_)) {
        m_.levels_.push_back(std::make_unique<Level>());
        m_.interfaces_.emplace_back();
      }
      Level& l = level(k);
      l.rows = rows;
      l.columns = columns;
      for (BitPlane* plane : {&l.any, &l.full, &l.smooth, &l.leaf_at, &l.refined_at}) plane->resize(rows, columns);
      if (k == 0) {
        reduce_pixels(inside, l);
      } else {
        Level& fine = level(k - 1);
        halve_any(fine.any, l.any);
        halve_all(fine.full, l.full);
        erode_box(fine.full, clearance(k), m_.scratch_[0], m_.scratch_[1]);
        halve_all(m_.scratch_[1], l.smooth);
      }
      if (rows <= 1 && columns <= 1) break;
    }
  }

  void reduce_pixels(const BitPlane& inside, Level& l) {
    const std::int64_t words = inside.stride();
    parallel_for(l.rows, words * 16, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t y = begin; y < end; ++y) {
        for (std::int64_t i = 0; i < words; ++i) {
          std::uint64_t any = 0;
          std::uint64_t all = ~std::uint64_t{0};
          for (std::int64_t row = kSide * y; row < std::min(kSide * y + kSide, m_.height_); ++row) {
            any |= inside.row(row)[i];
            all &= inside.row(row)[i];
          }
          if (i + 1 == words) all |= ~inside.last_word();
          any |= any >> 1;
          all &= all >> 1;
          l.any.row(y)[i / 4] |= compress_even(compress_even(any | any >> 2)) << (i % 4 * 16);
          l.full.row(y)[i / 4] |= compress_even(compress_even(all & all >> 2)) << (i % 4 * 16);
        }
        l.full.row(y)[l.full.stride() - 1] &= l.full.last_word();
      }
    });
  }

  void number(int k) {
    Level& l = level(k);
    const std::int64_t stride = l.any.stride();
    const Level* coarser = k + 1 < m_.count_ ? &level(k + 1) : nullptr;
    const auto words = static_cast<std::size_t>(l.rows * stride);
    l.leaf_rank.resize(words);
    l.refined_rank.resize(words);
    l.leaves = 0;
    for (std::int64_t y = 0; y < l.rows; ++y) {
      for (std::int64_t i = 0; i < stride; ++i) {
        std::uint64_t here = l.any.row(y)[i];
        if (coarser != nullptr) here &= ~double_bits(coarser->smooth.row(y / 2)[i / 2] >> (i % 2 * 32));
        const std::uint64_t leaf = k == 0 ? here : here & l.smooth.row(y)[i];
        l.leaf_at.row(y)[i] = leaf;
        l.refined_at.row(y)[i] = here & ~leaf;
        l.leaf_rank[static_cast<std::size_t>(y * stride + i)] = l.leaves + 1;
        l.leaves += std::popcount(leaf);
      }
    }
    l.refined = 0;
    for (std::size_t i = 0; i < words; ++i) {
      l.refined_rank[i] = l.leaves + l.refined + 1;
      l.refined += std::popcount(l.refined_at.row(0)[i]);
    }
    l.top.resize(static_cast<std::size_t>(l.count()) + 1);
    l.left.resize(static_cast<std::size_t>(l.count()) + 1);
    const auto place = [&](const BitPlane& plane, std::int32_t next) {
      for (std::int64_t y = 0; y < l.rows; ++y) {
        for (std::int64_t i = 0; i < stride; ++i) {
          for (std::uint64_t w = plane.row(y)[i]; w != 0; w &= w - 1) {
            l.top[static_cast<std::size_t>(next)] = static_cast<std::int32_t>(y);
            l.left[static_cast<std::size_t>(next)] = static_cast<std::int32_t>(64 * i + std::countr_zero(w));
            ++next;
          }
        }
      }
    };
    place(l.leaf_at, 1);
    place(l.refined_at, l.leaves + 1);
  }

  void link(int k) {
    Level& l = level(k);
    Level* coarser = k + 1 < m_.count_ ? &level(k + 1) : nullptr;
    Level* finer = k > 0 ? &level(k - 1) : nullptr;
    const auto count = static_cast<std::size_t>(l.count()) + 1;
    l.links.resize(4 * count);
    l.parent.resize(count);
    l.children.resize(4 * static_cast<std::size_t>(l.refined));
    l.ghosts = 0;
    interfaces(k).clear();
    std::fill_n(l.links.begin(), 4, 0);
    for (std::int32_t i = 1; i <= l.count(); ++i) {
      const std::int64_t y = l.top[i];
      const std::int64_t x = l.left[i];
      std::int32_t parent = 0;
      if (coarser != nullptr) {
        parent = coarser->find(y / 2, x / 2);
        l.parent[i] = 4 * parent + static_cast<std::int32_t>(y % 2 * 2 + x % 2);
      }
      constexpr std::int64_t kDown[4] = {0, 0, -1, 1};
      constexpr std::int64_t kAlong[4] = {-1, 1, 0, 0};
      for (int side = 0; side < 4; ++side) {
        const std::int64_t to_y = y + kDown[side];
        const std::int64_t to_x = x + kAlong[side];
        std::int32_t to = l.find(to_y, to_x);
        if (to == 0 && coarser != nullptr && to_y >= 0 && to_x >= 0 && to_y < l.rows && to_x < l.columns &&
            coarser->leaf_at.test(to_y / 2, to_x / 2)) {
          to = l.count() + ++l.ghosts;
          const auto half = static_cast<std::uint8_t>(side < kNorth ? y % 2 : x % 2);
          interfaces(k).push_back(
              {i, to, coarser->find(to_y / 2, to_x / 2), static_cast<std::uint8_t>(side), half, {0, 0, 0, 0}});
        }
        l.links[4 * static_cast<std::size_t>(i) + static_cast<std::size_t>(side)] = to;
      }
      if (finer != nullptr && i > l.leaves) {
        std::int32_t* children = l.children.data() + 4 * (i - l.leaves - 1);
        for (int q = 0; q < 4; ++q) children[q] = finer->find(2 * y + q / 2, 2 * x + q % 2);
      }
    }
  }

  void allocate() {
    m_.chunks_.clear();
    m_.counts_ = {};
    m_.counts_.levels = m_.count_;
    for (int k = 0; k < m_.count_; ++k) {
      Level& l = level(k);
      const auto count = static_cast<std::size_t>(l.count()) + 1;
      const std::size_t all = count + static_cast<std::size_t>(l.ghosts);
      l.plain.resize(count);
      l.regular.resize(count);
      if (k == 0) l.edges.resize(4 * count);
      if (k > 0) l.weights.resize(4 * count);
      for (std::vector<Cells>* v : {&l.held, &l.inner, &l.diagonal, &l.inverse, &l.composite}) v->resize(all);
      for (std::vector<Cells>* v : {&l.x, &l.r, &l.b, &l.residual, &l.direction, &l.product, &l.solution}) {
        v->resize(all * static_cast<std::size_t>(kChannels));
        clear(v->data(), 0, 1);
        clear(v->data(), l.count() + 1, l.count() + 1 + l.ghosts);
      }
      l.inverse[0] = {};
      l.plain[0] = 1;
      std::fill(l.inverse.begin() + static_cast<std::ptrdiff_t>(count), l.inverse.end(), Cells{});
      for (std::vector<Cells>* v : {&l.solution, &l.residual}) clear(v->data(), 1, l.leaves + 1);
      clear(l.direction.data(), l.leaves + 1, l.count() + 1);
      for (std::int32_t i = 1; i <= l.leaves; i += kChunk) {
        m_.chunks_.push_back({k, i, std::min<std::int32_t>(i + kChunk, l.leaves + 1)});
      }
      m_.counts_.cells += 16 * l.leaves;
      m_.counts_.blocks += l.count();
    }
    m_.partial_.resize(m_.chunks_.size() * kMaxChannels);
    m_.right_side_.resize((static_cast<std::size_t>(level(0).leaves) + 1) * static_cast<std::size_t>(kChannels));
  }

  void clear(Cells* cells, std::int64_t begin, std::int64_t end) const {
    if (begin < end) std::memset(cells + begin * kChannels, 0, sizeof(Cells) * (end - begin) * kChannels);
  }

  // ------------------------------------------------------------------------------------------- what cells weigh

  // Level 0, and the right-hand side.
  void weigh_pixels(const BitPlane& inside, const Boundary& boundary) {
    Level& l = level(0);
    for_blocks(1, l.leaves + 1, [&](std::int32_t begin, std::int32_t end) {
      for (std::int32_t i = begin; i < end; ++i) {
        const std::int64_t y = kSide * l.top[i];
        const std::int64_t x = kSide * l.left[i];
        l.plain[i] = 1;
        std::uint32_t rows[6];
        for (std::int64_t k = 0; k < 6; ++k) rows[k] = six_bits(inside, y - 1 + k, x - 1);
        std::uint32_t here = 0;
        std::uint32_t to[4] = {};
        for (int k = 0; k < 4; ++k) {
          here |= (rows[k + 1] >> 1 & 15U) << (4 * k);
          to[kWest] |= (rows[k + 1] & 15U) << (4 * k);
          to[kEast] |= (rows[k + 1] >> 2 & 15U) << (4 * k);
          to[kNorth] |= (rows[k] >> 1 & 15U) << (4 * k);
          to[kSouth] |= (rows[k + 2] >> 1 & 15U) << (4 * k);
        }
        std::uint32_t known[4] = {here, here, here, here};  // neighbours in the image
        if (x == 0) known[kWest] &= 0xEEEEU;
        if (y == 0) known[kNorth] &= 0xFFF0U;
        if (x + kSide >= m_.width_) known[kEast] &= 0x1111U * ((1U << (m_.width_ - x - 1)) - 1);
        if (y + kSide >= m_.height_) known[kSouth] &= (1U << (4 * (m_.height_ - y - 1))) - 1;
        Cells diagonal{};
        Cells inverse{};
        std::uint32_t seam = 0;
        for (int s = 0; s < 4; ++s) {
          l.edges[4 * static_cast<std::size_t>(i) + s] = static_cast<std::uint16_t>(to[s] & here);
          seam |= known[s] & ~to[s];
        }
        clear(m_.right_side_.data(), i, i + 1);
        Cells held{};
        l.regular[i] = (here & to[0] & to[1] & to[2] & to[3]) == 0xFFFFU ? 1 : 0;
        if (here == 0xFFFFU && (known[0] & known[1] & known[2] & known[3]) == here) {
          std::fill_n(diagonal.at, 16, 4.0F);
          std::fill_n(inverse.at, 16, 0.25F);
        } else {
          for (unsigned c = 0; c < 16; ++c) {
            const std::uint32_t n =
                (known[0] >> c & 1U) + (known[1] >> c & 1U) + (known[2] >> c & 1U) + (known[3] >> c & 1U);
            diagonal.at[c] = static_cast<float>(n);
            inverse.at[c] = n > 0 ? 1.0F / static_cast<float>(n) : 0.0F;
          }
        }
        if (seam != 0) {
          for (int s = 0; s < 4; ++s) {
            constexpr std::int64_t kDown[4] = {0, 0, -1, 1};
            constexpr std::int64_t kAlong[4] = {-1, 1, 0, 0};
            for (std::uint32_t w = known[s] & ~to[s]; w != 0; w &= w - 1) {
              const int c = std::countr_zero(w);
              held.at[c] += 1;
              float w_there[kMaxChannels];
              boundary(y + c / 4 + kDown[s], x + c % 4 + kAlong[s], w_there);
              for (int n = 0; n < kChannels; ++n) m_.right_side_[i * kChannels + n].at[c] += w_there[n];
            }
          }
        }
        l.diagonal[i] = diagonal;
        l.inverse[i] = inverse;
        l.inner[i] = diagonal;
        l.held[i] = held;
        for (int n = 0; n < kChannels; ++n) l.residual[i * kChannels + n] = m_.right_side_[i * kChannels + n];
      }
    });
    for (Interface& f : interfaces(0)) {
      const Edge& e = kEdges[f.side];
      weigh_interface(0, f);
      for (int j = 0; j < 4; ++j) {
        const int c = e.first + e.step * j;
        if (!(l.diagonal[f.fine].at[c] > 0)) continue;
        // An edge of weight 1 was counted there.
        l.inner[f.fine].at[c] -= 1;
        l.diagonal[f.fine].at[c] += f.weight[j] - 1;
        l.inverse[f.fine].at[c] = 1 / l.diagonal[f.fine].at[c];
      }
    }
    l.composite = l.diagonal;
  }

  void weigh_interface(int k, Interface& f) {
    const Level& l = level(k);
    const Level& coarser = level(k + 1);
    const bool across = f.side < kNorth;
    const Edge& e = kEdges[f.side];
    for (int j = 0; j < 4; ++j) {
      const int c = e.first + e.step * j;
      const std::int64_t y = kSide * l.top[f.fine] + c / 4;
      const std::int64_t x = kSide * l.left[f.fine] + c % 4;
      const int there = e.opposite + e.step * (2 * f.half + j / 2);
      const std::int64_t there_y = kSide * coarser.top[f.coarse] + there / 4;
      const std::int64_t there_x = kSide * coarser.left[f.coarse] + there % 4;
      const double length = across ? extent(y, k, m_.height_) : extent(x, k, m_.width_);
      const double here = across ? extent(x, k, m_.width_) : extent(y, k, m_.height_);
      const double beyond = across ? extent(there_x, k + 1, m_.width_) : extent(there_y, k + 1, m_.height_);
      f.weight[j] = rounded(length / (here / 2 + beyond));
    }
  }

  // The weight of an edge at the finer level.
  float edge(int k, std::int32_t block, int cell, int side) {
    if (block == 0) return 0;
    Level& l = level(k);
    if (l.regular[block] != 0) return 1;
    const std::size_t at = 4 * static_cast<std::size_t>(block) + static_cast<std::size_t>(side);
    if (k == 0) return (l.edges[at] >> cell & 1) != 0 ? 1.0F : 0.0F;
    return l.weights[at].at[cell];
  }

  // Levels above 0. Between refined blocks an edge is what the edges between their children add up to, halved: a sum
  // of two fine edges stands for one coarse edge twice as long. Leaves are full, and theirs are geometry.
  void weigh(int k) {
    Level& l = level(k);
    for_blocks(1, l.count() + 1, [&](std::int32_t begin, std::int32_t end) {
      for (std::int32_t i = begin; i < end; ++i) weigh_block(k, i);
    });
    for (std::int32_t i = 1; i <= l.leaves; ++i) {
      l.inner[i] = l.diagonal[i];
      l.composite[i] = l.diagonal[i];
    }
    // Leaves beside larger ones.
    for (Interface& f : interfaces(k)) {
      const Edge& e = kEdges[f.side];
      weigh_interface(k, f);
      Cells& w = l.weights[4 * static_cast<std::size_t>(f.fine) + f.side];
      for (int j = 0; j < 4; ++j) {
        const int c = e.first + e.step * j;
        if (!(l.diagonal[f.fine].at[c] > 0)) continue;
        w.at[c] = 1;  // what ghosts hold has its weight already
        l.composite[f.fine].at[c] += f.weight[j];
        l.diagonal[f.fine].at[c] += f.weight[j];
      }
    }
    // Beside smaller ones: the multigrid has refined cells there, the equation their children.
    for (const Interface& f : interfaces(k - 1)) {
      const Edge& e = kEdges[f.side];
      const int side = f.side ^ 1;
      for (int j = 0; j < 4; j += 2) {
        const int c = e.opposite + e.step * (2 * f.half + j / 2);
        const float w = edge(k, f.coarse, c, side);
        l.inner[f.coarse].at[c] -= w;
        l.composite[f.coarse].at[c] += f.weight[j] + f.weight[j + 1] - w;
      }
    }
    for (std::int32_t i = 1; i <= l.count(); ++i) {
      if (l.regular[i] != 0) continue;
      for (int c = 0; c < 16; ++c) {
        const float d = l.diagonal[i].at[c];
        l.inverse[i].at[c] = d > 0 ? 1 / d : 0;
      }
      bool plain = true;
      for (int s = 0; s < 4; ++s) {
        const Cells& w = l.weights[4 * static_cast<std::size_t>(i) + static_cast<std::size_t>(s)];
        for (const float weight : w.at) plain = plain && weight == 1;
      }
      l.plain[i] = plain ? 1 : 0;
    }
  }

  void weigh_block(int k, std::int32_t i) {
    Level& l = level(k);
    const std::int64_t y = kSide * l.top[i];
    const std::int64_t x = kSide * l.left[i];
    const bool leaf = i <= l.leaves;
    const std::int32_t* children = leaf ? nullptr : l.children.data() + 4 * (i - l.leaves - 1);
    bool regular = true;
    if (leaf) {
      for (int s = 0; s < 4; ++s) {
        const std::int32_t to = l.links[4 * static_cast<std::size_t>(i) + static_cast<std::size_t>(s)];
        regular = regular && to > 0 && to <= l.count();
      }
      regular = regular && (y + 2 * kSide) << k <= m_.height_ && (x + 2 * kSide) << k <= m_.width_;
    } else {
      for (int q = 0; q < 4; ++q) regular = regular && children[q] > 0 && level(k - 1).regular[children[q]] != 0;
    }
    l.regular[i] = regular ? 1 : 0;
    if (regular) {
      l.plain[i] = 1;
      l.held[i] = {};
      std::fill_n(l.diagonal[i].at, 16, 4.0F);
      std::fill_n(l.inverse[i].at, 16, 0.25F);
      return;
    }
    Cells held{};
    if (!leaf) {
      for (int c = 0; c < 16; ++c) {
        const std::int32_t child = children[c / 8 * 2 + c % 4 / 2];
        if (child == 0) continue;
        const Cells& from = level(k - 1).held[child];
        const int first = c / 4 % 2 * 8 + c % 2 * 2;
        held.at[c] = kHold * (from.at[first] + from.at[first + 1] + from.at[first + 4] + from.at[first + 5]);
      }
    }
    Cells diagonal = held;
    for (int s = 0; s < 4; ++s) {
      constexpr int kDown[4] = {0, 0, -1, 1};
      constexpr int kAlong[4] = {-1, 1, 0, 0};
      Cells& w = l.weights[4 * static_cast<std::size_t>(i) + static_cast<std::size_t>(s)];
      const std::int32_t other = l.links[4 * static_cast<std::size_t>(i) + static_cast<std::size_t>(s)];
      for (int c = 0; c < 16; ++c) {
        const int to_y = c / 4 + kDown[s];
        const int to_x = c % 4 + kAlong[s];
        const bool within = to_y >= 0 && to_y < 4 && to_x >= 0 && to_x < 4;
        const std::int32_t there = within ? i : other;
        float weight = 0;
        if (there == 0 || there > l.count()) {
          weight = 0;  // ghosts: later
        } else if (leaf || there <= l.leaves) {
          const double height[2] = {extent(y + c / 4, k, m_.height_), extent(y + to_y, k, m_.height_)};
          const double width[2] = {extent(x + c % 4, k, m_.width_), extent(x + to_x, k, m_.width_)};
          if (height[0] > 0 && height[1] > 0 && width[0] > 0 && width[1] > 0) {
            weight = s < kNorth ? rounded(2 * height[0] / (width[0] + width[1]))
                                : rounded(2 * width[0] / (height[0] + height[1]));
          }
        } else {
          const std::int32_t child = children[c / 8 * 2 + c % 4 / 2];
          const int first = c / 4 % 2 * 8 + c % 2 * 2;
          constexpr int kFirst[4] = {0, 1, 0, 4};
          constexpr int kSecond[4] = {4, 5, 1, 5};
          weight = 0.5F * (edge(k - 1, child, first + kFirst[s], s) + edge(k - 1, child, first + kSecond[s], s));
        }
        w.at[c] = weight;
        diagonal.at[c] += weight;
      }
    }
    l.held[i] = held;
    l.diagonal[i] = diagonal;
  }

  // ------------------------------------------------------------------------------------------------------- loops

  template <typename Body>
  void for_blocks(std::int32_t begin, std::int32_t end, Body body) const {
    const std::int64_t chunks = (end - begin + kChunk - 1) / kChunk;
    parallel_for(chunks, kChunkWork, threads_, [&](std::int64_t first, std::int64_t last) {
      body(static_cast<std::int32_t>(begin + first * kChunk),
           static_cast<std::int32_t>(std::min<std::int64_t>(begin + last * kChunk, end)));
    });
  }

  // Over all leaves; the chunks do not depend on the number of threads.
  template <typename Body>
  void for_chunks(Body body) {
    const auto count = static_cast<std::int64_t>(m_.chunks_.size());
    parallel_for(count, kChunkWork, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Chunk& chunk = m_.chunks_[static_cast<std::size_t>(i)];
        body(level(chunk.level), chunk.begin, chunk.end, m_.partial_.data() + i * kMaxChannels);
      }
    });
  }
  void sum_chunks(Sums& sums) const {
    for (int c = 0; c < kMaxChannels; ++c) {
      sums[c] = 0;
      for (std::size_t i = 0; i < m_.chunks_.size(); ++i) sums[c] += m_.partial_[i * kMaxChannels + c];
    }
  }
  static double sum(Block block) {
    Cells cells;
    store(block, cells);
    double total = 0;
    for (const float v : cells.at) total += static_cast<double>(v);
    return total;
  }

  // The weighted sum of every cell's neighbours: A x = diagonal x - neighbours. `value` gives a block of x by its
  // number.
  template <typename Value>
  static Block neighbours(const Level& l, std::int32_t i, Block self, Value value) {
    const std::int32_t* links = l.links.data() + 4 * static_cast<std::size_t>(i);
    const Block west = from_west(self, value(links[kWest]));
    const Block east = from_east(self, value(links[kEast]));
    const Block north = from_north(self, value(links[kNorth]));
    const Block south = from_south(self, value(links[kSouth]));
    if (l.plain[i] != 0) return (west + east) + (north + south);
    const Cells* w = l.weights.data() + 4 * static_cast<std::size_t>(i);
    return (load(w[kWest]) * west + load(w[kEast]) * east) + (load(w[kNorth]) * north + load(w[kSouth]) * south);
  }
  [[nodiscard]] auto blocks_of(const Cells* x, std::int64_t channel) const {
    return [x = x + channel](std::int32_t i) { return load(x[i * kChannels]); };
  }

  // Ghosts see the larger leaf beside their block.
  void fill_ghosts(int k, const Cells* coarse, Cells* fine) {
    for (const Interface& f : interfaces(k)) {
      const Edge& e = kEdges[f.side];
      for (int n = 0; n < kChannels; ++n) {
        const float* from = coarse[f.coarse * kChannels + n].at + e.opposite + e.step * 2 * f.half;
        float* to = fine[f.ghost * kChannels + n].at + e.opposite;
        for (int j = 0; j < 4; ++j) to[e.step * j] = f.weight[j] * from[e.step * (j / 2)];
      }
    }
  }

  // ----------------------------------------------------------------------------------------------- multigrid

  // x = two steps of smoothing from 0. The first of them is only a multiple of D^-1 b, made where it is read.
  void smooth_from_zero(Level& l, const Cells* b) {
    for_blocks(1, l.count() + 1, [&](std::int32_t begin, std::int32_t end) {
      for (std::int32_t i = begin; i < end; ++i) {
        const Block inverse = load(l.inverse[i]);
        for (int n = 0; n < kChannels; ++n) {
          const auto first = [&](std::int32_t j) {
            return kFirstDamping * load(l.inverse[j]) * load(b[j * kChannels + n]);
          };
          const Block right = load(b[i * kChannels + n]);
          const Block self = kFirstDamping * inverse * right;
          const Block sum = neighbours(l, i, self, first);
          store(self + kSecondDamping * inverse * ((1 - kFirstDamping) * right + sum), l.x[i * kChannels + n]);
        }
      }
    });
  }

  // to = x + damping D^-1 (b - A x).
  void smooth(Level& l, const Cells* b, const Cells* x, float damping, Cells* to) {
    for_blocks(1, l.count() + 1, [&](std::int32_t begin, std::int32_t end) {
      for (std::int32_t i = begin; i < end; ++i) smooth_block(l, i, b, x, damping, to, [](int, Block, Block) {});
    });
  }
  template <typename Sum>
  void smooth_block(const Level& l, std::int32_t i, const Cells* b, const Cells* x, float damping, Cells* to,
                    Sum sum) const {
    const Block inverse = load(l.inverse[i]);
    for (int n = 0; n < kChannels; ++n) {
      const Block self = load(x[i * kChannels + n]);
      const Block right = load(b[i * kChannels + n]);
      const Block smoothed =
          (1 - damping) * self + damping * inverse * (right + neighbours(l, i, self, blocks_of(x, n)));
      sum(n, smoothed, right);
      store(smoothed, to[i * kChannels + n]);
    }
  }
  void smooth_twice(Level& l, const Cells* b) {
    smooth(l, b, l.x.data(), kFirstDamping, l.r.data());
    smooth(l, b, l.r.data(), kSecondDamping, l.x.data());
  }

  // coarse.b = the residual: of the equation for leaves, with what x next to them, if smaller, changed; summed over 2
  // x 2 cells for refined blocks, the transpose of the constant prolongation.
  void restrict_residual(int k, const Cells* b) {
    Level& fine = level(k);
    Level& coarse = level(k + 1);
    for_blocks(1, coarse.count() + 1, [&](std::int32_t begin, std::int32_t end) {
      for (std::int32_t i = begin; i < end; ++i) {
        if (i <= coarse.leaves) {
          std::memcpy(coarse.b[i * kChannels].at, coarse.residual[i * kChannels].at, sizeof(Cells) * kChannels);
          continue;
        }
        const std::int32_t* children = coarse.children.data() + 4 * (i - coarse.leaves - 1);
        for (int n = 0; n < kChannels; ++n) {
          Block residuals[4];
          for (int q = 0; q < 4; ++q) {
            const std::int32_t j = children[q];
            const Block self = load(fine.x[j * kChannels + n]);
            const Block sum = neighbours(fine, j, self, blocks_of(fine.x.data(), n));
            const Block right = load(b[j * kChannels + n]);
            residuals[q] = load(fine.diagonal[j]) * (load(fine.inverse[j]) * (right + sum) - self);
          }
          store(sum_squares(residuals), coarse.b[i * kChannels + n]);
        }
      }
    });
    for (const Interface& f : interfaces(k)) {
      const Edge& e = kEdges[f.side];
      for (int n = 0; n < kChannels; ++n) {
        float* to = coarse.b[f.coarse * kChannels + n].at + e.opposite + e.step * 2 * f.half;
        const float* from = fine.x[f.fine * kChannels + n].at + e.first;
        for (int j = 0; j < 4; ++j) to[e.step * (j / 2)] += f.weight[j] * from[e.step * j];
      }
    }
  }

  void add_prolongation(const Level& coarse, Level& fine) {
    for_blocks(1, fine.count() + 1, [&](std::int32_t begin, std::int32_t end) {
      for (std::int32_t i = begin; i < end; ++i) {
        const std::int32_t parent = fine.parent[i] / 4;
        const Block inside = load(fine.diagonal[i]) * load(fine.inverse[i]);
        for (int n = 0; n < kChannels; ++n) {
          Cells& x = fine.x[i * kChannels + n];
          store(load(x) + inside * spread(load(coarse.x[parent * kChannels + n]), fine.parent[i] % 4), x);
        }
      }
    });
  }

  // x = an approximate, symmetric inverse of A times b, on the cells of this level and the coarser: as many steps of
  // smoothing after the coarser levels as before.
  void cycle(int k) {
    Level& l = level(k);
    const Cells* b = k == 0 ? l.residual.data() : l.b.data();
    clear(l.x.data(), l.count() + 1, l.count() + 1 + l.ghosts);
    smooth_from_zero(l, b);
    if (k + 1 < m_.count_) {
      Level& coarse = level(k + 1);
      restrict_residual(k, b);
      cycle(k + 1);
      add_prolongation(coarse, l);
      fill_ghosts(k, coarse.x.data(), l.x.data());
      fill_ghosts(k, coarse.x.data(), l.r.data());
    } else {
      for (int i = 0; i < kCoarsestRepeats; ++i) smooth_twice(l, b);
    }
    smooth(l, b, l.x.data(), kFirstDamping, l.r.data());
    if (k > 0) smooth(l, b, l.r.data(), kSecondDamping, l.x.data());  // of level 0, see precondition()
  }

  // x = the inverse's approximation times the residual; products = x . residual.
  void precondition(Sums& products) {
    cycle(0);
    for_chunks([&](Level& l, std::int32_t begin, std::int32_t end, double* sums) {
      Block total[kChannels];
      for (Block& t : total) t = zero();
      if (&l == m_.levels_.front().get()) {
        for (std::int32_t i = begin; i < end; ++i) {
          smooth_block(l, i, l.residual.data(), l.r.data(), kSecondDamping, l.x.data(),
                       [&](int n, Block z, Block right) { total[n] = total[n] + z * right; });
        }
      } else {
        for (std::int32_t i = begin; i < end; ++i) {
          for (int n = 0; n < kChannels; ++n) {
            total[n] = total[n] + load(l.x[i * kChannels + n]) * load(l.residual[i * kChannels + n]);
          }
        }
      }
      for (int n = 0; n < kChannels; ++n) sums[n] = sum(total[n]);
    });
    sum_chunks(products);
  }

  // -------------------------------------------------------------------------------------- conjugate gradients

  // Improves the solution until a step changes little; returns the largest change of a step.
  double conjugate_gradients(float tolerance) {
    Sums old_products = {};
    double largest = 0;
    for (int step = 0; step < kMaxSteps; ++step) {
      ++m_.counts_.steps;
      Sums products;
      precondition(products);
      float beta[kMaxChannels];
      bool some = false;
      for (int n = 0; n < kChannels; ++n) {
        some = some || products[n] > 0;
        beta[n] = old_products[n] > 0 ? static_cast<float>(products[n] / old_products[n]) : 0.0F;
        old_products[n] = products[n];
      }
      if (!some) break;
      for_chunks([&](Level& l, std::int32_t begin, std::int32_t end, double*) {
        for (std::int32_t i = begin; i < end; ++i) {
          for (int n = 0; n < kChannels; ++n) {
            Cells& p = l.direction[i * kChannels + n];
            const Block z = load(l.x[i * kChannels + n]);
            store(beta[n] == 0 ? z : z + beta[n] * load(p), p);
          }
        }
      });
      Sums energies;
      apply(energies);
      float alpha[kMaxChannels];
      for (int n = 0; n < kChannels; ++n) {
        alpha[n] = energies[n] > 0 && products[n] > 0 ? static_cast<float>(products[n] / energies[n]) : 0.0F;
      }
      for_chunks([&](Level& l, std::int32_t begin, std::int32_t end, double* sums) {
        Block most[kChannels];
        for (Block& t : most) t = zero();
        for (std::int32_t i = begin; i < end; ++i) {
          for (int n = 0; n < kChannels; ++n) {
            const std::int64_t at = i * kChannels + n;
            const Block p = load(l.direction[at]);
            store(load(l.solution[at]) + alpha[n] * p, l.solution[at]);
            store(load(l.residual[at]) - alpha[n] * load(l.product[at]), l.residual[at]);
            most[n] = larger_size(most[n], p);
          }
        }
        for (int n = 0; n < kChannels; ++n) {
          Cells cells;
          store(most[n], cells);
          sums[n] = static_cast<double>(alpha[n] * *std::max_element(cells.at, cells.at + 16));
        }
      });
      double change = 0;
      for (std::size_t i = 0; i < m_.chunks_.size(); ++i) {
        for (int n = 0; n < kChannels; ++n) change = std::max(change, m_.partial_[i * kMaxChannels + n]);
      }
      largest = std::max(largest, change);
      if (change < static_cast<double>(tolerance)) break;
    }
    return largest;
  }

  // product = A direction; energies = direction . product.
  void apply(Sums& energies) {
    for (int k = 0; k + 1 < m_.count_; ++k) {
      fill_ghosts(k, level(k + 1).direction.data(), level(k).direction.data());
    }
    for_chunks([&](Level& l, std::int32_t begin, std::int32_t end, double* sums) {
      Block total[kChannels];
      for (Block& t : total) t = zero();
      for (std::int32_t i = begin; i < end; ++i) {
        const Block diagonal = load(l.composite[i]);
        for (int n = 0; n < kChannels; ++n) {
          const Block self = load(l.direction[i * kChannels + n]);
          const Block sum = neighbours(l, i, self, blocks_of(l.direction.data(), n));
          const Block product = diagonal * self - sum;
          total[n] = total[n] + self * product;
          store(product, l.product[i * kChannels + n]);
        }
      }
      for (int n = 0; n < kChannels; ++n) sums[n] = sum(total[n]);
    });
    sum_chunks(energies);
    for (int k = 0; k + 1 < m_.count_; ++k) {
      const Level& fine = level(k);
      Level& coarse = level(k + 1);
      for (const Interface& f : interfaces(k)) {
        const Edge& e = kEdges[f.side];
        for (int n = 0; n < kChannels; ++n) {
          const std::int64_t at = f.coarse * kChannels + n;
          const int first = e.opposite + e.step * 2 * f.half;
          const float* self = coarse.direction[at].at + first;
          float* to = coarse.product[at].at + first;
          const float* from = fine.direction[f.fine * kChannels + n].at + e.first;
          float total = 0;
          for (int j = 0; j < 4; ++j) {
            const float flow = f.weight[j] * from[e.step * j];
            to[e.step * (j / 2)] -= flow;
            total += self[e.step * (j / 2)] * flow;
          }
          energies[n] -= static_cast<double>(total);
        }
      }
    }
  }

  // residual = right side - A solution, in double where it matters.
  void true_residual() {
    fill_means();
    for (int k = 0; k < m_.count_; ++k) {
      Level& l = level(k);
      clear(l.direction.data(), l.count() + 1, l.count() + 1 + l.ghosts);
    }
    for_chunks([&](Level& l, std::int32_t begin, std::int32_t end, double*) {
      std::memcpy(l.direction[begin * kChannels].at, l.solution[begin * kChannels].at,
                  sizeof(Cells) * kChannels * (end - begin));
    });
    for_chunks([&](Level& l, std::int32_t begin, std::int32_t end, double*) {
      const bool finest = &l == m_.levels_.front().get();
      const Cells one = {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
      const Cells none = {};
      for (std::int32_t i = begin; i < end; ++i) {
        const std::int32_t* links = l.links.data() + 4 * static_cast<std::size_t>(i);
        for (int n = 0; n < kChannels; ++n) {
          const auto value = blocks_of(l.direction.data(), n);
          const Block self = value(i);
          Cells near[4];
          store(from_west(self, value(links[kWest])), near[kWest]);
          store(from_east(self, value(links[kEast])), near[kEast]);
          store(from_north(self, value(links[kNorth])), near[kNorth]);
          store(from_south(self, value(links[kSouth])), near[kSouth]);
          const Cells* w[4];
          for (int s = 0; s < 4; ++s) {
            w[s] = l.plain[i] != 0 ? &one : &l.weights[4 * static_cast<std::size_t>(i) + static_cast<std::size_t>(s)];
          }
          const float* x = l.direction[i * kChannels + n].at;
          const float* right = finest ? m_.right_side_[i * kChannels + n].at : none.at;
          float* to = l.residual[i * kChannels + n].at;
          for (int c = 0; c < 16; ++c) {
            double value_c = static_cast<double>(right[c]) - static_cast<double>(l.inner[i].at[c]) * x[c];
            for (int s = 0; s < 4; ++s) value_c += static_cast<double>(w[s]->at[c]) * near[s].at[c];
            to[c] = static_cast<float>(value_c);
          }
        }
      }
    });
    for (int k = 0; k + 1 < m_.count_; ++k) {
      Level& fine = level(k);
      Level& coarse = level(k + 1);
      for (const Interface& f : interfaces(k)) flow_between(k, fine, coarse, f);
    }
  }

  // What flows between two leaves of different size, into their residuals. The solution's two-point differences are
  // only the first order of it; here come the others too, as Dirichlet-like data of the next correction.
  void flow_between(int k, Level& fine, Level& coarse, const Interface& f) {
    const Edge& e = kEdges[f.side];
    const std::int64_t start = kSide * (f.side < kNorth ? coarse.top[f.coarse] : coarse.left[f.coarse]);
    const std::int64_t image = f.side < kNorth ? m_.height_ : m_.width_;
    const int before_side = f.side < kNorth ? kNorth : kWest;
    const std::int32_t* links = coarse.links.data() + 4 * static_cast<std::size_t>(f.coarse);
    for (int n = 0; n < kChannels; ++n) {
      const float* near = fine.solution[f.fine * kChannels + n].at + e.first;
      const float* far = coarse.solution[f.coarse * kChannels + n].at + e.opposite;
      float* into = fine.residual[f.fine * kChannels + n].at + e.first;
      float* out_of = coarse.residual[f.coarse * kChannels + n].at + e.opposite;
      // The coarse cells along the side, and one more on either end: the neighbour's, or else mirrored. Those that the
      // image's border clips have their centres elsewhere.
      double along[6];
      for (int j = 0; j < 4; ++j) along[j + 1] = static_cast<double>(far[e.step * j]);
      const auto beyond = [&](std::int32_t block, int j, double otherwise) {
        if (block == 0 || block > coarse.count()) return otherwise;
        return static_cast<double>(coarse.solution[block * kChannels + n].at[e.opposite + e.step * j]);
      };
      along[0] = beyond(links[before_side], 3, along[1]);
      along[5] = beyond(links[before_side + 1], 0, along[4]);
      for (int j = 0; j < 4; ++j) {
        if (!(f.weight[j] > 0)) continue;
        const int c = 2 * f.half + j / 2;
        const double* at = along + c + 1;
        const auto inner = static_cast<double>(near[e.step * j]);
        const double width = extent(start + c, k + 1, image);
        const double length = extent(2 * start + 4 * f.half + j, k, image);
        const double next_width = extent(start + c + 1, k + 1, image);
        // Positions relative to the coarse cell's centre; the quadratic through three of them.
        const double t = static_cast<double>(j % 2) * 0.5 + length / 4 - width / 2;
        const double left = -(width + 1) / 2;
        const double right = next_width > 0 ? (width + next_width) / 2 : width;
        const double before = at[-1] - at[0];
        const double after = (next_width > 0 ? at[1] : at[0]) - at[0];
        const double outer = at[0] + before * t * (t - right) / (left * (left - right)) +
                             after * t * (t - left) / (right * (right - left));
        double flow = static_cast<double>(f.weight[j]) * (outer - inner);
        if (f.weight[j] == rounded(length * 2 / 3)) {
          const auto next = static_cast<double>(near[e.step * j + e.inward]);
          flow = length * (8.0 / 15 * outer - inner / 3 - next / 5);
        }
        into[e.step * j] += static_cast<float>(flow);
        out_of[e.step * c] -= static_cast<float>(flow);
      }
    }
  }

  // solution of the refined blocks = the mean over their cells' pixels in the image, 0 outside the region.
  void fill_means() {
    for (int k = 1; k < m_.count_; ++k) {
      Level& l = level(k);
      const Level& fine = level(k - 1);
      const std::int64_t size = kSide << k;
      for_blocks(l.leaves + 1, l.count() + 1, [&](std::int32_t begin, std::int32_t end) {
        for (std::int32_t i = begin; i < end; ++i) {
          const std::int32_t* children = l.children.data() + 4 * (i - l.leaves - 1);
          const bool border = (l.top[i] + 1) * size > m_.height_ || (l.left[i] + 1) * size > m_.width_;
          for (int n = 0; n < kChannels; ++n) {
            if (border) {
              mean_at_border(k, i, children, n);
              continue;
            }
            Block from[4];
            for (int q = 0; q < 4; ++q) from[q] = load(fine.solution[children[q] * kChannels + n]);
            store(0.25F * sum_squares(from), l.solution[i * kChannels + n]);
          }
        }
      });
    }
  }
  void mean_at_border(int k, std::int32_t i, const std::int32_t* children, std::int64_t n) {
    Level& l = level(k);
    const Level& fine = level(k - 1);
    for (int c = 0; c < 16; ++c) {
      double total = 0;
      double area = 0;
      for (int d = 0; d < 4; ++d) {
        const int y = c / 4 * 2 + d / 2;
        const int x = c % 4 * 2 + d % 2;
        const double part =
            extent(2 * kSide * l.top[i] + y, k - 1, m_.height_) * extent(2 * kSide * l.left[i] + x, k - 1, m_.width_);
        const std::int32_t child = children[y / 4 * 2 + x / 4];
        total += part * static_cast<double>(fine.solution[child * kChannels + n].at[y % 4 * 4 + x % 4]);
        area += part;
      }
      l.solution[i * kChannels + n].at[c] = area > 0 ? static_cast<float>(total / area) : 0.0F;
    }
  }

  Membrane& m_;
  int threads_;
};

void Membrane::solve(const BitPlane& inside, std::int64_t channels, Boundary boundary) {
  height_ = inside.height();
  width_ = inside.width();
  channels_ = channels;
  counts_ = {};
  count_ = 0;
  // The image hangs together, so that only a region that is all of it has no boundary: w = 0.
  if (!inside.any() || inside.all()) return;
  switch (channels) {
    case 1:
      return Solver<1>(*this).run(inside, boundary);
    case 2:
      return Solver<2>(*this).run(inside, boundary);
    case 3:
      return Solver<3>(*this).run(inside, boundary);
    default:
      return Solver<4>(*this).run(inside, boundary);
  }
}

// --------------------------------------------------------------------------------------------------------- reading

namespace {

// A window of this size is read at once; the windows of coarser levels that it is made from fit the scratch memory.
constexpr std::int64_t kTileHeight = 32;
constexpr std::int64_t kTileWidth = 256;
constexpr std::int64_t kTileScratch = 20480;

// A rectangle around the bits in a rectangle; half open.
struct Box {
  std::int64_t top, left, bottom, right;
};
Box box_of(const BitPlane& plane, const Box& within) {
  Box box{within.bottom, within.right, within.top, within.left};
  for (std::int64_t y = within.top; y < within.bottom; ++y) {
    for (std::int64_t i = within.left / 64; 64 * i < within.right; ++i) {
      std::uint64_t word = plane.row(y)[i];
      if (64 * i < within.left) word &= ~std::uint64_t{0} << (within.left - 64 * i);
      if (64 * i + 64 > within.right) word &= ~std::uint64_t{0} >> (64 * i + 64 - within.right);
      if (word == 0) continue;
      box.top = std::min(box.top, y);
      box.bottom = y + 1;
      box.left = std::min<std::int64_t>(box.left, 64 * i + std::countr_zero(word));
      box.right = std::max<std::int64_t>(box.right, 64 * i + 64 - std::countl_zero(word));
    }
  }
  return box;
}

// to = 3/4 near + 1/4 far.
void mix_rows(const float* near, const float* far, std::int64_t count, float* to) {
  const auto mix = [&](std::int64_t x) {
    cpu::store(to + x, 0.75F * cpu::load(near + x) + 0.25F * cpu::load(far + x));
  };
  std::int64_t x = 0;
  for (; x + V::kFloats <= count; x += V::kFloats) mix(x);
  if (x < count && count >= V::kFloats) return mix(count - V::kFloats);
  for (; x < count; ++x) to[x] = 0.75F * near[x] + 0.25F * far[x];
}

// Bilinear between the centres of cells of twice the size. `coarse` begins with the first of them that is needed, and
// may be read up to 16 floats beyond its end; `stretched` is for two rows of width + 33.
void interpolate(const float* coarse, std::int64_t coarse_stride, const Box& box, float* stretched, float* out,
                 std::int64_t out_stride) {
  // Between the coarse cells g - 1 and g lie the centres of cells 2 g - 1 and 2 g.
  const std::int64_t first_gap = (box.top + 1) >> 1;
  const std::int64_t width = box.right - box.left;
  const std::int64_t gaps = (width / 2 + 1 + 15) / 16 * 16;
  const std::int64_t skipped = 1 - (box.left & 1);
  const auto stretch = [&](const float* from, float* to) {
    GPGAN_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < gaps; ++i) {
      to[2 * i] = 0.75F * from[i] + 0.25F * from[i + 1];
      to[2 * i + 1] = 0.75F * from[i + 1] + 0.25F * from[i];
    }
  };
  float* above = stretched;
  float* below = stretched + 2 * gaps;
  stretch(coarse, above);
  for (std::int64_t gap = first_gap; 2 * gap - 1 < box.bottom; ++gap) {
    coarse += coarse_stride;
    stretch(coarse, below);
    const std::int64_t y = 2 * gap - 1;
    float* to = out + (y - box.top) * out_stride;
    if (y >= box.top) mix_rows(above + skipped, below + skipped, width, to);
    if (y + 1 < box.bottom) mix_rows(below + skipped, above + skipped, width, to + out_stride);
    std::swap(above, below);
  }
}

}  // namespace

void Membrane::copy_blocks(int k, const Window& window, std::int64_t block_row, const BitPlane* coarser) const {
  const Level& l = level(k);
  const std::int64_t begin_y = std::max(kSide * block_row, window.top);
  const std::int64_t end_y = std::min(kSide * block_row + kSide, window.top + window.height);
  const std::int64_t right = window.left + window.width;
  const std::int64_t last = (right + kSide - 1) / kSide;
  for (std::int64_t block = window.left / kSide; block < last;) {
    const std::int64_t word = block / 64;
    const auto shift = static_cast<unsigned>(block % 64);
    const auto rank = static_cast<std::size_t>(block_row * l.leaf_at.stride() + word);
    const std::uint64_t leaves = l.leaf_at.row(block_row)[word];
    const std::uint64_t refined = l.refined_at.row(block_row)[word];
    const std::uint64_t larger =
        coarser != nullptr ? double_bits(coarser->row(block_row / 2)[word / 2] >> (word % 2 * 32)) : 0;
    // As many as are alike.
    std::int64_t number = 0;
    int count = 0;
    if ((leaves >> shift & 1) != 0) {
      count = std::countr_one(leaves >> shift);
      number = l.leaf_rank[rank] + std::popcount(leaves & ((std::uint64_t{1} << shift) - 1));
    } else if ((refined >> shift & 1) != 0) {
      count = std::countr_one(refined >> shift);
      number = l.refined_rank[rank] + std::popcount(refined & ((std::uint64_t{1} << shift) - 1));
    } else if ((larger >> shift & 1) != 0) {
      block += std::min(std::countr_one(larger >> shift), 64 - static_cast<int>(shift));
      continue;
    } else {
      count = std::countr_zero((leaves | refined | larger) >> shift);
    }
    const std::int64_t next = std::min(block + std::min<std::int64_t>(count, 64 - shift), last);
    const std::int64_t begin_x = std::max(kSide * block, window.left);
    const std::int64_t end_x = std::min(kSide * next, right);
    for (std::int64_t c = 0; c < channels_; ++c) {
      if (number == 0) {
        for (std::int64_t y = begin_y; y < end_y; ++y) std::fill_n(window.at(c, y, begin_x), end_x - begin_x, 0.0F);
        continue;
      }
      const Cells* from = l.solution.data() + number * channels_ + c;
      for (std::int64_t i = block; i < next; ++i, from += channels_) {
        const std::int64_t x = kSide * i;
        if (x >= begin_x && x + kSide <= end_x) {
          float* to = window.at(c, begin_y, x);
          for (std::int64_t y = begin_y; y < end_y; ++y, to += window.row_stride) {
            std::memcpy(to, from->at + (y - kSide * block_row) * kSide, sizeof(float) * kSide);
          }
          continue;
        }
        for (std::int64_t y = begin_y; y < end_y; ++y) {
          for (std::int64_t j = std::max(x, begin_x); j < std::min(x + kSide, end_x); ++j) {
            *window.at(c, y, j) = from->at[(y - kSide * block_row) * kSide + j - x];
          }
        }
      }
    }
    block = next;
  }
}

void Membrane::fill_window(int k, Window window, float* scratch) const {
  // Only what is in the image is made, and then repeated beyond it.
  const std::int64_t rows = (height_ + (std::int64_t{1} << k) - 1) >> k;
  const std::int64_t columns = (width_ + (std::int64_t{1} << k) - 1) >> k;
  const Window whole = window;
  const Box image{std::max<std::int64_t>(window.top, 0), std::max<std::int64_t>(window.left, 0),
                  std::min(window.top + window.height, rows), std::min(window.left + window.width, columns)};
  window.out = whole.at(0, image.top, image.left);
  window.top = image.top;
  window.left = image.left;
  window.height = image.bottom - image.top;
  window.width = image.right - image.left;
  const std::int64_t first_row = image.top / kSide;
  const std::int64_t last_row = (image.bottom + kSide - 1) / kSide;
  const BitPlane* coarser = k + 1 < count_ ? &level(k + 1).smooth : nullptr;
  bool blocks = true;
  if (coarser != nullptr) {
    constexpr std::int64_t kSize = 2 * kSide;
    const Box around{image.top / kSize, image.left / kSize, (image.bottom + kSize - 1) / kSize,
                     (image.right + kSize - 1) / kSize};
    const Box larger = box_of(*coarser, around);
    if (larger.top < larger.bottom) {
      const Box box{std::max(image.top, kSize * larger.top), std::max(image.left, kSize * larger.left),
                    std::min(image.bottom, kSize * larger.bottom), std::min(image.right, kSize * larger.right)};
      Window coarse{(box.top - 1) >> 1, (box.left - 1) >> 1, 0, 0, scratch, 0, 0};
      coarse.height = (box.bottom >> 1) - coarse.top + 1;
      coarse.width = (box.right >> 1) - coarse.left + 1;
      coarse.row_stride = coarse.width;
      coarse.channel_stride = coarse.height * coarse.width;
      constexpr std::int64_t kBeyond = 16;
      float* const end = scratch + channels_ * coarse.channel_stride;
      fill_window(k + 1, coarse, end);
      std::fill_n(end, kBeyond, 0.0F);
      for (std::int64_t c = 0; c < channels_; ++c) {
        interpolate(scratch + c * coarse.channel_stride, coarse.row_stride, box, end + kBeyond,
                    window.at(c, box.top, box.left), window.row_stride);
      }
      blocks = !coarser->all(around.top, around.left, around.bottom - around.top, around.right - around.left);
    }
  }
  if (blocks) {
    for (std::int64_t y = first_row; y < last_row; ++y) copy_blocks(k, window, y, coarser);
  }
  if (window.height == whole.height && window.width == whole.width) return;
  for (std::int64_t c = 0; c < channels_; ++c) {
    for (std::int64_t y = image.top; y < image.bottom; ++y) {
      std::fill_n(whole.at(c, y, whole.left), image.left - whole.left, *whole.at(c, y, image.left));
      std::fill_n(whole.at(c, y, image.right), whole.left + whole.width - image.right,
                  *whole.at(c, y, image.right - 1));
    }
    for (std::int64_t y = whole.top; y < whole.top + whole.height; ++y) {
      const std::int64_t from = std::clamp(y, image.top, image.bottom - 1);
      if (y != from) std::copy_n(whole.at(c, from, whole.left), whole.width, whole.at(c, y, whole.left));
    }
  }
}

void Membrane::read(int level, std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width, float* out,
                    std::int64_t row_stride, std::int64_t channel_stride) const {
  alignas(64) float scratch[kTileScratch];
  const std::int64_t tiles = (width + kTileWidth - 1) / kTileWidth;
  for (std::int64_t y = top; y < top + height; y += kTileHeight) {
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::int64_t x = width * tile / tiles;
      const Window window{y,
                          left + x,
                          std::min(kTileHeight, top + height - y),
                          width * (tile + 1) / tiles - x,
                          out + (y - top) * row_stride + x,
                          row_stride,
                          channel_stride};
      if (level < count_) {
        fill_window(level, window, scratch);
        continue;
      }
      for (std::int64_t c = 0; c < channels_; ++c) {
        for (std::int64_t i = y; i < y + window.height; ++i)
          std::fill_n(window.at(c, i, window.left), window.width, 0.0F);
      }
    }
  }
}

int Membrane::finest_level(std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width) const {
  for (int k = 0; k < count_; ++k) {
    const std::int64_t size = kSide << k;
    const std::int64_t y = top / size;
    const std::int64_t x = left / size;
    if (level(k).leaf_at.any(y, x, (top + height + size - 1) / size - y, (left + width + size - 1) / size - x)) {
      return k;
    }
  }
  return -1;
}

void Membrane::add_area_average(const core::Planes& out) const {
  if (count_ == 0) return;
  const std::int64_t rows_to = out.size.height;
  const std::int64_t columns_to = out.size.width;
  // Away from the seam, where w ends, cells are read that are a fourth of a pixel of `out` or smaller; there, pixels.
  int coarse = 0;
  while (coarse < 5 && coarse + 1 < count_ && (std::int64_t{8} << coarse) * rows_to <= height_ &&
         (std::int64_t{8} << coarse) * columns_to <= width_)
    ++coarse;
  constexpr std::int64_t kStep = 64;  // whole cells of every such level
  constexpr std::int64_t kAveraged = 128;
  // How much of pixel `to` a cell covers, as a share of the pixel.
  const auto share = [](std::int64_t cell, std::int64_t size, std::int64_t from, std::int64_t to, std::int64_t pixel) {
    const std::int64_t begin = std::max(cell * size * to, pixel * from);
    const std::int64_t end = std::min(std::min(cell * size + size, from) * to, pixel * from + from);
    return static_cast<float>(static_cast<double>(std::max<std::int64_t>(0, end - begin)) / static_cast<double>(from));
  };
  parallel_for(rows_to, width_ * out.channels, threads_, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float tile[kMaxChannels * kTileHeight * kAveraged];
    alignas(64) float sums[kMaxChannels * kAveraged];
    for (std::int64_t to_y = begin; to_y < end; ++to_y) {
      // Whole cells, of whatever level.
      const std::int64_t top = (to_y * height_ / rows_to) >> coarse << coarse;
      const std::int64_t bottom_cell = (((to_y + 1) * height_ + rows_to - 1) / rows_to + (1 << coarse) - 1) >> coarse;
      const std::int64_t height = std::min(bottom_cell << coarse, height_) - top;
      const std::int64_t block_rows = (top + height - 1) / kSide - top / kSide + 1;
      const auto seam = [&](std::int64_t x) {
        return level(0).leaf_at.any(top / kSide, x / kSide, block_rows, kStep / kSide);
      };
      for (std::int64_t left = 0; left < width_;) {
        std::int64_t right = left + kStep;
        int k = 0;
        if (!seam(left)) {
          k = coarse;
          while (right < width_ && right - left + kStep <= kAveraged << k && !seam(right)) right += kStep;
        }
        right = std::min(right, width_);
        if (level(0).any.any(top / kSide, left / kSide, block_rows, (right - 1) / kSide - left / kSide + 1)) {
          const std::int64_t size = std::int64_t{1} << k;
          const std::int64_t x = left / size;
          const std::int64_t w = (right + size - 1) / size - x;
          const std::int64_t last = (top + height + size - 1) / size;
          std::fill_n(sums, out.channels * kAveraged, 0.0F);
          for (std::int64_t y = top / size; y < last; y += kTileHeight) {
            const std::int64_t h = std::min(kTileHeight, last - y);
            read(k, y, x, h, w, tile, kAveraged, kTileHeight * kAveraged);
            for (std::int64_t i = 0; i < h; ++i) {
              const float weight = share(y + i, size, height_, rows_to, to_y);
              for (std::int64_t c = 0; c < out.channels; ++c) {
                const float* from = tile + (c * kTileHeight + i) * kAveraged;
                float* sum = sums + c * kAveraged;
                GPGAN_INDEPENDENT_LOOP
                for (std::int64_t j = 0; j < w; ++j) sum[j] += weight * from[j];
              }
            }
          }
          for (std::int64_t j = 0; j < w; ++j) {
            const std::int64_t to_end =
                std::min(columns_to - 1, (std::min((x + j + 1) * size, width_) * columns_to - 1) / width_);
            for (std::int64_t to_x = (x + j) * size * columns_to / width_; to_x <= to_end; ++to_x) {
              const float part = share(x + j, size, width_, columns_to, to_x);
              for (std::int64_t c = 0; c < out.channels; ++c) {
                out.channel(c).row(to_y)[to_x] += part * sums[c * kAveraged + j];
              }
            }
          }
        }
        left = right;
      }
    }
  });
}

// ---------------------------------------------------------------------------------------------------- the operation

void membrane(const Planes& difference, const Planes& mask, int threads) {
  const auto [height, width] = mask.size;
  BitPlane inside(height, width);
  parallel_for(height, width, threads, [&, width = width](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      const float* m = mask.row(y);
      for (std::int64_t x = 0; x < width; x += 64) {
        std::uint64_t word = 0;
        for (std::int64_t i = std::min<std::int64_t>(64, width - x); i-- > 0;)
          word = word << 1 | (m[x + i] > 0 ? 1 : 0);
        inside.row(y)[x / 64] = word;
      }
    }
  });
  if (inside.all()) return;
  Membrane solver(threads);
  for (std::int64_t first = 0; first < difference.channels; first += Membrane::kMaxChannels) {
    const std::int64_t channels = std::min(Membrane::kMaxChannels, difference.channels - first);
    solver.solve(inside, channels, [&](std::int64_t y, std::int64_t x, float* values) {
      for (std::int64_t c = 0; c < channels; ++c) values[c] = -difference.channel(first + c).row(y)[x];
    });
    // By whole tiles: what is interpolated depends on where they begin, by a rounding.
    const std::int64_t tiles = (height + kTileHeight - 1) / kTileHeight;
    parallel_for(
        tiles, kTileHeight * width * channels, threads, [&, height = height](std::int64_t begin, std::int64_t end) {
          constexpr std::int64_t kStrip = 128;
          float w[Membrane::kMaxChannels * kTileHeight * kStrip];
          for (std::int64_t y = begin * kTileHeight; y < std::min(end * kTileHeight, height); y += kTileHeight) {
            const std::int64_t rows = std::min(kTileHeight, height - y);
            for (std::int64_t x = 0; x < difference.size.width; x += kStrip) {
              const std::int64_t columns = std::min(kStrip, difference.size.width - x);
              solver.read(0, y, x, rows, columns, w, kStrip, kTileHeight * kStrip);
              for (std::int64_t c = 0; c < channels; ++c) {
                for (std::int64_t i = 0; i < rows; ++i) {
                  float* d = difference.channel(first + c).row(y + i) + x;
                  const float* m = mask.row(y + i) + x;
                  const float* from = w + (c * kTileHeight + i) * kStrip;
                  for (std::int64_t j = 0; j < columns; ++j) d[j] = m[j] > 0 ? d[j] + from[j] : 0;
                }
              }
            }
          }
        });
  }
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
