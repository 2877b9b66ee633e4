// The 5-point stencils of the equation. A neighbour beyond the border equals the pixel itself and drops out.
#include "cuda/operations.hpp"
#include "cuda/tile.hpp"

namespace gpgan::cuda {
namespace {

constexpr int kSide = kTile + 2;  // of a tile with its neighbours

// One plane's tile and the pixels around it, the border repeated. The block's threads write it together.
__device__ inline void read_tile(const float* plane, Size size, TileOrigin origin, float (&tile)[kSide][kSide]) {
  for (int i = thread_of_tile(); i < kSide * kSide; i += kTileThreads) {
    const std::int64_t y = smaller(larger<std::int64_t>(origin.top + i / kSide - 1, 0), size.height - 1);
    const std::int64_t x = smaller(larger<std::int64_t>(origin.left + i % kSide - 1, 0), size.width - 1);
    tile[i / kSide][i % kSide] = plane[y * size.width + x];
  }
}

// A block takes all planes that go with its tile of the mask.
__global__ void __launch_bounds__(kTileThreads)
    guidance_divergence_kernel(Planes source, Planes target, Planes mask, Planes out, std::int64_t each) {
  __shared__ float s[kSide][kSide];
  __shared__ float t[kSide][kSide];
  __shared__ float m[kSide][kSide];
  const TileOrigin origin = tile_origin(out.size);
  read_tile(mask.channel(blockIdx.y).data, out.size, origin, m);
  for (std::int64_t c = 0; c < each; ++c) {
    const std::int64_t plane = blockIdx.y * each + c;
    read_tile(source.channel(plane).data, out.size, origin, s);
    read_tile(target.channel(plane).data, out.size, origin, t);
    __syncthreads();
    for_tile(out.size, [&](std::int64_t y, std::int64_t x) {
      const int j = static_cast<int>(y - origin.top) + 1;
      const int i = static_cast<int>(x - origin.left) + 1;
      const auto edge = [&](int b, int a) {
        const float weight = 0.5F * (m[j][i] + m[b][a]);
        const float from_target = t[j][i] - t[b][a];
        return from_target + weight * ((s[j][i] - s[b][a]) - from_target);
      };
      out.channel(plane).row(y)[x] = edge(j - 1, i) + edge(j + 1, i) + edge(j, i - 1) + edge(j, i + 1);
    });
    __syncthreads();  // before the next plane takes the tiles
  }
}

}  // namespace

void launch_guidance_divergence(const Planes& source, const Planes& target, const Planes& mask, const Planes& out,
                                cudaStream_t stream) {
  GPGAN_LAUNCH(guidance_divergence_kernel, tile_grid(out.size, mask.channels), tile_block(), stream, source, target,
               mask, out, planes_of_mask(out, mask));
}

}  // namespace gpgan::cuda
