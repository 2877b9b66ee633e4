// Pictures and masks for the tests, and how to read any view.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "gpgan/blend.hpp"

namespace gpgan::testing {

// Interleaved floats in [0, 1].
inline std::vector<float> noise(std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& x : out) x = static_cast<float>(engine() % 65536) / 65535.0F;
  return out;
}

// A soft disc off the middle, zero at the corners.
inline std::vector<float> disc(std::int64_t height, std::int64_t width) {
  std::vector<float> out;
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const double dy = (static_cast<double>(y) + 0.5) / static_cast<double>(height) - 0.45;
      const double dx = (static_cast<double>(x) + 0.5) / static_cast<double>(width) - 0.55;
      out.push_back(static_cast<float>(std::clamp((0.42 - std::hypot(dy, dx)) * 8, 0.0, 1.0)));
    }
  }
  return out;
}

inline float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return 1e30F;
  float most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

// One image to blend, everything float32 and interleaved.
struct Scene {
  std::int64_t height, width;
  int channels;
  std::vector<float> source, target, mask;

  Scene(std::int64_t height_, std::int64_t width_, int channels_, unsigned seed = 1)
      : height(height_),
        width(width_),
        channels(channels_),
        source(noise(height * width * channels, seed)),
        target(noise(height * width * channels, seed + 1000)),
        mask(disc(height, width)) {}

  [[nodiscard]] ConstImageView source_view() const { return interleaved(source.data(), height, width, channels); }
  [[nodiscard]] ConstImageView target_view() const { return interleaved(target.data(), height, width, channels); }
  [[nodiscard]] ConstImageView mask_view() const { return interleaved(mask.data(), height, width, 1); }

  std::vector<float> blend(Blender& blender, const Generator& generator = {}, Offset offset = {}) const {
    std::vector<float> out(target.size());
    blender.blend(source_view(), target_view(), mask_view(), generator,
                  interleaved(out.data(), height, width, channels), offset);
    return out;
  }
  std::vector<float> blend(const Options& options = {}) const {
    Blender blender(options, height, width, channels);
    return blend(blender);
  }
};

// What the call throws, or "" if nothing.
template <typename Exception, typename Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return "";
}

inline bool starts_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }

}  // namespace gpgan::testing
