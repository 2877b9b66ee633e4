// The transforms against their definitions, in double.
#include <doctest/doctest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "core/spectrum.hpp"
#include "cpu/dct.hpp"
#include "support.hpp"

using namespace gpgan;
using gpgan::cpu::Dct;
using gpgan::cpu::kBatch;

namespace {

// scipy.fft.dct types 2 and 3, term by term.
std::vector<double> naive(const std::vector<double>& x, bool inverse) {
  const auto n = static_cast<double>(x.size());
  std::vector<double> out(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double at = inverse ? static_cast<double>(i) * (2.0 * static_cast<double>(k) + 1)
                                : static_cast<double>(k) * (2.0 * static_cast<double>(i) + 1);
      const double weight = inverse && i == 0 ? 1 : 2;
      sum += weight * x[i] * std::cos(std::numbers::pi * at / (2 * n));
    }
    out[k] = sum;
  }
  return out;
}

}  // namespace

TEST_CASE("dct is the definition for every length") {
  for (const std::int64_t length : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 25, 31, 45, 64, 97, 121}) {
    CAPTURE(length);
    const Dct plan(length);
    REQUIRE(plan.length() == length);
    for (const bool inverse : {false, true}) {
      std::vector<float> batch = testing::noise(length * kBatch, static_cast<unsigned>(length));
      const std::vector<float> before = batch;
      std::vector<float> scratch(static_cast<std::size_t>(plan.scratch_floats()),
                                 1e30F);  // what is there must not matter
      inverse ? plan.inverse(batch.data(), scratch.data()) : plan.forward(batch.data(), scratch.data());
      for (std::int64_t lane = 0; lane < kBatch; ++lane) {
        std::vector<double> row;
        for (std::int64_t i = 0; i < length; ++i) row.push_back(before[static_cast<std::size_t>(i * kBatch + lane)]);
        const std::vector<double> expected = naive(row, inverse);
        for (std::int64_t i = 0; i < length; ++i) {
          // Values up to 2 N; rounding by log2(N) stages.
          const double tolerance = 1e-6 * static_cast<double>(length);
          const double off = batch[static_cast<std::size_t>(i * kBatch + lane)] - expected[static_cast<std::size_t>(i)];
          if (!(std::abs(off) <= tolerance)) FAIL_CHECK("lane ", lane, ", element ", i, ": off by ", off);
        }
      }
    }
  }
}

TEST_CASE("dct inverse undoes forward") {
  for (const std::int64_t length : {1, 2, 7, 60, 127, 480, 641}) {
    const Dct plan(length);
    std::vector<float> batch = testing::noise(length * kBatch, 3);
    const std::vector<float> before = batch;
    std::vector<float> scratch(static_cast<std::size_t>(plan.scratch_floats()));
    plan.forward(batch.data(), scratch.data());
    plan.inverse(batch.data(), scratch.data());
    for (float& x : batch) x /= 2.0F * static_cast<float>(length);
    CHECK(testing::largest_difference(batch, before) < 3e-6F);
  }
}

TEST_CASE("fft lengths are products of 2, 3 and 5") {
  for (const std::int64_t good : {1, 2, 3, 4, 5, 6, 30, 64, 1000, 2160, 3840}) CHECK(cpu::Fft::has_length(good));
  for (const std::int64_t bad : {7, 11, 14, 49, 121, 641}) CHECK_FALSE(cpu::Fft::has_length(bad));
}

TEST_CASE("eigenvalues are those of the stencils") {
  // L applied to a cosine of the basis gives its eigenvalue times the cosine.
  const std::vector<double> a = core::laplacian_eigenvalues(9);
  const std::vector<double> kernel = core::gaussian_kernel(1.3);
  const std::vector<double> g = core::gaussian_eigenvalues(9, kernel);
  for (int k = 0; k < 9; ++k) {
    const auto basis = [&](int i) { return std::cos(std::numbers::pi * k * (2 * i + 1) / 18.0); };
    for (int i = 0; i < 9; ++i) {
      CHECK(2 * basis(i) - basis(i - 1) - basis(i + 1) ==
            doctest::Approx(a[static_cast<std::size_t>(k)] * basis(i)).epsilon(1e-9));
      double sum = kernel[0] * basis(i);
      for (int j = 1; j < static_cast<int>(kernel.size()); ++j)
        sum += kernel[static_cast<std::size_t>(j)] * (basis(i - j) + basis(i + j));
      CHECK(sum == doctest::Approx(g[static_cast<std::size_t>(k)] * basis(i)).epsilon(1e-9));
    }
  }
}

TEST_CASE("gaussian_kernel has radius 1 up to sigma 0.5 and three sigma above, and sums to one") {
  const auto check = [](double sigma, std::size_t taps) {
    const std::vector<double> kernel = core::gaussian_kernel(sigma);
    CHECK(kernel.size() == taps);
    double sum = kernel[0];
    for (std::size_t i = 1; i < kernel.size(); ++i) sum += 2 * kernel[i];
    CHECK(sum == doctest::Approx(1));
  };
  check(1e-9, 2);
  check(0.5, 2);
  check(0.51, 3);
  check(1.0, 4);
  check(1000, 3001);
}
