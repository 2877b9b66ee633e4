// The membrane's kernels against conjugate gradients in double, on regions that are hard for a method that works from
// coarse to fine.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "cuda/operations.hpp"
#include "emulation.hpp"

using namespace gpgan;
using namespace gpgan::cuda;

namespace {

constexpr double kLevel = 1.0 / 255;
// The method's contract is one level at most and a tenth of one in the mean. What ends the iterations is a change below
// a tenth, after which the error is a fraction of it.
constexpr double kMost = 0.1 * kLevel;
constexpr double kMean = 0.02 * kLevel;

using Plane = std::vector<float>;

template <typename Inside>
Plane plane_of(Size size, Inside inside) {
  Plane out;
  for (std::int64_t y = 0; y < size.height; ++y) {
    for (std::int64_t x = 0; x < size.width; ++x) out.push_back(inside(y, x) ? 1.0F : 0.0F);
  }
  return out;
}

Plane random_mask(Size size, double share, unsigned seed) {
  std::mt19937 engine(seed);
  return plane_of(size, [&](std::int64_t, std::int64_t) { return engine() < share * 4294967296.0; });
}

// A corridor two pixels wide that winds inwards.
Plane spiral(Size size) {
  Plane out(static_cast<std::size_t>(size.pixels()));
  std::int64_t top = 0, left = 0, bottom = size.height, right = size.width;
  const auto fill = [&](std::int64_t y0, std::int64_t y1, std::int64_t x0, std::int64_t x1) {
    for (std::int64_t y = std::max<std::int64_t>(y0, 0); y < std::min(y1, size.height); ++y) {
      for (std::int64_t x = std::max<std::int64_t>(x0, 0); x < std::min(x1, size.width); ++x) {
        out[static_cast<std::size_t>(y * size.width + x)] = 1;
      }
    }
  };
  while (bottom - top > 4 && right - left > 4) {
    fill(top, top + 2, left - 4, right);
    fill(top, bottom, right - 2, right);
    fill(bottom - 2, bottom, left, right);
    fill(top + 4, bottom, left, left + 2);
    top += 4;
    left += 4;
    bottom -= 4;
    right -= 4;
  }
  return out;
}

Plane mask_of(const std::string& name, Size size) {
  const auto [height, width] = size;
  const auto in = [&](auto inside) { return plane_of(size, inside); };
  using I = std::int64_t;
  if (name == "ones") return in([](I, I) { return true; });
  if (name == "none") return in([](I, I) { return false; });
  if (name == "one pixel") return in([h = height, w = width](I y, I x) { return y == h / 2 && x == w / 2; });
  if (name == "all but one pixel") return in([](I y, I x) { return y != 0 || x != 0; });
  if (name == "half") return in([w = width](I, I x) { return x > w / 2; });
  if (name == "checkerboard") return in([](I y, I x) { return (y + x) % 2 == 0; });
  if (name == "comb") return in([h = height](I y, I x) { return y + 1 < h && (y < 2 || x % 2 == 0); });
  if (name == "spiral") return spiral(size);
  if (name == "random 30 %") return random_mask(size, 0.3, 1);
  if (name == "random 60 %") return random_mask(size, 0.6, 2);
  if (name == "random 90 %") return random_mask(size, 0.9, 3);
  REQUIRE(name == "disc");
  return in([h = height, w = width](I y, I x) {
    return std::hypot(static_cast<double>(2 * y + 1 - h) / static_cast<double>(h),
                      static_cast<double>(2 * x + 1 - w) / static_cast<double>(w)) < 0.8;
  });
}

// Smooth, with jumps and noise, from -1 to 1.
Plane difference_of(Size size, unsigned seed) {
  std::mt19937 engine(seed);
  Plane out;
  for (std::int64_t y = 0; y < size.height; ++y) {
    for (std::int64_t x = 0; x < size.width; ++x) {
      const double v = (static_cast<double>(y) + 0.5) / static_cast<double>(size.height);
      const double u = (static_cast<double>(x) + 0.5) / static_cast<double>(size.width);
      const double noise = static_cast<double>(engine() % 1024) / 1024 - 0.5;
      const double value =
          0.8 * std::sin(9 * u + 5 * v + seed) + (u > 0.4 ? 0.5 : 0) - (v > 0.6 ? 0.7 : 0) + 0.3 * noise;
      out.push_back(static_cast<float>(std::clamp(value, -1.0, 1.0)));
    }
  }
  return out;
}

// difference + w inside, 0 outside.
std::vector<double> exact(const Plane& difference, const Plane& mask, Size size) {
  const auto [height, width] = size;
  const std::size_t count = mask.size();
  const auto inside = [&](std::size_t i) { return mask[i] > 0; };
  // The sum of differences to the neighbours in the image.
  const auto laplacian = [&, h = height, w = width](const std::vector<double>& x, std::vector<double>& out) {
    for (std::int64_t y = 0; y < h; ++y) {
      for (std::int64_t j = 0; j < w; ++j) {
        const auto i = static_cast<std::size_t>(y * w + j);
        const auto below = static_cast<std::size_t>(w);
        out[i] = 0;
        if (!inside(i)) continue;
        if (j > 0) out[i] += x[i - 1] - x[i];
        if (j + 1 < w) out[i] += x[i + 1] - x[i];
        if (y > 0) out[i] += x[i - below] - x[i];
        if (y + 1 < h) out[i] += x[i + below] - x[i];
      }
    }
  };
  const auto dot = [&](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
  };
  std::vector<double> w(count), r(count), p(count), product(count);
  for (std::size_t i = 0; i < count; ++i) w[i] = inside(i) ? 0 : -static_cast<double>(difference[i]);
  laplacian(w, r);
  p = r;
  double rr = dot(r, r);
  const double enough = rr * 1e-24;
  for (int step = 0; step < 30000 && rr > enough && rr > 0; ++step) {
    laplacian(p, product);
    const double alpha = -rr / dot(p, product);
    for (std::size_t i = 0; i < count; ++i) {
      if (!inside(i)) continue;
      w[i] += alpha * p[i];
      r[i] += alpha * product[i];
    }
    const double next = dot(r, r);
    for (std::size_t i = 0; i < count; ++i) p[i] = r[i] + next / rr * p[i];
    rr = next;
  }
  for (std::size_t i = 0; i < count; ++i) w[i] = inside(i) ? w[i] + static_cast<double>(difference[i]) : 0;
  return w;
}

// `differences`: planes image by image, `masks`: one an image.
std::vector<Plane> run(const std::vector<Plane>& differences, const std::vector<Plane>& masks, Size size) {
  const auto planes = static_cast<std::int64_t>(differences.size());
  const auto images = static_cast<std::int64_t>(masks.size());
  const auto plane_bytes = static_cast<std::size_t>(size.pixels()) * sizeof(float);
  DeviceArray<float> difference(planes * size.pixels());
  DeviceArray<float> mask(images * size.pixels());
  DeviceArray<char> scratch(membrane_scratch_bytes(planes, images, size));
  const Planes difference_planes{difference.data(), planes, size};
  const Planes mask_planes{mask.data(), images, size};
  for (std::size_t i = 0; i < differences.size(); ++i) {
    check(cudaMemcpyAsync(difference_planes.channel(static_cast<std::int64_t>(i)).data, differences[i].data(),
                          plane_bytes, cudaMemcpyHostToDevice, nullptr),
          "copy");
  }
  for (std::size_t i = 0; i < masks.size(); ++i) {
    check(cudaMemcpyAsync(mask_planes.channel(static_cast<std::int64_t>(i)).data, masks[i].data(), plane_bytes,
                          cudaMemcpyHostToDevice, nullptr),
          "copy");
  }
  // NaN: whatever is read before it is written shows.
  check(cudaMemsetAsync(scratch.data(), 0xff, scratch.bytes(), nullptr), "memset");
  launch_membrane(difference_planes, mask_planes, scratch.data(), nullptr);
  std::vector<Plane> out(differences.size(), Plane(static_cast<std::size_t>(size.pixels())));
  for (std::size_t i = 0; i < out.size(); ++i) {
    check(cudaMemcpyAsync(out[i].data(), difference_planes.channel(static_cast<std::int64_t>(i)).data, plane_bytes,
                          cudaMemcpyDeviceToHost, nullptr),
          "copy");
  }
  check(cudaStreamSynchronize(nullptr), "synchronise");
  return out;
}

struct Deviation {
  double most = 0, mean = 0;
};
// Pixels outside must be 0.
Deviation compare(const Plane& got, const std::vector<double>& want, const Plane& mask) {
  Deviation error;
  double inside = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double off = std::abs(static_cast<double>(got[i]) - want[i]);
    if (!(mask[i] > 0) && got[i] != 0) return {1e30, 1e30};
    if (std::isnan(off)) return {1e30, 1e30};
    if (mask[i] > 0) ++inside;
    error.most = std::max(error.most, off);
    error.mean += off;
  }
  error.mean /= std::max(inside, 1.0);
  return error;
}

std::string text(Size size) { return std::to_string(size.height) + " x " + std::to_string(size.width); }

const char* const kMasks[] = {"ones", "none",   "one pixel",   "all but one pixel", "half",        "checkerboard",
                              "comb", "spiral", "random 30 %", "random 60 %",       "random 90 %", "disc"};

void check_against_exact(Size size, const std::string& name) {
  const Plane mask = mask_of(name, size);
  const Plane difference = difference_of(size, 1);
  const std::vector<Plane> got = run({difference}, {mask}, size);
  const Deviation error = compare(got[0], exact(difference, mask, size), mask);
  INFO(text(size), ", ", name, ": ", error.most / kLevel, " levels, in the mean ", error.mean / kLevel);
  CHECK(error.most <= kMost);
  CHECK(error.mean <= kMean);
}

}  // namespace

// ThreadSanitizer makes the fibers thirty times slower, and looks for barriers that are missing in any block: fewer
// images are enough.

TEST_CASE("the membrane is the exact solution on small images") {
#ifdef __SANITIZE_THREAD__
  constexpr Size kSizes[] = {{3, 5}, {65, 127}};
#else
  constexpr Size kSizes[] = {{1, 1}, {1, 2}, {2, 1}, {3, 5}, {17, 33}, {64, 64}, {65, 127}};
#endif
  for (const Size size : kSizes) {
    for (const char* name : kMasks) check_against_exact(size, name);
  }
}

TEST_CASE("the membrane is the exact solution where several levels are kernels of their own") {
  check_against_exact({40, 1000}, "comb");
#ifndef __SANITIZE_THREAD__
  for (const char* name : {"all but one pixel", "half", "random 60 %", "disc"}) {
    check_against_exact({40, 1000}, name);
  }
  check_against_exact({310, 333}, "disc");
  check_against_exact({201, 190}, "spiral");
#endif
}

TEST_CASE("the membrane spans a long strip that hangs on one end") {
#ifdef __SANITIZE_THREAD__
  constexpr std::int64_t kLength = 2000;
#else
  constexpr std::int64_t kLength = 20000;
#endif
  for (const Size size : {Size{1, kLength}, Size{3, kLength / 8}, Size{kLength / 8, 2}}) {
    Plane mask(static_cast<std::size_t>(size.pixels()), 1.0F);
    mask[0] = 0;
    const Plane difference(mask.size(), -1.0F);
    const std::vector<Plane> got = run({difference}, {mask}, size);
    INFO(text(size));
    CHECK(compare(got[0], std::vector<double>(mask.size(), 0.0), mask).most <= kMost);
  }
}

TEST_CASE("a region without a boundary keeps its difference") {
  const Size size{37, 70};
  const Plane difference = difference_of(size, 4);
  CHECK(run({difference}, {Plane(difference.size(), 0.5F)}, size)[0] == difference);
}

TEST_CASE("images have masks of their own, channels share them, and no plane depends on another") {
  const Size size{65, 127};
#ifdef __SANITIZE_THREAD__
  constexpr std::int64_t kMostChannels = 1;
#else
  constexpr std::int64_t kMostChannels = 3;
#endif
  for (std::int64_t channels = 1; channels <= kMostChannels; ++channels) {
    std::vector<Plane> masks = {mask_of("disc", size), mask_of("random 60 %", size), mask_of("none", size)};
    std::mt19937 engine(9);
    for (float& m : masks[0]) m *= static_cast<float>(1 + engine() % 100) / 100;  // soft: only > 0 counts
    std::vector<Plane> differences;
    for (unsigned i = 0; i < 3 * channels; ++i) differences.push_back(difference_of(size, i));
    const std::vector<Plane> got = run(differences, masks, size);
    for (std::size_t i = 0; i < got.size(); ++i) {
      INFO("plane ", i, " of ", got.size());
      const Plane& mask = masks[i / static_cast<std::size_t>(channels)];
      const Deviation error = compare(got[i], exact(differences[i], mask, size), mask);
      CHECK(error.most <= kMost);
      CHECK(error.mean <= kMean);
      CHECK(run({differences[i]}, {mask}, size)[0] == got[i]);
    }
  }
}

TEST_CASE("what is launched depends on the size alone, and nothing is allocated or waited for") {
  const Size size{65, 127};
  const std::int64_t pixels = size.pixels();
  DeviceArray<float> difference(pixels);
  DeviceArray<float> mask(pixels);
  DeviceArray<char> scratch(membrane_scratch_bytes(1, 1, size));
  std::map<std::string, std::int64_t> launches;
  for (const int value : {0, 0x3f}) {  // none, 0.7...
    check(cudaMemsetAsync(mask.data(), value, mask.bytes(), nullptr), "memset");
    check(cudaMemsetAsync(difference.data(), 0, difference.bytes(), nullptr), "memset");
    gpgan_cuda_cpu::reset_counts();
    launch_membrane({difference.data(), 1, size}, {mask.data(), 1, size}, scratch.data(), nullptr);
    const gpgan_cuda_cpu::Counts counts = gpgan_cuda_cpu::counts();
    CHECK(counts.allocations == 0);
    CHECK(counts.synchronisations == 0);
    if (launches.empty()) launches = counts.launches;
    CHECK(counts.launches == launches);
  }
  CHECK(launches.size() >= 7);
}
