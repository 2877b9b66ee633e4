// What the CPU backend's files give one another. `threads` is how many to use; memory is planar float32.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/backend.hpp"
#include "cpu/bit_plane.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

using core::Planes;
using core::Size;

// convert.cpp
void load(const ConstImageView& view, const char* argument, Offset offset, const Planes& out, int threads);
void load_mask(const ConstImageView& view, const char* argument, Offset offset, const Planes& out, int threads);
// Floats that are not finite or not in [0, 1] throw InvalidArgument.
void check_range(const ConstImageView& view, const char* argument, int threads);
// load_mask() of bytes as bytes, but for what 0 and 1 alone mean.
void load_bytes(const ConstImageView& view, Offset offset, std::uint8_t* out, Size size, int threads);
// load_mask() where the view holds only 0 and its type's 1; with `as_mask`, integers 0 and 1 too. Else false.
bool load_bits(const ConstImageView& view, bool as_mask, Offset offset, Size size, BitPlane& out, int threads);
void store(const Planes& image, const ImageView& view, int threads);
void copy_pixels(const ConstImageView& from, const ImageView& to, int threads);

// stencil.cpp
void guidance_divergence(const Planes& source, const Planes& target, const Planes& mask, const Planes& out,
                         int threads);
// u - L composite on one channel: what the guidance asks for beyond the composite's own gradients.
void guidance_residual(const Planes& difference, const Planes& mask, const Planes& out, int threads);
void laplacian(const Planes& image, const Planes& out, int threads);

// gaussian_blur.cpp: out = scale * blur(image), or added to what is there. `kernel` is one half, centre
// first.
void blur(const Planes& image, const std::vector<double>& kernel, float scale, bool add, const Planes& out,
          int threads);

// resample.cpp
void downsample(const Planes& image, const Planes& out, int threads);
void upsample(const Planes& image, const Planes& out, int threads);
void resize(const Planes& image, const Planes& out, int threads);
void resample_bicubic(const Planes& image, const Planes& out, int threads);
void resample_nearest(const Planes& mask, const Planes& out, int threads);
void area_average(const Planes& image, const Planes& out, int threads);

// extend.cpp, inset.cpp, membrane.cpp
void extend(const Planes& source, const Planes& alpha, int threads);
void extend(const Planes& source, const Planes& alpha, int threads, std::vector<float>& memory);  // to be kept
void inset(const Planes& mask, int pixels, int threads);
void membrane(const Planes& difference, const Planes& mask, int threads);

// solve.cpp
std::unique_ptr<core::Solver> make_solver(Size size, Equation equation, double color_weight, double sigma, int threads);
void solve(const Planes& divergence, const Planes& color, Equation equation, double color_weight, double sigma,
           const Planes& out, int threads);

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
