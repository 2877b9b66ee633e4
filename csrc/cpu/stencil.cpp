// The 5-point stencils of the equation. A neighbour beyond the border equals the pixel itself and drops out.
#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"
#include "cpu/vectorize.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

// out[x] = sum over the 4-neighbours of x of term(x, n), where n is the neighbour's offset from x in memory.
template <typename Term>
void sum_over_neighbours(Size size, std::int64_t y, float* out, Term term) {
  const std::int64_t last = size.width - 1;
  const std::int64_t above = std::max<std::int64_t>(y - 1, 0);
  const std::int64_t below = std::min(y + 1, size.height - 1);
  const std::int64_t offset_above = (above - y) * size.width;
  const std::int64_t offset_below = (below - y) * size.width;
  const auto at = [&](std::int64_t x, std::int64_t left, std::int64_t right) {
    return term(x, offset_above) + term(x, offset_below) + term(x, left) + term(x, right);
  };
  out[0] = at(0, 0, last > 0 ? 1 : 0);
  GPGAN_INDEPENDENT_LOOP
  for (std::int64_t x = 1; x < last; ++x) out[x] = at(x, -1, 1);
  if (last > 0) out[last] = at(last, -1, 0);
}

}  // namespace

void guidance_divergence(const Planes& source, const Planes& target, const Planes& mask, const Planes& out,
                         int threads) {
  for (std::int64_t c = 0; c < out.channels; ++c) {
    parallel_for(out.size.height, out.size.width, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t y = begin; y < end; ++y) {
        const float* s = source.channel(c).row(y);
        const float* t = target.channel(c).row(y);
        const float* m = mask.row(y);
        sum_over_neighbours(out.size, y, out.channel(c).row(y), [=](std::int64_t x, std::int64_t n) {
          const float weight = 0.5F * (m[x] + m[x + n]);
          const float from_target = t[x] - t[x + n];
          return from_target + weight * ((s[x] - s[x + n]) - from_target);
        });
      }
    });
  }
}

// On the edge from i to j, with D = source - target and composite = target + m D, the guidance of Eq. 8 less
// the composite's gradient is (m_i - m_j) (D_i + D_j) / 2: nothing at all where the mask is constant. Taken
// from this form it is exact there, while the difference of u and L composite would leave rounding noise
// everywhere.
void guidance_residual(const Planes& difference, const Planes& mask, const Planes& out, int threads) {
  parallel_for(out.size.height, out.size.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      const float* d = difference.row(y);
      const float* m = mask.row(y);
      sum_over_neighbours(out.size, y, out.row(y),
                          [=](std::int64_t x, std::int64_t n) { return 0.5F * (m[x + n] - m[x]) * (d[x + n] + d[x]); });
    }
  });
}

void laplacian(const Planes& image, const Planes& out, int threads) {
  parallel_for(out.size.height, out.size.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      const float* v = image.row(y);
      sum_over_neighbours(out.size, y, out.row(y), [=](std::int64_t x, std::int64_t n) { return v[x] - v[x + n]; });
    }
  });
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
