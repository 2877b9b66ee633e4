#include "cpu/backend.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "core/spectrum.hpp"
#include "cpu/dct.hpp"
#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"
#include "cpu/strip_pyramid.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

using core::Buffer;
using core::Solver;

class CpuBackend final : public core::Backend {
 public:
  explicit CpuBackend(int threads) : threads_(threads) {}

  Buffer allocate(std::int64_t channels, Size size) override {
    const std::int64_t count = channels * size.pixels();
    constexpr std::align_val_t kCacheLine{64};
    auto* memory = static_cast<float*>(::operator new(static_cast<std::size_t>(count) * sizeof(float), kCacheLine));
    std::shared_ptr<float> owner(memory, [](float* p) { ::operator delete(p, kCacheLine); });
    return {std::move(owner), channels, size};
  }
  std::unique_ptr<Solver> make_solver(Size size, std::int64_t /*channels*/, Equation equation, double color_weight,
                                      double sigma) override {
    return cpu::make_solver(size, equation, color_weight, sigma, threads_);
  }
  std::unique_ptr<core::Pyramid> make_pyramid(const Options& options, const std::vector<Size>& sizes,
                                              std::int64_t channels) override {
    std::unique_ptr<core::Pyramid> pyramid = make_strip_pyramid(options, sizes, channels, threads_);
    return pyramid ? std::move(pyramid) : Backend::make_pyramid(options, sizes, channels);
  }

  void load(const ConstImageView& view, const char* argument, Offset offset, const Planes& out) override {
    cpu::load(view, argument, offset, out, threads_);
  }
  void load_mask(const ConstImageView& view, const char* argument, Offset offset, const Planes& out) override {
    cpu::load_mask(view, argument, offset, out, threads_);
  }
  void frame(Size source, Offset offset, const Planes& out) override {
    static constexpr std::uint8_t kOne = 1;  // repeated everywhere
    ConstImageView ones = planar(&kOne, source.height, source.width, 1);
    ones.strides = {0, 0, 0};
    cpu::load_mask(ones, "source", offset, out, threads_);
  }
  void store(const Planes& image, const ImageView& view) override { cpu::store(image, view, threads_); }
  void copy_pixels(const ConstImageView& from, const ImageView& to) override { cpu::copy_pixels(from, to, threads_); }

  bool any(const Planes& mask) override {
    return std::any_of(mask.data, mask.data + mask.floats(), [](float m) { return m > 0; });
  }
  void multiply(const Planes& mask, const Planes& by) override {
    for_elements(mask, [&](std::int64_t i) { mask.data[i] *= by.data[i]; });
  }
  void subtract(const Planes& image, const Planes& other) override {
    for_elements(image, [&](std::int64_t i) { image.data[i] -= other.data[i]; });
  }
  void copy(const Planes& image, const Planes& out) override {
    for_elements(image, [&](std::int64_t i) { out.data[i] = image.data[i]; });
  }
  void clamp(const Planes& image) override {
    for_elements(image, [&](std::int64_t i) { image.data[i] = std::clamp(image.data[i], 0.0F, 1.0F); });
  }
  void composite(const Planes& difference, const Planes& target, const Planes& mask, const Planes& out) override {
    for (std::int64_t c = 0; c < out.channels; ++c) {
      const float* d = difference.channel(c).data;
      const float* t = target.channel(c).data;
      float* to = out.channel(c).data;
      for_elements(mask, [&](std::int64_t i) { to[i] = t[i] + mask.data[i] * d[i]; });
    }
  }

  void inset(const Planes& mask, int pixels) override { cpu::inset(mask, pixels, threads_); }
  void extend(const Planes& source, const Planes& alpha) override { cpu::extend(source, alpha, threads_); }
  void membrane(const Planes& difference, const Planes& mask) override { cpu::membrane(difference, mask, threads_); }
  void area_average(const Planes& image, const Planes& out) override { cpu::area_average(image, out, threads_); }

  void downsample(const Planes& image, const Planes& out) override { cpu::downsample(image, out, threads_); }
  void upsample(const Planes& image, const Planes& out) override { cpu::upsample(image, out, threads_); }
  void resize(const Planes& image, const Planes& out) override { cpu::resize(image, out, threads_); }
  void resample_bicubic(const Planes& image, const Planes& out) override {
    cpu::resample_bicubic(image, out, threads_);
  }
  void resample_nearest(const Planes& mask, const Planes& out) override { cpu::resample_nearest(mask, out, threads_); }
  void gaussian_blur(const Planes& image, double sigma, const Planes& out) override {
    cpu::blur(image, core::gaussian_kernel(sigma), 1.0F, false, out, threads_);
  }
  void guidance_divergence(const Planes& source, const Planes& target, const Planes& mask, const Planes& out) override {
    cpu::guidance_divergence(source, target, mask, out, threads_);
  }
  void upload(const float* from, const Planes& out) override { std::copy_n(from, out.floats(), out.data); }
  void download(const Planes& image, float* to) override { std::copy_n(image.data, image.floats(), to); }
  void solve(const Planes& divergence, const Planes& color, Equation equation, double color_weight, double sigma,
             const Planes& out) override {
    cpu::solve(divergence, color, equation, color_weight, sigma, out, threads_);
  }
  void dct(const Planes& rows, bool inverse) override {
    const std::shared_ptr<const Dct> plan = shared_dct(rows.size.width);
    for (std::int64_t c = 0; c < rows.channels; ++c) dct_rows(*plan, rows.channel(c), inverse, threads_);
  }

 private:
  template <typename Body>
  void for_elements(const Planes& planes, Body body) const {
    parallel_for(planes.floats(), 1, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) body(i);
    });
  }

  int threads_;
};

}  // namespace

std::unique_ptr<core::Backend> make_backend(int threads) { return std::make_unique<CpuBackend>(threads); }

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
