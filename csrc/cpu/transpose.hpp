// Rows of floats to columns, in registers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "cpu/simd.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// Shuffles of two registers that are one instruction each: in every group of four floats, the lower or the upper halves
// of a's and b's in turn; and the even or the odd groups, first a's and then b's.
using R = Register<kNativeFloats>;
template <int kUpper, int... i>
inline R zip(const R& a, const R& b, std::integer_sequence<int, i...> /*lanes*/) {
  return __builtin_shufflevector(a, b, (i / 4 * 4 + 2 * kUpper + i % 4 / 2 + i % 2 * kNativeFloats)...);
}
template <int kOdd, int... i>
inline R unzip(const R& a, const R& b, std::integer_sequence<int, i...> /*lanes*/) {
  return __builtin_shufflevector(a, b, (i / 4 * 8 + 4 * kOdd + i % 4)...);
}

// A square of kSide rows and columns, crossed over: each four by four, and then those as they are.
constexpr std::int64_t kSide = kNativeFloats;
[[gnu::flatten]] inline void transpose_square(const float* from, std::int64_t from_stride, float* to,
                                              std::int64_t to_stride) {
  constexpr std::make_integer_sequence<int, kNativeFloats> kAll;
  R x[kSide];
  R y[kSide];
  GPGAN_UNROLL
  for (int i = 0; i < kSide; ++i) x[i] = load_register<kNativeFloats>(from + i * from_stride);
  GPGAN_UNROLL
  for (int i = 0; i < kSide; i += 4) {
    const R a = zip<0>(x[i], x[i + 2], kAll);
    const R b = zip<0>(x[i + 1], x[i + 3], kAll);
    const R c = zip<1>(x[i], x[i + 2], kAll);
    const R d = zip<1>(x[i + 1], x[i + 3], kAll);
    y[i] = zip<0>(a, b, kAll);
    y[i + 1] = zip<1>(a, b, kAll);
    y[i + 2] = zip<0>(c, d, kAll);
    y[i + 3] = zip<1>(c, d, kAll);
  }
  GPGAN_UNROLL
  for (int groups = 4; groups < kSide; groups *= 2) {
    GPGAN_UNROLL
    for (int i = 0; i < kSide; ++i) x[i] = y[i];
    GPGAN_UNROLL
    for (int i = 0; i < kSide / 2; ++i) {
      const int first = i / 4 * 8 + i % 4;
      y[i] = unzip<0>(x[first], x[first + 4], kAll);
      y[i + kSide / 2] = unzip<1>(x[first], x[first + 4], kAll);
    }
  }
  GPGAN_UNROLL
  for (int i = 0; i < kSide; ++i) store_register<kNativeFloats>(to + i * to_stride, y[i]);
}

// to[x * to_stride + y] = from[y * from_stride + x], in tiles that use whole cache lines on both sides.
inline void transpose(const float* from, std::int64_t from_stride, std::int64_t height, std::int64_t width, float* to,
                      std::int64_t to_stride) {
  constexpr std::int64_t kTile = 16;
  for (std::int64_t y0 = 0; y0 < height; y0 += kTile) {
    const std::int64_t y1 = std::min(height, y0 + kTile);
    for (std::int64_t x0 = 0; x0 < width; x0 += kTile) {
      const std::int64_t x1 = std::min(width, x0 + kTile);
      if (y1 - y0 == kTile && x1 - x0 == kTile) {
        for (std::int64_t x = x0; x < x1; x += kSide) {
          for (std::int64_t y = y0; y < y1; y += kSide) {
            transpose_square(from + y * from_stride + x, from_stride, to + x * to_stride + y, to_stride);
          }
        }
      } else {
        for (std::int64_t x = x0; x < x1; ++x) {
          for (std::int64_t y = y0; y < y1; ++y) to[x * to_stride + y] = from[y * from_stride + x];
        }
      }
    }
  }
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
