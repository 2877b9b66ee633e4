// Single operations of the backend against slow ones written out here.
#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "core/backend.hpp"
#include "core/spectrum.hpp"
#include "support.hpp"

using namespace gpgan;
using core::Backend;
using core::Buffer;
using core::Planes;
using core::Size;

namespace {

using Values = std::vector<double>;

// Pixel (y, x) of a one-channel picture; beyond the border its mirror image.
double mirrored(const Values& image, Size size, std::int64_t y, std::int64_t x) {
  const auto fold = [](std::int64_t i, std::int64_t n) {
    i = ((i % (2 * n)) + 2 * n) % (2 * n);
    return i < n ? i : 2 * n - 1 - i;
  };
  return image[static_cast<std::size_t>(fold(y, size.height) * size.width + fold(x, size.width))];
}

Buffer upload(Backend& backend, const Values& values, Size size) {
  Buffer buffer = backend.allocate(1, size);
  for (std::size_t i = 0; i < values.size(); ++i) buffer.planes().data[i] = static_cast<float>(values[i]);
  return buffer;
}

Values download(const Planes& planes) { return {planes.data, planes.data + planes.floats()}; }

Values noise(Size size, unsigned seed) {
  const std::vector<float> values = testing::noise(size.pixels(), seed);
  return {values.begin(), values.end()};
}

double largest_difference(const Values& a, const Values& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

// One value for each pixel.
Values for_each_pixel(Size size, const std::function<double(std::int64_t, std::int64_t)>& value) {
  Values out;
  for (std::int64_t y = 0; y < size.height; ++y) {
    for (std::int64_t x = 0; x < size.width; ++x) out.push_back(value(y, x));
  }
  return out;
}

constexpr std::pair<int, int> kNeighbours[] = {{0, 1}, {1, 0}, {0, -1}, {-1, 0}};
constexpr Size kSizes[] = {{1, 1}, {1, 7}, {7, 1}, {2, 3}, {13, 18}, {33, 31}};

Values laplacian(const Values& image, Size size) {
  return for_each_pixel(size, [&](std::int64_t y, std::int64_t x) {
    double sum = 0;
    for (const auto& [dy, dx] : kNeighbours) sum += mirrored(image, size, y, x) - mirrored(image, size, y + dy, x + dx);
    return sum;
  });
}

Values blur(const Values& image, Size size, double sigma) {
  const std::vector<double> kernel = core::gaussian_kernel(sigma);
  const auto radius = static_cast<std::int64_t>(kernel.size()) - 1;
  return for_each_pixel(size, [&](std::int64_t y, std::int64_t x) {
    double sum = 0;
    for (std::int64_t j = -radius; j <= radius; ++j) {
      for (std::int64_t i = -radius; i <= radius; ++i) {
        sum += kernel[static_cast<std::size_t>(std::abs(j))] * kernel[static_cast<std::size_t>(std::abs(i))] *
               mirrored(image, size, y + j, x + i);
      }
    }
    return sum;
  });
}

}  // namespace

TEST_CASE("gaussian_blur is the mirrored convolution, for a radius beyond the image too") {
  const auto backend = core::make_backend(1);
  for (const Size size : kSizes) {
    for (const double sigma : {0.4, 0.8, 2.0, 4.0}) {
      const Values image = noise(size, 1);
      const Buffer out = backend->allocate(1, size);
      backend->gaussian_blur(upload(*backend, image, size), sigma, out);
      CHECK(largest_difference(download(out), blur(image, size, sigma)) < 1e-6);
    }
  }
}

TEST_CASE("solve satisfies its equation") {
  const auto backend = core::make_backend(1);
  for (const Size size : kSizes) {
    for (const double sigma : {0.5, 1.0}) {
      const Values u = laplacian(noise(size, 2), size);
      const Values c = noise(size, 3);
      const double lambda = 0.7;
      const Buffer out = backend->allocate(1, size);
      for (const Equation equation : {Equation::kGaussianPoisson, Equation::kScreened}) {
        backend->solve(upload(*backend, u, size), upload(*backend, c, size), equation, lambda, sigma, out);
        const Values x = download(out);
        const Values lx = laplacian(x, size);
        const Values gx = blur(x, size, sigma);
        Values left(x.size());
        Values right(x.size());
        if (equation == Equation::kScreened) {
          for (std::size_t i = 0; i < x.size(); ++i) {
            left[i] = lx[i] + lambda * gx[i];
            right[i] = u[i] + lambda * c[i];
          }
        } else {
          const Values llx = laplacian(lx, size);
          const Values ggx = blur(gx, size, sigma);
          const Values lu = laplacian(u, size);
          const Values gc = blur(c, size, sigma);
          for (std::size_t i = 0; i < x.size(); ++i) {
            left[i] = llx[i] + lambda * ggx[i];
            right[i] = lu[i] + lambda * gc[i];
          }
        }
        // x is right to 1e-6; the operators multiply that by up to 64.
        CHECK(largest_difference(left, right) < 1e-4);
      }
    }
  }
}

TEST_CASE("guidance_divergence mixes each edge with the mean of its ends") {
  const auto backend = core::make_backend(1);
  for (const Size size : kSizes) {
    const Values s = noise(size, 4);
    const Values t = noise(size, 5);
    const Values m = noise(size, 6);
    const Buffer out = backend->allocate(1, size);
    backend->guidance_divergence(upload(*backend, s, size), upload(*backend, t, size), upload(*backend, m, size), out);
    const Values expected = for_each_pixel(size, [&](std::int64_t y, std::int64_t x) {
      double sum = 0;
      for (const auto& [dy, dx] : kNeighbours) {
        const auto step = [&](const Values& v) { return mirrored(v, size, y, x) - mirrored(v, size, y + dy, x + dx); };
        const double weight = (mirrored(m, size, y, x) + mirrored(m, size, y + dy, x + dx)) / 2;
        sum += weight * step(s) + (1 - weight) * step(t);
      }
      return sum;
    });
    CHECK(largest_difference(download(out), expected) < 1e-6);
  }
}

TEST_CASE("downsample is the binomial over the mirrored image") {
  const auto backend = core::make_backend(1);
  constexpr double kTaps[] = {0.125, 0.375, 0.375, 0.125};
  for (const Size size : kSizes) {
    const Values image = noise(size, 7);
    const Size half{(size.height + 1) / 2, (size.width + 1) / 2};
    const Buffer out = backend->allocate(1, half);
    backend->downsample(upload(*backend, image, size), out);
    const Values expected = for_each_pixel(half, [&](std::int64_t y, std::int64_t x) {
      double sum = 0;
      for (std::int64_t j = 0; j < 4; ++j) {
        for (std::int64_t i = 0; i < 4; ++i)
          sum += kTaps[j] * kTaps[i] * mirrored(image, size, 2 * y + j - 1, 2 * x + i - 1);
      }
      return sum;
    });
    CHECK(largest_difference(download(out), expected) < 1e-6);
  }
}

TEST_CASE("inset is the minimum over the city-block ball, and a component that would vanish stays") {
  const auto backend = core::make_backend(1);
  for (const Size size : kSizes) {
    for (const int pixels : {0, 1, 2, 3, 9}) {
      for (const double density : {0.4, 0.8, 0.97}) {
        Values mask = noise(size, 8);
        for (double& m : mask) m = m < density ? 1 - m / 2 : 0;
        for (double& m : mask) m = static_cast<double>(static_cast<float>(m));
        const auto at = [&](std::int64_t y, std::int64_t x) { return static_cast<std::size_t>(y * size.width + x); };
        Values expected = for_each_pixel(size, [&](std::int64_t y, std::int64_t x) {
          double least = 1;
          for (std::int64_t j = 0; j < size.height; ++j) {
            for (std::int64_t i = 0; i < size.width; ++i) {
              if (std::abs(j - y) + std::abs(i - x) <= pixels) least = std::min(least, mask[at(j, i)]);
            }
          }
          return least;
        });
        // Components by repeated relabelling: slow and plain.
        std::vector<std::size_t> label(mask.size());
        for (std::size_t i = 0; i < label.size(); ++i) label[i] = i;
        for (bool changed = true; changed;) {
          changed = false;
          for (std::int64_t y = 0; y < size.height; ++y) {
            for (std::int64_t x = 0; x < size.width; ++x) {
              for (const auto& [dy, dx] : kNeighbours) {
                const std::int64_t j = y + dy;
                const std::int64_t i = x + dx;
                if (j < 0 || j >= size.height || i < 0 || i >= size.width) continue;
                if (!(mask[at(y, x)] > 0) || !(mask[at(j, i)] > 0) || label[at(j, i)] >= label[at(y, x)]) continue;
                label[at(y, x)] = label[at(j, i)];
                changed = true;
              }
            }
          }
        }
        std::vector<bool> survives(mask.size());
        for (std::size_t i = 0; i < mask.size(); ++i) {
          if (expected[i] > 0) survives[label[i]] = true;
        }
        for (std::size_t i = 0; i < mask.size(); ++i) {
          if (mask[i] > 0 && !survives[label[i]]) expected[i] = mask[i];
        }
        const Buffer buffer = upload(*backend, mask, size);
        backend->inset(buffer, pixels);
        CHECK(download(buffer) == expected);
      }
    }
  }
}

TEST_CASE("extend keeps what is known, takes means of it elsewhere, and never sees the rest") {
  const auto backend = core::make_backend(1);
  for (const Size size : kSizes) {
    Values alpha = noise(size, 9);
    for (double& a : alpha) a = a < 0.7 ? 0 : a;
    alpha[0] = 0.5;
    const Values source = noise(size, 10);
    Values hidden = source;
    double least = 1;
    double most = 0;
    for (std::size_t i = 0; i < alpha.size(); ++i) {
      if (alpha[i] > 0) {
        least = std::min(least, source[i]);
        most = std::max(most, source[i]);
      } else {
        hidden[i] = std::numeric_limits<double>::quiet_NaN();
      }
    }
    const Buffer one = upload(*backend, source, size);
    const Buffer other = upload(*backend, hidden, size);
    backend->extend(one, upload(*backend, alpha, size));
    backend->extend(other, upload(*backend, alpha, size));
    const Values filled = download(one);
    CHECK(filled == download(other));
    for (std::size_t i = 0; i < alpha.size(); ++i) {
      if (alpha[i] > 0) CHECK(filled[i] == static_cast<double>(static_cast<float>(source[i])));
      CHECK(filled[i] >= least - 1e-6);
      CHECK(filled[i] <= most + 1e-6);
    }
  }
}

TEST_CASE("membrane agrees with Gauss-Seidel run to the end") {
  const auto backend = core::make_backend(1);
  for (const Size size : {Size{1, 8}, {9, 1}, {2, 3}, {13, 18}, {33, 31}}) {
    for (const double density : {0.5, 0.9, 1.0}) {
      Values mask = noise(size, 11);
      for (double& m : mask) m = m <= density ? 1 : 0;
      mask[static_cast<std::size_t>(size.pixels() / 2)] = 0;
      const Values difference = noise(size, 12);
      const auto at = [&](std::int64_t y, std::int64_t x) { return static_cast<std::size_t>(y * size.width + x); };

      Values w(mask.size());
      for (std::size_t i = 0; i < w.size(); ++i) w[i] = mask[i] > 0 ? 0 : -difference[i];
      for (double change = 1; change > 1e-9;) {
        change = 0;
        for (std::int64_t y = 0; y < size.height; ++y) {
          for (std::int64_t x = 0; x < size.width; ++x) {
            if (!(mask[at(y, x)] > 0)) continue;
            double sum = 0;
            int count = 0;
            for (const auto& [dy, dx] : kNeighbours) {
              const std::int64_t j = y + dy;
              const std::int64_t i = x + dx;
              if (j < 0 || j >= size.height || i < 0 || i >= size.width) continue;
              sum += w[at(j, i)];
              ++count;
            }
            change = std::max(change, std::abs(sum / count - w[at(y, x)]));
            w[at(y, x)] = sum / count;
          }
        }
      }
      const Buffer buffer = upload(*backend, difference, size);
      backend->membrane(buffer, upload(*backend, mask, size));
      Values expected(w.size());
      for (std::size_t i = 0; i < w.size(); ++i) expected[i] = mask[i] > 0 ? difference[i] + w[i] : 0;
      CHECK(largest_difference(download(buffer), expected) < 1.0 / 255);
    }
  }
  // No boundary: nothing is added.
  const Buffer buffer = upload(*backend, noise({5, 6}, 13), {5, 6});
  const Values before = download(buffer);
  backend->membrane(buffer, upload(*backend, Values(30, 0.5), {5, 6}));
  CHECK(download(buffer) == before);
}

TEST_CASE("area_average keeps the mean and resize keeps constants") {
  const auto backend = core::make_backend(1);
  for (const Size size : kSizes) {
    for (const Size to : {Size{1, 1}, {5, 4}, {64, 64}}) {
      const Values image = noise(size, 14);
      const Buffer out = backend->allocate(1, to);
      backend->area_average(upload(*backend, image, size), out);
      double before = 0;
      double after = 0;
      for (const double x : image) before += x / static_cast<double>(size.pixels());
      for (const double x : download(out)) after += x / static_cast<double>(to.pixels());
      CHECK(after == doctest::Approx(before).epsilon(1e-5));
      backend->resize(upload(*backend, Values(image.size(), 0.3), size), out);
      CHECK(largest_difference(download(out), Values(static_cast<std::size_t>(to.pixels()), 0.3)) < 1e-6);
    }
  }
}
