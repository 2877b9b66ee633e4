// One bit a pixel: regions of an image, 64 pixels to a word.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

class BitPlane {
 public:
  BitPlane() = default;
  BitPlane(std::int64_t height, std::int64_t width) { resize(height, width); }

  // All bits become 0. Memory is kept from larger sizes.
  void resize(std::int64_t height, std::int64_t width) {
    height_ = height;
    width_ = width;
    stride_ = (width + 63) / 64;
    words_.assign(static_cast<std::size_t>(height * stride_), 0);
  }
  [[nodiscard]] std::int64_t height() const { return height_; }
  [[nodiscard]] std::int64_t width() const { return width_; }
  [[nodiscard]] std::int64_t stride() const { return stride_; }  // words a row; bits beyond the width are 0
  [[nodiscard]] std::uint64_t* row(std::int64_t y) { return words_.data() + y * stride_; }
  [[nodiscard]] const std::uint64_t* row(std::int64_t y) const { return words_.data() + y * stride_; }
  // The bits of the row's last word that are pixels.
  [[nodiscard]] std::uint64_t last_word() const { return ~std::uint64_t{0} >> ((64 - width_ % 64) % 64); }

  [[nodiscard]] bool test(std::int64_t y, std::int64_t x) const { return (row(y)[x / 64] >> (x % 64) & 1) != 0; }
  void set(std::int64_t y, std::int64_t x) { row(y)[x / 64] |= std::uint64_t{1} << (x % 64); }

  friend bool operator==(const BitPlane&, const BitPlane&) = default;

  // Of the part of a rectangle that lies within the plane.
  [[nodiscard]] bool any(std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width) const {
    return find(top, left, height, width, 0);
  }
  [[nodiscard]] bool all(std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width) const {
    return !find(top, left, height, width, ~std::uint64_t{0});
  }
  [[nodiscard]] bool any() const { return any(0, 0, height_, width_); }
  [[nodiscard]] bool all() const { return all(0, 0, height_, width_); }

 private:
  // Is there a bit, after a flip of all?
  [[nodiscard]] bool find(std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width,
                          std::uint64_t flip) const {
    const std::int64_t bottom = std::min(top + height, height_);
    const std::int64_t right = std::min(left + width, width_);
    top = std::max<std::int64_t>(top, 0);
    left = std::max<std::int64_t>(left, 0);
    if (left >= right) return false;
    const std::int64_t first = left / 64;
    const std::int64_t last = (right - 1) / 64;
    const std::uint64_t from = ~std::uint64_t{0} << (left % 64);
    const std::uint64_t to = ~std::uint64_t{0} >> (63 - (right - 1) % 64);
    for (std::int64_t y = top; y < bottom; ++y) {
      const std::uint64_t* words = row(y);
      if (first == last) {
        if (((words[first] ^ flip) & from & to) != 0) return true;
        continue;
      }
      std::uint64_t found = ((words[first] ^ flip) & from) | ((words[last] ^ flip) & to);
      for (std::int64_t i = first + 1; i < last; ++i) found |= words[i] ^ flip;
      if (found != 0) return true;
    }
    return false;
  }

  std::int64_t height_ = 0;
  std::int64_t width_ = 0;
  std::int64_t stride_ = 0;
  std::vector<std::uint64_t> words_;
};

// The lowest bits of eight bytes, whose other bits are 0: they meet in the highest byte of the product.
inline std::uint64_t gather_lowest(std::uint64_t bytes) { return bytes * 0x0102040810204080U >> 56; }

// 64 flags of 0 or 1 as a word.
inline std::uint64_t pack(const std::uint8_t (&flags)[64]) {
  std::uint64_t word = 0;
  for (int byte = 0; byte < 8; ++byte) {
    std::uint64_t eight = 0;
    for (int i = 0; i < 8; ++i) eight |= static_cast<std::uint64_t>(flags[8 * byte + i]) << (8 * i);
    word |= gather_lowest(eight) << (8 * byte);
  }
  return word;
}

// to = the pixels of `from` whose four neighbours are in it too; what lies beyond the image counts as in.
inline void erode4(const BitPlane& from, BitPlane& to) {
  to.resize(from.height(), from.width());
  const std::int64_t words = from.stride();
  if (words == 0) return;
  const std::uint64_t beyond = ~from.last_word();
  for (std::int64_t y = 0; y < from.height(); ++y) {
    const std::uint64_t* here = from.row(y);
    const std::uint64_t* above = from.row(std::max<std::int64_t>(y - 1, 0));
    const std::uint64_t* below = from.row(std::min(y + 1, from.height() - 1));
    std::uint64_t* out = to.row(y);
    for (std::int64_t i = 0; i < words; ++i) {
      const std::uint64_t word = i + 1 < words ? here[i] : here[i] | beyond;
      const std::uint64_t before = i > 0 ? here[i - 1] >> 63 : 1;
      std::uint64_t after = 1;
      if (i + 1 < words) after = here[i + 1] & 1;
      out[i] = here[i] & above[i] & below[i] & (word << 1 | before) & (word >> 1 | after << 63);
    }
  }
}

// to |= `from` and its 8 neighbours, for a whole plane.
inline void dilate8(const BitPlane& from, BitPlane& to) {
  const std::int64_t words = from.stride();
  if (words == 0) return;
  for (std::int64_t y = 0; y < from.height(); ++y) {
    const std::uint64_t* rows[3] = {from.row(std::max<std::int64_t>(y - 1, 0)), from.row(y),
                                    from.row(std::min(y + 1, from.height() - 1))};
    std::uint64_t* out = to.row(y);
    const auto column = [&](std::int64_t i) { return rows[0][i] | rows[1][i] | rows[2][i]; };
    std::uint64_t before = 0;
    std::uint64_t here = column(0);
    for (std::int64_t i = 0; i < words; ++i) {
      const std::uint64_t after = i + 1 < words ? column(i + 1) : 0;
      out[i] |= here | here << 1 | here >> 1 | before >> 63 | after << 63;
      before = here;
      here = after;
    }
    out[words - 1] &= to.last_word();
  }
}

// The even bits of a word, side by side.
inline std::uint64_t compress_even(std::uint64_t word) {
  word &= 0x5555555555555555U;
  word = (word | word >> 1) & 0x3333333333333333U;
  word = (word | word >> 2) & 0x0F0F0F0F0F0F0F0FU;
  word = (word | word >> 4) & 0x00FF00FF00FF00FFU;
  word = (word | word >> 8) & 0x0000FFFF0000FFFFU;
  return (word | word >> 16) & 0x00000000FFFFFFFFU;
}
// The low 32 bits of a word, each twice.
inline std::uint64_t double_bits(std::uint64_t word) {
  word &= 0x00000000FFFFFFFFU;
  word = (word | word << 16) & 0x0000FFFF0000FFFFU;
  word = (word | word << 8) & 0x00FF00FF00FF00FFU;
  word = (word | word << 4) & 0x0F0F0F0F0F0F0F0FU;
  word = (word | word << 2) & 0x3333333333333333U;
  word = (word | word << 1) & 0x5555555555555555U;
  return word | word << 1;
}

// coarse(y, x) = is a bit set among fine rows 2y - 1 to 2y + 2 and columns 2x - 1 to 2x + 2, those beyond the plane
// left out? Pixels of core::Backend::downsample are made of these.
inline void downsample_any(const BitPlane& fine, BitPlane& coarse) {
  coarse.resize((fine.height() + 1) / 2, (fine.width() + 1) / 2);
  const std::int64_t words = fine.stride();
  for (std::int64_t y = 0; y < coarse.height(); ++y) {
    const auto column = [&](std::int64_t i) {
      std::uint64_t word = 0;
      const std::int64_t end = std::min(2 * y + 3, fine.height());
      for (std::int64_t row = std::max<std::int64_t>(2 * y - 1, 0); row < end; ++row) word |= fine.row(row)[i];
      return word;
    };
    std::uint64_t before = 0;
    std::uint64_t here = words > 0 ? column(0) : 0;
    for (std::int64_t i = 0; i < words; ++i) {
      const std::uint64_t after = i + 1 < words ? column(i + 1) : 0;
      const std::uint64_t any =
          here | (here << 1 | before >> 63) | (here >> 1 | after << 63) | (here >> 2 | after << 62);
      coarse.row(y)[i / 2] |= compress_even(any) << (i % 2 * 32);
      before = here;
      here = after;
    }
    if (coarse.stride() > 0) coarse.row(y)[coarse.stride() - 1] &= coarse.last_word();
  }
}

// fine(y, x) |= coarse(y / 2, x / 2).
inline void add_doubled(const BitPlane& coarse, BitPlane& fine) {
  for (std::int64_t y = 0; y < fine.height(); ++y) {
    const std::uint64_t* from = coarse.row(y / 2);
    std::uint64_t* to = fine.row(y);
    for (std::int64_t i = 0; i < fine.stride(); ++i) to[i] |= double_bits(from[i / 2] >> (i % 2 * 32));
    if (fine.stride() > 0) to[fine.stride() - 1] &= fine.last_word();
  }
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
