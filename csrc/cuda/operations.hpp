// What the CUDA backend's files give one another. Launchers only put work on `stream`: nothing here allocates, waits or
// reads anything back. Planes hold all images of a batch, image by image: plane p of an image goes with plane p /
// (planes / mask planes) of a mask.
#pragma once

#include <cstdint>
#include <memory>

#include "cuda/runtime.hpp"

namespace gpgan::cuda {

struct Context;

// solve.cu. The solver needs the context for as long as it is there; solve() makes its plan, as dct() below.
std::unique_ptr<core::Solver> make_solver(Size size, std::int64_t planes, Equation equation, double color_weight,
                                          double sigma, Context& context);
void solve(const Planes& divergence, const Planes& color, Equation equation, double color_weight, double sigma,
           const Planes& out, Context& context);

// convert.cu. `bad` is set to 1 where a value is not finite or a float lies outside [0, 1] (such a value is taken for
// the nearest that is right, NaN for 0); the host may see it at any time later.
void launch_load(const ConstImageView& view, Offset offset, const Planes& out, std::uint8_t* bad, cudaStream_t stream);
// For one channel of weights: an integer view that holds nothing but 0 and 1 means just that. `largest`: scratch.
void launch_load_mask(const ConstImageView& view, Offset offset, const Planes& out, std::uint32_t* largest,
                      std::uint8_t* bad, cudaStream_t stream);
// Ones where a source of this size at this offset is, zeros around.
void launch_frame(Size source, Offset offset, const Planes& out, cudaStream_t stream);
void launch_store(const Planes& image, const ImageView& view, cudaStream_t stream);  // clamps, rounds to nearest
// Bit for bit where the dtypes are the same, else through [0, 1].
void launch_copy_pixels(const ConstImageView& from, const ImageView& to, cudaStream_t stream);

// elementwise.cu
void launch_any(const Planes& mask, std::uint8_t* touched, cudaStream_t stream);  // one flag a plane: some value > 0?
void launch_multiply(const Planes& mask, const Planes& by, cudaStream_t stream);
void launch_subtract(const Planes& image, const Planes& other, cudaStream_t stream);
void launch_clamp(const Planes& image, cudaStream_t stream);
void launch_composite(const Planes& difference, const Planes& target, const Planes& mask, const Planes& out,
                      cudaStream_t stream);

// resample.cu
void launch_downsample(const Planes& image, const Planes& out, cudaStream_t stream);
void launch_upsample(const Planes& image, const Planes& out, cudaStream_t stream);
void launch_resize(const Planes& image, const Planes& out, cudaStream_t stream);
void launch_resample_bicubic(const Planes& image, const Planes& out, cudaStream_t stream);
void launch_resample_nearest(const Planes& mask, const Planes& out, cudaStream_t stream);
void launch_area_average(const Planes& image, const Planes& out, cudaStream_t stream);

// gaussian_blur.cu; `scratch` is as large as `image`, and is used where the kernel is too wide for one pass.
void launch_gaussian_blur(const Planes& image, double sigma, const Planes& out, float* scratch, cudaStream_t stream);

// stencil.cu
void launch_guidance_divergence(const Planes& source, const Planes& target, const Planes& mask, const Planes& out,
                                cudaStream_t stream);

// inset.cu. `scratch`: inset_scratch_bytes(mask) of the device's memory.
std::int64_t inset_scratch_bytes(std::int64_t planes, Size size);
void launch_inset(const Planes& mask, int pixels, void* scratch, cudaStream_t stream);

// extend.cu. Any number of images: `alpha` has a plane for each.
std::int64_t extend_scratch_bytes(std::int64_t planes, std::int64_t images, Size size);
void launch_extend(const Planes& source, const Planes& alpha, void* scratch, cudaStream_t stream);

// membrane.cu. difference += membrane, zero where the mask is.
std::int64_t membrane_scratch_bytes(std::int64_t planes, std::int64_t images, Size size);
void launch_membrane(const Planes& difference, const Planes& mask, void* scratch, cudaStream_t stream);

// dct.cu. Of every row, DCT-II or its unnormalised inverse, in place.
void dct(const Planes& rows, bool inverse, Context& context);

}  // namespace gpgan::cuda
