// Blends a picture made of arithmetic, so that test_package.py can make the same one in Python and compare every byte.
// Usage: consume OUT; writes the result's pixels, interleaved uint8, once blended in one call and once in two.
#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <vector>

#include "gpgan/blend.hpp"

namespace {

constexpr std::int64_t kHeight = 40;
constexpr std::int64_t kWidth = 53;

using Pixels = std::vector<std::uint8_t>;

Pixels draw(std::int64_t height, std::int64_t width, std::int64_t channels, int a, int b, int c) {
  Pixels pixels;
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (std::int64_t k = 0; k < channels; ++k)
        pixels.push_back(static_cast<std::uint8_t>((a * y + b * x + c * k + x * y / 4) % 256));
    }
  }
  return pixels;
}

// Half of what is there and a quarter, planar; exact in float32.
std::vector<float> generator(const gpgan::GeneratorInputs& inputs) {
  const auto& view = inputs.composite;
  std::vector<float> color;
  for (std::int64_t c = 0; c < view.channels; ++c) {
    for (std::int64_t y = 0; y < view.height; ++y) {
      for (std::int64_t x = 0; x < view.width; ++x) {
        const auto* bytes =
            static_cast<const std::byte*>(view.data) + y * view.strides[0] + x * view.strides[1] + c * view.strides[2];
        color.push_back(0.5F * *reinterpret_cast<const float*>(bytes) + 0.25F);
      }
    }
  }
  return color;
}

bool refuses_bad_options() {
  gpgan::Options options;
  options.sigma = -1;
  try {
    const gpgan::Blender blender(options, kHeight, kWidth, 3);
  } catch (const gpgan::InvalidArgument& error) {
    std::cout << error.what() << '\n';
    return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || !refuses_bad_options()) return 2;
  // The source is smaller than the target, has alpha, and starts left of and above it.
  const Pixels source = draw(30, 44, 4, 7, 3, 60);
  Pixels target = draw(kHeight, kWidth, 3, 2, 5, 90);
  const auto source_view = gpgan::interleaved(source.data(), 30, 44, 4);
  const auto target_view = gpgan::interleaved(target.data(), kHeight, kWidth, 3);
  const gpgan::Offset offset{-3, -5};

  Pixels out(target.size());
  const auto out_view = gpgan::interleaved(out.data(), kHeight, kWidth, 3);
  gpgan::Blender blender(gpgan::Options{}, kHeight, kWidth, 3);
  blender.blend(source_view, target_view, {}, generator, out_view, offset);

  // The same in two steps, and into the target's own memory.
  const auto inputs = blender.prepare(source_view, target_view, {}, offset);
  const std::vector<float> color = generator(inputs);
  blender.finish(gpgan::planar(color.data(), inputs.image_size, inputs.image_size, 3), target_view);
  if (target != out) return 3;

  std::ofstream file(argv[1], std::ios::binary);
  file.write(reinterpret_cast<const char*>(out.data()), static_cast<std::streamsize>(out.size()));
  std::cout << "gpgan " << gpgan::version() << '\n';
  return file ? 0 : 4;
}
