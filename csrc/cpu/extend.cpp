// Push-pull: colours for the pixels of the source that nobody knows.
#include <algorithm>
#include <vector>

#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

Size halved(Size size) { return {(size.height + 1) / 2, (size.width + 1) / 2}; }

// Push: alpha-weighted means over 2 x 2 pixels; a pixel beyond the border has no weight.
void push(const Planes& source, const Planes& alpha, const Planes& color, const Planes& weight, int threads) {
  const std::int64_t height = alpha.size.height;
  const std::int64_t width = alpha.size.width;
  const std::int64_t coarse_height = weight.size.height;
  const std::int64_t coarse_width = weight.size.width;
  parallel_for(coarse_height, width * (source.channels + 1) * 2, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      for (std::int64_t x = 0; x < coarse_width; ++x) {
        const std::int64_t rows = std::min<std::int64_t>(2, height - 2 * y);
        const std::int64_t columns = std::min<std::int64_t>(2, width - 2 * x);
        float total = 0;
        for (std::int64_t j = 0; j < rows; ++j) {
          for (std::int64_t i = 0; i < columns; ++i) total += alpha.row(2 * y + j)[2 * x + i];
        }
        weight.row(y)[x] = total / 4;
        for (std::int64_t c = 0; c < source.channels; ++c) {
          float sum = 0;
          for (std::int64_t j = 0; j < rows; ++j) {
            for (std::int64_t i = 0; i < columns; ++i) {
              sum += alpha.row(2 * y + j)[2 * x + i] * source.channel(c).row(2 * y + j)[2 * x + i];
            }
          }
          color.channel(c).row(y)[x] = total > 0 ? sum / total : 0;
        }
      }
    }
  });
}

// Pull: the bilinear interpolation of the coarser level where alpha is 0.
void pull(const Planes& color, const Planes& alpha, const Planes& source, int threads) {
  const std::int64_t height = alpha.size.height;
  const std::int64_t width = alpha.size.width;
  const auto far_of = [](std::int64_t i,
                         std::int64_t n) {  // the further of the two coarse pixels that i lies between
    return std::clamp<std::int64_t>(i / 2 + (i % 2 == 0 ? -1 : 1), 0, n - 1);
  };
  parallel_for(height, width * source.channels, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      const float* known = alpha.row(y);
      for (std::int64_t c = 0; c < source.channels; ++c) {
        const float* near_row = color.channel(c).row(y / 2);
        const float* far_row = color.channel(c).row(far_of(y, color.size.height));
        float* row = source.channel(c).row(y);
        for (std::int64_t x = 0; x < width; ++x) {
          if (known[x] > 0) continue;
          const std::int64_t near = x / 2;
          const std::int64_t far = far_of(x, color.size.width);
          row[x] = 0.75F * (0.75F * near_row[near] + 0.25F * far_row[near]) +
                   0.25F * (0.75F * near_row[far] + 0.25F * far_row[far]);
        }
      }
    }
  });
}

// `memory` has room for the colours and weights of all coarser levels.
void extend_level(const Planes& source, const Planes& alpha, int threads, float* memory) {
  bool all = true;
  bool none = true;
  for (std::int64_t i = 0; i < alpha.floats(); ++i) {
    (alpha.data[i] > 0 ? none : all) = false;
  }
  if (all) return;
  // Colours under alpha 0 must not be seen, not even as 0 times infinity or as what is left where nothing is
  // known.
  for (std::int64_t c = 0; c < source.channels; ++c) {
    float* plane = source.channel(c).data;
    for (std::int64_t i = 0; i < alpha.floats(); ++i) plane[i] = alpha.data[i] > 0 ? plane[i] : 0;
  }
  if (none) return;
  const Size half = halved(alpha.size);
  const Planes color{memory, source.channels, half};
  const Planes weight{memory + color.floats(), 1, half};
  push(source, alpha, color, weight, threads);
  extend_level(color, weight, threads, weight.data + weight.floats());
  pull(color, alpha, source, threads);
}

}  // namespace

void extend(const Planes& source, const Planes& alpha, int threads, std::vector<float>& memory) {
  std::int64_t floats = 0;
  for (Size size = alpha.size; size.pixels() > 1;) {
    size = halved(size);
    floats += (source.channels + 1) * size.pixels();
  }
  memory.resize(std::max(memory.size(), static_cast<std::size_t>(floats)));
  extend_level(source, alpha, threads, memory.data());
}

void extend(const Planes& source, const Planes& alpha, int threads) {
  std::vector<float> memory;
  extend(source, alpha, threads, memory);
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
