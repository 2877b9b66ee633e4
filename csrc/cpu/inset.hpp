// Erosion of the mask, so that the seam lies inside the object.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.hpp"
#include "cpu/bit_plane.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// Erodes masks of bits, bytes or floats; keeps its memory.
class Inset {
 public:
  // Masks of 0 and 1. What is left of it is both `mask` and inside().
  void erode(BitPlane& mask, int pixels);
  // `mask` is size.pixels() values; inside() holds afterwards where it is above 0.
  void erode(std::vector<std::uint8_t>& mask, core::Size size, int pixels, int threads);
  void erode(std::vector<float>& mask, core::Size size, int pixels, int threads);

  [[nodiscard]] const BitPlane& inside() const { return inside_; }

 private:
  template <typename T>
  struct Values {
    std::vector<T> eroded, next;
  };
  template <typename T>
  void erode_values(std::vector<T>& mask, Values<T>& values, core::Size size, int pixels, int threads);
  void find_vanished();

  BitPlane before_, inside_, next_;
  BitPlane lost_;  // taken by the erosion, in a component of which something is left
  std::vector<std::int64_t> front_;
  Values<std::uint8_t> bytes_;
  Values<float> floats_;
};

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
