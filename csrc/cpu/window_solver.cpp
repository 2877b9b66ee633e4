#include "cpu/window_solver.hpp"

#include <algorithm>
#include <cmath>
#include <complex>

#include "core/spectrum.hpp"
#include "cpu/border.hpp"
#include "cpu/simd.hpp"
#include "cpu/transpose.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

// The factors are constant once they change by less than this of themselves.
constexpr double kConverged = 1e-8;
constexpr std::int64_t kMaxSteps = 512;
constexpr double kMinColorWeight = 0.05;

// alpha + beta l + gamma l^2 as a stencil (second, next, centre, next, second), with l = (-1, 2, -1).
struct Stencil {
  double centre, next, second;
};

Stencil stencil(const LocalOperator& local, double a) {
  const double w = local.side_tap;
  const double g = 1 - w * a;
  const double weight = local.color_weight * g * g;
  const double alpha = a * a + weight;
  const double beta = 2 * a - 2 * weight * w;
  const double gamma = 1 + weight * w * w;
  return {alpha + 2 * beta + 6 * gamma, -beta - 4 * gamma, gamma};
}

// The matrix's lower band at row i of n, the mirrored neighbours folded in.
struct BandRow {
  double diagonal = 0, lower1 = 0, lower2 = 0;
};

BandRow band_row(const Stencil& s, std::int64_t i, std::int64_t n) {
  BandRow row;
  const auto add = [&](std::int64_t j, double value) {
    const std::int64_t column = reflect(j, n);
    if (column == i) row.diagonal += value;
    if (column == i - 1) row.lower1 += value;
    if (column == i - 2) row.lower2 += value;
  };
  for (const std::int64_t side : {-1, 1}) {
    add(i + side, s.next);
    add(i + 2 * side, s.second);
  }
  row.diagonal += s.centre;
  return row;
}

// Row i of L D L^T from the two rows before it.
struct Factor {
  double diagonal = 1, lower1 = 0, lower2 = 0;
};

Factor next_factor(const BandRow& row, const Factor& one, const Factor& two) {
  Factor f;
  f.lower2 = row.lower2 / two.diagonal;
  f.lower1 = (row.lower1 - f.lower2 * two.diagonal * one.lower1) / one.diagonal;
  f.diagonal = row.diagonal - f.lower2 * f.lower2 * two.diagonal - f.lower1 * f.lower1 * one.diagonal;
  return f;
}

}  // namespace

LocalOperator::LocalOperator(double color_weight_, double sigma)
    : color_weight(color_weight_), side_tap(core::gaussian_kernel(sigma)[1]) {}

bool LocalOperator::applies(Equation equation, double color_weight, double sigma) {
  return equation == Equation::kGaussianPoisson && core::gaussian_kernel(sigma).size() == 2 &&
         color_weight >= kMinColorWeight;
}

std::int64_t LocalOperator::halo(double tolerance) const {
  // The inverse of one row is a sum of z^|i| over the two roots z inside the unit circle, those of z + 1/z = 2 - l
  // where alpha + beta l + gamma l^2 = 0.
  double slowest = 0;
  for (int i = 0; i <= 64; ++i) {
    const Stencil s = stencil(*this, i / 16.0);
    const double gamma = s.second;
    const double beta = -s.next - 4 * gamma;
    const double alpha = s.centre - 2 * beta - 6 * gamma;
    const std::complex<double> root = std::sqrt(std::complex<double>(beta * beta - 4 * alpha * gamma));
    for (const double sign : {-1.0, 1.0}) {
      const std::complex<double> half = 1.0 - (-beta + sign * root) / (4 * gamma);
      const std::complex<double> z = half + std::sqrt(half * half - 1.0);
      slowest = std::max(slowest, std::min(std::abs(z), 1 / std::abs(z)));
    }
  }
  return static_cast<std::int64_t>(std::ceil(std::log(tolerance) / std::log(slowest)));
}

WindowSolver::WindowSolver(const LocalOperator& local, std::int64_t rows) : dct_(rows) {
  const std::vector<double> eigenvalues = core::laplacian_eigenvalues(rows);
  std::vector<std::vector<Factor>> factors;
  steps_ = 4;  // from here on the matrix's rows are alike
  for (const double a : eigenvalues) {
    const Stencil s = stencil(local, a);
    centre_.push_back(s.centre);
    next_.push_back(s.next);
    second_.push_back(s.second);
    std::vector<Factor>& f = factors.emplace_back();
    Factor one;
    Factor two;
    for (std::int64_t i = 0; i < kMaxSteps; ++i) {
      f.push_back(next_factor(band_row(s, i, 2 * kMaxSteps), one, two));
      const bool constant = i >= 4 && std::abs(f.back().diagonal - one.diagonal) <= kConverged * one.diagonal &&
                            std::abs(one.diagonal - two.diagonal) <= kConverged * one.diagonal;
      two = one;
      one = f.back();
      if (constant) break;
    }
    steps_ = std::max(steps_, static_cast<std::int64_t>(f.size()));
  }
  const std::int64_t blocks = (rows + kBatch - 1) / kBatch;
  for (std::vector<float>* table : {&lower1_, &lower2_, &inverse_diagonal_}) {
    table->assign(static_cast<std::size_t>(blocks * steps_ * kBatch), 0.0F);
  }
  for (std::int64_t k = 0; k < rows; ++k) {
    const std::vector<Factor>& f = factors[static_cast<std::size_t>(k)];
    for (std::int64_t i = 0; i < steps_; ++i) {
      const Factor& factor = f[static_cast<std::size_t>(std::min<std::int64_t>(i, std::ssize(f) - 1))];
      const auto at = static_cast<std::size_t>((k / kBatch * steps_ + i) * kBatch + k % kBatch);
      lower1_[at] = static_cast<float>(factor.lower1);
      lower2_[at] = static_cast<float>(factor.lower2);
      inverse_diagonal_[at] = static_cast<float>(1 / factor.diagonal);
    }
  }
}

std::int64_t WindowSolver::scratch_floats(std::int64_t columns) const {
  const std::int64_t padded = (columns + kBatch - 1) / kBatch * kBatch;
  return std::max(dct_.scratch_floats(), padded * kBatch);
}

void WindowSolver::solve(float* chunks, std::int64_t columns, float* scratch) const {
  const std::int64_t count = (columns + kBatch - 1) / kBatch;
  const std::int64_t floats = rows() * kBatch;
  for (std::int64_t i = 0; i < count; ++i) dct_.forward(chunks + i * floats, scratch);
  for (std::int64_t k = 0; k < rows(); k += kBatch) solve_rows(chunks, columns, k, scratch);
  for (std::int64_t i = 0; i < count; ++i) dct_.inverse(chunks + i * floats, scratch);
}

// The systems of kBatch frequencies from `frequency` on, a vector lane each.
void WindowSolver::solve_rows(float* chunks, std::int64_t columns, std::int64_t frequency, float* scratch) const {
  const std::int64_t lanes = std::min(kBatch, rows() - frequency);
  const float* lower1 = lower1_.data() + frequency * steps_;
  const float* lower2 = lower2_.data() + frequency * steps_;
  const float* inverse = inverse_diagonal_.data() + frequency * steps_;
  const V scale = broadcast(1.0F / (2.0F * static_cast<float>(rows())));  // the transforms are unnormalised

  // The last column sees the mirror: its factors, and for windows of few columns everyone's, are made here.
  constexpr std::int64_t kFew = 4;
  alignas(64) float few1[kFew * kBatch] = {};
  alignas(64) float few2[kFew * kBatch] = {};
  alignas(64) float few_inverse[kFew * kBatch] = {};
  const std::int64_t first_own = columns <= kFew ? 0 : columns - 1;
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    const auto k = static_cast<std::size_t>(frequency + lane);
    const Stencil s{centre_[k], next_[k], second_[k]};
    Factor one;
    Factor two;
    if (first_own > 0) {
      const auto table = [&](std::int64_t i) {
        const std::int64_t at = std::min(i, steps_ - 1) * kBatch + lane;
        return Factor{1.0 / static_cast<double>(inverse[at]), static_cast<double>(lower1[at]),
                      static_cast<double>(lower2[at])};
      };
      one = table(columns - 2);
      two = table(columns - 3);
    }
    for (std::int64_t i = first_own; i < columns; ++i) {
      const Factor f = next_factor(band_row(s, i, columns), one, two);
      few1[(i - first_own) * kBatch + lane] = static_cast<float>(f.lower1);
      few2[(i - first_own) * kBatch + lane] = static_cast<float>(f.lower2);
      few_inverse[(i - first_own) * kBatch + lane] = static_cast<float>(1 / f.diagonal);
      two = one;
      one = f;
    }
  }
  const auto factor = [&](const float* table, const float* few, std::int64_t i) {
    return i >= first_own ? load(few + (i - first_own) * kBatch) : load(table + std::min(i, steps_ - 1) * kBatch);
  };

  // Down: z_i = b_i - l1_i z_(i-1) - l2_i z_(i-2). In `scratch`, a column's frequencies lie side by side.
  V z1 = broadcast(0);
  V z2 = z1;
  for (std::int64_t x = 0; x < columns; x += kBatch) {
    const float* block = chunks + x * rows() + frequency * kBatch;
    float* to = scratch + x * kBatch;
    transpose(block, kBatch, lanes, kBatch, to, kBatch);  // lanes left over keep what they had, by themselves
    const std::int64_t end = std::min(x + kBatch, columns);
    std::int64_t i = x;
    for (; i < std::min({end, steps_, first_own}); ++i) {
      const V z = load(scratch + i * kBatch) - factor(lower2, few2, i) * z2 - factor(lower1, few1, i) * z1;
      store(scratch + i * kBatch, z);
      z2 = z1;
      z1 = z;
    }
    if (i < std::min(end, first_own)) {
      const V l1 = load(lower1 + (steps_ - 1) * kBatch);
      const V l2 = load(lower2 + (steps_ - 1) * kBatch);
      for (; i < std::min(end, first_own); ++i) {
        const V z = load(scratch + i * kBatch) - l2 * z2 - l1 * z1;
        store(scratch + i * kBatch, z);
        z2 = z1;
        z1 = z;
      }
    }
    for (; i < end; ++i) {
      const V z = load(scratch + i * kBatch) - factor(lower2, few2, i) * z2 - factor(lower1, few1, i) * z1;
      store(scratch + i * kBatch, z);
      z2 = z1;
      z1 = z;
    }
  }

  // And up: x_i = z_i / d_i - l1_(i+1) x_(i+1) - l2_(i+2) x_(i+2).
  V x1 = broadcast(0);
  V x2 = x1;
  V up1 = x1;  // l1_(i+1)
  V up2 = x1;  // l2_(i+2)
  V up2_next = x1;
  for (std::int64_t x = (columns - 1) / kBatch * kBatch; x >= 0; x -= kBatch) {
    float* block = chunks + x * rows() + frequency * kBatch;
    std::int64_t i = std::min(x + kBatch, columns) - 1;
    const std::int64_t constant_from = std::max(x, steps_ - 1);  // all factors up to i + 2 are the tables' last
    const auto general_step = [&] {
      const V value = load(scratch + i * kBatch) * factor(inverse, few_inverse, i) * scale - up1 * x1 - up2 * x2;
      store(scratch + i * kBatch, value);
      x2 = x1;
      x1 = value;
      up2 = up2_next;
      up1 = factor(lower1, few1, i);
      up2_next = factor(lower2, few2, i);
    };
    for (; i >= x && i + 2 >= first_own; --i) general_step();
    if (i >= constant_from) {
      const V l1 = load(lower1 + (steps_ - 1) * kBatch);
      const V l2 = load(lower2 + (steps_ - 1) * kBatch);
      const V d = load(inverse + (steps_ - 1) * kBatch) * scale;
      for (; i >= constant_from; --i) {
        const V value = load(scratch + i * kBatch) * d - l1 * x1 - l2 * x2;
        store(scratch + i * kBatch, value);
        x2 = x1;
        x1 = value;
      }
      up1 = l1;
      up2 = l2;
      up2_next = l2;
    }
    for (; i >= x; --i) general_step();
    transpose(scratch + x * kBatch, kBatch, kBatch, lanes, block, kBatch);
  }
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
