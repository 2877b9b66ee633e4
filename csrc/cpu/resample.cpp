// Every change of size: between the levels of the pyramid, and to and from the generator's.
#include "cpu/resample.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/border.hpp"
#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

double keys_kernel(double x) {
  x = std::abs(x);
  if (x <= 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

// Keys' bicubic; `centre(i)` is where output pixel i lies among the input pixels' centres.
template <typename Centre>
Taps bicubic_taps(std::int64_t from, std::int64_t to, Centre centre) {
  Taps taps{.count = 4, .indices = {}, .weights = {}};
  for (std::int64_t i = 0; i < to; ++i) {
    const double at = centre(i);
    const auto first = static_cast<std::int64_t>(std::floor(at)) - 1;
    for (std::int64_t t = first; t < first + 4; ++t) {
      taps.indices.push_back(reflect(t, from));
      taps.weights.push_back(static_cast<float>(keys_kernel(at - static_cast<double>(t))));
    }
  }
  return taps;
}

Taps expand_taps(std::int64_t from, std::int64_t to) {
  return bicubic_taps(from, to, [](std::int64_t i) { return (static_cast<double>(i) + 0.5) / 2 - 0.5; });
}

Taps half_pixel_taps(std::int64_t from, std::int64_t to) {
  const double step = static_cast<double>(from) / static_cast<double>(to);
  return bicubic_taps(from, to, [=](std::int64_t i) { return (static_cast<double>(i) + 0.5) * step - 0.5; });
}

Taps area_taps(std::int64_t from, std::int64_t to) {
  Taps taps{.count = (from + to - 1) / to + 1, .indices = {}, .weights = {}};
  for (std::int64_t i = 0; i < to; ++i) {
    // In units of 1 / to of an input pixel all edges are whole numbers.
    const std::int64_t begin = i * from;
    const std::int64_t end = begin + from;
    for (std::int64_t t = 0; t < taps.count; ++t) {
      const std::int64_t pixel = begin / to + t;
      const std::int64_t overlap =
          std::max<std::int64_t>(0, std::min(end, (pixel + 1) * to) - std::max(begin, pixel * to));
      taps.indices.push_back(std::min(pixel, from - 1));
      taps.weights.push_back(static_cast<float>(static_cast<double>(overlap) / static_cast<double>(from)));
    }
  }
  return taps;
}

Taps binomial_taps(std::int64_t from, std::int64_t to) {
  Taps taps{.count = 4, .indices = {}, .weights = {}};
  for (std::int64_t i = 0; i < to; ++i) {
    constexpr float kBinomial[4] = {0.125F, 0.375F, 0.375F, 0.125F};
    for (std::int64_t t = 0; t < 4; ++t) {
      taps.indices.push_back(reflect(2 * i - 1 + t, from));
      taps.weights.push_back(kBinomial[t]);
    }
  }
  return taps;
}

Taps resize_taps(std::int64_t from, std::int64_t to) {
  return to < from ? area_taps(from, to) : half_pixel_taps(from, to);
}

template <typename MakeTaps>
void resample(const Planes& image, const Planes& out, int threads, MakeTaps taps) {
  Resampling(taps(image.size.height, out.size.height), taps(image.size.width, out.size.width))(image, out, threads);
}

}  // namespace

Resampling Resampling::resize(Size from, Size to) {
  return {resize_taps(from.height, to.height), resize_taps(from.width, to.width)};
}

// Columns first, whole rows at a time, then along the row that came of it.
void Resampling::operator()(const Planes& image, const Planes& out, int threads) {
  const std::int64_t width = image.size.width;
  constexpr std::int64_t kRows = 8;  // of a task
  const std::int64_t work = kRows * (width * rows_.count + out.size.width * columns_.count);
  const std::int64_t blocks = (out.size.height + kRows - 1) / kRows;
  const auto workers = static_cast<int>(std::clamp<std::int64_t>(blocks * work / kSerialElements, 1, threads));
  sums_.resize(std::max(sums_.size(), static_cast<std::size_t>(threads * width)));
  parallel_tasks(image.channels * blocks, workers, [&](std::int64_t task, int worker) {
    const Planes from = image.channel(task / blocks);
    const Planes to = out.channel(task / blocks);
    float* sum = sums_.data() + worker * width;
    const std::int64_t begin = task % blocks * kRows;
    for (std::int64_t y = begin; y < std::min(begin + kRows, to.size.height); ++y) {
      const float* weight = rows_.weight(y);
      const std::int64_t* index = rows_.index(y);
      const float* first = from.row(index[0]);
      for (std::int64_t x = 0; x < width; ++x) sum[x] = weight[0] * first[x];
      for (std::int64_t t = 1; t < rows_.count; ++t) {
        const float* row = from.row(index[t]);
        const float w = weight[t];
        for (std::int64_t x = 0; x < width; ++x) sum[x] += w * row[x];
      }
      float* result = to.row(y);
      for (std::int64_t x = 0; x < to.size.width; ++x) {
        const float* w = columns_.weight(x);
        const std::int64_t* i = columns_.index(x);
        float total = 0;
        for (std::int64_t t = 0; t < columns_.count; ++t) total += w[t] * sum[i[t]];
        result[x] = total;
      }
    }
  });
}

void downsample(const Planes& image, const Planes& out, int threads) { resample(image, out, threads, binomial_taps); }

void upsample(const Planes& image, const Planes& out, int threads) { resample(image, out, threads, expand_taps); }

void resample_bicubic(const Planes& image, const Planes& out, int threads) {
  resample(image, out, threads, half_pixel_taps);
}

void area_average(const Planes& image, const Planes& out, int threads) { resample(image, out, threads, area_taps); }

void resize(const Planes& image, const Planes& out, int threads) { resample(image, out, threads, resize_taps); }

void resample_nearest(const Planes& mask, const Planes& out, int threads) {
  const auto source = [](std::int64_t i, std::int64_t from, std::int64_t to) { return (2 * i + 1) * from / (2 * to); };
  parallel_for(out.size.height, out.size.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      const float* row = mask.row(source(y, mask.size.height, out.size.height));
      for (std::int64_t x = 0; x < out.size.width; ++x) out.row(y)[x] = row[source(x, mask.size.width, out.size.width)];
    }
  });
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
