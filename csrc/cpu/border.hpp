// The one border rule of the project: half-sample symmetric, ... c b a | a b c ...
#pragma once

#include <cstdint>

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// Where pixel i of an endless mirrored row of n pixels lies in the row.
inline std::int64_t reflect(std::int64_t i, std::int64_t n) {
  if (i >= 0 && i < n) return i;
  const std::int64_t period = 2 * n;
  i %= period;
  if (i < 0) i += period;
  return i < n ? i : period - 1 - i;
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
