// Between the caller's pixels and the core's planes.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"
#include "cpu/pixels.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

// How far outside [0, 1] a float may lie before it is taken for a mistake: room for the rounding of others'
// resizing.
constexpr double kRangeSlack = 1e-3;

template <typename T>
const T* pixel(const ConstImageView& view, std::int64_t y, std::int64_t x, std::int64_t c) {
  return reinterpret_cast<const T*>(static_cast<const std::byte*>(view.data) + y * view.strides[0] +
                                    x * view.strides[1] + c * view.strides[2]);
}

// One row of one channel, whatever its stride; the dense case is its own loop so that it becomes vector code.
template <typename T, typename Convert>
void convert_row(const ConstImageView& view, std::int64_t y, std::int64_t x, std::int64_t c, std::int64_t count,
                 float* out, Convert convert) {
  const T* from = pixel<T>(view, y, x, c);
  if (view.strides[1] == static_cast<std::ptrdiff_t>(sizeof(T))) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = convert(from[i]);
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      out[i] = convert(*reinterpret_cast<const T*>(reinterpret_cast<const std::byte*>(from) + i * view.strides[1]));
    }
  }
}

// Finite and inside [0, 1]; NaN fails the comparison too.
template <typename T>
void check_range(const ConstImageView& view, const char* argument, std::int64_t y, std::int64_t c) {
  bool good = true;
  for (std::int64_t x = 0; x < view.width; ++x) {
    const T value = *pixel<T>(view, y, x, c);
    good &= value >= static_cast<T>(-kRangeSlack) && value <= static_cast<T>(1 + kRangeSlack);
  }
  if (good) return;
  for (std::int64_t x = 0; x < view.width; ++x) {
    const T value = *pixel<T>(view, y, x, c);
    if (value >= static_cast<T>(-kRangeSlack) && value <= static_cast<T>(1 + kRangeSlack)) continue;
    throw InvalidArgument(argument, "finite floats in [0, 1]",
                          std::to_string(value) + " at row " + std::to_string(y) + ", column " + std::to_string(x));
  }
}

// The whole view is checked, what falls outside the planes too; then the part that meets them is converted.
template <typename T, typename Convert>
void place(const ConstImageView& view, const char* argument, Offset offset, const Planes& out, int threads,
           Convert convert) {
  const std::int64_t height = out.size.height;
  const std::int64_t width = out.size.width;
  cpu::check_range(view, argument, threads);
  const std::int64_t left = std::clamp<std::int64_t>(offset.left, 0, width);
  const std::int64_t right = std::clamp<std::int64_t>(offset.left + view.width, left, width);
  parallel_for(height, width * view.channels, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = 0; c < view.channels; ++c) {
      for (std::int64_t y = begin; y < end; ++y) {
        float* row = out.channel(c).row(y);
        const std::int64_t from = y - offset.top;
        if (from < 0 || from >= view.height || left == right) {
          std::fill_n(row, width, 0.0F);
          continue;
        }
        std::fill_n(row, left, 0.0F);
        convert_row<T>(view, from, left - offset.left, c, right - left, row + left, convert);
        std::fill_n(row + right, width - right, 0.0F);
      }
    }
  });
}

template <typename T>
bool only_zero_and_one(const ConstImageView& view) {
  for (std::int64_t y = 0; y < view.height; ++y) {
    bool good = true;
    if (view.strides[1] == static_cast<std::ptrdiff_t>(sizeof(T))) {
      const T* row = pixel<T>(view, y, 0, 0);
      for (std::int64_t x = 0; x < view.width; ++x) good &= row[x] <= 1;
    } else {
      for (std::int64_t x = 0; x < view.width; ++x) good &= *pixel<T>(view, y, x, 0) <= 1;
    }
    if (!good) return false;
  }
  return true;
}

// 64 bytes as bits; the two flags stay if they are 0 and 255 alone, and 0 and 1 alone. Then the lowest bit says it all.
std::uint64_t pack_bytes(const std::uint8_t* bytes, bool& only_tops, bool& only_ones) {
  constexpr std::uint64_t kLowest = 0x0101010101010101U;
  std::uint64_t word = 0;
  std::uint64_t not_tops = 0;
  std::uint64_t not_ones = 0;
  for (int i = 0; i < 8; ++i) {
    std::uint64_t eight = 0;
    if constexpr (std::endian::native == std::endian::little) {
      std::memcpy(&eight, bytes + std::ptrdiff_t{8} * i, 8);
    } else {
      for (int k = 0; k < 8; ++k) eight |= static_cast<std::uint64_t>(bytes[8 * i + k]) << (8 * k);
    }
    const std::uint64_t lowest = eight & kLowest;
    not_tops |= eight ^ (lowest * 255);
    not_ones |= eight ^ lowest;
    word |= gather_lowest(lowest) << (8 * i);
  }
  only_tops &= not_tops == 0;
  only_ones &= not_ones == 0;
  return word;
}

}  // namespace

void check_range(const ConstImageView& view, const char* argument, int threads) {
  with_type(view.dtype, [&]<typename T>(T) {
    if constexpr (std::is_floating_point_v<T>) {
      parallel_for(view.height, view.width * view.channels, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t y = begin; y < end; ++y) {
          for (std::int64_t c = 0; c < view.channels; ++c) check_range<T>(view, argument, y, c);
        }
      });
    }
  });
}

void load_bytes(const ConstImageView& view, Offset offset, std::uint8_t* out, Size size, int threads) {
  const std::int64_t left = std::clamp<std::int64_t>(offset.left, 0, size.width);
  const std::int64_t right = std::clamp<std::int64_t>(offset.left + view.width, left, size.width);
  parallel_for(size.height, size.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      std::uint8_t* row = out + y * size.width;
      const std::int64_t from = y - offset.top;
      if (from < 0 || from >= view.height || left == right) {
        std::fill_n(row, size.width, std::uint8_t{0});
        continue;
      }
      std::fill_n(row, left, std::uint8_t{0});
      const auto* in = pixel<std::uint8_t>(view, from, left - offset.left, 0);
      if (view.strides[1] == 1) {
        std::copy_n(in, right - left, row + left);
      } else {
        for (std::int64_t x = 0; x < right - left; ++x) row[left + x] = in[x * view.strides[1]];
      }
      std::fill_n(row + right, size.width - right, std::uint8_t{0});
    }
  });
}

bool load_bits(const ConstImageView& view, bool as_mask, Offset offset, Size size, BitPlane& out, int threads) {
  return with_type(view.dtype, [&]<typename T>(T) {
    constexpr T kTop = std::is_floating_point_v<T> ? T{1} : std::numeric_limits<T>::max();
    std::atomic<bool> tops = true;
    std::atomic<bool> ones = as_mask && std::is_integral_v<T>;
    out.resize(size.height, size.width);
    // Every pixel of the view counts, those outside the image too.
    parallel_for(view.height, view.width, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t y = begin; y < end && (tops || ones); ++y) {
        bool only_tops = true;
        bool only_ones = true;
        std::uint64_t* bits = y + offset.top >= 0 && y + offset.top < size.height ? out.row(y + offset.top) : nullptr;
        // Up to where a word of the image ends.
        for (std::int64_t x = 0; x < view.width;) {
          const std::int64_t at = x + offset.left;
          const std::int64_t first = (at % 64 + 64) % 64;
          const std::int64_t count = std::min(64 - first, view.width - x);
          std::uint8_t flags[64] = {};
          const auto look = [&](std::int64_t i, T value) {
            only_tops &= value == T{0} || value == kTop;
            only_ones &= value <= T{1};
            flags[first + i] = value != T{0} ? 1 : 0;
          };
          std::uint64_t word = 0;
          if (std::is_same_v<T, std::uint8_t> && view.strides[1] == 1 && count == 64) {
            word = pack_bytes(reinterpret_cast<const std::uint8_t*>(pixel<T>(view, y, x, 0)), only_tops, only_ones);
          } else {
            for (std::int64_t i = 0; i < count; ++i) look(i, *pixel<T>(view, y, x + i, 0));
            word = pack(flags);
          }
          if (bits != nullptr && at >= 0 && at < size.width) {
            if (at - first + 64 > size.width) word &= out.last_word();
            bits[at / 64] |= word;
          }
          x += count;
        }
        if (!only_tops) tops = false;
        if (!only_ones) ones = false;
      }
    });
    return tops || ones;
  });
}

void load(const ConstImageView& view, const char* argument, Offset offset, const Planes& out, int threads) {
  with_type(view.dtype, [&]<typename T>(T) {
    if constexpr (std::is_floating_point_v<T>) {
      place<T>(view, argument, offset, out, threads,
               [](T value) { return static_cast<float>(std::clamp(value, T{0}, T{1})); });
    } else {
      // A division rounds right where the reciprocal would not: 255 becomes 1 exactly.
      constexpr auto kMax = static_cast<float>(std::numeric_limits<T>::max());
      place<T>(view, argument, offset, out, threads, [](T value) { return static_cast<float>(value) / kMax; });
    }
  });
}

void load_mask(const ConstImageView& view, const char* argument, Offset offset, const Planes& out, int threads) {
  const bool zero_and_one = with_type(view.dtype, [&]<typename T>(T) {
    if constexpr (std::is_integral_v<T>) {
      return only_zero_and_one<T>(view);
    } else {
      return false;
    }
  });
  if (!zero_and_one) {
    load(view, argument, offset, out, threads);
    return;
  }
  with_type(view.dtype, [&]<typename T>(T) {
    place<T>(view, argument, offset, out, threads, [](T value) { return static_cast<float>(value); });
  });
}

void store(const Planes& image, const ImageView& view, int threads) {
  with_type(view.dtype, [&]<typename T>(T) {
    parallel_for(view.height, view.width * view.channels, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t c = 0; c < view.channels; ++c) {
        for (std::int64_t y = begin; y < end; ++y) {
          const float* row = image.channel(c).row(y);
          std::byte* to = static_cast<std::byte*>(view.data) + y * view.strides[0] + c * view.strides[2];
          for (std::int64_t x = 0; x < view.width; ++x, to += view.strides[1]) {
            const float value = row[x] > 0 ? std::min(row[x], 1.0F) : 0.0F;  // NaN too would be 0
            if constexpr (std::is_floating_point_v<T>) {
              *reinterpret_cast<T*>(to) = static_cast<T>(value);
            } else {
              constexpr auto kMax = static_cast<float>(std::numeric_limits<T>::max());
              // NOLINTNEXTLINE(bugprone-incorrect-roundings): value is not negative, and this is vector code.
              *reinterpret_cast<T*>(to) = static_cast<T>(static_cast<int>(value * kMax + 0.5F));
            }
          }
        }
      }
    });
  });
}

void copy_pixels(const ConstImageView& from, const ImageView& to, int threads) {
  parallel_for(from.height, from.width * from.channels, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row;
    if (from.dtype != to.dtype) row.resize(static_cast<std::size_t>(from.width * from.channels));
    for (std::int64_t y = begin; y < end; ++y) {
      if (from.dtype == to.dtype) {
        copy_row(from, to, y, 0, from.width);
      } else {
        read_row(from, y, 0, from.width, row.data(), from.width);
        write_row(row.data(), from.width, to, y, 0, from.width);
      }
    }
  });
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
