// Non-owning views of images in the caller's memory: any strides, so rows of pixels (H, W, C), planes (C, H,
// W), crops and flips all pass without a copy.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace gpgan {

// Integers stand for 0..max, floats for [0, 1].
enum class DType : std::uint8_t { kUint8, kUint16, kFloat32, kFloat64 };

template <typename T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, std::uint8_t>) {
    return DType::kUint8;
  } else if constexpr (std::is_same_v<T, std::uint16_t>) {
    return DType::kUint16;
  } else if constexpr (std::is_same_v<T, float>) {
    return DType::kFloat32;
  } else {
    static_assert(std::is_same_v<T, double>, "gpgan images hold uint8, uint16, float or double");
    return DType::kFloat64;
  }
}

// Strides are in bytes and may be negative; every element must be aligned as its type is. Void is `void` or `const
// void`; use the two names below.
template <typename Void>
struct BasicImageView {
  Void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 0;
  std::array<std::ptrdiff_t, 3> strides = {0, 0, 0};  // of a row, a column, a channel
  // A batch: so many images of this kind, each so many bytes after the one before; 0 repeats one image.
  std::int64_t images = 1;
  std::ptrdiff_t image_stride = 0;

  [[nodiscard]] bool empty() const { return data == nullptr; }

  // A view that may be written to is also one that may be read.
  template <typename Other, std::enable_if_t<std::is_same_v<Other, const void> && !std::is_const_v<Void>, bool> = true>
  operator BasicImageView<Other>() const {  // NOLINT(google-explicit-constructor)
    return {data, dtype, height, width, channels, strides, images, image_stride};
  }
};

using ImageView = BasicImageView<void>;
using ConstImageView = BasicImageView<const void>;

// Rows of interleaved pixels without padding: element (y, x, c) at (y * width + x) * channels + c.
template <typename T>
auto interleaved(T* data, std::int64_t height, std::int64_t width, std::int64_t channels) {
  using Void = std::conditional_t<std::is_const_v<T>, const void, void>;
  constexpr auto kSize = static_cast<std::ptrdiff_t>(sizeof(T));
  return BasicImageView<Void>{data,     dtype_of<std::remove_const_t<T>>(),
                              height,   width,
                              channels, {width * channels * kSize, channels * kSize, kSize}};
}

// Whole planes one after another, as LibTorch keeps them: element (y, x, c) at (c * height + y) * width + x.
template <typename T>
auto planar(T* data, std::int64_t height, std::int64_t width, std::int64_t channels) {
  using Void = std::conditional_t<std::is_const_v<T>, const void, void>;
  constexpr auto kSize = static_cast<std::ptrdiff_t>(sizeof(T));
  return BasicImageView<Void>{data,     dtype_of<std::remove_const_t<T>>(),
                              height,   width,
                              channels, {width * kSize, kSize, height * width * kSize}};
}

}  // namespace gpgan
