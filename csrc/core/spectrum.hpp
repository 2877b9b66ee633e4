// The spectra of the paper's operators in the DCT-II basis, and the closed form built on them. Always in
// double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <vector>

#include "gpgan/blend.hpp"

namespace gpgan::core {

// One axis of G (Eq. 7), centre first: normalised so that w[0] + 2 (w[1] + w[2] + ...) = 1. Radius 1 for
// sigma <= 0.5, ceil(3 sigma) above.
inline std::vector<double> gaussian_kernel(double sigma) {
  const auto radius = sigma <= 0.5 ? 1 : static_cast<std::int64_t>(std::ceil(3 * sigma));
  std::vector<double> kernel(static_cast<std::size_t>(radius) + 1);
  double sum = 0;
  for (std::size_t i = 0; i < kernel.size(); ++i) {
    const double x = static_cast<double>(i) / sigma;
    kernel[i] = std::exp(-0.5 * x * x);
    sum += i == 0 ? kernel[i] : 2 * kernel[i];
  }
  for (double& weight : kernel) weight /= sum;
  return kernel;
}

// a_k = 2 - 2 cos(pi k / N), in the form that keeps full relative precision near k = 0.
inline std::vector<double> laplacian_eigenvalues(std::int64_t n) {
  std::vector<double> a(static_cast<std::size_t>(n));
  for (std::size_t k = 0; k < a.size(); ++k) {
    const double s = std::sin(std::numbers::pi * static_cast<double>(k) / (2.0 * static_cast<double>(n)));
    a[k] = 4 * s * s;
  }
  return a;
}

// g_k: the kernel's cosine series at theta = pi k / N.
inline double gaussian_eigenvalue(double theta, const std::vector<double>& kernel) {
  double g = kernel[0];
  for (std::size_t i = 1; i < kernel.size(); ++i) g += 2 * kernel[i] * std::cos(theta * static_cast<double>(i));
  return g;
}

inline std::vector<double> gaussian_eigenvalues(std::int64_t n, const std::vector<double>& kernel) {
  std::vector<double> g(static_cast<std::size_t>(n));
  for (std::size_t k = 0; k < g.size(); ++k) {
    g[k] = gaussian_eigenvalue(std::numbers::pi * static_cast<double>(k) / static_cast<double>(n), kernel);
  }
  return g;
}

// The spectrum that divides: l^2 + lambda g^2 (Eq. 9) or l + lambda g (screened), l = a_k + a_l and g = g_k
// g_l.
struct Spectrum {
  Equation equation;
  double color_weight;
  std::vector<double> laplacian_rows, laplacian_columns;
  std::vector<double> gaussian_rows, gaussian_columns;

  Spectrum(Equation equation_, double color_weight_, double sigma, std::int64_t height, std::int64_t width)
      : equation(equation_),
        color_weight(color_weight_),
        laplacian_rows(laplacian_eigenvalues(height)),
        laplacian_columns(laplacian_eigenvalues(width)) {
    const std::vector<double> kernel = gaussian_kernel(sigma);
    gaussian_rows = gaussian_eigenvalues(height, kernel);
    gaussian_columns = gaussian_eigenvalues(width, kernel);
    require_positive();
  }

  [[nodiscard]] double operator()(std::size_t row, std::size_t column) const {
    const double l = laplacian_rows[row] + laplacian_columns[column];
    const double g = gaussian_rows[row] * gaussian_columns[column];
    return equation == Equation::kGaussianPoisson ? l * l + color_weight * g * g : l + color_weight * g;
  }

 private:
  // A truncated Gaussian's spectrum dips below zero, where a large lambda would make the screened form
  // singular. Eq. 9 has squares only: its l = 0 is at g = 1.
  void require_positive() const {
    if (equation != Equation::kScreened) return;
    const auto negative = [](double g) { return g < 0; };
    if (std::none_of(gaussian_rows.begin(), gaussian_rows.end(), negative) &&
        std::none_of(gaussian_columns.begin(), gaussian_columns.end(), negative)) {
      return;
    }
    double smallest = std::numeric_limits<double>::infinity();
    for (std::size_t k = 0; k < laplacian_rows.size(); ++k) {
      for (std::size_t l = 0; l < laplacian_columns.size(); ++l) smallest = std::min(smallest, (*this)(k, l));
    }
    if (!(smallest > 1e-3 * std::min(1.0, color_weight))) {
      throw InvalidArgument("color_weight", "a smaller value: at this sigma the screened equation is singular",
                            std::to_string(color_weight));
    }
  }
};

}  // namespace gpgan::core
