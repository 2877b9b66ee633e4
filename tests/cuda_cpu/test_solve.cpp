// The CUDA solver beside the CPU's: one level of every kind.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "core/backend.hpp"
#include "cuda/backend.hpp"

using namespace gpgan;
using core::Backend;
using core::Buffer;
using core::Planes;
using core::Size;

namespace {

constexpr Size kSizes[] = {{1, 1},   {1, 7},   {7, 1},   {2, 2},   {2, 3},   {5, 4},   {3, 31},
                           {32, 32}, {33, 34}, {31, 65}, {64, 37}, {35, 67}, {97, 66}, {128, 129}};

std::vector<float> noise(std::int64_t count, unsigned seed, float low, float high) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> draw(low, high);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = draw(random);
  return values;
}

Buffer upload(Backend& backend, const std::vector<float>& values, std::int64_t channels, Size size) {
  const Buffer buffer = backend.allocate(channels, size);
  backend.upload(values.data(), buffer);
  return buffer;
}

std::vector<float> download(Backend& backend, const Planes& planes) {
  std::vector<float> values(static_cast<std::size_t>(planes.floats()));
  backend.download(planes, values.data());
  return values;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= largest)) largest = std::abs(a[i] - b[i]);  // NaN too
  }
  return largest;
}

struct Case {
  Size size;
  Equation equation;
  Carry carry;
  double color_weight, sigma;
  bool below;
  std::int64_t channels = 2;
};

// What a level hands on; `images` of a batch alike, so that the CPU, which takes one at a time, can be asked.
std::vector<float> solve_level(Backend& backend, const Case& c, std::int64_t images) {
  const std::int64_t channels = c.channels;
  const Size half{(c.size.height + 1) / 2, (c.size.width + 1) / 2};
  const auto batch = [&](const std::vector<float>& one, std::int64_t planes, Size size) {
    std::vector<float> all;
    for (std::int64_t i = 0; i < images; ++i) all.insert(all.end(), one.begin(), one.end());
    return upload(backend, all, images * planes, size);
  };
  const float low = c.carry == Carry::kImage ? 0.0F : -0.2F;
  const float high = c.carry == Carry::kImage ? 1.0F : 0.2F;
  const std::int64_t pixels = c.size.pixels();
  const Buffer difference = batch(noise(channels * pixels, 1, -1, 1), channels, c.size);
  const Buffer target = batch(noise(channels * pixels, 2, 0, 1), channels, c.size);
  const Buffer mask = batch(noise(pixels, 3, 0, 1), 1, c.size);
  const Buffer carried = batch(noise(channels * pixels, 4, low, high), channels, c.size);
  const Buffer below = batch(noise(channels * half.pixels(), 5, low, high), channels, half);
  backend.make_solver(c.size, images * channels, c.equation, c.color_weight, c.sigma)
      ->solve_level({difference, target, mask}, c.carry, c.below ? below.planes() : Planes{}, carried, nullptr);
  return download(backend, carried);
}

}  // namespace

TEST_CASE("a level's change or image is the CPU's") {
  const auto cpu = core::make_backend(1);
  const auto cuda = cuda::make_backend({});
  for (const Size size : kSizes) {
    for (const Equation equation : {Equation::kGaussianPoisson, Equation::kScreened}) {
      for (const Carry carry : {Carry::kCorrection, Carry::kImage}) {
        for (const bool below : {true, false}) {
          for (const auto& [color_weight, sigma] :
               {std::pair{1.0, 0.5}, {0.06, 0.4}, {30.0, 0.5}, {0.01, 0.5}, {1.0, 1.5}}) {
            const Case c{size, equation, carry, color_weight, sigma, below};
            CAPTURE(size.height);
            CAPTURE(size.width);
            CAPTURE(static_cast<int>(equation));
            CAPTURE(static_cast<int>(carry));
            CAPTURE(below);
            CAPTURE(color_weight);
            CAPTURE(sigma);
            // Both are within 2e-5 of the reference; white noise has ten times the gradients of photos.
            CHECK(largest_difference(solve_level(*cuda, c, 1), solve_level(*cpu, c, 1)) < 2e-5F);
          }
        }
      }
    }
  }
}

TEST_CASE("a batch is its images") {
  const auto cuda = cuda::make_backend({});
  const Case c{{21, 34}, Equation::kGaussianPoisson, Carry::kCorrection, 1, 0.5, true};
  const std::vector<float> one = solve_level(*cuda, c, 1);
  const std::vector<float> three = solve_level(*cuda, c, 3);
  // Not to the bit: a transform may take two rows at once, and which two depends on how many there are.
  for (std::size_t i = 0; i < three.size(); ++i) REQUIRE(std::abs(three[i] - one[i % one.size()]) < 1e-6F);
}

TEST_CASE("solve is the CPU's for any right-hand side") {
  const auto cpu = core::make_backend(1);
  const auto cuda = cuda::make_backend({});
  for (const Size size : kSizes) {
    const std::vector<float> u = noise(3 * size.pixels(), 6, -1, 1);
    const std::vector<float> c = noise(3 * size.pixels(), 7, 0, 1);
    for (const Equation equation : {Equation::kGaussianPoisson, Equation::kScreened}) {
      for (const double sigma : {0.5, 2.0}) {
        const auto solve = [&](Backend& backend) {
          const Buffer out = backend.allocate(3, size);
          backend.solve(upload(backend, u, 3, size), upload(backend, c, 3, size), equation, 0.7, sigma, out);
          return download(backend, out);
        };
        const std::vector<float> expected = solve(*cpu);
        const float scale = std::abs(*std::max_element(expected.begin(), expected.end()));
        CHECK(largest_difference(solve(*cuda), expected) < 1e-5F * std::max(1.0F, scale));
      }
    }
  }
}

TEST_CASE("dct is the CPU's, both ways") {
  const auto cpu = core::make_backend(1);
  const auto cuda = cuda::make_backend({});
  for (const std::int64_t length : {1, 2, 3, 4, 5, 8, 17, 60, 97, 128}) {
    const Size size{3, length};
    const std::vector<float> rows = noise(2 * size.pixels(), 8, -1, 1);
    for (const bool inverse : {false, true}) {
      const auto transform = [&](Backend& backend) {
        const Buffer buffer = upload(backend, rows, 2, size);
        backend.dct(buffer, inverse);
        return download(backend, buffer);
      };
      CHECK(largest_difference(transform(*cuda), transform(*cpu)) < 2e-6F * static_cast<float>(length));
    }
  }
}
