// Blends JPEG or PNG files without torch:
//   blend_without_torch SOURCE TARGET MASK OUT.png
//
// Where a generator would be it has a function of a few lines; without one the method is Poisson cloning.
#include <algorithm>
#include <exception>
#include <iostream>
#include <vector>

#include "gpgan/blend.hpp"
#include "images.hpp"

namespace {

// What Poisson cloning gives, the object a tenth darker, as in failing light. A network would come here.
std::vector<float> failing_light(const gpgan::GeneratorInputs& in) {
  const auto* harmonized = static_cast<const float*>(in.harmonized.data);
  const auto* mask = static_cast<const float*>(in.mask.data);
  const auto pixels = static_cast<std::size_t>(in.mask.height * in.mask.width);
  std::vector<float> color(static_cast<std::size_t>(in.harmonized.channels) * pixels);
  for (std::size_t i = 0; i < color.size(); ++i) {
    color[i] = std::clamp(harmonized[i] * (1 - 0.1F * mask[i % pixels]), 0.0F, 1.0F);
  }
  return color;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: blend_without_torch SOURCE TARGET MASK OUT.png\n";
    return 2;
  }
  try {
    const Image source = read(argv[1], 3);
    const Image target = read(argv[2], 3);
    const Image mask = read(argv[3], 1);
    Image out = target;
    gpgan::Blender blender(gpgan::Options{}, target.height, target.width, 3);
    blender.blend(source.view(), target.view(), mask.view(), failing_light, out.view());
    write_png(out, argv[4]);
  } catch (const std::exception& error) {
    std::cerr << "blend_without_torch: " << error.what() << '\n';
    return 2;
  }
}
