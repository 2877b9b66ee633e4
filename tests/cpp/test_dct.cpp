// The transforms against their definitions, in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <vector>

#include "core/spectrum.hpp"
#include "cpu/dct.hpp"
#include "support.hpp"

using namespace gpgan;
using gpgan::cpu::Dct;
using gpgan::cpu::kBatch;

namespace {

// scipy.fft.dct types 2 and 3, term by term; cosines[i] = cos(pi i / 2N).
std::vector<double> naive(const std::vector<double>& x, const std::vector<double>& cosines, bool inverse) {
  std::vector<double> out(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t at = inverse ? i * (2 * k + 1) : k * (2 * i + 1);
      out[k] += (inverse && i == 0 ? 1 : 2) * x[i] * cosines[at % cosines.size()];
    }
  }
  return out;
}

}  // namespace

TEST_CASE("dct is the definition for every length") {
  // Every radix alone, and with the others inside and outside; 289 and 2 * 191 are Bluestein's, odd and even.
  std::vector<std::int64_t> lengths(200);
  std::iota(lengths.begin(), lengths.end(), 1);
  lengths.insert(lengths.end(), {256, 289, 320, 382, 384, 507, 512, 726, 1001, 1040});
  for (const std::int64_t length : lengths) {
    CAPTURE(length);
    const Dct plan(length);
    REQUIRE(plan.length() == length);
    std::vector<double> cosines(static_cast<std::size_t>(4 * length));
    for (std::size_t i = 0; i < cosines.size(); ++i) {
      cosines[i] = std::cos(std::numbers::pi * static_cast<double>(i) / (2 * static_cast<double>(length)));
    }
    for (const bool inverse : {false, true}) {
      std::vector<float> batch = testing::noise(length * kBatch, static_cast<unsigned>(length));
      const std::vector<float> before = batch;
      // What is there must not matter, nor where it is.
      std::vector<float> scratch(static_cast<std::size_t>(plan.scratch_floats() + 1), 1e30F);
      inverse ? plan.inverse(batch.data(), scratch.data() + 1) : plan.forward(batch.data(), scratch.data() + 1);
      for (const std::int64_t lane : {0, 3, 7, 8, 12, 15}) {
        std::vector<double> row;
        for (std::int64_t i = 0; i < length; ++i) row.push_back(before[static_cast<std::size_t>(i * kBatch + lane)]);
        const std::vector<double> expected = naive(row, cosines, inverse);
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

TEST_CASE("dct_rows takes any number of rows and any width, on both sides of a tile") {
  for (const std::int64_t height : {1, 15, 16, 17, 33}) {
    for (const std::int64_t width : {1, 4, 15, 16, 17, 31, 32, 48, 53, 100}) {
      CAPTURE(height);
      CAPTURE(width);
      const Dct plan(width);
      for (const bool inverse : {false, true}) {
        std::vector<float> image = testing::noise(height * width, static_cast<unsigned>(height + width));
        std::vector<float> batch(static_cast<std::size_t>(width * kBatch));
        std::vector<float> expected(image.size());
        std::vector<float> scratch(static_cast<std::size_t>(plan.scratch_floats()));
        for (std::int64_t y = 0; y < height; ++y) {
          std::fill(batch.begin(), batch.end(), 0.0F);
          for (std::int64_t x = 0; x < width; ++x) {
            batch[static_cast<std::size_t>(x * kBatch + 5)] = image[static_cast<std::size_t>(y * width + x)];
          }
          inverse ? plan.inverse(batch.data(), scratch.data()) : plan.forward(batch.data(), scratch.data());
          for (std::int64_t x = 0; x < width; ++x) {
            expected[static_cast<std::size_t>(y * width + x)] = batch[static_cast<std::size_t>(x * kBatch + 5)];
          }
        }
        std::vector<float> memory;
        cpu::dct_rows(plan, {image.data(), 1, {height, width}}, inverse, 1, memory);
        CHECK(testing::largest_difference(image, expected) < 1e-6F * static_cast<float>(width));
      }
    }
  }
}

TEST_CASE("dct_rows keeps its memory") {
  const Dct plan(100);
  std::vector<float> image = testing::noise(64 * 100, 1);
  std::vector<float> memory;
  cpu::dct_rows(plan, {image.data(), 1, {64, 100}}, false, 2, memory);
  const float* kept = memory.data();
  cpu::dct_rows(plan, {image.data(), 1, {64, 100}}, true, 2, memory);
  cpu::dct_rows(plan, {image.data(), 1, {3, 100}}, true, 1, memory);
  CHECK(memory.data() == kept);
}

TEST_CASE("dct inverse undoes forward") {
  for (const std::int64_t length : {1, 2, 7, 60, 127, 480, 641, 1920, 1998, 1999, 4096}) {
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

TEST_CASE("fft lengths are products of 2, 3, 5, 7, 11 and 13") {
  for (const std::int64_t good : {1, 2, 3, 4, 5, 6, 7, 11, 13, 30, 49, 64, 121, 1000, 1001, 2160, 3840}) {
    CHECK(cpu::Fft::has_length(good));
  }
  for (const std::int64_t bad : {17, 34, 289, 641}) CHECK_FALSE(cpu::Fft::has_length(bad));
}

TEST_CASE("fft passes make up the length, and their order is a permutation") {
  for (std::int64_t length = 1; length <= 400; ++length) {
    if (!cpu::Fft::has_length(length)) continue;
    CAPTURE(length);
    const cpu::Fft fft(length);
    std::int64_t product = 1;
    for (const cpu::Fft::Pass& pass : fft.passes()) {
      CHECK(pass.inner == product);
      product *= pass.radix;
    }
    CHECK(product == length);
    std::vector<std::uint32_t> order = fft.order();
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < order.size(); ++i) CHECK(order[i] == i);
    CHECK(order.size() == static_cast<std::size_t>(length));
  }
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
