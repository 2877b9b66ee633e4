// See test_unload.cpp.
#include <vector>

#include "gpgan/blend.hpp"

extern "C" int blend_something(int threads) {
  constexpr std::int64_t kSize = 300;
  gpgan::Options options;
  options.threads = threads;
  gpgan::Blender blender(options, kSize, kSize, 1);
  const std::vector<float> grey(kSize * kSize, 0.5F);
  std::vector<float> mask(kSize * kSize);
  mask[kSize * kSize / 2] = 1;
  std::vector<float> out(kSize * kSize);
  const auto view = gpgan::interleaved(grey.data(), kSize, kSize, 1);
  blender.blend(view, view, gpgan::interleaved(mask.data(), kSize, kSize, 1), nullptr,
                gpgan::interleaved(out.data(), kSize, kSize, 1));
  return static_cast<int>(out[0] * 100);
}
