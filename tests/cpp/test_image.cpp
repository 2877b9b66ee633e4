// Views: any memory layout and dtype in, any out.
#include <doctest/doctest.h>

#include <array>
#include <limits>
#include <type_traits>
#include <vector>

#include "support.hpp"

using namespace gpgan;
using testing::Scene;

namespace {

template <typename T>
std::vector<T> as(const std::vector<float>& values) {
  std::vector<T> out;
  for (const float x : values) {
    if constexpr (std::is_floating_point_v<T>) {
      out.push_back(static_cast<T>(x));
    } else {
      out.push_back(static_cast<T>(x * static_cast<float>(std::numeric_limits<T>::max()) + 0.5F));
    }
  }
  return out;
}

template <typename T>
std::vector<float> back(const std::vector<T>& values) {
  std::vector<float> out;
  for (const T x : values) {
    if constexpr (std::is_floating_point_v<T>) {
      out.push_back(static_cast<float>(x));
    } else {
      out.push_back(static_cast<float>(x) / static_cast<float>(std::numeric_limits<T>::max()));
    }
  }
  return out;
}

}  // namespace

TEST_CASE("interleaved and planar name the same pixels") {
  const std::vector<float> pixels(24);
  const ConstImageView a = interleaved(pixels.data(), 2, 4, 3);
  CHECK(a.strides == std::array<std::ptrdiff_t, 3>{48, 12, 4});
  CHECK(a.dtype == DType::kFloat32);
  const std::vector<std::uint16_t> words(24);
  const ConstImageView b = planar(words.data(), 2, 4, 3);
  CHECK(b.strides == std::array<std::ptrdiff_t, 3>{8, 2, 16});
  CHECK(b.dtype == DType::kUint16);
  CHECK(ConstImageView{}.empty());
  CHECK_FALSE(a.empty());
}

TEST_CASE("a writable view passes for a readable one") {
  std::vector<double> pixels(6);
  const ImageView writable = interleaved(pixels.data(), 2, 3, 1);
  const ConstImageView readable = writable;
  CHECK(readable.data == pixels.data());
  CHECK(readable.dtype == DType::kFloat64);
  CHECK(readable.strides == writable.strides);
}

TEST_CASE("blend takes planes, crops, flips and repeated values") {
  const Scene scene(21, 18, 3);
  const std::vector<float> expected = scene.blend();
  const std::int64_t h = 21;
  const std::int64_t w = 18;

  std::vector<float> planes(scene.source.size());
  std::vector<float> crop(static_cast<std::size_t>((h + 4) * (w + 6) * 3), 0.5F);
  std::vector<float> flipped(scene.mask.size());
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      flipped[static_cast<std::size_t>((h - 1 - y) * w + w - 1 - x)] = scene.mask[static_cast<std::size_t>(y * w + x)];
      for (std::int64_t c = 0; c < 3; ++c) {
        const auto i = static_cast<std::size_t>((y * w + x) * 3 + c);
        planes[static_cast<std::size_t>((c * h + y) * w + x)] = scene.source[i];
        crop[static_cast<std::size_t>(((y + 1) * (w + 6) + x + 2) * 3 + c)] = scene.target[i];
      }
    }
  }
  ConstImageView target = interleaved<const float>(crop.data() + ((w + 6) + 2) * 3, h, w, 3);
  target.strides[0] = (w + 6) * 3 * 4;
  ConstImageView mask = interleaved<const float>(flipped.data() + h * w - 1, h, w, 1);
  mask.strides = {-w * 4, -4, 4};
  std::vector<float> out_planes(scene.target.size());
  Blender blender({}, h, w, 3);
  blender.blend(planar<const float>(planes.data(), h, w, 3), target, mask, {}, planar(out_planes.data(), h, w, 3));
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      for (std::int64_t c = 0; c < 3; ++c) {
        const float got = out_planes[static_cast<std::size_t>((c * h + y) * w + x)];
        if (got != expected[static_cast<std::size_t>((y * w + x) * 3 + c)]) FAIL_CHECK("other value at ", y, ", ", x);
      }
    }
  }

  // One pixel for all: strides of zero.
  const float grey = 0.25F;
  ConstImageView everywhere = interleaved(&grey, h, w, 3);
  everywhere.strides = {0, 0, 0};
  const std::vector<float> full(scene.source.size(), grey);
  std::vector<float> one(full.size());
  std::vector<float> other(full.size());
  blender.blend(everywhere, scene.target_view(), scene.mask_view(), {}, interleaved(one.data(), h, w, 3));
  blender.blend(interleaved(full.data(), h, w, 3), scene.target_view(), scene.mask_view(), {},
                interleaved(other.data(), h, w, 3));
  CHECK(one == other);
}

TEST_CASE_TEMPLATE("blend reads and writes every dtype", T, std::uint8_t, std::uint16_t, float, double) {
  const Scene scene(19, 33, 3);
  const std::vector<T> source = as<T>(scene.source);
  const std::vector<T> target = as<T>(scene.target);
  const std::vector<T> target_before = target;
  std::vector<T> out(target.size());
  Options options;
  options.membrane = false;
  Blender blender(options, 19, 33, 3);
  blender.blend(interleaved(source.data(), 19, 33, 3), interleaved(target.data(), 19, 33, 3), scene.mask_view(), {},
                interleaved(out.data(), 19, 33, 3));
  CHECK(target == target_before);

  // The same from floats: what is left is the rounding of the result.
  Scene floats = scene;
  floats.source = back(source);
  floats.target = back(target);
  const float half_step = std::is_floating_point_v<T> ? 0.0F : 0.5F / static_cast<float>(std::numeric_limits<T>::max());
  CHECK(testing::largest_difference(back(out), floats.blend(options)) <= half_step + 1e-6F);
}

TEST_CASE("blend mixes dtypes, and a mask of 0 and 1 is one of 0 and 255") {
  const Scene scene(16, 17, 1);
  const std::vector<std::uint16_t> source = as<std::uint16_t>(scene.source);
  std::vector<std::uint8_t> small;
  std::vector<std::uint8_t> large;
  std::vector<float> floats;
  for (const float m : scene.mask) {
    small.push_back(m > 0.5F ? 1 : 0);
    large.push_back(m > 0.5F ? 255 : 0);
    floats.push_back(m > 0.5F ? 1.0F : 0.0F);
  }
  Blender blender({}, 16, 17, 1);
  const auto run = [&](const ConstImageView& mask) {
    std::vector<double> out(scene.target.size());
    blender.blend(interleaved(source.data(), 16, 17, 1), scene.target_view(), mask, {},
                  interleaved(out.data(), 16, 17, 1));
    return out;
  };
  const std::vector<double> expected = run(interleaved(floats.data(), 16, 17, 1));
  CHECK(run(interleaved(small.data(), 16, 17, 1)) == expected);
  CHECK(run(interleaved(large.data(), 16, 17, 1)) == expected);
}

TEST_CASE("integer results round to the nearest") {
  // A target without mask of another dtype than the result goes through floats and back.
  const std::vector<float> target{0.0F, 0.49F / 255, 0.51F / 255, 254.49F / 255, 254.51F / 255, 1.0F};
  const std::vector<float> mask(6, 0.0F);
  std::vector<std::uint8_t> out(6, 77);
  Blender blender({}, 1, 6, 1);
  const ConstImageView view = interleaved(target.data(), 1, 6, 1);
  blender.blend(view, view, interleaved(mask.data(), 1, 6, 1), {}, interleaved(out.data(), 1, 6, 1));
  CHECK(out == std::vector<std::uint8_t>{0, 0, 1, 254, 255, 255});
}
