// The closed form of one level: a kernel for the right-hand side, a real FFT, a kernel that divides by the spectrum,
// the FFT back, and a kernel that adds the composite. All planes of a batch at once.
//
// As on the CPU (csrc/cpu/solve.cpp) a level is solved for its distance d to its composite, with r the part of the
// guidance that the composite does not have and q = c - G composite. Where G has 3 taps and lambda is not small, the
// right-hand side L r + lambda G q (screened: r + lambda q) is a stencil of 5 x 5 pixels, and one transform a plane is
// enough. Elsewhere r and the colour are transformed apart, and L and G applied to their spectra: right for any sigma
// and lambda.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <vector>

#include "core/spectrum.hpp"
#include "cuda/context.hpp"
#include "cuda/fft.hpp"
#include "cuda/makhoul.hpp"
#include "cuda/operations.hpp"
#include "cuda/pixels.hpp"

namespace gpgan::cuda {
namespace {

using core::Destination;
using core::LevelImages;

constexpr int kThreads = 256;
constexpr double kSmallestMergedWeight =
    0.05;  // the stencil's rounding, at the lowest frequencies, is divided by lambda

// Of the transformed planes.
struct Layout {
  Size size;
  std::int64_t row_floats;
  [[nodiscard]] constexpr std::int64_t plane_floats() const { return size.height * row_floats; }
  [[nodiscard]] constexpr std::int64_t columns() const { return size.width / 2 + 1; }  // of the half spectrum
};

// ------------------------------------------------------------------------------------------ the right-hand side

constexpr int kTile = 32;
constexpr int kHalo = 2;
constexpr int kSide = kTile + 2 * kHalo;
constexpr int kInner = kTile + 2;           // r and q: a halo of one
constexpr int kCoarse = kTile / 2 + 2 * 3;  // what Keys' kernel reaches of the level below
constexpr int kPixelsOfSide = kSide * kSide;
constexpr int kPixelsOfInner = kInner * kInner;

// Keys' bicubic, a = -0.5, where the finer pixel lies a quarter before a coarser one's centre (even) or behind it.
__device__ inline float keys(bool odd, float v0, float v1, float v2, float v3) {
  const float outer = odd ? v3 : v0;
  const float near = odd ? v1 : v2;
  const float far = odd ? v2 : v1;
  const float other = odd ? v0 : v3;
  return -0.0234375F * outer + 0.2265625F * far + 0.8671875F * near - 0.0703125F * other;
}

// The tile's first pixel, less the halo, and its plane; v becomes what the level below hands on there. Along each axis
// pixel i of the tile reads coarser pixels i / 2 + i % 2 and three more. The border is mirrored in the finer pixels: at
// odd sizes mirroring the coarser ones is not the same. Pixels that are mirrored to outside of the tile nobody reads.
__device__ inline void expand_tile(const Planes& below, Size size, std::int64_t top, std::int64_t left,
                                   std::int64_t plane, float* coarse, float* half, float* v) {
  const Planes from = below.channel(plane);
  for (int i = static_cast<int>(threadIdx.x); i < kCoarse * kCoarse; i += kThreads) {
    const std::int64_t y = reflect(top / 2 - 2 + i / kCoarse, from.size.height);
    const std::int64_t x = reflect(left / 2 - 2 + i % kCoarse, from.size.width);
    coarse[i] = from.row(y)[x];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kCoarse * kSide; i += kThreads) {
    const auto at = static_cast<int>(reflect(left + i % kSide, size.width) - left);
    float sum = 0;
    if (at >= 0 && at < kSide) {
      const float* row = coarse + i / kSide * kCoarse + at / 2 + at % 2;
      sum = keys(at % 2 != 0, row[0], row[1], row[2], row[3]);
    }
    half[i] = sum;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kPixelsOfSide; i += kThreads) {
    const auto at = static_cast<int>(reflect(top + i / kSide, size.height) - top);
    float sum = 0;
    if (at >= 0 && at < kSide) {
      const float* column = half + (at / 2 + at % 2) * kSide + i % kSide;
      sum = keys(at % 2 != 0, column[0], column[kSide], column[2 * kSide], column[3 * kSide]);
    }
    v[i] = sum;
  }
}

struct Taps {
  float centre, side;
};

// G at the centre of 3 x 3 values, `stride` to a row.
__device__ inline float blur3(const float* at, int stride, Taps g) {
  float sum = 0;
  for (int y = -1; y <= 1; ++y) {
    const float* row = at + y * stride;
    sum += (y == 0 ? g.centre : g.side) * (g.centre * row[0] + g.side * (row[-1] + row[1]));
  }
  return sum;
}

// r at a pixel with its four neighbours: see guidance_residual in csrc/cpu/stencil.cpp.
__device__ inline float residual(const float* difference, const float* mask, int stride) {
  const auto term = [&](int n) { return 0.5F * (mask[n] - mask[0]) * (difference[n] + difference[0]); };
  return term(-stride) + term(stride) + term(-1) + term(1);
}

// L r + lambda G q, or for the screened form r + lambda q, in Makhoul's order. What the level below handed on is read
// from `below` and expanded, or from `carried` where `below` has no data.
template <Equation kEquation, Carry kCarry>
__global__ void __launch_bounds__(kThreads) right_side_kernel(LevelImages images, Planes below, Planes carried, Taps g,
                                                              float lambda, Layout layout, float* out) {
  __shared__ float difference[kPixelsOfSide];
  __shared__ float mask[kPixelsOfSide];
  __shared__ float v[kPixelsOfSide];  // e or c
  __shared__ float composite[kCarry == Carry::kImage ? kPixelsOfSide : 1];
  __shared__ float r[kPixelsOfInner];
  __shared__ float q[kPixelsOfInner];
  static_assert(kCoarse * kCoarse <= kPixelsOfInner && kCoarse * kSide <= kPixelsOfInner, "scratch of expand_tile");

  const Size size = layout.size;
  const std::int64_t plane = blockIdx.y;
  const TileOrigin origin = tile_origin(size, kTile, kTile);
  const std::int64_t top = origin.top - kHalo;
  const std::int64_t left = origin.left - kHalo;
  if (below.data != nullptr) expand_tile(below, size, top, left, plane, q, r, v);
  const Planes d = images.difference.channel(plane);
  const Planes m = images.mask.channel(plane / (images.difference.channels / images.mask.channels));
  for (int i = static_cast<int>(threadIdx.x); i < kPixelsOfSide; i += kThreads) {
    const std::int64_t y = reflect(top + i / kSide, size.height);
    const std::int64_t x = reflect(left + i % kSide, size.width);
    difference[i] = d.row(y)[x];
    mask[i] = m.row(y)[x];
    if (below.data == nullptr) v[i] = carried.channel(plane).row(y)[x];
    if constexpr (kCarry == Carry::kImage) {
      composite[i] = images.target.channel(plane).row(y)[x] + mask[i] * difference[i];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kPixelsOfInner; i += kThreads) {
    const int at = (i / kInner + 1) * kSide + i % kInner + 1;
    r[i] = residual(difference + at, mask + at, kSide);
    q[i] = kCarry == Carry::kImage ? v[at] - blur3(composite + at, kSide, g) : blur3(v + at, kSide, g);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kTile; i += kThreads) {
    const std::int64_t y = origin.top + i / kTile;
    const std::int64_t x = origin.left + i % kTile;
    if (y >= size.height || x >= size.width) continue;
    const int at = (i / kTile + 1) * kInner + i % kTile + 1;
    float b;
    if constexpr (kEquation == Equation::kGaussianPoisson) {
      const float l = 4 * r[at] - r[at - 1] - r[at + 1] - r[at - kInner] - r[at + kInner];
      b = l + lambda * blur3(q + at, kInner, g);
    } else {
      b = r[at] + lambda * q[at];
    }
    out[plane * layout.plane_floats() + makhoul_place(y, size.height) * layout.row_floats +
        makhoul_place(x, size.width)] = b;
  }
}

// Both parts apart, in Makhoul's order, the second `part_floats` after the first: r and e (Carry::kCorrection), or, for
// x = c + d, u - L c and c. With `divergence` u is that, else the guidance of the images.
__global__ void __launch_bounds__(kThreads)
    parts_kernel(LevelImages images, Planes divergence, Planes color, bool correction, Layout layout,
                 std::int64_t part_floats, float* out) {
  const Size size = layout.size;
  const std::int64_t plane = blockIdx.y;
  const Planes v = color.channel(plane);
  const bool guided = divergence.data == nullptr;
  const std::int64_t image = guided ? plane / (images.difference.channels / images.mask.channels) : 0;
  for (std::int64_t i = first_element(); i < size.pixels(); i += element_stride()) {
    const std::int64_t y = i / size.width;
    const std::int64_t x = i % size.width;
    const std::int64_t neighbours[4] = {y > 0 ? -size.width : 0, y + 1 < size.height ? size.width : 0, x > 0 ? -1 : 0,
                                        x + 1 < size.width ? 1 : 0};
    float r = guided ? 0 : divergence.channel(plane).data[i];
    for (const std::int64_t n : neighbours) {
      if (guided) {
        const float* d = images.difference.channel(plane).data + i;
        const float* m = images.mask.channel(image).data + i;
        if (correction) {
          r += 0.5F * (m[n] - m[0]) * (d[n] + d[0]);
        } else {
          const float* t = images.target.channel(plane).data + i;
          r += (t[0] - t[n]) + 0.5F * (m[0] + m[n]) * (d[0] - d[n]);
        }
      }
      if (!correction) r -= v.data[i] - v.data[i + n];
    }
    float* to = out + plane * layout.plane_floats() + makhoul_place(y, size.height) * layout.row_floats +
                makhoul_place(x, size.width);
    to[0] = r;
    to[part_floats] = v.data[i];
  }
}

// --------------------------------------------------------------------------------------------------- the spectrum

// Along one axis of N points, k = 0 .. N: l and g of the operators, and the rotation exp(-i pi k / 2N).
struct Axis {
  const float *laplacian, *gaussian, *cosine, *sine;
};

// What the spectra of the parts are multiplied with: kMerged is the right-hand side as a whole.
enum class Parts : std::uint8_t { kMerged, kCorrection, kImage };

struct Division {
  Layout layout;
  Axis rows, columns;
  Equation equation;
  Parts parts;
  float lambda, scale;
  bool no_mean;  // r is a divergence: what rounding leaves in its mean a small lambda must not divide
  std::int64_t part_floats;
};

struct Weights {
  float first, second;
};

__device__ inline Weights weights(const Division& division, std::int64_t k, std::int64_t j) {
  const float l = division.rows.laplacian[k] + division.columns.laplacian[j];
  const float g = division.rows.gaussian[k] * division.columns.gaussian[j];
  const bool screened = division.equation == Equation::kScreened;
  const float lambda = division.lambda;
  const float inverse = division.scale / (screened ? l + lambda * g : l * l + lambda * g * g);
  if (division.parts == Parts::kMerged) return {inverse, 0};
  const float q = division.parts == Parts::kCorrection ? g : 1 - g;  // of e, of c
  const float r = division.no_mean && k == 0 && j == 0 ? 0 : (screened ? 1 : l);
  return {r * inverse, lambda * (screened ? q : g * q) * inverse};
}

// Turns the half spectrum of the permuted right-hand side into that of the permuted solution, in place. The real FFT at
// (k, j) and at (H - k, j) holds the cosine coefficients at (k, j), (H - k, j), (k, W - j) and (H - k, W - j), four
// real numbers each: with A and B those values and a, b the rotations along the columns and the rows,
//   P = b (a A + conj(a B)):     X(k, j) = 2 Re P,       X(H - k, j) = -2 Im P
//   Q = i b (a A - conj(a B)):   X(k, W - j) = 2 Re Q,   X(H - k, W - j) = -2 Im Q.
__global__ void __launch_bounds__(kThreads) divide_kernel(Division division, float* spectrum) {
  const Layout layout = division.layout;
  const std::int64_t height = layout.size.height;
  const std::int64_t width = layout.size.width;
  const std::int64_t columns = layout.columns();
  const std::int64_t count = (height / 2 + 1) * columns;
  auto* values = reinterpret_cast<Complex*>(spectrum + static_cast<std::int64_t>(blockIdx.y) * layout.plane_floats());
  for (std::int64_t i = first_element(); i < count; i += element_stride()) {
    const std::int64_t k = i / columns;
    const std::int64_t j = i % columns;
    const std::int64_t mirrored = k == 0 ? 0 : height - k;
    const Complex a{division.columns.cosine[j], -division.columns.sine[j]};
    const Complex b{division.rows.cosine[k], -division.rows.sine[k]};
    // X at H and at W is nothing: there P's or Q's part is zero, whatever it is multiplied with.
    const Weights at[4] = {weights(division, k, j), weights(division, height - k, j), weights(division, k, width - j),
                           weights(division, height - k, width - j)};
    Complex p{0, 0};
    Complex q{0, 0};
    for (int part = 0; part < (division.parts == Parts::kMerged ? 1 : 2); ++part) {
      const Complex* from = values + part * (division.part_floats / 2);
      const Complex forward = a * from[k * columns + j];
      const Complex backward = conj(a * from[mirrored * columns + j]);
      const Complex sum = b * (forward + backward);
      const Complex difference = b * times_i(forward - backward);
      const auto weight = [&](int corner) { return part == 0 ? at[corner].first : at[corner].second; };
      p = p + Complex{weight(0) * sum.re, weight(1) * sum.im};
      q = q + Complex{weight(2) * difference.re, weight(3) * difference.im};
    }
    const Complex z = conj(b) * p;
    const Complex y = times_i(conj(b) * q);
    values[k * columns + j] = 0.5F * (conj(a) * (z - y));
    if (mirrored != k) values[mirrored * columns + j] = 0.5F * conj(a * (z + y));
  }
}

// -------------------------------------------------------------------------------------------------- the result

// Takes d out of Makhoul's order. Leaves it in `out`, or with `image` the image: clamped, and with a destination in its
// dtype and layout there. `base` is what d is added to; without data it is the composite.
struct Result {
  Layout layout;
  LevelImages images;
  Planes base, out;
  bool image, stored;
  Destination destination;
  const std::uint8_t* touched;
};

__global__ void __launch_bounds__(kThreads) result_kernel(Result result, const float* transformed) {
  constexpr int kRows = 8;
  constexpr int kColumns = kThreads / kRows;
  const Layout layout = result.layout;
  const TileOrigin origin = tile_origin(layout.size, kRows, kColumns);
  const std::int64_t y = origin.top + threadIdx.x / kColumns;
  const std::int64_t x = origin.left + threadIdx.x % kColumns;
  if (y >= layout.size.height || x >= layout.size.width) return;
  const std::int64_t image = blockIdx.y;
  if (result.stored && result.touched[image] == 0) {
    for (std::int64_t c = 0; c < result.destination.out.channels; ++c) {
      copy_pixel(result.destination.target, result.destination.out, image, y, x, c);
    }
    return;
  }
  const std::int64_t at = y * layout.size.width + x;
  const std::int64_t from =
      makhoul_place(y, layout.size.height) * layout.row_floats + makhoul_place(x, layout.size.width);
  const std::int64_t channels = result.out.channels / gridDim.y;
  const bool composited = result.image && result.base.data == nullptr;
  const float mask = composited ? result.images.mask.channel(image).data[at] : 0;
  for (std::int64_t c = 0; c < channels; ++c) {
    const std::int64_t plane = image * channels + c;
    float value = transformed[plane * layout.plane_floats() + from];
    if (composited) {
      value += result.images.target.channel(plane).data[at] + mask * result.images.difference.channel(plane).data[at];
    } else if (result.base.data != nullptr) {
      value += result.base.channel(plane).data[at];
    }
    if (result.stored) {
      store_pixel(result.destination.out, image, y, x, c, value);
    } else {
      result.out.channel(plane).data[at] = result.image ? fminf(fmaxf(value, 0), 1) : value;
    }
  }
}

// ----------------------------------------------------------------------------------------------------- the solver

class CudaSolver final : public core::Solver {
 public:
  CudaSolver(Size size, std::int64_t planes, Equation equation, double color_weight, double sigma, bool merged,
             Context& context)
      : context_(context),
        layout_{size, RealFft::row_floats(size.width)},
        planes_(planes),
        equation_(equation),
        lambda_(static_cast<float>(color_weight)),
        merged_(merged),
        forward_(RealFft::Direction::kForward, 2, size, merged_ ? planes : 2 * planes),
        inverse_(RealFft::Direction::kInverse, 2, size, planes) {
    const core::Spectrum spectrum(equation, color_weight, sigma, size.height, size.width);
    const std::vector<double> kernel = core::gaussian_kernel(sigma);
    taps_ = {static_cast<float>(kernel[0]), static_cast<float>(kernel[1])};
    std::vector<float> tables;
    append_axis(size.height, kernel, tables);
    append_axis(size.width, kernel, tables);
    tables_ = DeviceArray<float>(static_cast<std::int64_t>(tables.size()));
    check(cudaMemcpyAsync(tables_.data(), tables.data(), tables_.bytes(), cudaMemcpyHostToDevice, context.stream),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(context.stream), "cudaStreamSynchronize");  // `tables` ends here
    const std::int64_t work = std::max(forward_.work_bytes(), inverse_.work_bytes());
    context_.workspace.reserve(transformed_bytes() + work);
  }

  void solve_level(const LevelImages& images, Carry carry, const Planes& below, const Planes& carried,
                   const Destination* destination) override {
    const bool correction = carry == Carry::kCorrection;
    Result result{layout_, images, {}, carried, !correction || destination != nullptr, destination != nullptr, {}, {}};
    if (destination != nullptr) {
      result.destination = *destination;
      result.touched = context_.touched.data();
    }
    if (merged_) {
      if (equation_ == Equation::kScreened) {
        launch_right_side<Equation::kScreened>(images, carry, below, carried);
      } else {
        launch_right_side<Equation::kGaussianPoisson>(images, carry, below, carried);
      }
      divide(Parts::kMerged, false);
    } else {
      if (below.data != nullptr) launch_upsample(below, carried, context_.stream);
      launch_parts(images, {}, carried, correction);
      divide(correction ? Parts::kCorrection : Parts::kImage, true);
      if (!correction) result.base = carried;
    }
    launch_result(result, images.mask.channels);
  }

  // The equation for any right-hand side, by a solver that is not merged.
  void solve(const Planes& divergence, const Planes& color, const Planes& out) {
    launch_parts({}, divergence, color, false);
    divide(Parts::kImage, false);
    Result result{};
    result.layout = layout_;
    result.base = color;
    result.out = out;
    launch_result(result, 1);
  }

 private:
  [[nodiscard]] std::int64_t part_floats() const { return planes_ * layout_.plane_floats(); }
  [[nodiscard]] std::int64_t transformed_bytes() const {
    return aligned((merged_ ? 1 : 2) * part_floats() * static_cast<std::int64_t>(sizeof(float)));
  }

  static void append_axis(std::int64_t n, const std::vector<double>& kernel, std::vector<float>& tables) {
    // One more than the spectrum has: what stands there is multiplied with zero.
    const double step = std::numbers::pi / (2.0 * static_cast<double>(n));
    for (int table = 0; table < 4; ++table) {
      for (std::int64_t k = 0; k <= n; ++k) {
        const double turn = step * static_cast<double>(k);
        double value = 0;
        if (table == 0) {
          value = 4 * std::sin(turn) * std::sin(turn);  // 2 - 2 cos, with full precision near k = 0
        } else if (table == 1) {
          value = core::gaussian_eigenvalue(2 * turn, kernel);
        } else {
          value = table == 2 ? std::cos(turn) : std::sin(turn);
        }
        tables.push_back(static_cast<float>(value));
      }
    }
  }

  [[nodiscard]] Axis axis(std::int64_t offset, std::int64_t n) const {
    const float* at = tables_.data() + offset;
    return {at, at + (n + 1), at + 2 * (n + 1), at + 3 * (n + 1)};
  }

  template <Equation kEquation>
  void launch_right_side(const LevelImages& images, Carry carry, const Planes& below, const Planes& carried) {
    const dim3 grid = tile_grid(layout_.size, kTile, kTile, planes_);
    auto* const out = context_.workspace.as<float>();
    if (carry == Carry::kCorrection) {
      GPGAN_LAUNCH((right_side_kernel<kEquation, Carry::kCorrection>), grid, kThreads, context_.stream, images, below,
                   carried, taps_, lambda_, layout_, out);
    } else {
      GPGAN_LAUNCH((right_side_kernel<kEquation, Carry::kImage>), grid, kThreads, context_.stream, images, below,
                   carried, taps_, lambda_, layout_, out);
    }
  }

  void launch_parts(const LevelImages& images, const Planes& divergence, const Planes& color, bool correction) {
    dim3 grid = stride_grid(layout_.size.pixels(), kThreads);
    grid.y = static_cast<unsigned>(planes_);
    GPGAN_LAUNCH(parts_kernel, grid, kThreads, context_.stream, images, divergence, color, correction, layout_,
                 part_floats(), context_.workspace.as<float>());
  }

  // Forward, quotient and back.
  void divide(Parts parts, bool no_mean) {
    auto* const transformed = context_.workspace.as<float>();
    void* const work = context_.workspace.data() + transformed_bytes();
    forward_(transformed, work, context_.stream);
    const std::int64_t height = layout_.size.height;
    const auto scale = static_cast<float>(1.0 / static_cast<double>(layout_.size.pixels()));
    const Division division{layout_,   axis(0, height), axis(4 * (height + 1), layout_.size.width),
                            equation_, parts,           lambda_,
                            scale,     no_mean,         part_floats()};
    dim3 grid = stride_grid((height / 2 + 1) * layout_.columns(), kThreads);
    grid.y = static_cast<unsigned>(planes_);
    GPGAN_LAUNCH(divide_kernel, grid, kThreads, context_.stream, division, transformed);
    inverse_(transformed, work, context_.stream);
  }

  void launch_result(const Result& result, std::int64_t images) {
    const dim3 grid = tile_grid(layout_.size, 8, kThreads / 8, images);
    GPGAN_LAUNCH(result_kernel, grid, kThreads, context_.stream, result, context_.workspace.as<float>());
  }

  Context& context_;
  Layout layout_;
  std::int64_t planes_;
  Equation equation_;
  float lambda_;
  bool merged_;
  Taps taps_;
  RealFft forward_, inverse_;
  DeviceArray<float> tables_;
};

}  // namespace

std::unique_ptr<core::Solver> make_solver(Size size, std::int64_t planes, Equation equation, double color_weight,
                                          double sigma, Context& context) {
  const bool merged = sigma <= 0.5 && color_weight >= kSmallestMergedWeight;
  return std::make_unique<CudaSolver>(size, planes, equation, color_weight, sigma, merged, context);
}

void solve(const Planes& divergence, const Planes& color, Equation equation, double color_weight, double sigma,
           const Planes& out, Context& context) {
  CudaSolver solver(out.size, out.channels, equation, color_weight, sigma, false, context);
  solver.solve(divergence, color, out);
  check(cudaStreamSynchronize(context.stream), "cudaStreamSynchronize");  // the plans end here
}

}  // namespace gpgan::cuda
