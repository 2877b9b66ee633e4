// Blends three images in netpbm's binary formats, without torch:
//   blend_pnm SOURCE.ppm TARGET.ppm MASK.pgm OUT.ppm
//
// Where a generator would be it has a function of a few lines; without one the method is Poisson cloning.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "gpgan/blend.hpp"

namespace {

struct Image {
  std::int64_t height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;

  auto view() const { return gpgan::interleaved(pixels.data(), height, width, channels); }
  auto view() { return gpgan::interleaved(pixels.data(), height, width, channels); }
};

std::int64_t read_number(std::istream& file) {
  while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  std::int64_t number = 0;
  file >> number;
  return number;
}

Image read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic(2, '\0');
  file.read(magic.data(), 2);
  if (!file || (magic != "P5" && magic != "P6")) throw std::runtime_error(path + ": expected a binary PGM or PPM file");
  Image image;
  image.channels = magic == "P6" ? 3 : 1;
  image.width = read_number(file);
  image.height = read_number(file);
  const std::int64_t most = read_number(file);
  file.get();
  constexpr std::int64_t kLargest = 1 << 20;
  if (!file || most != 255 || image.width < 1 || image.height < 1 || image.width > kLargest ||
      image.height > kLargest) {
    throw std::runtime_error(path + ": expected a sound header with 255 as the largest value");
  }
  // Compared with the file before anything is allocated: a header can promise what it likes.
  const std::int64_t bytes = image.height * image.width * image.channels;
  if (static_cast<std::int64_t>(std::filesystem::file_size(path)) - file.tellg() < bytes) {
    throw std::runtime_error(path + ": the file is cut off");
  }
  image.pixels.resize(static_cast<std::size_t>(bytes));
  file.read(reinterpret_cast<char*>(image.pixels.data()), bytes);
  return image;
}

void write(const Image& image, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  file << (image.channels == 3 ? "P6\n" : "P5\n") << image.width << ' ' << image.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(image.pixels.data()), static_cast<std::streamsize>(image.pixels.size()));
  if (!file.flush()) throw std::runtime_error(path + ": cannot write");
}

// What Poisson cloning gives, the object a tenth darker, as in failing light. A network would come here.
std::vector<float> failing_light(const gpgan::GeneratorInputs& in) {
  const auto* harmonized = static_cast<const float*>(in.harmonized.data);
  const auto* mask = static_cast<const float*>(in.mask.data);
  const auto pixels = static_cast<std::size_t>(in.image_size * in.image_size);
  std::vector<float> color(static_cast<std::size_t>(in.harmonized.channels) * pixels);
  for (std::size_t i = 0; i < color.size(); ++i) {
    color[i] = std::clamp(harmonized[i] * (1 - 0.1F * mask[i % pixels]), 0.0F, 1.0F);
  }
  return color;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: blend_pnm SOURCE.ppm TARGET.ppm MASK.pgm OUT.ppm\n";
    return 2;
  }
  try {
    const Image source = read(argv[1]);
    const Image target = read(argv[2]);
    const Image mask = read(argv[3]);
    Image out = target;
    gpgan::Blender blender(gpgan::Options{}, target.height, target.width, static_cast<int>(target.channels));
    blender.blend(source.view(), target.view(), mask.view(), failing_light, out.view());
    write(out, argv[4]);
  } catch (const std::exception& error) {
    std::cerr << "blend_pnm: " << error.what() << '\n';
    return 2;
  }
}
