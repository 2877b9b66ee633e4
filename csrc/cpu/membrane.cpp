// The harmonic membrane: Laplace's equation on the pixels with mask > 0, by conjugate gradients preconditioned with one
// multigrid cycle. The conjugate gradients make it right for any mask, however ragged; the multigrid makes it need
// about ten steps for any size.
//
// A couples the pixels inside with one another; a neighbour outside adds to the diagonal, and its value,
// w = target - source = -difference, to the right-hand side. Neighbours beyond the image do neither.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"
#include "cpu/vectorize.hpp"

namespace gpgan::cpu {
namespace {

constexpr int kMaxSteps = 200;
// Conjugate gradients stop when a step changes no pixel by more than this; the first run, whose residual drifts,
// sooner. The whole stops when one of the first two steps on a true residual does: a fortieth of a level of 255.
constexpr float kTolerance = 1e-4F;
constexpr float kFirstTolerance = 1e-3F;
constexpr int kMaxRounds = 10;
constexpr float kJacobi = 0.8F;  // damping; takes every frequency of the upper half to 0.6 of itself or less
constexpr std::int64_t kCoarsest = 4;

// A x = sum over neighbours of weight (x - neighbour), on a grid with a frame of one zero pixel around, so that no
// stencil needs a border case. Outside pixels have inverse diagonal 0, which keeps every vector at 0 there. That lets
// the finest grid do without weights: it sums all neighbours, and those that do not count are 0.
struct Grid {
  std::int64_t height, width;  // without the frame
  bool finest;
  std::vector<float> right;  // weight of the edge to (y, x + 1); empty on the finest grid
  std::vector<float> below;  // weight of the edge to (y + 1, x); likewise
  std::vector<float> diagonal, inverse_diagonal;
  std::vector<float> x, b, r;  // of the multigrid cycle; the finest b is conjugate gradients' residual

  Grid(std::int64_t height_, std::int64_t width_, bool finest_) : height(height_), width(width_), finest(finest_) {
    for (std::vector<float>* v : {&diagonal, &inverse_diagonal, &x, &b, &r}) v->assign(size(), 0.0F);
    if (finest) return;
    for (std::vector<float>* v : {&right, &below}) v->assign(size(), 0.0F);
  }
  [[nodiscard]] std::int64_t stride() const { return width + 2; }
  [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>((height + 2) * (width + 2)); }
  [[nodiscard]] std::int64_t at(std::int64_t y, std::int64_t x_) const { return (y + 1) * stride() + x_ + 1; }

  void invert_diagonal() {
    for (std::size_t i = 0; i < size(); ++i) inverse_diagonal[i] = diagonal[i] > 0 ? 1 / diagonal[i] : 0;
  }
};

template <typename Body>
void for_rows(const Grid& grid, int threads, Body body) {
  parallel_for(grid.height, 2 * grid.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) body(grid.at(y, 0), grid.at(y, grid.width));
  });
}

// A sum over all pixels that does not depend on the number of threads.
template <typename Body>
double sum_rows(const Grid& grid, int threads, Body body) {
  std::vector<double> rows(static_cast<std::size_t>(grid.height));
  for_rows(grid, threads, [&](std::int64_t begin, std::int64_t end) {
    rows[static_cast<std::size_t>(begin / grid.stride() - 1)] = static_cast<double>(body(begin, end));
  });
  double total = 0;
  for (const double row : rows) total += row;
  return total;
}

// The weighted sum of a pixel's neighbours, as a function of its index: A x = diagonal x - neighbours(x). `value` gives
// x at an index.
template <typename Value, typename Body>
auto with_neighbours(const Grid& grid, Value value, Body body) {
  const std::int64_t stride = grid.stride();
  if (grid.finest) {
    return body(
        [=](std::int64_t i) { return (value(i - 1) + value(i + 1)) + (value(i - stride) + value(i + stride)); });
  }
  const float* right = grid.right.data();
  const float* below = grid.below.data();
  return body([=](std::int64_t i) {
    return (right[i] * value(i + 1) + right[i - 1] * value(i - 1)) +
           (below[i] * value(i + stride) + below[i - stride] * value(i - stride));
  });
}

auto values(const std::vector<float>& x) {
  return [v = x.data()](std::int64_t i) { return v[i]; };
}

// out = x + kJacobi D^-1 (b - A x), for any x. D^-1 D x is x, outside too, where both are 0.
template <typename Value>
void smooth(const Grid& grid, Value x, std::vector<float>& out, int threads) {
  with_neighbours(grid, x, [&](auto neighbours) {
    const float* b = grid.b.data();
    const float* inverse = grid.inverse_diagonal.data();
    float* to = out.data();
    for_rows(grid, threads, [=](std::int64_t begin, std::int64_t end) {
      GPGAN_INDEPENDENT_LOOP
      for (std::int64_t i = begin; i < end; ++i) {
        to[i] = (1 - kJacobi) * x(i) + kJacobi * inverse[i] * (b[i] + neighbours(i));
      }
    });
  });
}

// grid.x = two steps of smoothing from 0. The first of them is only kJacobi D^-1 b, made where it is read.
void smooth_twice_from_zero(Grid& grid, int threads) {
  const float* b = grid.b.data();
  const float* inverse = grid.inverse_diagonal.data();
  smooth(
      grid, [=](std::int64_t i) { return kJacobi * inverse[i] * b[i]; }, grid.x, threads);
}

// coarse.b = the residual b - A x summed over 2 x 2 pixels, the transpose of the constant prolongation. A last row
// or column of an odd count stands alone: the row buffer's end stays 0.
void restrict_residual(const Grid& fine, Grid& coarse, int threads) {
  with_neighbours(fine, values(fine.x), [&](auto neighbours) {
    const float* x = fine.x.data();
    const float* b = fine.b.data();
    const float* diagonal = fine.diagonal.data();
    parallel_for(coarse.height, 8 * coarse.width, threads, [&](std::int64_t first, std::int64_t last) {
      std::vector<float> memory(static_cast<std::size_t>(2 * coarse.width));
      float* row = memory.data();
      for (std::int64_t y = first; y < last; ++y) {
        float* to = coarse.b.data() + coarse.at(y, 0);
        for (const std::int64_t fine_y : {2 * y, 2 * y + 1}) {
          const std::int64_t begin = fine.at(fine_y, 0);
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t i = 0; i < fine.width; ++i) {
            const std::int64_t at = begin + i;
            const float value = b[at] + neighbours(at) - diagonal[at] * x[at];  // apart, or g++ keeps a branch
            row[i] = diagonal[at] > 0 ? value : 0;
          }
          if (fine_y == 2 * y) {
            for (std::int64_t i = 0; i < coarse.width; ++i) to[i] = row[2 * i] + row[2 * i + 1];
          } else {
            for (std::int64_t i = 0; i < coarse.width; ++i) to[i] += row[2 * i] + row[2 * i + 1];
          }
          if (2 * y + 1 == fine.height) break;
        }
      }
    });
  });
}

// out += the coarse value over each pixel inside.
void add_prolongation(const Grid& coarse, const std::vector<float>& from, const Grid& fine, std::vector<float>& out,
                      int threads) {
  parallel_for(fine.height, fine.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      const float* row = from.data() + coarse.at(y / 2, 0);
      const float* diagonal = fine.diagonal.data() + fine.at(y, 0);
      float* to = out.data() + fine.at(y, 0);
      for (std::int64_t x = 0; x + 1 < fine.width; x += 2) {
        const float value = row[x / 2];
        to[x] += diagonal[x] > 0 ? value : 0;
        to[x + 1] += diagonal[x + 1] > 0 ? value : 0;
      }
      if (fine.width % 2 == 1 && diagonal[fine.width - 1] > 0) to[fine.width - 1] += row[fine.width / 2];
    }
  });
}

float dot(const float* a, const float* b, std::int64_t count) {
  // Partial sums, so that the loop is vector code without leave to reorder.
  constexpr std::int64_t kParts = 16;
  float sums[kParts] = {};
  std::int64_t i = 0;
  for (; i + kParts <= count; i += kParts) {
    for (std::int64_t k = 0; k < kParts; ++k) sums[k] += a[i + k] * b[i + k];
  }
  float total = 0;
  for (; i < count; ++i) total += a[i] * b[i];
  for (const float sum : sums) total += sum;
  return total;
}

class Membrane {
 public:
  // The grid is the bounding box of the mask, at (top, left).
  Membrane(const Planes& mask, std::int64_t top, std::int64_t left, Size box, int threads)
      : top_(top), left_(left), threads_(threads) {
    Grid& grid = levels_.emplace_back(box.height, box.width, true);
    for (std::int64_t y = 0; y < box.height; ++y) {
      const float* m = mask.row(y + top) + left;
      const int rows = (y + top > 0 ? 1 : 0) + (y + top + 1 < mask.size.height ? 1 : 0);
      for (std::int64_t x = 0; x < box.width; ++x) {
        const int columns = (x + left > 0 ? 1 : 0) + (x + left + 1 < mask.size.width ? 1 : 0);
        grid.diagonal[grid.at(y, x)] = m[x] > 0 ? static_cast<float>(rows + columns) : 0;
      }
    }
    grid.invert_diagonal();
    while (std::max(levels_.back().height, levels_.back().width) > kCoarsest)
      levels_.push_back(coarsen(levels_.back()));
    for (std::vector<float>* v : {&solution_, &right_side_, &direction_, &product_})
      v->assign(levels_.front().size(), 0.0F);
  }

  // One channel, in place: w is added to the difference inside.
  void solve(const Planes& difference, const Planes& mask) {
    Grid& grid = levels_.front();
    for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t width = mask.size.width;
      const std::int64_t y = begin / grid.stride() - 1 + top_;
      const float* d = difference.row(y);
      const float* m = mask.row(y);
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t x = i - begin + left_;
        float seam = 0;  // the sum of w = -D over the neighbours outside
        if (m[x] > 0) {
          if (x > 0 && !(m[x - 1] > 0)) seam -= d[x - 1];
          if (x + 1 < width && !(m[x + 1] > 0)) seam -= d[x + 1];
          if (y > 0 && !(m[x - width] > 0)) seam -= d[x - width];
          if (y + 1 < mask.size.height && !(m[x + width] > 0)) seam -= d[x + width];
        }
        right_side_[i] = seam;
        grid.b[i] = seam;
        solution_[i] = 0;
      }
    });
    // The residual that conjugate gradients update step by step drifts from the true one by float32 rounding, and
    // along a mask of length N that hangs on one end its inverse grows that by N^2: measure it anew, and go on from
    // there.
    conjugate_gradients(kFirstTolerance);
    for (int round = 0; round < kMaxRounds; ++round) {
      true_residual();
      if (conjugate_gradients(kTolerance) <= 2) break;
    }
    for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
      float* d = difference.row(begin / grid.stride() - 1 + top_) + left_;
      for (std::int64_t i = begin; i < end; ++i) d[i - begin] += solution_[i];  // 0 outside
    });
  }

 private:
  // Aggregates of 2 x 2 pixels. A sum of two fine edges stands for one coarse edge twice as long, hence the half: in
  // two dimensions a square grid's edges weigh the same at every scale.
  [[nodiscard]] static Grid coarsen(const Grid& fine) {
    Grid coarse((fine.height + 1) / 2, (fine.width + 1) / 2, false);
    const auto inside = [&](std::int64_t i) { return fine.diagonal[i] > 0; };
    const auto to_right = [&](std::int64_t i) {
      return fine.finest ? (inside(i) && inside(i + 1) ? 1.0F : 0.0F) : fine.right[i];
    };
    const auto to_below = [&](std::int64_t i) {
      return fine.finest ? (inside(i) && inside(i + fine.stride()) ? 1.0F : 0.0F) : fine.below[i];
    };
    for (std::int64_t y = 0; y < fine.height; ++y) {
      for (std::int64_t x = 0; x < fine.width; ++x) {
        const std::int64_t i = fine.at(y, x);
        const std::int64_t k = coarse.at(y / 2, x / 2);
        // An edge within the aggregate leaves its diagonal twice, once from either end.
        const float across = to_right(i);
        const float down = to_below(i);
        coarse.diagonal[k] += 0.5F * fine.diagonal[i];
        if (x % 2 == 0) {
          coarse.diagonal[k] -= across;
        } else {
          coarse.right[k] += 0.5F * across;
        }
        if (y % 2 == 0) {
          coarse.diagonal[k] -= down;
        } else {
          coarse.below[k] += 0.5F * down;
        }
      }
    }
    // All of these are small multiples of one power of two, so that the differences above are exact: an aggregate that
    // nothing holds has diagonal 0 and not a rounding error, and along a strip small ones are meant.
    coarse.invert_diagonal();
    return coarse;
  }

  // grid.b = right_side_ - A solution_, in double.
  void true_residual() {
    Grid& grid = levels_.front();
    for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
      const float* x = solution_.data();
      const std::int64_t stride = grid.stride();
      for (std::int64_t i = begin; i < end; ++i) {
        const double neighbours =
            (static_cast<double>(x[i - 1]) + x[i + 1]) + (static_cast<double>(x[i - stride]) + x[i + stride]);
        const double value = right_side_[i] + neighbours - static_cast<double>(grid.diagonal[i]) * x[i];
        grid.b[i] = grid.diagonal[i] > 0 ? static_cast<float>(value) : 0;
      }
    });
  }

  // Improves solution_, whose residual is the finest b, until a step changes little; returns how many steps that took.
  int conjugate_gradients(float tolerance) {
    Grid& grid = levels_.front();
    double old_product = 0;
    int step = 0;
    while (step < kMaxSteps) {
      ++step;
      cycle(0);
      const double product = sum_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
        return dot(grid.b.data() + begin, grid.x.data() + begin, end - begin);
      });
      if (!(product > 0)) break;
      const auto beta = static_cast<float>(step == 1 ? 0.0 : product / old_product);
      old_product = product;
      for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
        const float* z = grid.x.data();
        float* p = direction_.data();
        if (beta == 0) {
          std::copy(z + begin, z + end, p + begin);
        } else {
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t i = begin; i < end; ++i) p[i] = z[i] + beta * p[i];
        }
      });
      const double energy = with_neighbours(grid, values(direction_), [&](auto neighbours) {
        return sum_rows(grid, threads_, [&, neighbours](std::int64_t begin, std::int64_t end) {
          const float* p = direction_.data();
          const float* diagonal = grid.diagonal.data();
          float* q = product_.data();
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t i = begin; i < end; ++i) {
            const float value = diagonal[i] * p[i] - neighbours(i);
            q[i] = diagonal[i] > 0 ? value : 0;
          }
          return dot(p + begin, q + begin, end - begin);
        });
      });
      if (!(energy > 0)) break;
      const auto alpha = static_cast<float>(product / energy);
      std::vector<float> largest(static_cast<std::size_t>(grid.height));
      for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
        const float* p = direction_.data();
        const float* q = product_.data();
        float* x = solution_.data();
        float* r = grid.b.data();
        float most = 0;
        GPGAN_INDEPENDENT_LOOP
        for (std::int64_t i = begin; i < end; ++i) {
          x[i] += alpha * p[i];
          r[i] -= alpha * q[i];
        }
        for (std::int64_t i = begin; i < end; ++i) most = std::max(most, std::abs(p[i]));
        largest[static_cast<std::size_t>(begin / grid.stride() - 1)] = alpha * most;
      });
      if (*std::max_element(largest.begin(), largest.end()) < tolerance) break;
    }
    return step;
  }

  // grid.x = an approximate, symmetric inverse of A times grid.b: as many Jacobi steps after the coarse grid as before.
  void cycle(std::size_t level) {
    Grid& grid = levels_[level];
    smooth_twice_from_zero(grid, threads_);
    if (level + 1 < levels_.size()) {
      Grid& coarse = levels_[level + 1];
      restrict_residual(grid, coarse, threads_);
      cycle(level + 1);
      add_prolongation(coarse, coarse.x, grid, grid.x, threads_);
    } else {
      for (int i = 0; i < 8; ++i) smooth_twice(grid);
    }
    smooth_twice(grid);
  }

  void smooth_twice(Grid& grid) const {
    smooth(grid, values(grid.x), grid.r, threads_);
    smooth(grid, values(grid.r), grid.x, threads_);
  }

  std::int64_t top_, left_;
  int threads_;
  std::vector<Grid> levels_;  // finest first
  std::vector<float> solution_, right_side_, direction_, product_;
};

}  // namespace

void membrane(const Planes& difference, const Planes& mask, int threads) {
  const std::int64_t height = mask.size.height;
  const std::int64_t width = mask.size.width;
  std::int64_t top = height;
  std::int64_t bottom = 0;
  std::int64_t left = width;
  std::int64_t right = 0;
  bool everything = true;
  for (std::int64_t y = 0; y < height; ++y) {
    const float* m = mask.row(y);
    const auto inside = [](float value) { return value > 0; };
    const std::int64_t first = std::find_if(m, m + width, inside) - m;
    everything = everything && std::all_of(m, m + width, inside);
    if (first == width) continue;
    top = std::min(top, y);
    bottom = y + 1;
    left = std::min(left, first);
    std::int64_t last = width;
    while (!inside(m[last - 1])) --last;
    right = std::max(right, last);
  }
  // The image hangs together, so that only a region that is all of it has no boundary: w = 0.
  if (everything) return;
  if (top < bottom) {
    Membrane solver(mask, top, left, {bottom - top, right - left}, threads);
    for (std::int64_t c = 0; c < difference.channels; ++c) solver.solve(difference.channel(c), mask);
  }
  parallel_for(height, width * difference.channels, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = 0; c < difference.channels; ++c) {
      float* d = difference.channel(c).data;
      for (std::int64_t i = begin * width; i < end * width; ++i) d[i] = mask.data[i] > 0 ? d[i] : 0;
    }
  });
}

}  // namespace gpgan::cpu
