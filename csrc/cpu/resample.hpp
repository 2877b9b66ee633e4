// A change of size, planned once for many images.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/backend.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// One axis of a separable resampling: output pixel i is the sum of weight(i, t) * input pixel index(i, t).
// The border is already folded into the indices.
struct Taps {
  std::int64_t count = 0;  // of every output pixel
  std::vector<std::int64_t> indices;
  std::vector<float> weights;

  [[nodiscard]] const std::int64_t* index(std::int64_t i) const { return indices.data() + i * count; }
  [[nodiscard]] const float* weight(std::int64_t i) const { return weights.data() + i * count; }
};

class Resampling {
 public:
  Resampling(Taps rows, Taps columns) : rows_(std::move(rows)), columns_(std::move(columns)) {}
  // core::Backend::resize.
  static Resampling resize(core::Size from, core::Size to);

  void operator()(const core::Planes& image, const core::Planes& out, int threads);

 private:
  Taps rows_, columns_;
  std::vector<float> sums_;  // a worker's row
};

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
