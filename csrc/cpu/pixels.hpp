// Rows of the caller's pixels as planar float rows in [0, 1], and back.
#pragma once

#include <cstdint>

#include "gpgan/error.hpp"
#include "gpgan/image.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// body(T{}) for the type that the dtype stands for.
template <typename Body>
auto with_type(DType dtype, Body&& body) {
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

// Pixels [x, x + count) of row y: channel c goes to out + c * stride. Floats are clamped.
void read_row(const ConstImageView& view, std::int64_t y, std::int64_t x, std::int64_t count, float* out,
              std::int64_t stride);

// The same way back: clamped, rounded to nearest.
void write_row(const float* in, std::int64_t stride, const ImageView& view, std::int64_t y, std::int64_t x,
               std::int64_t count);

// Bit for bit, between views of one dtype and shape.
void copy_row(const ConstImageView& from, const ImageView& to, std::int64_t y, std::int64_t x, std::int64_t count);

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
