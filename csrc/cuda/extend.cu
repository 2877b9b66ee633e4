// Push-pull: colours for the pixels of the source that nobody knows.
#include "cuda/operations.hpp"
#include "cuda/tile.hpp"

namespace gpgan::cuda {
namespace {

Size halved(Size size) { return {(size.height + 1) / 2, (size.width + 1) / 2}; }

// Push: alpha-weighted means over 2 x 2 pixels; a pixel beyond the border has no weight, and a colour under alpha 0 is
// not looked at: it may be anything. A block takes all channels of an image.
__global__ void __launch_bounds__(kTileThreads)
    push_kernel(Planes source, Planes alpha, Planes color, Planes weight, std::int64_t each) {
  const std::int64_t width = alpha.size.width;
  const float* known = alpha.channel(blockIdx.y).data;
  for_tile(weight.size, [&](std::int64_t y, std::int64_t x) {
    const bool right = 2 * x + 1 < width;
    const bool below = 2 * y + 1 < alpha.size.height;
    const std::int64_t at = 2 * y * width + 2 * x;
    const std::int64_t offsets[4] = {at, at + 1, at + width, at + width + 1};
    const bool there[4] = {true, right, below, right && below};
    float weights[4];
    float total = 0;
    for (int i = 0; i < 4; ++i) {
      weights[i] = there[i] ? known[offsets[i]] : 0.0F;
      total += weights[i];
    }
    const float mean = total / 4;
    weight.channel(blockIdx.y).row(y)[x] = mean;
    for (std::int64_t c = blockIdx.y * each; c < (blockIdx.y + 1) * each; ++c) {
      const float* colors = source.channel(c).data;
      float sum = 0;
      for (int i = 0; i < 4; ++i) sum += weights[i] > 0 ? weights[i] * colors[offsets[i]] : 0.0F;
      color.channel(c).row(y)[x] = mean > 0 ? sum / total : 0.0F;
    }
  });
}

// Pull: the bilinear interpolation of the coarser level where alpha is 0.
__global__ void __launch_bounds__(kTileThreads)
    pull_kernel(Planes color, Planes alpha, Planes source, std::int64_t each) {
  const Planes known = alpha.channel(blockIdx.y);
  // The further of the two coarse pixels that i lies between.
  const auto far_of = [](std::int64_t i, std::int64_t n) {
    return smaller(larger<std::int64_t>(i / 2 + (i % 2 == 0 ? -1 : 1), 0), n - 1);
  };
  for_tile(alpha.size, [&](std::int64_t y, std::int64_t x) {
    if (known.row(y)[x] > 0) return;
    const std::int64_t far_y = far_of(y, color.size.height);
    const std::int64_t far_x = far_of(x, color.size.width);
    for (std::int64_t c = blockIdx.y * each; c < (blockIdx.y + 1) * each; ++c) {
      const float* near_row = color.channel(c).row(y / 2);
      const float* far_row = color.channel(c).row(far_y);
      source.channel(c).row(y)[x] = 0.75F * (0.75F * near_row[x / 2] + 0.25F * far_row[x / 2]) +
                                    0.25F * (0.75F * near_row[far_x] + 0.25F * far_row[far_x]);
    }
  });
}

// One pixel of which nothing is known has no coarser level to ask.
__global__ void hide_unknown_kernel(Planes source, Planes alpha, std::int64_t each) {
  for (std::int64_t c = first_element(); c < source.channels; c += element_stride()) {
    if (!(alpha.data[c / each] > 0)) source.data[c] = 0;
  }
}

}  // namespace

// The colours and weights of all coarser levels.
std::int64_t extend_scratch_bytes(std::int64_t planes, std::int64_t images, Size size) {
  std::int64_t floats = 0;
  while (size.pixels() > 1) {
    size = halved(size);
    floats += (planes + images) * size.pixels();
  }
  return floats * static_cast<std::int64_t>(sizeof(float));
}

// Down to one pixel, known or not: where all of a level is known nobody asks the coarser ones, where nothing is they
// are zero.
void launch_extend(const Planes& source, const Planes& alpha, void* scratch, cudaStream_t stream) {
  const std::int64_t each = planes_of_mask(source, alpha);
  if (alpha.size.pixels() == 1) {
    constexpr int kThreads = 64;
    GPGAN_LAUNCH(hide_unknown_kernel, stride_grid(source.channels, kThreads), kThreads, stream, source, alpha, each);
    return;
  }
  const auto coarser = [&](const Planes& level_source, const Planes& level_alpha, auto&& self, float* memory) -> void {
    if (level_alpha.size.pixels() == 1) return;
    const Size half = halved(level_alpha.size);
    const Planes color{memory, source.channels, half};
    const Planes weight{color.data + color.floats(), alpha.channels, half};
    GPGAN_LAUNCH(push_kernel, tile_grid(half, alpha.channels), tile_block(), stream, level_source, level_alpha, color,
                 weight, each);
    self(color, weight, self, weight.data + weight.floats());
    GPGAN_LAUNCH(pull_kernel, tile_grid(level_alpha.size, alpha.channels), tile_block(), stream, color, level_alpha,
                 level_source, each);
  };
  coarser(source, alpha, coarser, static_cast<float*>(scratch));
}

}  // namespace gpgan::cuda
