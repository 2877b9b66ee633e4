// The cosine transform of rows, by a real FFT: see makhoul.hpp. The levels of a blend use the two-dimensional one of
// solve.cu.
#include <cmath>
#include <numbers>

#include "cuda/context.hpp"
#include "cuda/fft.hpp"
#include "cuda/makhoul.hpp"
#include "cuda/operations.hpp"

namespace gpgan::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    permute_kernel(Planes rows, std::int64_t row_floats, float* permuted, bool back) {
  const std::int64_t width = rows.size.width;
  for (std::int64_t i = first_element(); i < rows.floats(); i += element_stride()) {
    float& place = permuted[i / width * row_floats + makhoul_place(i % width, width)];
    if (back) {
      rows.data[i] = place;
    } else {
      place = rows.data[i];
    }
  }
}

// X(k) = 2 Re(rotation V(k)), of which V holds the first half.
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Planes rows, std::int64_t row_floats, const float* spectrum) {
  const std::int64_t width = rows.size.width;
  for (std::int64_t i = first_element(); i < rows.floats(); i += element_stride()) {
    const std::int64_t k = i % width;
    const auto* row = reinterpret_cast<const Complex*>(spectrum + i / width * row_floats);
    const Complex v = k <= width / 2 ? row[k] : conj(row[width - k]);
    const double turn = std::numbers::pi * static_cast<double>(k) / (2.0 * static_cast<double>(width));
    rows.data[i] = 2 * (static_cast<float>(std::cos(turn)) * v.re + static_cast<float>(std::sin(turn)) * v.im);
  }
}

// V(k) = conj(rotation) (X(k) - i X(N - k)), X(N) = 0.
__global__ void __launch_bounds__(kThreads) inverse_kernel(Planes rows, std::int64_t row_floats, float* spectrum) {
  const std::int64_t width = rows.size.width;
  const std::int64_t half = width / 2 + 1;
  for (std::int64_t i = first_element(); i < rows.floats() / width * half; i += element_stride()) {
    const std::int64_t k = i % half;
    const float* row = rows.data + i / half * width;
    const double turn = std::numbers::pi * static_cast<double>(k) / (2.0 * static_cast<double>(width));
    const Complex rotation{static_cast<float>(std::cos(turn)), static_cast<float>(std::sin(turn))};
    auto* to = reinterpret_cast<Complex*>(spectrum + i / half * row_floats);
    to[k] = rotation * Complex{row[k], k > 0 ? -row[width - k] : 0};
  }
}

}  // namespace

void dct(const Planes& rows, bool inverse, Context& context) {
  const std::int64_t row_floats = RealFft::row_floats(rows.size.width);
  const std::int64_t count = rows.channels * rows.size.height;
  const RealFft fft(inverse ? RealFft::Direction::kInverse : RealFft::Direction::kForward, 1, rows.size, count);
  const std::int64_t bytes = aligned(count * row_floats * static_cast<std::int64_t>(sizeof(float)));
  context.workspace.reserve(bytes + fft.work_bytes());
  auto* const memory = context.workspace.as<float>();
  void* const work = context.workspace.data() + bytes;
  const cudaStream_t stream = context.stream;
  const dim3 grid = stride_grid(rows.floats(), kThreads);
  if (inverse) {
    GPGAN_LAUNCH(inverse_kernel, grid, kThreads, stream, rows, row_floats, memory);
    fft(memory, work, stream);
    GPGAN_LAUNCH(permute_kernel, grid, kThreads, stream, rows, row_floats, memory, true);
  } else {
    GPGAN_LAUNCH(permute_kernel, grid, kThreads, stream, rows, row_floats, memory, false);
    fft(memory, work, stream);
    GPGAN_LAUNCH(forward_kernel, grid, kThreads, stream, rows, row_floats, memory);
  }
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");  // the plan ends here
}

}  // namespace gpgan::cuda
