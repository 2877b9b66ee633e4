#include "cpu/pixels.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/vectorize.hpp"
#include "gpgan/error.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

// The product with the reciprocal differs from the quotient by an eps at most, and is 1 at the end of either range.
template <typename T>
float to_float(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<float>(std::clamp(value, T{0}, T{1}));
  } else {
    return static_cast<float>(value) * (1.0F / static_cast<float>(std::numeric_limits<T>::max()));
  }
}

template <typename T>
T from_float(float value) {
  const float clamped = value > 0 ? std::min(value, 1.0F) : 0.0F;  // NaN too would be 0
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(clamped);
  } else {
    // NOLINTNEXTLINE(bugprone-incorrect-roundings): the value is not negative, and this is vector code.
    return static_cast<T>(static_cast<int>(clamped * static_cast<float>(std::numeric_limits<T>::max()) + 0.5F));
  }
}

// Not by __SSSE3__: g++ sets such macros before it sees the pragma.
#if defined(GPGAN_TARGET_X86_64_V3) || defined(GPGAN_TARGET_X86_64_V4) || defined(__ARM_NEON)
#define GPGAN_BYTE_SHUFFLES
// Interleaved pixels of three bytes, 16 at a time: byte shuffles take the channels apart and put them together.
constexpr std::int64_t kPixels = 16;
using Bytes = std::uint8_t __attribute__((vector_size(16), aligned(1), may_alias));

inline void split_three(const std::uint8_t* from, Bytes (&channel)[3]) {
  const Bytes a = *reinterpret_cast<const Bytes*>(from);
  const Bytes b = *reinterpret_cast<const Bytes*>(from + 16);
  const Bytes c = *reinterpret_cast<const Bytes*>(from + 32);
  const Bytes ab0 = __builtin_shufflevector(a, b, 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0);
  channel[0] = __builtin_shufflevector(ab0, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29);
  const Bytes ab1 = __builtin_shufflevector(a, b, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0);
  channel[1] = __builtin_shufflevector(ab1, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30);
  const Bytes ab2 = __builtin_shufflevector(a, b, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0);
  channel[2] = __builtin_shufflevector(ab2, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31);
}

inline void join_three(const Bytes (&channel)[3], std::uint8_t* to) {
  const Bytes& r = channel[0];
  const Bytes& g = channel[1];
  const Bytes& b = channel[2];
  const Bytes rg0 = __builtin_shufflevector(r, g, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
  *reinterpret_cast<Bytes*>(to + 0) =
      __builtin_shufflevector(rg0, b, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15);
  const Bytes rg1 = __builtin_shufflevector(r, g, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
  *reinterpret_cast<Bytes*>(to + 16) =
      __builtin_shufflevector(rg1, b, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15);
  const Bytes rg2 = __builtin_shufflevector(r, g, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
  *reinterpret_cast<Bytes*>(to + 32) =
      __builtin_shufflevector(rg2, b, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31);
}

// By way of rows of bytes a channel, as g++ makes good code of widening loops but not of widening vectors.
constexpr std::int64_t kRun = 256;

std::int64_t read_three(const std::uint8_t* from, std::int64_t count, float* out, std::int64_t stride) {
  std::uint8_t bytes[3][kRun];
  const std::int64_t whole = count / kPixels * kPixels;
  for (std::int64_t begin = 0; begin < whole; begin += kRun) {
    const std::int64_t run = std::min(kRun, whole - begin);
    for (std::int64_t i = 0; i < run; i += kPixels) {
      Bytes channel[3];
      split_three(from + 3 * (begin + i), channel);
      for (int c = 0; c < 3; ++c) *reinterpret_cast<Bytes*>(bytes[c] + i) = channel[c];
    }
    for (int c = 0; c < 3; ++c) {
      float* row = out + c * stride + begin;
      GPGAN_INDEPENDENT_LOOP
      for (std::int64_t i = 0; i < run; ++i) row[i] = to_float(bytes[c][i]);
    }
  }
  return whole;
}

std::int64_t write_three(const float* in, std::int64_t stride, std::int64_t count, std::uint8_t* to) {
  std::uint8_t bytes[3][kRun];
  const std::int64_t whole = count / kPixels * kPixels;
  for (std::int64_t begin = 0; begin < whole; begin += kRun) {
    const std::int64_t run = std::min(kRun, whole - begin);
    for (int c = 0; c < 3; ++c) {
      const float* row = in + c * stride + begin;
      GPGAN_INDEPENDENT_LOOP
      for (std::int64_t i = 0; i < run; ++i) bytes[c][i] = from_float<std::uint8_t>(row[i]);
    }
    for (std::int64_t i = 0; i < run; i += kPixels) {
      Bytes channel[3];
      for (int c = 0; c < 3; ++c) channel[c] = *reinterpret_cast<const Bytes*>(bytes[c] + i);
      join_three(channel, to + 3 * (begin + i));
    }
  }
  return whole;
}

template <typename Void>
bool three_bytes(const BasicImageView<Void>& view) {
  return view.dtype == DType::kUint8 && view.channels == 3 && view.strides[1] == 3 && view.strides[2] == 1;
}
#endif

template <typename Void>
auto* address(const BasicImageView<Void>& view, std::int64_t y, std::int64_t x) {
  using Byte = std::conditional_t<std::is_const_v<Void>, const std::byte, std::byte>;
  return static_cast<Byte*>(view.data) + y * view.strides[0] + x * view.strides[1];
}

}  // namespace

void read_row(const ConstImageView& view, std::int64_t y, std::int64_t x, std::int64_t count, float* out,
              std::int64_t stride) {
  std::int64_t done = 0;
#ifdef GPGAN_BYTE_SHUFFLES
  if (three_bytes(view)) {
    done = read_three(reinterpret_cast<const std::uint8_t*>(address(view, y, x)), count, out, stride);
  }
#endif
  with_type(view.dtype, [&]<typename T>(T) {
    for (std::int64_t c = 0; c < view.channels; ++c) {
      const std::byte* from = address(view, y, x) + c * view.strides[2];
      float* row = out + c * stride;
      if (view.strides[1] == static_cast<std::ptrdiff_t>(sizeof(T))) {
        const T* dense = reinterpret_cast<const T*>(from);
        for (std::int64_t i = done; i < count; ++i) row[i] = to_float(dense[i]);
      } else {
        for (std::int64_t i = done; i < count; ++i) {
          row[i] = to_float(*reinterpret_cast<const T*>(from + i * view.strides[1]));
        }
      }
    }
  });
}

void write_row(const float* in, std::int64_t stride, const ImageView& view, std::int64_t y, std::int64_t x,
               std::int64_t count) {
  std::int64_t done = 0;
#ifdef GPGAN_BYTE_SHUFFLES
  if (three_bytes(view)) {
    done = write_three(in, stride, count, reinterpret_cast<std::uint8_t*>(address(view, y, x)));
  }
#endif
  with_type(view.dtype, [&]<typename T>(T) {
    for (std::int64_t c = 0; c < view.channels; ++c) {
      std::byte* to = address(view, y, x) + c * view.strides[2];
      const float* row = in + c * stride;
      if (view.strides[1] == static_cast<std::ptrdiff_t>(sizeof(T))) {
        T* dense = reinterpret_cast<T*>(to);
        for (std::int64_t i = done; i < count; ++i) dense[i] = from_float<T>(row[i]);
      } else {
        for (std::int64_t i = done; i < count; ++i) {
          *reinterpret_cast<T*>(to + i * view.strides[1]) = from_float<T>(row[i]);
        }
      }
    }
  });
}

void copy_row(const ConstImageView& from, const ImageView& to, std::int64_t y, std::int64_t x, std::int64_t count) {
  with_type(from.dtype, [&]<typename T>(T) {
    constexpr auto kSize = static_cast<std::ptrdiff_t>(sizeof(T));
    const auto dense = [&](const auto& view) {
      return view.strides[2] == kSize && view.strides[1] == view.channels * kSize;
    };
    if (dense(from) && dense(to)) {
      std::memmove(address(to, y, x), address(from, y, x), static_cast<std::size_t>(count * from.channels * kSize));
      return;
    }
    for (std::int64_t c = 0; c < from.channels; ++c) {
      const std::byte* in = address(from, y, x) + c * from.strides[2];
      std::byte* out = address(to, y, x) + c * to.strides[2];
      for (std::int64_t i = 0; i < count; ++i) {
        *reinterpret_cast<T*>(out + i * to.strides[1]) = *reinterpret_cast<const T*>(in + i * from.strides[1]);
      }
    }
  });
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
