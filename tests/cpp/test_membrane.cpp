// The membrane's own interface: what it reads at coarser levels, its averages, its use again; and planes of bits.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <vector>

#include "cpu/bit_plane.hpp"
#include "cpu/membrane.hpp"

using namespace gpgan;
using namespace gpgan::cpu;

namespace {

constexpr float kLevel = 1.0F / 255;

BitPlane disc(std::int64_t height, std::int64_t width, double y, double x, double radius) {
  BitPlane inside(height, width);
  for (std::int64_t i = 0; i < height; ++i) {
    for (std::int64_t j = 0; j < width; ++j) {
      if (std::hypot(static_cast<double>(i) - y, static_cast<double>(j) - x) < radius) inside.set(i, j);
    }
  }
  return inside;
}

// Linear, and so harmonic.
double plane(double y, double x) { return 0.001 * y - 0.0007 * x + 0.2; }

const auto kPlaneThere = [](std::int64_t y, std::int64_t x, float* values) {
  values[0] = static_cast<float>(plane(static_cast<double>(y), static_cast<double>(x)));
  values[1] = 1;
};

const auto kNoiseThere = [](std::int64_t y, std::int64_t x, float* values) {
  auto state = static_cast<std::uint32_t>(y * 7919 + x * 104729);
  for (int c = 0; c < 3; ++c) {
    state = state * 1664525U + 1013904223U;
    values[c] = static_cast<float>(state >> 16U) / 65536.0F;
  }
};

std::vector<float> read(const Membrane& membrane, int level, std::int64_t channel, std::int64_t height,
                        std::int64_t width) {
  std::vector<float> out(static_cast<std::size_t>(Membrane::kMaxChannels * height * width));
  membrane.read(level, 0, 0, height, width, out.data(), width, height * width);
  const auto begin = out.begin() + static_cast<std::ptrdiff_t>(channel * height * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(height * width)};
}

}  // namespace

TEST_CASE("a plane of bits knows what a rectangle holds") {
  BitPlane plane(5, 200);
  CHECK_FALSE(plane.any());
  plane.set(3, 130);
  CHECK(plane.any());
  CHECK(plane.any(3, 130, 1, 1));
  CHECK(plane.any(0, 0, 5, 131));
  CHECK(plane.any(-4, 100, 100, 100));
  CHECK_FALSE(plane.any(0, 0, 5, 130));
  CHECK_FALSE(plane.any(0, 131, 5, 69));
  CHECK_FALSE(plane.any(0, 0, 3, 200));
  CHECK_FALSE(plane.all());
  for (std::int64_t y = 0; y < 5; ++y) {
    for (std::int64_t x = 0; x < 200; ++x) plane.set(y, x);
  }
  CHECK(plane.all());
}

TEST_CASE("erosion takes the pixels beside the outside, and none for the border") {
  const BitPlane inside = disc(70, 131, 20, 100, 40);
  BitPlane eroded;
  erode4(inside, eroded);
  const auto in = [&](std::int64_t y, std::int64_t x) {
    return y < 0 || x < 0 || y >= 70 || x >= 131 || inside.test(y, x);
  };
  for (std::int64_t y = 0; y < 70; ++y) {
    for (std::int64_t x = 0; x < 131; ++x) {
      CHECK(eroded.test(y, x) == (in(y, x) && in(y - 1, x) && in(y + 1, x) && in(y, x - 1) && in(y, x + 1)));
    }
  }
}

TEST_CASE("a membrane over a linear boundary is that plane at every level") {
  constexpr std::int64_t kHeight = 301;
  constexpr std::int64_t kWidth = 347;
  const BitPlane inside = disc(kHeight, kWidth, 150, 170, 140);
  Membrane membrane(2);
  membrane.solve(inside, 2, kPlaneThere);
  const std::vector<float> w = read(membrane, 0, 0, kHeight, kWidth);
  double worst = 0;
  for (std::int64_t y = 0; y < kHeight; ++y) {
    for (std::int64_t x = 0; x < kWidth; ++x) {
      const float value = w[static_cast<std::size_t>(y * kWidth + x)];
      if (!inside.test(y, x)) {
        CHECK(value == 0);
      } else {
        worst = std::max(worst,
                         std::abs(static_cast<double>(value) - plane(static_cast<double>(y), static_cast<double>(x))));
      }
    }
  }
  CHECK(worst < 0.3 * static_cast<double>(kLevel));
  for (int k = 1; k <= 4; ++k) {
    const std::int64_t size = std::int64_t{1} << k;
    const std::int64_t width = kWidth / size;
    const std::vector<float> means = read(membrane, k, 0, kHeight / size, width);
    for (std::int64_t y = 0; y < kHeight / size; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        if (!inside.all(size * y, size * x, size, size)) continue;
        const double middle = static_cast<double>(size - 1) / 2;
        const double there = plane(static_cast<double>(size * y) + middle, static_cast<double>(size * x) + middle);
        CHECK(std::abs(static_cast<double>(means[static_cast<std::size_t>(y * width + x)]) - there) <
              0.3 * static_cast<double>(kLevel));
      }
    }
  }
}

TEST_CASE("any window of a membrane is part of the whole") {
  const BitPlane inside = disc(203, 301, 120, 200, 130);  // over the border
  Membrane membrane(1);
  membrane.solve(inside, 3, kNoiseThere);
  for (int k = 0; k <= 2; ++k) {
    const std::int64_t height = (203 + (1 << k) - 1) >> k;
    const std::int64_t width = (301 + (1 << k) - 1) >> k;
    for (const std::int64_t channel : {0, 2}) {
      const std::vector<float> whole = read(membrane, k, channel, height, width);
      for (std::int64_t top : {0, 3, 17, 40}) {
        for (std::int64_t left : {0, 1, 30, 55}) {
          for (std::int64_t wide : {1, 2, 7, 15, 21}) {
            constexpr std::int64_t kHeight = 9;
            constexpr std::int64_t kStride = 25;
            constexpr float kUntouched = 7;
            float part[3 * kHeight * kStride];
            std::fill(std::begin(part), std::end(part), kUntouched);
            membrane.read(k, top, left, kHeight, wide, part, kStride, kHeight * kStride);
            for (std::int64_t y = 0; y < kHeight; ++y) {
              const float* row = part + (channel * kHeight + y) * kStride;
              for (std::int64_t x = 0; x < wide; ++x) {
                CHECK(row[x] ==
                      doctest::Approx(whole[static_cast<std::size_t>((top + y) * width + left + x)]).epsilon(1e-5));
              }
              for (std::int64_t x = wide; x < kStride; ++x) CHECK(row[x] == kUntouched);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("the finest level tells the seam from the inner region") {
  const BitPlane inside = disc(512, 512, 256, 256, 240);
  Membrane membrane(1);
  membrane.solve(inside, 3, kNoiseThere);
  CHECK(membrane.finest_level(0, 0, 4, 4) == -1);
  CHECK(membrane.finest_level(256, 8, 8, 16) == 0);
  CHECK(membrane.finest_level(0, 0, 512, 512) == 0);
  CHECK(membrane.finest_level(254, 254, 4, 4) >= 3);
}

TEST_CASE("a membrane's area average is that of its pixels") {
  for (const std::int64_t width : {150, 611, 1024}) {
    const core::Size size{403, width};
    const BitPlane inside = disc(size.height, size.width, 250, 100, 190);
    Membrane membrane(2);
    membrane.solve(inside, 3, kNoiseThere);
    constexpr std::int64_t kSide = 32;
    std::vector<float> out(3 * kSide * kSide, 0.5F);
    membrane.add_area_average({out.data(), 3, {kSide, kSide}});
    for (std::int64_t c = 0; c < 3; ++c) {
      std::vector<double> sums(kSide * kSide, 0.5);
      const std::vector<float> w = read(membrane, 0, c, size.height, size.width);
      for (std::int64_t y = 0; y < kSide; ++y) {
        for (std::int64_t x = 0; x < kSide; ++x) {
          const auto overlap = [](std::int64_t pixel, std::int64_t n, std::int64_t to) {
            const std::int64_t most = std::min((pixel + 1) * kSide, (to + 1) * n);
            const std::int64_t least = std::max(pixel * kSide, to * n);
            return static_cast<double>(std::max<std::int64_t>(0, most - least)) / static_cast<double>(n);
          };
          for (std::int64_t i = y * size.height / kSide; i < std::min(size.height, (y + 1) * size.height / kSide + 1);
               ++i) {
            for (std::int64_t j = x * size.width / kSide; j < std::min(size.width, (x + 1) * size.width / kSide + 1);
                 ++j) {
              sums[static_cast<std::size_t>(y * kSide + x)] +=
                  overlap(i, size.height, y) * overlap(j, size.width, x) *
                  static_cast<double>(w[static_cast<std::size_t>(i * size.width + j)]);
            }
          }
        }
      }
      for (std::int64_t i = 0; i < kSide * kSide; ++i) {
        CHECK(std::abs(static_cast<double>(out[static_cast<std::size_t>(c * kSide * kSide + i)]) -
                       sums[static_cast<std::size_t>(i)]) < 0.25 * static_cast<double>(kLevel));
      }
    }
  }
}

TEST_CASE("a membrane may be used again, for any region, with any number of threads") {
  const BitPlane regions[] = {disc(300, 400, 140, 190, 120), disc(97, 61, 40, 30, 25), disc(1, 90, 0, 40, 30),
                              disc(300, 400, 300, 400, 299), disc(64, 64, 32, 32, 0)};
  Membrane again(2);
  for (const BitPlane& inside : regions) {
    for (const std::int64_t channels : {3, 1}) {
      Membrane fresh(1);
      fresh.solve(inside, channels, kNoiseThere);
      again.solve(inside, channels, kNoiseThere);
      CHECK(read(again, 0, channels - 1, inside.height(), inside.width()) ==
            read(fresh, 0, channels - 1, inside.height(), inside.width()));
    }
  }
}

TEST_CASE("a region without a boundary has no membrane") {
  BitPlane inside(40, 70);
  for (std::int64_t y = 0; y < 40; ++y) {
    for (std::int64_t x = 0; x < 70; ++x) inside.set(y, x);
  }
  Membrane membrane(1);
  membrane.solve(inside, 3, kNoiseThere);
  CHECK(membrane.finest_level(0, 0, 40, 70) == -1);
  for (const float w : read(membrane, 0, 2, 40, 70)) CHECK(w == 0);
}
