// Separable symmetric filters with reflecting borders, both axes in one pass over the image.
#include <vector>

#include "cpu/border.hpp"
#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

void blur(const Planes& image, const std::vector<double>& kernel, float scale, bool add, const Planes& out,
          int threads) {
  const std::int64_t height = image.size.height;
  const std::int64_t width = image.size.width;
  const auto radius = static_cast<std::int64_t>(kernel.size()) - 1;
  const std::vector<float> taps(kernel.begin(), kernel.end());
  for (std::int64_t c = 0; c < image.channels; ++c) {
    const Planes from = image.channel(c);
    const Planes to = out.channel(c);
    parallel_for(height, width * (radius + 1), threads, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> padded(static_cast<std::size_t>(width + 2 * radius));
      std::vector<float> sum(static_cast<std::size_t>(width));
      float* column_sums = padded.data() + radius;
      for (std::int64_t y = begin; y < end; ++y) {
        const float* centre = from.row(y);
        for (std::int64_t x = 0; x < width; ++x) column_sums[x] = taps[0] * centre[x];
        for (std::int64_t i = 1; i <= radius; ++i) {
          const float* above = from.row(reflect(y - i, height));
          const float* below = from.row(reflect(y + i, height));
          const float tap = taps[static_cast<std::size_t>(i)];
          for (std::int64_t x = 0; x < width; ++x) column_sums[x] += tap * (above[x] + below[x]);
        }
        for (std::int64_t i = 1; i <= radius; ++i) {
          column_sums[-i] = column_sums[reflect(-i, width)];
          column_sums[width - 1 + i] = column_sums[reflect(width - 1 + i, width)];
        }
        for (std::int64_t x = 0; x < width; ++x) sum[static_cast<std::size_t>(x)] = taps[0] * column_sums[x];
        for (std::int64_t i = 1; i <= radius; ++i) {
          const float tap = taps[static_cast<std::size_t>(i)];
          for (std::int64_t x = 0; x < width; ++x) {
            sum[static_cast<std::size_t>(x)] += tap * (column_sums[x - i] + column_sums[x + i]);
          }
        }
        float* row = to.row(y);
        if (add) {
          for (std::int64_t x = 0; x < width; ++x) row[x] += scale * sum[static_cast<std::size_t>(x)];
        } else {
          for (std::int64_t x = 0; x < width; ++x) row[x] = scale * sum[static_cast<std::size_t>(x)];
        }
      }
    });
  }
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
