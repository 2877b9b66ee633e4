// Single pixels of the caller's images as floats in [0, 1], and back.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cuda/runtime.hpp"
#include "gpgan/error.hpp"
#include "gpgan/image.hpp"

namespace gpgan::cuda {

// body(T{}) for the type that the dtype stands for.
template <typename Body>
void with_type(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kUint8:
      return body(std::uint8_t{});
    case DType::kUint16:
      return body(std::uint16_t{});
    case DType::kFloat32:
      return body(float{});
    case DType::kFloat64:
      return body(double{});
  }
  throw LogicError("dtype: not one of the enumeration");
}

// Floats are clamped, NaN is 0. Integers are divided by their largest value: the product with its reciprocal and one
// correction give the quotient rounded right for every one of them, so that 255 becomes 1 exactly, and take no branch
// as a division would.
template <typename T>
__device__ inline float to_float(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return value > T{0} ? (value < T{1} ? static_cast<float>(value) : 1.0F) : 0.0F;
  } else {
    constexpr auto kMax = static_cast<float>(std::numeric_limits<T>::max());
    constexpr float kReciprocal = 1 / kMax;
    const auto dividend = static_cast<float>(value);
    const float quotient = dividend * kReciprocal;
    return fmaf(fmaf(-quotient, kMax, dividend), kReciprocal, quotient);
  }
}

// Clamped, integers rounded to nearest; NaN is 0.
template <typename T>
__device__ inline T from_float(float value) {
  const float clamped = value > 0 ? (value < 1 ? value : 1.0F) : 0.0F;
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(clamped);
  } else {
    return static_cast<T>(static_cast<int>(clamped * static_cast<float>(std::numeric_limits<T>::max()) + 0.5F));
  }
}

template <typename T>
__device__ inline const T* pixel(const ConstImageView& view, std::int64_t image, std::int64_t y, std::int64_t x,
                                 std::int64_t c) {
  return reinterpret_cast<const T*>(static_cast<const std::byte*>(view.data) + image * view.image_stride +
                                    y * view.strides[0] + x * view.strides[1] + c * view.strides[2]);
}
template <typename T>
__device__ inline T* pixel(const ImageView& view, std::int64_t image, std::int64_t y, std::int64_t x, std::int64_t c) {
  return reinterpret_cast<T*>(static_cast<std::byte*>(view.data) + image * view.image_stride + y * view.strides[0] +
                              x * view.strides[1] + c * view.strides[2]);
}

// For kernels that do not know the dtype when they are compiled: all threads take the same branch.
__device__ inline float load_pixel(const ConstImageView& view, std::int64_t image, std::int64_t y, std::int64_t x,
                                   std::int64_t c) {
  switch (view.dtype) {
    case DType::kUint8:
      return to_float(*pixel<std::uint8_t>(view, image, y, x, c));
    case DType::kUint16:
      return to_float(*pixel<std::uint16_t>(view, image, y, x, c));
    case DType::kFloat32:
      return to_float(*pixel<float>(view, image, y, x, c));
    case DType::kFloat64:
      return to_float(*pixel<double>(view, image, y, x, c));
  }
  return 0;
}

__device__ inline void store_pixel(const ImageView& view, std::int64_t image, std::int64_t y, std::int64_t x,
                                   std::int64_t c, float value) {
  switch (view.dtype) {
    case DType::kUint8:
      *pixel<std::uint8_t>(view, image, y, x, c) = from_float<std::uint8_t>(value);
      break;
    case DType::kUint16:
      *pixel<std::uint16_t>(view, image, y, x, c) = from_float<std::uint16_t>(value);
      break;
    case DType::kFloat32:
      *pixel<float>(view, image, y, x, c) = from_float<float>(value);
      break;
    case DType::kFloat64:
      *pixel<double>(view, image, y, x, c) = from_float<double>(value);
      break;
  }
}

// Bit for bit where the dtypes are the same, else through [0, 1].
__device__ inline void copy_pixel(const ConstImageView& from, const ImageView& to, std::int64_t image, std::int64_t y,
                                  std::int64_t x, std::int64_t c) {
  if (from.dtype != to.dtype) return store_pixel(to, image, y, x, c, load_pixel(from, image, y, x, c));
  switch (from.dtype) {
    case DType::kUint8:
      *pixel<std::uint8_t>(to, image, y, x, c) = *pixel<std::uint8_t>(from, image, y, x, c);
      break;
    case DType::kUint16:
      *pixel<std::uint16_t>(to, image, y, x, c) = *pixel<std::uint16_t>(from, image, y, x, c);
      break;
    case DType::kFloat32:
      *pixel<float>(to, image, y, x, c) = *pixel<float>(from, image, y, x, c);
      break;
    case DType::kFloat64:
      *pixel<double>(to, image, y, x, c) = *pixel<double>(from, image, y, x, c);
      break;
  }
}

}  // namespace gpgan::cuda
