// The harmonic membrane: Laplace's equation on the pixels with mask > 0, by conjugate gradients
// preconditioned with one multigrid cycle. The conjugate gradients make it right for any mask, however
// ragged; the multigrid makes it need about ten steps for any size.
//
// A couples the pixels inside with one another; a neighbour outside adds to the diagonal, and its value, w =
// target - source = -difference, to the right-hand side.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"

namespace gpgan::cpu {
namespace {

constexpr int kMaxSteps = 200;
// Stop when a step changes no pixel by more than this; the steps shrink by a factor of 2 and more, so that
// about as much is left: a tenth of a level of 255 at the worst pixel, far less elsewhere.
constexpr float kTolerance = 4e-4F;
constexpr float kJacobi = 0.8F;  // damping; smooths every frequency of the upper half to 0.6 or less
constexpr std::int64_t kCoarsest = 4;

// A x = sum over neighbours of weight (x - neighbour), on a grid with a frame of one zero pixel around, so
// that no stencil needs a border case. Outside pixels have inverse diagonal 0, which keeps every vector at 0
// there.
struct Grid {
  std::int64_t height, width;  // without the frame
  std::vector<float> right;    // weight of the edge to (y, x + 1)
  std::vector<float> below;    // weight of the edge to (y + 1, x)
  std::vector<float> diagonal, inverse_diagonal;
  std::vector<float> x, b, r;  // of the multigrid cycle

  Grid(std::int64_t height_, std::int64_t width_) : height(height_), width(width_) {
    for (std::vector<float>* v : {&right, &below, &diagonal, &inverse_diagonal, &x, &b, &r}) v->assign(size(), 0.0F);
  }
  [[nodiscard]] std::int64_t stride() const { return width + 2; }
  [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>((height + 2) * (width + 2)); }
  [[nodiscard]] std::int64_t at(std::int64_t y, std::int64_t x_) const { return (y + 1) * stride() + x_ + 1; }

  // `anchor` is the weight with which a pixel hangs on the zero outside.
  void set_diagonal(const std::vector<float>& anchor) {
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t i = at(y, 0); i < at(y, width); ++i) {
        diagonal[i] = anchor[i] + right[i] + right[i - 1] + below[i] + below[i - stride()];
        inverse_diagonal[i] = diagonal[i] > 0 ? 1 / diagonal[i] : 0;
      }
    }
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
  parallel_for(grid.height, 2 * grid.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      rows[static_cast<std::size_t>(y)] = static_cast<double>(body(grid.at(y, 0), grid.at(y, grid.width)));
    }
  });
  double total = 0;
  for (const double row : rows) total += row;
  return total;
}

// (A x)_i without its diagonal term's x_i.
inline float off_diagonal(const float* x, const float* right, const float* below, std::int64_t stride, std::int64_t i) {
  return right[i] * x[i + 1] + right[i - 1] * x[i - 1] + below[i] * x[i + stride] + below[i - stride] * x[i - stride];
}

// out = x + kJacobi D^-1 (b - A x)
void smooth(const Grid& grid, const std::vector<float>& x, std::vector<float>& out, int threads) {
  for_rows(grid, threads, [&](std::int64_t begin, std::int64_t end) {
    const float* __restrict xs = x.data();
    const float* right = grid.right.data();
    const float* below = grid.below.data();
    float* __restrict to = out.data();
    for (std::int64_t i = begin; i < end; ++i) {
      const float residual = grid.b[i] - grid.diagonal[i] * xs[i] + off_diagonal(xs, right, below, grid.stride(), i);
      to[i] = xs[i] + kJacobi * grid.inverse_diagonal[i] * residual;
    }
  });
}

// b of the coarse grid: the residual summed over 2 x 2 pixels, the transpose of the constant prolongation.
void restrict_residual(const Grid& fine, Grid& coarse, int threads) {
  parallel_for(coarse.height, 8 * coarse.width, threads, [&](std::int64_t begin, std::int64_t end) {
    const float* xs = fine.x.data();
    const float* right = fine.right.data();
    const float* below = fine.below.data();
    const auto residual = [&](std::int64_t i) {
      return fine.b[i] - fine.diagonal[i] * xs[i] + off_diagonal(xs, right, below, fine.stride(), i);
    };
    for (std::int64_t y = begin; y < end; ++y) {
      const bool two = 2 * y + 1 < fine.height;
      for (std::int64_t x = 0; x < coarse.width; ++x) {
        const std::int64_t i = fine.at(2 * y, 2 * x);
        // An odd width's last column is followed by the frame, where everything is zero.
        float sum = residual(i) + (2 * x + 1 < fine.width ? residual(i + 1) : 0);
        if (two) sum += residual(i + fine.stride()) + (2 * x + 1 < fine.width ? residual(i + fine.stride() + 1) : 0);
        coarse.b[coarse.at(y, x)] = sum;
      }
    }
  });
}

void add_prolongation(const Grid& coarse, Grid& fine, int threads) {
  parallel_for(fine.height, fine.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      for (std::int64_t x = 0; x < fine.width; ++x) {
        const std::int64_t i = fine.at(y, x);
        if (fine.diagonal[i] > 0) fine.x[i] += coarse.x[coarse.at(y / 2, x / 2)];
      }
    }
  });
}

// Aggregates of 2 x 2 pixels. A sum of two fine edges stands for one coarse edge twice as long, hence the
// half: in two dimensions a square grid's edges weigh the same at every scale.
Grid coarsen(const Grid& fine, const std::vector<float>& anchor, std::vector<float>& coarse_anchor) {
  Grid coarse((fine.height + 1) / 2, (fine.width + 1) / 2);
  coarse_anchor.assign(coarse.size(), 0.0F);
  for (std::int64_t y = 0; y < fine.height; ++y) {
    for (std::int64_t x = 0; x < fine.width; ++x) {
      const std::int64_t i = fine.at(y, x);
      const std::int64_t k = coarse.at(y / 2, x / 2);
      coarse_anchor[k] += 0.5F * anchor[i];
      if (x % 2 == 1) coarse.right[k] += 0.5F * fine.right[i];
      if (y % 2 == 1) coarse.below[k] += 0.5F * fine.below[i];
    }
  }
  coarse.set_diagonal(coarse_anchor);
  return coarse;
}

class Membrane {
 public:
  // The grid is the bounding box of the mask, at (top, left).
  Membrane(const Planes& mask, std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width,
           int threads)
      : top_(top), left_(left), threads_(threads) {
    Grid& grid = levels_.emplace_back(height, width);
    std::vector<float> anchor(grid.size(), 0.0F);
    const auto inside = [&](std::int64_t y, std::int64_t x) { return mask.row(y + top)[x + left] > 0; };
    const auto in_image = [&](std::int64_t y, std::int64_t x) {
      return y + top >= 0 && y + top < mask.size.height && x + left >= 0 && x + left < mask.size.width;
    };
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        if (!inside(y, x)) continue;
        const std::int64_t i = grid.at(y, x);
        for (const auto& [dy, dx] : {std::pair{0, 1}, {1, 0}, {0, -1}, {-1, 0}}) {
          if (!in_image(y + dy, x + dx)) continue;
          if (!inside(y + dy, x + dx)) {
            anchor[i] += 1;
          } else if (dx == 1) {
            grid.right[i] = 1;
          } else if (dy == 1) {
            grid.below[i] = 1;
          }
        }
      }
    }
    grid.set_diagonal(anchor);
    while (std::max(levels_.back().height, levels_.back().width) > kCoarsest) {
      std::vector<float> coarse_anchor;
      levels_.push_back(coarsen(levels_.back(), anchor, coarse_anchor));
      anchor = std::move(coarse_anchor);
    }
    for (std::vector<float>* v : {&solution_, &residual_, &direction_, &product_}) {
      v->assign(levels_.front().size(), 0.0F);
    }
  }

  // One channel, in place: w is added to the difference inside.
  void solve(const Planes& difference, const Planes& mask) {
    Grid& grid = levels_.front();
    for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t y = begin / grid.stride() - 1 + top_;
      const float* d = difference.row(y);
      const float* m = mask.row(y);
      const std::int64_t height = mask.size.height;
      const std::int64_t width = mask.size.width;
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t x = i - begin + left_;
        float seam = 0;  // the sum of w = -D over the neighbours outside
        if (m[x] > 0) {
          if (x > 0 && !(m[x - 1] > 0)) seam -= d[x - 1];
          if (x + 1 < width && !(m[x + 1] > 0)) seam -= d[x + 1];
          if (y > 0 && !(m[x - width] > 0)) seam -= d[x - width];
          if (y + 1 < height && !(m[x + width] > 0)) seam -= d[x + width];
        }
        residual_[i] = seam;
        solution_[i] = 0;
        direction_[i] = 0;
      }
    });
    conjugate_gradients();
    for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
      float* d = difference.row(begin / grid.stride() - 1 + top_) + left_;
      for (std::int64_t i = begin; i < end; ++i) d[i - begin] += solution_[i];  // 0 outside
    });
  }

 private:
  static float apply(const Grid& grid, const std::vector<float>& x, std::int64_t i) {
    return grid.diagonal[i] * x[i] - off_diagonal(x.data(), grid.right.data(), grid.below.data(), grid.stride(), i);
  }

  void conjugate_gradients() {
    Grid& grid = levels_.front();
    double old_product = 0;
    for (int step = 0; step < kMaxSteps; ++step) {
      std::copy(residual_.begin(), residual_.end(), grid.b.begin());
      cycle(0);
      const double product = sum_rows(
          grid, threads_, [&](std::int64_t begin, std::int64_t end) { return dot(residual_, grid.x, begin, end); });
      if (!(product > 0)) break;
      const auto beta = static_cast<float>(step == 0 ? 0.0 : product / old_product);
      old_product = product;
      for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) direction_[i] = grid.x[i] + beta * direction_[i];
      });
      const double energy = sum_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) product_[i] = apply(grid, direction_, i);
        return dot(direction_, product_, begin, end);
      });
      if (!(energy > 0)) break;
      const auto alpha = static_cast<float>(product / energy);
      std::vector<float> largest(static_cast<std::size_t>(grid.height));
      for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
        float most = 0;
        for (std::int64_t i = begin; i < end; ++i) {
          const float change = alpha * direction_[i];
          solution_[i] += change;
          residual_[i] -= alpha * product_[i];
          most = std::max(most, std::abs(change));
        }
        largest[static_cast<std::size_t>(begin / grid.stride() - 1)] = most;
      });
      if (*std::max_element(largest.begin(), largest.end()) < kTolerance) break;
    }
  }

  static float dot(const std::vector<float>& a, const std::vector<float>& b, std::int64_t begin, std::int64_t end) {
    // Partial sums, so that the loop is vector code without leave to reorder.
    constexpr std::int64_t kParts = 16;
    float sums[kParts] = {};
    std::int64_t i = begin;
    for (; i + kParts <= end; i += kParts) {
      for (std::int64_t k = 0; k < kParts; ++k) sums[k] += a[i + k] * b[i + k];
    }
    float total = 0;
    for (; i < end; ++i) total += a[i] * b[i];
    for (const float sum : sums) total += sum;
    return total;
  }

  // grid.x = an approximate, symmetric inverse of A times grid.b: as many Jacobi steps after the coarse grid
  // as before.
  void cycle(std::size_t level) {
    Grid& grid = levels_[level];
    for_rows(grid, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) grid.r[i] = kJacobi * grid.inverse_diagonal[i] * grid.b[i];
    });
    smooth(grid, grid.r, grid.x, threads_);
    if (level + 1 < levels_.size()) {
      Grid& coarse = levels_[level + 1];
      restrict_residual(grid, coarse, threads_);
      cycle(level + 1);
      add_prolongation(coarse, grid, threads_);
    } else {
      for (int i = 0; i < 8; ++i) {
        smooth(grid, grid.x, grid.r, threads_);
        smooth(grid, grid.r, grid.x, threads_);
      }
    }
    smooth(grid, grid.x, grid.r, threads_);
    smooth(grid, grid.r, grid.x, threads_);
  }

  std::int64_t top_, left_;
  int threads_;
  std::vector<Grid> levels_;
  std::vector<float> solution_, residual_, direction_, product_;
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
    for (std::int64_t x = 0; x < width; ++x) {
      if (!(m[x] > 0)) {
        everything = false;
        continue;
      }
      top = std::min(top, y);
      bottom = y + 1;
      left = std::min(left, x);
      right = std::max(right, x + 1);
    }
  }
  // The image hangs together, so that only a region that is all of it has no boundary: w = 0.
  if (everything) return;
  if (top < bottom) {
    Membrane solver(mask, top, left, bottom - top, right - left, threads);
    for (std::int64_t c = 0; c < difference.channels; ++c) solver.solve(difference.channel(c), mask);
  }
  for (std::int64_t c = 0; c < difference.channels; ++c) {
    float* d = difference.channel(c).data;
    for (std::int64_t i = 0; i < mask.floats(); ++i) {
      if (!(mask.data[i] > 0)) d[i] = 0;
    }
  }
}

}  // namespace gpgan::cpu
