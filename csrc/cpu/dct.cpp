#include "cpu/dct.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>

#include "cpu/parallel.hpp"
#include "cpu/vectorize.hpp"
#include "gpgan/error.hpp"

namespace gpgan::cpu {
namespace {

struct Complex {
  float re, im;
};

inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
inline Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
inline Complex operator*(float s, Complex a) { return {s * a.re, s * a.im}; }
inline Complex times_minus_i(Complex a) { return {a.im, -a.re}; }

Complex unit(double turns) {
  const double angle = 2 * std::numbers::pi * turns;
  return {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))};
}

// The butterflies: out[j] = sum over k of in[k] exp(-2 pi i j k / radix).
template <int kRadix>
inline void butterfly(const Complex (&in)[kRadix], Complex (&out)[kRadix]);

template <>
inline void butterfly<2>(const Complex (&in)[2], Complex (&out)[2]) {
  out[0] = in[0] + in[1];
  out[1] = in[0] - in[1];
}

template <>
inline void butterfly<3>(const Complex (&in)[3], Complex (&out)[3]) {
  constexpr float kSin = 0.866025403784438647F;  // sin(2 pi / 3)
  const Complex sum = in[1] + in[2];
  const Complex mid = in[0] - 0.5F * sum;
  const Complex turn = kSin * times_minus_i(in[1] - in[2]);
  out[0] = in[0] + sum;
  out[1] = mid + turn;
  out[2] = mid - turn;
}

template <>
inline void butterfly<4>(const Complex (&in)[4], Complex (&out)[4]) {
  const Complex a = in[0] + in[2];
  const Complex b = in[0] - in[2];
  const Complex c = in[1] + in[3];
  const Complex d = times_minus_i(in[1] - in[3]);
  out[0] = a + c;
  out[1] = b + d;
  out[2] = a - c;
  out[3] = b - d;
}

template <>
inline void butterfly<5>(const Complex (&in)[5], Complex (&out)[5]) {
  constexpr float kCos1 = 0.309016994374947424F;   // cos(2 pi / 5)
  constexpr float kCos2 = -0.809016994374947424F;  // cos(4 pi / 5)
  constexpr float kSin1 = 0.951056516295153572F;
  constexpr float kSin2 = 0.587785252292473129F;
  const Complex s1 = in[1] + in[4];
  const Complex s2 = in[2] + in[3];
  const Complex d1 = in[1] - in[4];
  const Complex d2 = in[2] - in[3];
  const Complex m1 = in[0] + kCos1 * s1 + kCos2 * s2;
  const Complex m2 = in[0] + kCos2 * s1 + kCos1 * s2;
  const Complex t1 = times_minus_i(kSin1 * d1 + kSin2 * d2);
  const Complex t2 = times_minus_i(kSin2 * d1 - kSin1 * d2);
  out[0] = in[0] + s1 + s2;
  out[1] = m1 + t1;
  out[2] = m2 + t2;
  out[3] = m2 - t2;
  out[4] = m1 - t1;
}

// One Stockham pass: for every group p and every offset q below `stride`,
//   y[q + stride (radix p + j)] = w_p^j sum over k of x[q + stride (p + k groups)] exp(-2 pi i j k / radix).
template <int kRadix>
void run_pass(const float* __restrict x, float* __restrict y, std::int64_t groups, std::int64_t stride,
              const float* twiddles) {
  for (std::int64_t p = 0; p < groups; ++p) {
    Complex w[kRadix];
    w[0] = {1.0F, 0.0F};
    for (int j = 1; j < kRadix; ++j) {
      w[j] = {twiddles[2 * ((kRadix - 1) * p + j - 1)], twiddles[2 * ((kRadix - 1) * p + j - 1) + 1]};
    }
    const float* from = x + stride * p * kBatch;
    float* to = y + stride * kRadix * p * kBatch;
    for (std::int64_t q = 0; q < stride; ++q, from += kBatch, to += kBatch) {
      GPGAN_INDEPENDENT_LOOP
      for (std::int64_t lane = 0; lane < kLanes; ++lane) {
        Complex in[kRadix];
        Complex out[kRadix];
        for (int k = 0; k < kRadix; ++k) {
          const float* element = from + stride * groups * k * kBatch + lane;
          in[k] = {element[0], element[kLanes]};
        }
        butterfly<kRadix>(in, out);
        to[lane] = out[0].re;
        to[lane + kLanes] = out[0].im;
        for (int j = 1; j < kRadix; ++j) {
          const Complex value = w[j] * out[j];
          float* element = to + stride * j * kBatch + lane;
          element[0] = value.re;
          element[kLanes] = value.im;
        }
      }
    }
  }
}

// Element i of a batch times one complex number, added nowhere: out may be in.
void scale_element(const float* in, Complex by, float* out) {
  GPGAN_INDEPENDENT_LOOP
  for (std::int64_t lane = 0; lane < kLanes; ++lane) {
    const Complex value = by * Complex{in[lane], in[lane + kLanes]};
    out[lane] = value.re;
    out[lane + kLanes] = value.im;
  }
}

std::int64_t next_fft_length(std::int64_t n) {
  while (!Fft::has_length(n)) ++n;
  return n;
}

}  // namespace

bool Fft::has_length(std::int64_t length) {
  for (const int factor : {2, 3, 5}) {
    while (length > 1 && length % factor == 0) length /= factor;
  }
  return length == 1;
}

Fft::Fft(std::int64_t length) : length_(length) {
  std::int64_t rest = length;
  for (const int radix : {4, 2, 3, 5}) {
    while (rest % radix == 0) {
      const std::int64_t groups = rest / radix;
      Pass pass{.radix = radix, .groups = groups, .twiddles = {}};
      for (std::int64_t p = 0; p < groups; ++p) {
        for (int j = 1; j < radix; ++j) {
          const Complex w = unit(-static_cast<double>(p * j) / static_cast<double>(rest));
          pass.twiddles.insert(pass.twiddles.end(), {w.re, w.im});
        }
      }
      passes_.push_back(std::move(pass));
      rest = groups;
    }
  }
}

float* Fft::forward(float* x, float* y) const {
  std::int64_t stride = 1;
  for (const Pass& pass : passes_) {
    switch (pass.radix) {
      case 2:
        run_pass<2>(x, y, pass.groups, stride, pass.twiddles.data());
        break;
      case 3:
        run_pass<3>(x, y, pass.groups, stride, pass.twiddles.data());
        break;
      case 4:
        run_pass<4>(x, y, pass.groups, stride, pass.twiddles.data());
        break;
      default:
        run_pass<5>(x, y, pass.groups, stride, pass.twiddles.data());
    }
    std::swap(x, y);
    stride *= pass.radix;
  }
  return x;
}

Dct::Dct(std::int64_t length)
    : length_(length),
      bluestein_(!Fft::has_length(length)),
      fft_(bluestein_ ? next_fft_length(2 * length - 1) : length) {
  constexpr std::int64_t kMaxLength = std::int64_t{1} << 31;  // so that k^2 below cannot overflow
  if (length < 1 || length > kMaxLength) throw InvalidArgument("length", "1 to 2^31", std::to_string(length));
  for (std::int64_t k = 0; k <= length / 2; ++k) {
    const Complex w = unit(static_cast<double>(k) / (4.0 * static_cast<double>(length)));
    twiddles_.insert(twiddles_.end(), {w.re, w.im});
  }
  if (!bluestein_) return;

  // x[k] z[k] with z = exp(-i pi k^2 / N), convolved with conj(z), times z again. k^2 is taken modulo 2N,
  // where it is exact.
  const std::int64_t size = fft_.length();
  filter_.assign(static_cast<std::size_t>(size * kBatch), 0.0F);
  for (std::int64_t k = 0; k < length; ++k) {
    // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): it takes length for 0 within a loop of k < length.
    const Complex z = unit(-static_cast<double>(k * k % (2 * length)) / (2.0 * static_cast<double>(length)));
    chirp_.insert(chirp_.end(), {z.re, z.im});
    for (const std::int64_t at : {k, k == 0 ? 0 : size - k}) {
      filter_[static_cast<std::size_t>(at * kBatch)] = z.re / static_cast<float>(size);
      filter_[static_cast<std::size_t>(at * kBatch + kLanes)] = -z.im / static_cast<float>(size);
    }
  }
  std::vector<float> other(filter_.size());
  const float* transformed = fft_.forward(filter_.data(), other.data());
  std::vector<float> packed;
  for (std::int64_t k = 0; k < size; ++k) {
    packed.insert(packed.end(), {transformed[k * kBatch], transformed[k * kBatch + kLanes]});
  }
  filter_ = std::move(packed);
}

std::int64_t Dct::scratch_floats() const { return 2 * fft_.length() * kBatch; }

// The complex transform of length() elements of `x`; x and y are each as long as the FFT.
float* Dct::transform(float* x, float* y) const {
  if (!bluestein_) return fft_.forward(x, y);
  for (std::int64_t k = 0; k < length_; ++k) {
    scale_element(x + k * kBatch, {chirp_[2 * k], chirp_[2 * k + 1]}, x + k * kBatch);
  }
  std::fill(x + length_ * kBatch, x + fft_.length() * kBatch, 0.0F);
  float* spectrum = fft_.forward(x, y);
  float* other = spectrum == x ? y : x;
  // The inverse transform is the forward one with real and imaginary parts swapped, before and after.
  for (std::int64_t k = 0; k < fft_.length(); ++k) {
    float* element = spectrum + k * kBatch;
    scale_element(element, {filter_[2 * k], filter_[2 * k + 1]}, element);
    std::swap_ranges(element, element + kLanes, element + kLanes);
  }
  float* result = fft_.forward(spectrum, other);
  for (std::int64_t k = 0; k < length_; ++k) {
    float* element = result + k * kBatch;
    std::swap_ranges(element, element + kLanes, element + kLanes);
    scale_element(element, {chirp_[2 * k], chirp_[2 * k + 1]}, element);
  }
  return result;
}

// Makhoul: v = x[0], x[2], x[4], ... x[5], x[3], x[1]; V its DFT; X[k] = 2 Re(exp(-i pi k / 2N) V[k]). The
// first half of a batch is the real part of the transform's input, the second its imaginary part, and the
// symmetry of V takes them apart again.
void Dct::forward(float* batch, float* scratch) const {
  const std::int64_t n = length_;
  float* x = scratch;
  float* y = scratch + fft_.length() * kBatch;
  for (std::int64_t i = 0; 2 * i < n; ++i) std::copy_n(batch + 2 * i * kBatch, kBatch, x + i * kBatch);
  for (std::int64_t i = 0; 2 * i + 1 < n; ++i) {
    std::copy_n(batch + (2 * i + 1) * kBatch, kBatch, x + (n - 1 - i) * kBatch);
  }
  const float* v = transform(x, y);
  for (std::int64_t i = 0; i < kBatch; ++i) batch[i] = 2 * v[i];
  for (std::int64_t k = 1; 2 * k <= n; ++k) {
    const float cos = twiddles_[2 * k];
    const float sin = twiddles_[2 * k + 1];
    const float* near = v + k * kBatch;
    const float* far = v + (n - k) * kBatch;
    float* near_out = batch + k * kBatch;
    float* far_out = batch + (n - k) * kBatch;
    GPGAN_INDEPENDENT_LOOP
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const Complex a{near[lane] + far[lane], near[lane + kLanes] - far[lane + kLanes]};
      const Complex b{near[lane + kLanes] + far[lane + kLanes], far[lane] - near[lane]};
      near_out[lane] = a.re * cos + a.im * sin;
      far_out[lane] = a.re * sin - a.im * cos;
      near_out[lane + kLanes] = b.re * cos + b.im * sin;
      far_out[lane + kLanes] = b.re * sin - b.im * cos;
    }
  }
}

void Dct::inverse(float* batch, float* scratch) const {
  const std::int64_t n = length_;
  float* x = scratch;
  float* y = scratch + fft_.length() * kBatch;
  // Real and imaginary parts go in swapped and come out swapped: that is the inverse transform.
  for (std::int64_t lane = 0; lane < kLanes; ++lane) {
    x[lane] = batch[lane + kLanes];
    x[lane + kLanes] = batch[lane];
  }
  for (std::int64_t k = 1; 2 * k <= n; ++k) {
    const float cos = twiddles_[2 * k];
    const float sin = twiddles_[2 * k + 1];
    const float* near = batch + k * kBatch;
    const float* far = batch + (n - k) * kBatch;
    float* near_out = x + k * kBatch;
    float* far_out = x + (n - k) * kBatch;
    GPGAN_INDEPENDENT_LOOP
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const Complex a{near[lane] * cos + far[lane] * sin, near[lane] * sin - far[lane] * cos};
      const Complex b{near[lane + kLanes] * cos + far[lane + kLanes] * sin,
                      near[lane + kLanes] * sin - far[lane + kLanes] * cos};
      far_out[lane] = b.re - a.im;
      far_out[lane + kLanes] = a.re + b.im;
      near_out[lane] = a.im + b.re;
      near_out[lane + kLanes] = a.re - b.im;
    }
  }
  const float* v = transform(x, y);
  const auto put = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      batch[to * kBatch + lane] = v[from * kBatch + lane + kLanes];
      batch[to * kBatch + lane + kLanes] = v[from * kBatch + lane];
    }
  };
  for (std::int64_t i = 0; 2 * i < n; ++i) put(i, 2 * i);
  for (std::int64_t i = 0; 2 * i + 1 < n; ++i) put(n - 1 - i, 2 * i + 1);
}

void dct_rows(const Dct& plan, const core::Planes& image, bool inverse, int threads) {
  const std::int64_t height = image.size.height;
  const std::int64_t width = image.size.width;
  const std::int64_t batches = (height + kBatch - 1) / kBatch;
  parallel_for(batches, width * kBatch, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> memory(static_cast<std::size_t>(width * kBatch + plan.scratch_floats()));
    float* batch = memory.data();
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t first = b * kBatch;
      const std::int64_t count = std::min(kBatch, height - first);
      // Lanes that are left over must hold zeros: what the last batch left there would round into its
      // partner.
      if (count < kBatch) std::fill_n(batch, width * kBatch, 0.0F);
      // Tiles that stay in the nearest cache, as rows and lanes cross each other's lines.
      constexpr std::int64_t kTile = 16;
      for (std::int64_t x0 = 0; x0 < width; x0 += kTile) {
        const std::int64_t x1 = std::min(width, x0 + kTile);
        for (std::int64_t j = 0; j < count; ++j) {
          const float* row = image.row(first + j);
          for (std::int64_t x = x0; x < x1; ++x) batch[x * kBatch + j] = row[x];
        }
      }
      inverse ? plan.inverse(batch, batch + width * kBatch) : plan.forward(batch, batch + width * kBatch);
      for (std::int64_t x0 = 0; x0 < width; x0 += kTile) {
        const std::int64_t x1 = std::min(width, x0 + kTile);
        for (std::int64_t j = 0; j < count; ++j) {
          float* row = image.row(first + j);
          for (std::int64_t x = x0; x < x1; ++x) row[x] = batch[x * kBatch + j];
        }
      }
    }
  });
}

}  // namespace gpgan::cpu
