#include "cuda/operations.hpp"
#include "cuda/tile.hpp"

namespace gpgan::cuda {
namespace {

constexpr int kThreads = 256;

// Blocks that stride over one plane's pixels, for each of `planes`.
dim3 plane_grid(Size size, std::int64_t planes) {
  dim3 grid = tile_grid(size, planes);  // refuses what one launch cannot cover
  grid.x = stride_grid(size.pixels(), 4 * kThreads).x;
  return grid;
}

__global__ void __launch_bounds__(kThreads) any_kernel(Planes mask, std::uint8_t* touched) {
  const float* m = mask.channel(blockIdx.y).data;
  bool found = false;
  for (std::int64_t i = first_element(); i < mask.size.pixels(); i += element_stride()) found = found || m[i] > 0;
  if (any_of_block(found) && threadIdx.x == 0) touched[blockIdx.y] = 1;
}

__global__ void __launch_bounds__(kThreads) multiply_kernel(Planes mask, Planes by) {
  for (std::int64_t i = first_element(); i < mask.floats(); i += element_stride()) mask.data[i] *= by.data[i];
}

__global__ void __launch_bounds__(kThreads) subtract_kernel(Planes image, Planes other) {
  for (std::int64_t i = first_element(); i < image.floats(); i += element_stride()) image.data[i] -= other.data[i];
}

__global__ void __launch_bounds__(kThreads) clamp_kernel(Planes image) {
  for (std::int64_t i = first_element(); i < image.floats(); i += element_stride()) {
    const float value = image.data[i];
    image.data[i] = value < 0 ? 0.0F : (value > 1 ? 1.0F : value);
  }
}

__global__ void __launch_bounds__(kThreads)
    composite_kernel(Planes difference, Planes target, Planes mask, Planes out, std::int64_t each) {
  const std::int64_t pixels = mask.size.pixels();
  const float* m = mask.channel(blockIdx.y).data;
  for (std::int64_t i = first_element(); i < pixels; i += element_stride()) {
    const float weight = m[i];
    for (std::int64_t c = 0; c < each; ++c) {
      const std::int64_t at = (blockIdx.y * each + c) * pixels + i;
      out.data[at] = target.data[at] + weight * difference.data[at];
    }
  }
}

}  // namespace

void launch_any(const Planes& mask, std::uint8_t* touched, cudaStream_t stream) {
  check(cudaMemsetAsync(touched, 0, static_cast<std::size_t>(mask.channels), stream), "cudaMemsetAsync");
  GPGAN_LAUNCH(any_kernel, plane_grid(mask.size, mask.channels), kThreads, stream, mask, touched);
}

void launch_multiply(const Planes& mask, const Planes& by, cudaStream_t stream) {
  GPGAN_LAUNCH(multiply_kernel, stride_grid(mask.floats(), kThreads), kThreads, stream, mask, by);
}

void launch_subtract(const Planes& image, const Planes& other, cudaStream_t stream) {
  GPGAN_LAUNCH(subtract_kernel, stride_grid(image.floats(), kThreads), kThreads, stream, image, other);
}

void launch_clamp(const Planes& image, cudaStream_t stream) {
  GPGAN_LAUNCH(clamp_kernel, stride_grid(image.floats(), kThreads), kThreads, stream, image);
}

void launch_composite(const Planes& difference, const Planes& target, const Planes& mask, const Planes& out,
                      cudaStream_t stream) {
  GPGAN_LAUNCH(composite_kernel, plane_grid(mask.size, mask.channels), kThreads, stream, difference, target, mask, out,
               planes_of_mask(out, mask));
}

}  // namespace gpgan::cuda
