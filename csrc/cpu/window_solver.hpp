// The paper's equation where it is local: its inverse on a window of the image instead of the whole of it.
//
// With a 3-tap Gaussian (sigma <= 0.5) the operator of Eq. 9, L^2 + lambda G^2, has an inverse that decays by a
// constant factor a pixel: half at lambda = 1. A window with a halo of some 20 pixels is then exact to float32's
// tolerance, and everything about it stays in the cache. Within a window, a cosine transform along the columns leaves,
// for each vertical frequency, a pentadiagonal system along the rows: an L D L^T recursion there and back.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.hpp"
#include "cpu/dct.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// One axis of the operator, L^2 + lambda G^2 with G = 1 - w L of one axis: alpha + beta l + gamma l^2 for an eigenvalue
// a of the other axis' Laplacian.
struct LocalOperator {
  double color_weight;
  double side_tap;  // w, the outer tap of the 3-tap Gaussian

  LocalOperator(double color_weight_, double sigma);

  // Pixels after which the inverse's response is below `tolerance` of itself.
  [[nodiscard]] std::int64_t halo(double tolerance) const;
  // Whether windows pay and float32 bears it: not for a Gaussian of more taps, the screened equation, or a lambda so
  // small that the inverse spreads over the whole image and amplifies rounding by 1 / lambda.
  static bool applies(Equation equation, double color_weight, double sigma);
};

// A window is stored as chunks of kBatch columns, each `rows` x kBatch floats in order: chunk(x / kBatch)[y * kBatch +
// x % kBatch]. Borders of the window are half-sample symmetric, so that a window flush with the image's border is right
// there.
class WindowSolver {
 public:
  WindowSolver(const LocalOperator& local, std::int64_t rows);

  [[nodiscard]] std::int64_t rows() const { return dct_.length(); }
  [[nodiscard]] std::int64_t scratch_floats(std::int64_t columns) const;

  // (L^2 + lambda G^2)^-1 in place on a window of rows() x columns. The last chunk is whole: what lies beyond `columns`
  // must be 0, and is anything afterwards.
  void solve(float* chunks, std::int64_t columns, float* scratch) const;

 private:
  void solve_rows(float* chunks, std::int64_t columns, std::int64_t frequency, float* scratch) const;

  Dct dct_;
  std::int64_t steps_;  // rows of the tables: after so many pixels the factors are constant
  // Of L D L^T, for step i and frequency k at [(k / kBatch * steps_ + i) * kBatch + k % kBatch].
  std::vector<float> lower1_, lower2_, inverse_diagonal_;
  // The matrix's entries a frequency, for the last column's factors and for windows of few columns.
  std::vector<double> centre_, next_, second_;
};

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
