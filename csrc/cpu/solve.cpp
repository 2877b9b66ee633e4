// The closed form of one level: cosine transforms of what is asked for, the quotient of spectra, and back.
//
// A level is solved for its distance d to its composite, x = composite + d. With r = u - L composite, the
// part of the guidance that the composite does not have, and q = c - G composite,
//   Eq. 9:     D = (l R + lambda g Q) / (l^2 + lambda g^2)
//   screened:  D = (R + lambda Q) / (l + lambda g).
// r is zero wherever the mask is constant, and q = G e under Carry::kCorrection, so that the float32 rounding
// of an image's worth of gradients never enters. d is also just what Carry::kCorrection hands on. R and Q are
// transformed apart: a stencil for L r would leave rounding noise at the lowest frequencies, where a small
// lambda divides.
#include <algorithm>
#include <memory>
#include <vector>

#include "core/spectrum.hpp"
#include "cpu/dct.hpp"
#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

std::vector<float> to_float(const std::vector<double>& values) { return {values.begin(), values.end()}; }

class CpuSolver final : public core::Solver {
 public:
  CpuSolver(Size size, Equation equation, double color_weight, double sigma, int threads)
      : size_(size),
        equation_(equation),
        color_weight_(static_cast<float>(color_weight)),
        threads_(threads),
        gaussian_(core::gaussian_kernel(sigma)),
        rows_(size.width),
        columns_(size.height),
        workspace_(static_cast<std::size_t>(2 * size.pixels())) {
    const core::Spectrum spectrum(equation, color_weight, sigma, size.height, size.width);
    laplacian_rows_ = to_float(spectrum.laplacian_rows);
    laplacian_columns_ = to_float(spectrum.laplacian_columns);
    gaussian_rows_ = to_float(spectrum.gaussian_rows);
    gaussian_columns_ = to_float(spectrum.gaussian_columns);
  }

  void solve_level(const core::LevelImages& images, Carry carry, const Planes& below, const Planes& carried,
                   const core::Destination* destination) override {
    if (below.data != nullptr) upsample(below, carried, threads_);
    const Planes gradient = plane(0);
    const Planes color = plane(1);
    const bool image = destination != nullptr || carry == Carry::kImage;
    const Planes& mask = images.mask;
    for (std::int64_t c = 0; c < carried.channels; ++c) {
      const Planes d = images.difference.channel(c);
      const Planes target = images.target.channel(c);
      const Planes out = carried.channel(c);
      if (carry == Carry::kCorrection) {
        blur(out, gaussian_, 1.0F, false, color, threads_);
      } else {
        for_elements([&](std::int64_t i) {
          gradient.data[i] = target.data[i] + mask.data[i] * d.data[i];  // the composite, for now
          color.data[i] = out.data[i];
        });
        blur(gradient, gaussian_, -1.0F, true, color, threads_);
      }
      guidance_residual(d, mask, gradient, threads_);
      divide(gradient, color, true);
      if (image) {
        for_elements([&](std::int64_t i) {
          const float x = target.data[i] + mask.data[i] * d.data[i] + gradient.data[i];
          out.data[i] = std::clamp(x, 0.0F, 1.0F);
        });
      } else {
        for_elements([&](std::int64_t i) { out.data[i] = gradient.data[i]; });
      }
    }
    if (destination != nullptr) store(carried, destination->out, threads_);
  }

  // The same with c in place of the composite: x = c + d, r = u - L c, q = c - G c.
  void solve(const Planes& divergence, const Planes& color, const Planes& out) {
    const Planes r = plane(0);
    const Planes q = plane(1);
    for (std::int64_t i = 0; i < out.channels; ++i) {
      const Planes u = divergence.channel(i);
      const Planes c = color.channel(i);
      laplacian(c, r, threads_);
      for_elements([&](std::int64_t k) {
        r.data[k] = u.data[k] - r.data[k];
        q.data[k] = c.data[k];
      });
      blur(c, gaussian_, -1.0F, true, q, threads_);
      divide(r, q, false);
      for_elements([&](std::int64_t k) { out.channel(i).data[k] = c.data[k] + r.data[k]; });
    }
  }

 private:
  [[nodiscard]] Planes plane(std::int64_t i) { return Planes{workspace_.data(), 2, size_}.channel(i); }

  template <typename Body>
  void for_elements(Body body) const {
    parallel_for(size_.height, size_.width, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin * size_.width; i < end * size_.width; ++i) body(i);
    });
  }

  // `gradient` holds r and becomes d; `color` holds q and is spent. A divergence has no mean: where r is one, what
  // rounding leaves there must not be divided by a small lambda. Rows forward; columns forward, quotient,
  // columns back, all while a batch is in the cache; rows back.
  void divide(const Planes& gradient, const Planes& color, bool no_mean) {
    dct_rows(rows_, gradient, false, threads_, row_memory_);
    dct_rows(rows_, color, false, threads_, row_memory_);
    divide_columns(gradient, color, no_mean);
    dct_rows(rows_, gradient, true, threads_, row_memory_);
  }

  void divide_columns(const Planes& gradient, const Planes& color, bool no_mean) {
    const std::int64_t height = size_.height;
    const std::int64_t width = size_.width;
    // The transforms are unnormalised: forward and back make 2N along each axis.
    const float scale = 1.0F / (4.0F * static_cast<float>(height) * static_cast<float>(width));
    const float lambda = color_weight_;
    const std::int64_t floats = height * kBatch;
    const std::int64_t worker_floats = 2 * floats + columns_.scratch_floats();
    column_memory_.resize(static_cast<std::size_t>(threads_ * worker_floats));
    parallel_tasks((width + kBatch - 1) / kBatch, threads_, [&](std::int64_t b, int worker) {
      float* r = column_memory_.data() + worker * worker_floats;
      float* q = r + floats;
      float* scratch = q + floats;
      const std::int64_t first = b * kBatch;
      const std::int64_t count = std::min(kBatch, width - first);
      if (count < kBatch) std::fill_n(r, 2 * floats, 0.0F);  // as in dct_rows
      for (std::int64_t y = 0; y < height; ++y) {
        std::copy_n(gradient.row(y) + first, count, r + y * kBatch);
        std::copy_n(color.row(y) + first, count, q + y * kBatch);
      }
      columns_.forward(r, scratch);
      columns_.forward(q, scratch);
      if (no_mean && b == 0) r[0] = 0;
      const float* l_column = laplacian_columns_.data() + first;
      const float* g_column = gaussian_columns_.data() + first;
      for (std::int64_t y = 0; y < height; ++y) {
        float* r_hat = r + y * kBatch;
        const float* q_hat = q + y * kBatch;
        const float l_row = laplacian_rows_[static_cast<std::size_t>(y)];
        const float g_row = gaussian_rows_[static_cast<std::size_t>(y)];
        if (equation_ == Equation::kGaussianPoisson) {
          for (std::int64_t j = 0; j < count; ++j) {
            const float l = l_row + l_column[j];
            const float g = g_row * g_column[j];
            r_hat[j] = scale * (l * r_hat[j] + lambda * g * q_hat[j]) / (l * l + lambda * g * g);
          }
        } else {
          for (std::int64_t j = 0; j < count; ++j) {
            const float l = l_row + l_column[j];
            const float g = g_row * g_column[j];
            r_hat[j] = scale * (r_hat[j] + lambda * q_hat[j]) / (l + lambda * g);
          }
        }
      }
      columns_.inverse(r, scratch);
      for (std::int64_t y = 0; y < height; ++y) std::copy_n(r + y * kBatch, count, gradient.row(y) + first);
    });
  }

  Size size_;
  Equation equation_;
  float color_weight_;
  int threads_;
  std::vector<float> laplacian_rows_, laplacian_columns_, gaussian_rows_, gaussian_columns_;  // eigenvalues
  std::vector<double> gaussian_;
  Dct rows_, columns_;
  std::vector<float> workspace_;  // two planes: r, which becomes d, and q
  std::vector<float> row_memory_, column_memory_;
};

}  // namespace

std::unique_ptr<core::Solver> make_solver(Size size, Equation equation, double color_weight, double sigma,
                                          int threads) {
  return std::make_unique<CpuSolver>(size, equation, color_weight, sigma, threads);
}

void solve(const Planes& divergence, const Planes& color, Equation equation, double color_weight, double sigma,
           const Planes& out, int threads) {
  CpuSolver(out.size, equation, color_weight, sigma, threads).solve(divergence, color, out);
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
