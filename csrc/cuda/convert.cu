// Between the caller's pixels and the core's planes.
#include <cstdlib>

#include "cuda/operations.hpp"
#include "cuda/pixels.hpp"
#include "cuda/tile.hpp"

namespace gpgan::cuda {
namespace {

// How far outside [0, 1] a float may lie before it is taken for a mistake: room for the rounding of others' resizing.
constexpr double kRangeSlack = 1e-3;

template <typename Void>
Size size_of(const BasicImageView<Void>& view) {
  return {view.height, view.width};
}

// Neighbouring threads take neighbouring pixels. Where a pixel's channels lie closer together than pixels do, one
// thread takes them all, so that a warp uses all that it reads.
template <typename Void>
std::int64_t channels_a_thread(const BasicImageView<Void>& view) {
  return std::abs(view.strides[2]) < std::abs(view.strides[1]) ? view.channels : 1;
}

// Which channels of which image a block's planes are.
struct Channels {
  std::int64_t image, first;
};
__device__ inline Channels channels_of_block(std::int64_t each, std::int64_t channels) {
  const auto plane = static_cast<unsigned>(blockIdx.y * each);
  const auto of_image = static_cast<unsigned>(channels);  // no more than planes, of which a launch has few
  return {plane / of_image, plane % of_image};
}

// Finite and, but for the slack, inside [0, 1]; NaN fails the comparison too.
template <typename T>
__device__ inline bool in_range(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return value >= static_cast<T>(-kRangeSlack) && value <= static_cast<T>(1 + kRangeSlack);
  } else {
    return true;
  }
}

// `largest`, if there, is the largest value of an integer mask: 0 and 1 alone stand for themselves.
template <typename T>
__global__ void __launch_bounds__(kTileThreads, 4)
    load_kernel(ConstImageView view, Offset offset, Planes out, std::int64_t each, const std::uint32_t* largest,
                std::uint8_t* bad) {
  const bool as_it_is = largest != nullptr && *largest <= 1;
  const auto [image, first] = channels_of_block(each, view.channels);
  bool good = true;
  for_tile(out.size, [&](std::int64_t y, std::int64_t x) {
    const std::int64_t from_y = y - offset.top;
    const std::int64_t from_x = x - offset.left;
    const bool inside = from_y >= 0 && from_y < view.height && from_x >= 0 && from_x < view.width;
    for (std::int64_t c = 0; c < each; ++c) {
      float value = 0;
      if (inside) {
        const T given = *pixel<T>(view, image, from_y, from_x, first + c);
        good = good && in_range(given);
        value = as_it_is ? static_cast<float>(given) : to_float(given);
      }
      out.channel(image * view.channels + first + c).row(y)[x] = value;
    }
  });
  if constexpr (std::is_floating_point_v<T>) {
    // One write a block at most: the flag may lie in the host's memory.
    if (any_of_block(!good) && thread_of_tile() == 0) *bad = 1;
  }
}

// Of every image, what falls outside the planes too.
template <typename T>
__global__ void __launch_bounds__(kTileThreads) check_range_kernel(ConstImageView view, Size size, std::uint8_t* bad) {
  bool good = true;
  for_tile(size, [&](std::int64_t y, std::int64_t x) {
    for (std::int64_t c = 0; c < view.channels; ++c) good = good && in_range(*pixel<T>(view, blockIdx.y, y, x, c));
  });
  if (any_of_block(!good) && thread_of_tile() == 0) *bad = 1;
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads) largest_kernel(ConstImageView view, Size size, std::uint32_t* largest) {
  __shared__ unsigned of_block;
  if (thread_of_tile() == 0) of_block = 0;
  __syncthreads();
  unsigned most = 0;
  for_tile(size, [&](std::int64_t y, std::int64_t x) {
    most = larger(most, static_cast<unsigned>(*pixel<T>(view, blockIdx.y, y, x, 0)));
  });
  if (most > 0) atomicMax(&of_block, most);
  __syncthreads();
  if (thread_of_tile() == 0 && of_block > 0) atomicMax(largest, of_block);
}

__global__ void __launch_bounds__(kTileThreads) frame_kernel(Size source, Offset offset, Planes out) {
  const Planes plane = out.channel(blockIdx.y);
  for_tile(out.size, [&](std::int64_t y, std::int64_t x) {
    const std::int64_t from_y = y - offset.top;
    const std::int64_t from_x = x - offset.left;
    const bool inside = from_y >= 0 && from_y < source.height && from_x >= 0 && from_x < source.width;
    plane.row(y)[x] = inside ? 1.0F : 0.0F;
  });
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads) store_kernel(Planes planes, ImageView view, std::int64_t each) {
  const auto [image, first] = channels_of_block(each, view.channels);
  for_tile(planes.size, [&](std::int64_t y, std::int64_t x) {
    for (std::int64_t c = 0; c < each; ++c) {
      *pixel<T>(view, image, y, x, first + c) =
          from_float<T>(planes.channel(image * view.channels + first + c).row(y)[x]);
    }
  });
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    copy_kernel(ConstImageView from, ImageView to, Size size, std::int64_t each) {
  const auto [image, first] = channels_of_block(each, to.channels);
  for_tile(size, [&](std::int64_t y, std::int64_t x) {
    for (std::int64_t c = first; c < first + each; ++c) *pixel<T>(to, image, y, x, c) = *pixel<T>(from, image, y, x, c);
  });
}

__global__ void __launch_bounds__(kTileThreads)
    copy_as_floats_kernel(ConstImageView from, ImageView to, Size size, std::int64_t each) {
  const auto [image, first] = channels_of_block(each, to.channels);
  for_tile(size, [&](std::int64_t y, std::int64_t x) {
    for (std::int64_t c = first; c < first + each; ++c) {
      store_pixel(to, image, y, x, c, load_pixel(from, image, y, x, c));
    }
  });
}

// The images that differ.
std::int64_t stored_images(const ConstImageView& view) { return view.image_stride == 0 ? 1 : view.images; }

void place(const ConstImageView& view, Offset offset, const Planes& out, const std::uint32_t* largest,
           std::uint8_t* bad, cudaStream_t stream) {
  const std::int64_t each = channels_a_thread(view);
  const bool clipped = offset.top < 0 || offset.left < 0 || offset.top + view.height > out.size.height ||
                       offset.left + view.width > out.size.width;
  with_type(view.dtype, [&]<typename T>(T) {
    GPGAN_LAUNCH(load_kernel<T>, tile_grid(out.size, view.images * view.channels / each), tile_block(), stream, view,
                 offset, out, each, largest, bad);
    if constexpr (std::is_floating_point_v<T>) {
      if (!clipped) return;
      const Size size = size_of(view);
      GPGAN_LAUNCH(check_range_kernel<T>, tile_grid(size, stored_images(view)), tile_block(), stream, view, size, bad);
    }
  });
}

// Where pixels without gaps come to the same rows of single values on both sides, those are what neighbouring threads
// should take.
bool dense(const ConstImageView& view, std::ptrdiff_t item) {
  return view.strides[2] == item && view.strides[1] == view.channels * item;
}
template <typename Void>
BasicImageView<Void> as_values(BasicImageView<Void> view) {
  view.width *= view.channels;
  view.channels = 1;
  view.strides[1] = view.strides[2];
  return view;
}

}  // namespace

void launch_load(const ConstImageView& view, Offset offset, const Planes& out, std::uint8_t* bad, cudaStream_t stream) {
  place(view, offset, out, nullptr, bad, stream);
}

void launch_load_mask(const ConstImageView& view, Offset offset, const Planes& out, std::uint32_t* largest,
                      std::uint8_t* bad, cudaStream_t stream) {
  bool integers = false;
  with_type(view.dtype, [&]<typename T>(T) {
    if constexpr (std::is_integral_v<T>) {
      integers = true;
      check(cudaMemsetAsync(largest, 0, sizeof(*largest), stream), "cudaMemsetAsync");
      const Size size = size_of(view);
      GPGAN_LAUNCH(largest_kernel<T>, tile_grid(size, stored_images(view)), tile_block(), stream, view, size, largest);
    }
  });
  place(view, offset, out, integers ? largest : nullptr, bad, stream);
}

void launch_frame(Size source, Offset offset, const Planes& out, cudaStream_t stream) {
  GPGAN_LAUNCH(frame_kernel, tile_grid(out.size, out.channels), tile_block(), stream, source, offset, out);
}

void launch_store(const Planes& image, const ImageView& view, cudaStream_t stream) {
  const std::int64_t each = channels_a_thread(view);
  with_type(view.dtype, [&]<typename T>(T) {
    GPGAN_LAUNCH(store_kernel<T>, tile_grid(image.size, image.channels / each), tile_block(), stream, image, view,
                 each);
  });
}

void launch_copy_pixels(const ConstImageView& from, const ImageView& to, cudaStream_t stream) {
  if (from.dtype != to.dtype) {
    const std::int64_t each = channels_a_thread(to);
    GPGAN_LAUNCH(copy_as_floats_kernel, tile_grid(size_of(to), to.images * to.channels / each), tile_block(), stream,
                 from, to, size_of(to), each);
    return;
  }
  with_type(from.dtype, [&]<typename T>(T) {
    const bool both = dense(from, sizeof(T)) && dense(to, sizeof(T));
    const ConstImageView in = both ? as_values(from) : from;
    const ImageView out = both ? as_values(to) : to;
    const std::int64_t each = channels_a_thread(out);
    GPGAN_LAUNCH(copy_kernel<T>, tile_grid(size_of(out), out.images * out.channels / each), tile_block(), stream, in,
                 out, size_of(out), each);
  });
}

}  // namespace gpgan::cuda
