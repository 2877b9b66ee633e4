// The full-size images of a blend, in the caller's memory: read row by row, as floats, where they are needed. Of its
// own it keeps the mask, in bits or bytes where they hold it exactly, and what has no other place: the source where it
// is unknown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/pyramid.hpp"
#include "cpu/bit_plane.hpp"
#include "cpu/inset.hpp"
#include "cpu/membrane.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// Planar rows: channel c at data + c * stride.
struct Rows {
  float* data = nullptr;
  std::int64_t stride = 0;
  [[nodiscard]] float* channel(std::int64_t c) const { return data + c * stride; }
};

// Half open.
struct Rectangle {
  std::int64_t top = 0, left = 0, bottom = 0, right = 0;
  [[nodiscard]] bool empty() const { return top >= bottom || left >= right; }
};

class FullSize {
 public:
  FullSize(core::Size size, std::int64_t channels, int threads);

  // As in core::Pyramid.
  bool load(const core::Inputs& inputs);
  void averages(const core::Planes& target, const core::Planes& source, const core::Planes& mask);
  void add_membrane(const core::Planes& difference);

  [[nodiscard]] core::Size size() const { return size_; }
  // Where the mask is above 0: the pixels, and a rectangle around them.
  [[nodiscard]] const BitPlane& inside() const { return inset_.inside(); }
  [[nodiscard]] const Rectangle& support() const { return support_; }
  [[nodiscard]] bool mask_is_binary() const { return mask_kind_ == MaskKind::kBits; }
  [[nodiscard]] bool has_membrane() const { return has_membrane_; }

  // `count` pixels of row y, from column x on.
  void read_target(std::int64_t y, std::int64_t x, std::int64_t count, const Rows& out) const;
  void read_source(std::int64_t y, std::int64_t x, std::int64_t count, const Rows& out) const;
  void read_mask(std::int64_t y, std::int64_t x, std::int64_t count, float* out) const;
  [[nodiscard]] const Membrane& membrane() const { return membrane_; }

  // Sets the flags, one a block of block x block pixels, where the mask is not the same all over it and a pixel around.
  void mark_varying(std::int64_t block, std::uint8_t* varies) const;

  // Copies what `out` overwrites.
  void keep_apart(const ImageView& out);
  [[nodiscard]] const ConstImageView& target() const { return target_; }

 private:
  void load_mask(const core::Inputs& inputs);
  void extend_source(const core::Inputs& inputs);
  void read_for_averages(std::int64_t y, std::int64_t x, std::int64_t count, bool masked, const Rows& out) const;
  void average_columns(const float* sum, float* out, std::int64_t count) const;

  core::Size size_;
  std::int64_t channels_;
  int threads_;
  ConstImageView source_, target_;
  Offset offset_;
  enum class MaskKind : std::uint8_t { kBits, kBytes, kFloats } mask_kind_ = MaskKind::kBits;
  BitPlane bit_mask_;
  std::vector<std::uint8_t> byte_mask_;
  std::vector<float> float_mask_;
  Inset inset_;
  Rectangle support_;
  bool has_extended_ = false;
  std::vector<float> extended_, alpha_, extend_memory_;  // the source as planes, where parts of it had to be made up
  std::vector<float> masked_average_;                    // of the difference inside the mask
  bool has_membrane_ = false;
  Membrane membrane_;
  std::vector<std::byte> target_copy_, source_copy_;
  std::vector<std::vector<float>> scratch_;  // of each worker
};

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
