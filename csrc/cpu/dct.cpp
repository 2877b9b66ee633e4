#include "cpu/dct.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>
#include <mutex>
#include <numbers>
#include <string>
#include <type_traits>
#include <utility>

#include "cpu/parallel.hpp"
#include "cpu/simd.hpp"
#include "cpu/transpose.hpp"
#include "gpgan/error.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

// ------------------------------------------------------------------------------------------- complex numbers

template <typename T>
struct Complex {
  T re, im;
};

template <typename T>
inline Complex<T> operator+(const Complex<T>& a, const Complex<T>& b) {
  return {a.re + b.re, a.im + b.im};
}
template <typename T>
inline Complex<T> operator-(const Complex<T>& a, const Complex<T>& b) {
  return {a.re - b.re, a.im - b.im};
}
template <typename T>
inline Complex<T> operator*(float s, const Complex<T>& a) {
  return {s * a.re, s * a.im};
}
template <typename T>
inline Complex<T> operator*(const Complex<float>& a, const Complex<T>& b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <typename T>
inline Complex<T> conj(const Complex<T>& a) {
  return {a.re, -a.im};
}
template <typename T>
inline Complex<T> swap(const Complex<T>& a) {
  return {a.im, a.re};
}
template <typename T>
inline Complex<T> times_minus_i(const Complex<T>& a) {
  return {a.im, -a.re};
}

Complex<float> unit(double turns) {
  const double angle = 2 * std::numbers::pi * turns;
  return {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))};
}

inline Complex<float> complex_at(const float* table, std::int64_t i) { return {table[2 * i], table[2 * i + 1]}; }

// One complex element of kLanes sequences is their real parts and then their imaginary parts; a pass works on a
// register of it at a time, from `lane` on.
template <int kLanes>
struct Element {
  static constexpr std::int64_t kFloats = 2 * kLanes;
  static constexpr int kWidth = std::min(kLanes, kNativeFloats);
  using Value = Complex<Register<kWidth>>;

  static Value load(const float* x, std::int64_t i, int lane) {
    const float* at = x + i * kFloats + lane;
    return {load_register<kWidth>(at), load_register<kWidth>(at + kLanes)};
  }
  static void store(float* x, std::int64_t i, int lane, const Value& value) {
    float* at = x + i * kFloats + lane;
    store_register<kWidth>(at, value.re);
    store_register<kWidth>(at + kLanes, value.im);
  }
};

// ----------------------------------------------------------------------------------------------- butterflies

// cos(2 pi n / radix) as a constant: the Taylor series, whose 20 terms leave no error in double up to pi.
constexpr double cosine(int n, int radix) {
  const int folded = std::min(n % radix, radix - n % radix);
  const double angle = 2 * std::numbers::pi * folded / radix;
  double sum = 1;
  double term = 1;
  for (int i = 1; i <= 20; ++i) {
    term *= -angle * angle / ((2 * i - 1) * (2 * i));
    sum += term;
  }
  return sum;
}

template <int kRadix>
struct Roots {
  float cos[kRadix];  // exp(2 pi i n / radix)
  float sin[kRadix];

  constexpr Roots() : cos(), sin() {
    for (int n = 0; n < kRadix; ++n) {
      cos[n] = static_cast<float>(cosine(4 * n, 4 * kRadix));
      sin[n] = static_cast<float>(cosine(4 * n + 3 * kRadix, 4 * kRadix));
    }
  }
};
template <int kRadix>
constexpr Roots<kRadix> kRoots;

// out[j] = sum over k of in[k] exp(-2 pi i j k / radix).
template <int kRadix, typename T>
inline void butterfly(const Complex<T> (&in)[kRadix], Complex<T> (&out)[kRadix]) {
  if constexpr (kRadix == 1) {
    out[0] = in[0];
  } else if constexpr (kRadix == 2) {
    out[0] = in[0] + in[1];
    out[1] = in[0] - in[1];
  } else if constexpr (kRadix % 2 == 0) {
    constexpr int kHalf = kRadix / 2;
    Complex<T> even_in[kHalf];
    Complex<T> odd_in[kHalf];
    GPGAN_UNROLL
    for (int k = 0; k < kHalf; ++k) {
      even_in[k] = in[2 * k];
      odd_in[k] = in[2 * k + 1];
    }
    Complex<T> even[kHalf];
    Complex<T> odd[kHalf];
    butterfly<kHalf>(even_in, even);
    butterfly<kHalf>(odd_in, odd);
    GPGAN_UNROLL
    for (int j = 0; j < kHalf; ++j) {
      Complex<T> turned;
      if (j == 0) {
        turned = odd[j];
      } else if (4 * j == kRadix) {
        turned = times_minus_i(odd[j]);
      } else {
        turned = Complex<float>{kRoots<kRadix>.cos[j], -kRoots<kRadix>.sin[j]} * odd[j];
      }
      out[j] = even[j] + turned;
      out[j + kHalf] = even[j] - turned;
    }
  } else {
    // Odd: inputs k and radix - k meet the same cosines and opposite sines.
    constexpr int kHalf = kRadix / 2;
    Complex<T> sum[kHalf];
    Complex<T> difference[kHalf];
    out[0] = in[0];
    GPGAN_UNROLL
    for (int k = 1; k <= kHalf; ++k) {
      sum[k - 1] = in[k] + in[kRadix - k];
      difference[k - 1] = times_minus_i(in[k] - in[kRadix - k]);
      out[0] = out[0] + sum[k - 1];
    }
    GPGAN_UNROLL
    for (int j = 1; j <= kHalf; ++j) {
      Complex<T> even = in[0] + kRoots<kRadix>.cos[j] * sum[0];
      Complex<T> odd = kRoots<kRadix>.sin[j] * difference[0];
      GPGAN_UNROLL
      for (int k = 2; k <= kHalf; ++k) {
        even = even + kRoots<kRadix>.cos[j * k % kRadix] * sum[k - 1];
        odd = odd + kRoots<kRadix>.sin[j * k % kRadix] * difference[k - 1];
      }
      out[j] = even + odd;
      out[kRadix - j] = even - odd;
    }
  }
}

// Calls body with the radix as a constant.
template <typename Body>
void with_radix(int radix, const Body& body) {
  switch (radix) {
    case 1:
      return body(std::integral_constant<int, 1>());
    case 2:
      return body(std::integral_constant<int, 2>());
    case 3:
      return body(std::integral_constant<int, 3>());
    case 4:
      return body(std::integral_constant<int, 4>());
    case 5:
      return body(std::integral_constant<int, 5>());
    case 6:
      return body(std::integral_constant<int, 6>());
    case 7:
      return body(std::integral_constant<int, 7>());
    case 8:
      return body(std::integral_constant<int, 8>());
    case 11:
      return body(std::integral_constant<int, 11>());
    default:
      return body(std::integral_constant<int, 13>());
  }
}

// ---------------------------------------------------------------------------------------------------- passes

enum class Decimation { kTime, kFrequency };  // twiddles before the butterfly, or after it

// One pass over `blocks` blocks, side by side.
template <int kRadix, int kLanes, Decimation kDecimation>
[[gnu::flatten]] void run_pass(const Fft::Pass& pass, float* x, std::int64_t blocks) {
  using E = Element<kLanes>;
  const std::int64_t inner = pass.inner;
  for (std::int64_t b = 0; b < blocks; ++b, x += kRadix * inner * E::kFloats) {
    for (std::int64_t q = 0; q < inner; ++q) {
      const float* twiddles = pass.twiddles.data() + 2 * (kRadix - 1) * q;
      GPGAN_KEEP_LOOP
      for (int lane = 0; lane < kLanes; lane += E::kWidth) {
        typename E::Value in[kRadix];
        typename E::Value out[kRadix];
        GPGAN_UNROLL
        for (int j = 0; j < kRadix; ++j) in[j] = E::load(x, q + j * inner, lane);
        if constexpr (kDecimation == Decimation::kTime) {
          GPGAN_UNROLL
          for (int j = 1; j < kRadix; ++j) in[j] = complex_at(twiddles, j - 1) * in[j];
        }
        butterfly<kRadix>(in, out);
        if constexpr (kDecimation == Decimation::kFrequency) {
          GPGAN_UNROLL
          for (int j = 1; j < kRadix; ++j) out[j] = complex_at(twiddles, j - 1) * out[j];
        }
        GPGAN_UNROLL
        for (int j = 0; j < kRadix; ++j) E::store(x, q + j * inner, lane, out[j]);
      }
    }
  }
}

// What the passes of a block work on stays in the nearest cache from one pass to the next.
constexpr std::int64_t kNearFloats = 4096;

template <int kLanes, typename Leaf>
void decimate_in_time(const Fft& fft, std::size_t level, float* x, std::int64_t first, std::int64_t blocks,
                      const Leaf& leaf) {
  const Fft::Pass& pass = fft.passes()[level];
  const std::int64_t block = pass.radix * pass.inner;
  if (blocks > 1 && level > 0 && blocks * block * Element<kLanes>::kFloats > kNearFloats) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      decimate_in_time<kLanes>(fft, level, x, first + b * block, 1, leaf);
    }
    return;
  }
  if (level == 0) return leaf(first, blocks);
  decimate_in_time<kLanes>(fft, level - 1, x, first, blocks * pass.radix, leaf);
  with_radix(pass.radix, [&](auto radix) {
    run_pass<radix(), kLanes, Decimation::kTime>(pass, x + first * Element<kLanes>::kFloats, blocks);
  });
}

template <int kLanes, typename Leaf>
void decimate_in_frequency(const Fft& fft, std::size_t level, float* x, std::int64_t first, std::int64_t blocks,
                           const Leaf& leaf) {
  const Fft::Pass& pass = fft.passes()[level];
  const std::int64_t block = pass.radix * pass.inner;
  if (blocks > 1 && level > 0 && blocks * block * Element<kLanes>::kFloats > kNearFloats) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      decimate_in_frequency<kLanes>(fft, level, x, first + b * block, 1, leaf);
    }
    return;
  }
  if (level == 0) return leaf(first, blocks);
  with_radix(pass.radix, [&](auto radix) {
    run_pass<radix(), kLanes, Decimation::kFrequency>(pass, x + first * Element<kLanes>::kFloats, blocks);
  });
  decimate_in_frequency<kLanes>(fft, level - 1, x, first, blocks * pass.radix, leaf);
}

// ------------------------------------------------------------------ between sequences and complex transforms

// Makhoul: v = x[0], x[2], x[4], ... x[5], x[3], x[1]; V its DFT; X[k] = 2 Re(exp(-i pi k / 2N) V[k]), and
// X[N - k] = -2 Im(exp(-i pi k / 2N) V[k]). V comes from a complex transform Z of half or of all the length. The two
// kinds of ends know how; their inverse is their transpose, as DCT-III is that of DCT-II up to the weight of X[0].
// The forward transform of swapped real and imaginary parts is the inverse one, swapped.

// Even N: z[i] = v[2i] + i v[2i + 1], of N / 2 = M points, and V[k] = E + O, V[M + k] = E - O with
//   2 E = Z[k] + conj Z[M - k],   2 O = -i exp(-2 pi i k / N) (Z[k] - conj Z[M - k]).
// So with t = pi k / 2N, S = exp(i t) conj(2 E) and T = exp(i t) conj(2 O) = exp(5 i t) conj(-i (Z[k] - conj Z[M - k]))
//   X[k] + i X[N - k] = S + T,   X[M - k] - i X[M + k] = exp(-i pi / 4) (S - T).
struct EvenEnds {
  static constexpr float kSqrtHalf = std::numbers::sqrt2_v<float> / 2;
  static constexpr int kLanes = kBatch;
  static constexpr int kRotations = 4;
  using E = Element<kLanes>;
  using Z = E::Value;

  std::int64_t length;
  const std::uint32_t* rows;
  const float* rotations;

  static void append_rotations(std::int64_t length, std::int64_t k, std::vector<float>& out) {
    const double turns = static_cast<double>(k) / (4 * static_cast<double>(length));
    const Complex<float> s = unit(turns);
    const Complex<float> t = unit(5 * turns);
    out.insert(out.end(), {s.re, s.im, t.re, t.im});
  }

  float* at(float* batch, std::int64_t i, int lane) const { return batch + i * kBatch + lane; }
  Register<E::kWidth> get(float* batch, std::int64_t i, int lane) const {
    return load_register<E::kWidth>(at(batch, i, lane));
  }
  void put(float* batch, std::int64_t i, int lane, Register<E::kWidth> value) const {
    store_register<E::kWidth>(at(batch, i, lane), value);
  }

  Z load(float* batch, std::int64_t i, int lane) const {
    return {get(batch, rows[2 * i], lane), get(batch, rows[2 * i + 1], lane)};
  }
  void store(float* batch, std::int64_t i, int lane, const Z& z) const {
    put(batch, rows[2 * i], lane, z.re);
    put(batch, rows[2 * i + 1], lane, z.im);
  }

  void finish_first(float* batch, int lane, const Z& z) const {
    put(batch, 0, lane, 2.0F * (z.re + z.im));
    put(batch, length / 2, lane, std::numbers::sqrt2_v<float> * (z.re - z.im));
  }
  Z start_first(float* batch, int lane) const {
    const Register<E::kWidth> a = get(batch, 0, lane);
    const Register<E::kWidth> b = std::numbers::sqrt2_v<float> * get(batch, length / 2, lane);
    return {a + b, a - b};
  }

  // Z[k] and Z[M - k].
  void finish(float* batch, std::int64_t k, int lane, const Z& a, const Z& b) const {
    const float* r = rotations + kRotations * k;
    const Z s = complex_at(r, 0) * Z{a.re + b.re, b.im - a.im};
    const Z t = complex_at(r, 1) * Z{a.im + b.im, a.re - b.re};
    const Z near = s + t;
    const Z far = kSqrtHalf * (s - t);
    const std::int64_t half = length / 2;
    put(batch, k, lane, near.re);
    put(batch, length - k, lane, near.im);
    put(batch, half - k, lane, far.re + far.im);
    put(batch, half + k, lane, far.re - far.im);
  }
  void start(float* batch, std::int64_t k, int lane, Z& a, Z& b) const {
    const float* r = rotations + kRotations * k;
    const std::int64_t half = length / 2;
    const auto c = get(batch, half - k, lane);
    const auto d = get(batch, half + k, lane);
    const Z near = {get(batch, k, lane), get(batch, length - k, lane)};
    const Z far = kSqrtHalf * Z{c + d, c - d};
    const Z s = conj(complex_at(r, 0)) * (near + far);
    const Z t = conj(complex_at(r, 1)) * (near - far);
    a = {s.re + t.im, t.re - s.im};
    b = {s.re - t.im, t.re + s.im};
  }
};

// Odd N: one half of the sequences makes the real part of z = v, the other half its imaginary part, and the symmetry
// of V takes them apart again.
struct OddEnds {
  static constexpr int kLanes = kBatch / 2;
  static constexpr int kRotations = 2;
  using E = Element<kLanes>;
  using Z = E::Value;

  std::int64_t length;
  const std::uint32_t* rows;
  const float* rotations;

  static void append_rotations(std::int64_t length, std::int64_t k, std::vector<float>& out) {
    const Complex<float> r = unit(static_cast<double>(k) / (4 * static_cast<double>(length)));
    out.insert(out.end(), {r.re, r.im});
  }

  Z load(float* batch, std::int64_t i, int lane) const { return E::load(batch, rows[i], lane); }
  void store(float* batch, std::int64_t i, int lane, const Z& z) const { E::store(batch, rows[i], lane, z); }

  void finish_first(float* batch, int lane, const Z& z) const { E::store(batch, 0, lane, 2.0F * z); }
  Z start_first(float* batch, int lane) const { return E::load(batch, 0, lane); }

  // Z[k] and Z[N - k].
  void finish(float* batch, std::int64_t k, int lane, const Z& near, const Z& far) const {
    const float cos = rotations[kRotations * k];
    const float sin = rotations[kRotations * k + 1];
    const Z a = near + conj(far);
    const Z b = times_minus_i(near - conj(far));
    E::store(batch, k, lane, {a.re * cos + a.im * sin, b.re * cos + b.im * sin});
    E::store(batch, length - k, lane, {a.re * sin - a.im * cos, b.re * sin - b.im * cos});
  }
  void start(float* batch, std::int64_t k, int lane, Z& near, Z& far) const {
    const float cos = rotations[kRotations * k];
    const float sin = rotations[kRotations * k + 1];
    const Z x = E::load(batch, k, lane);
    const Z y = E::load(batch, length - k, lane);
    const Z a = {x.re * cos + y.re * sin, x.re * sin - y.re * cos};
    const Z b = {x.im * cos + y.im * sin, x.im * sin - y.im * cos};
    near = {a.re - b.im, a.im + b.re};
    far = {a.re + b.im, b.re - a.im};
  }
};

// The innermost pass, from or to the batch.
template <int kRadix, typename Ends>
[[gnu::flatten]] void gather_pass(const Ends& ends, float* batch, float* x, std::int64_t first, std::int64_t blocks) {
  using E = typename Ends::E;
  for (std::int64_t i = first; i < first + blocks * kRadix; i += kRadix) {
    GPGAN_KEEP_LOOP
    for (int lane = 0; lane < Ends::kLanes; lane += E::kWidth) {
      typename E::Value in[kRadix];
      typename E::Value out[kRadix];
      GPGAN_UNROLL
      for (int j = 0; j < kRadix; ++j) in[j] = ends.load(batch, i + j, lane);
      butterfly<kRadix>(in, out);
      GPGAN_UNROLL
      for (int j = 0; j < kRadix; ++j) E::store(x, i + j, lane, out[j]);
    }
  }
}

template <int kRadix, typename Ends>
[[gnu::flatten]] void scatter_pass(const Ends& ends, float* batch, const float* x, std::int64_t first,
                                   std::int64_t blocks) {
  using E = typename Ends::E;
  for (std::int64_t i = first; i < first + blocks * kRadix; i += kRadix) {
    GPGAN_KEEP_LOOP
    for (int lane = 0; lane < Ends::kLanes; lane += E::kWidth) {
      typename E::Value in[kRadix];
      typename E::Value out[kRadix];
      GPGAN_UNROLL
      for (int j = 0; j < kRadix; ++j) in[j] = E::load(x, i + j, lane);
      butterfly<kRadix>(in, out);
      GPGAN_UNROLL
      for (int j = 0; j < kRadix; ++j) ends.store(batch, i + j, lane, swap(out[j]));
    }
  }
}

// All of the rotations, to or from the batch.
template <typename Ends>
[[gnu::flatten]] void finish_pass(const Ends& ends, std::int64_t points, const float* x, float* batch) {
  using E = typename Ends::E;
  GPGAN_KEEP_LOOP
  for (int lane = 0; lane < Ends::kLanes; lane += E::kWidth) ends.finish_first(batch, lane, E::load(x, 0, lane));
  for (std::int64_t k = 1; 2 * k <= points; ++k) {
    GPGAN_KEEP_LOOP
    for (int lane = 0; lane < Ends::kLanes; lane += E::kWidth) {
      ends.finish(batch, k, lane, E::load(x, k, lane), E::load(x, points - k, lane));
    }
  }
}

template <typename Ends>
[[gnu::flatten]] void start_pass(const Ends& ends, std::int64_t points, float* batch, float* x) {
  using E = typename Ends::E;
  GPGAN_KEEP_LOOP
  for (int lane = 0; lane < Ends::kLanes; lane += E::kWidth) E::store(x, 0, lane, swap(ends.start_first(batch, lane)));
  for (std::int64_t k = 1; 2 * k <= points; ++k) {
    GPGAN_KEEP_LOOP
    for (int lane = 0; lane < Ends::kLanes; lane += E::kWidth) {
      typename E::Value near;
      typename E::Value far;
      ends.start(batch, k, lane, near, far);
      E::store(x, k, lane, swap(near));
      E::store(x, points - k, lane, swap(far));
    }
  }
}

std::int64_t next_fft_length(std::int64_t n) {
  while (!Fft::has_length(n)) ++n;
  return n;
}

// Up to the next cache line.
float* align(float* memory) {
  const auto past = reinterpret_cast<std::uintptr_t>(memory) % 64 / sizeof(float);
  return past == 0 ? memory : memory + (16 - past);
}

}  // namespace

// ------------------------------------------------------------------------------------------------------ plans

bool Fft::has_length(std::int64_t length) {
  for (const int factor : {2, 3, 5, 7, 11, 13}) {
    while (length > 1 && length % factor == 0) length /= factor;
  }
  return length == 1;
}

Fft::Fft(std::int64_t length) : length_(length) {
  std::vector<int> radices;
  std::int64_t rest = length;
  const auto take = [&](int radix) {
    radices.push_back(radix);
    rest /= radix;
  };
  for (const int radix : {13, 11, 7, 5}) {
    while (rest % radix == 0) take(radix);
  }
  // As few passes as registers allow: eights, no twos.
  const int twos = std::countr_zero(static_cast<std::uint64_t>(rest));
  if (rest % 3 == 0 && twos > 0 && twos != 2) take(6);
  while (rest % 3 == 0) take(3);
  while (rest > 1) take(rest == 2 ? 2 : rest == 4 || rest == 16 ? 4 : 8);
  if (radices.empty()) take(1);
  std::int64_t inner = 1;
  for (const int radix : radices) {
    Pass pass{.radix = radix, .inner = inner, .twiddles = {}};
    for (std::int64_t q = 0; q < inner; ++q) {
      for (int j = 1; j < radix; ++j) {
        const Complex<float> w = unit(-static_cast<double>(q * j) / static_cast<double>(inner * radix));
        pass.twiddles.insert(pass.twiddles.end(), {w.re, w.im});
      }
    }
    passes_.push_back(std::move(pass));
    inner *= radix;
  }
}

std::vector<std::uint32_t> Fft::order() const {
  // A pass takes its j-th transform from every radix-th element, from the j-th on: the digits of a place, outermost
  // radix first, are those of its element, lowest first.
  std::vector<std::uint32_t> order{0};
  std::int64_t outer = length_;
  for (const Pass& pass : passes_) {
    outer /= pass.radix;
    std::vector<std::uint32_t> wider;
    for (int j = 0; j < pass.radix; ++j) {
      for (const std::uint32_t i : order) wider.push_back(static_cast<std::uint32_t>(i + j * outer));
    }
    order = std::move(wider);
  }
  return order;
}

Dct::Dct(std::int64_t length)
    : length_(length),
      points_(length % 2 == 0 ? length / 2 : length),
      bluestein_(!Fft::has_length(points_)),
      fft_(bluestein_ ? next_fft_length(2 * points_ - 1) : points_) {
  constexpr std::int64_t kMaxLength = std::int64_t{1} << 31;  // so that k^2 below cannot overflow
  if (length < 1 || length > kMaxLength) throw InvalidArgument("length", "1 to 2^31", std::to_string(length));

  const std::vector<std::uint32_t> order = bluestein_ ? std::vector<std::uint32_t>() : fft_.order();
  const auto add_row = [&](std::int64_t i) {  // of v[i]
    rows_.push_back(static_cast<std::uint32_t>(2 * i < length ? 2 * i : 2 * (length - i) - 1));
  };
  for (std::int64_t place = 0; place < points_; ++place) {
    const std::int64_t i = bluestein_ ? place : order[static_cast<std::size_t>(place)];
    if (length % 2 == 0) {
      add_row(2 * i);
      add_row(2 * i + 1);
    } else {
      add_row(i);
    }
  }
  for (std::int64_t k = 0; k <= points_ / 2; ++k) {
    length % 2 == 0 ? EvenEnds::append_rotations(length, k, rotations_)
                    : OddEnds::append_rotations(length, k, rotations_);
  }
  if (!bluestein_) return;

  // x[k] z[k] with z = exp(-i pi k^2 / points), convolved with conj(z), times z again. k^2 is taken modulo 2 points,
  // where it is exact.
  const std::int64_t size = fft_.length();
  constexpr int kLanes = OddEnds::kLanes;
  using E = Element<kLanes>;
  std::vector<float> filter(static_cast<std::size_t>(size * E::kFloats), 0.0F);
  for (std::int64_t k = 0; k < points_; ++k) {
    // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): it takes points_ for 0 within a loop of k < points_.
    const Complex<float> z = unit(-static_cast<double>(k * k % (2 * points_)) / (2.0 * static_cast<double>(points_)));
    chirp_.insert(chirp_.end(), {z.re, z.im});
    for (const std::int64_t at : {k, k == 0 ? 0 : size - k}) {
      filter[static_cast<std::size_t>(at * E::kFloats)] = z.re / static_cast<float>(size);
      filter[static_cast<std::size_t>(at * E::kFloats + kLanes)] = -z.im / static_cast<float>(size);
    }
  }
  const std::size_t top = fft_.passes().size() - 1;
  const auto leaf = [&](std::int64_t first, std::int64_t blocks) {
    with_radix(fft_.passes()[0].radix, [&](auto radix) {
      run_pass<radix(), kLanes, Decimation::kFrequency>(fft_.passes()[0], filter.data() + first * E::kFloats, blocks);
    });
  };
  decimate_in_frequency<kLanes>(fft_, top, filter.data(), 0, 1, leaf);
  for (std::int64_t k = 0; k < size; ++k) {
    const auto at = filter.begin() + k * E::kFloats;
    filter_.insert(filter_.end(), {*at, *(at + kLanes)});
  }
}

std::int64_t Dct::scratch_floats() const {
  const std::int64_t lanes = length_ % 2 == 0 ? EvenEnds::kLanes : OddEnds::kLanes;
  return fft_.length() * 2 * lanes + 16;
}

// -------------------------------------------------------------------------------------------------- transforms

// Bluestein's convolution: the complex transform of the first `points_` elements of `x`, which is as long as the FFT.
// Decimation in frequency and then in time: nobody sees the order of the spectrum between them.
template <int kLanes>
void Dct::convolve(float* x) const {
  using E = Element<kLanes>;
  const Fft::Pass& innermost = fft_.passes()[0];
  const std::size_t top = fft_.passes().size() - 1;

  for (std::int64_t i = 0; i < points_; ++i) {
    GPGAN_KEEP_LOOP
    for (int lane = 0; lane < kLanes; lane += E::kWidth) {
      E::store(x, i, lane, complex_at(chirp_.data(), i) * E::load(x, i, lane));
    }
  }
  std::fill(x + points_ * E::kFloats, x + fft_.length() * E::kFloats, 0.0F);
  decimate_in_frequency<kLanes>(fft_, top, x, 0, 1, [&](std::int64_t first, std::int64_t blocks) {
    with_radix(innermost.radix, [&](auto radix) {
      run_pass<radix(), kLanes, Decimation::kFrequency>(innermost, x + first * E::kFloats, blocks);
    });
  });
  for (std::int64_t i = 0; i < fft_.length(); ++i) {
    GPGAN_KEEP_LOOP
    for (int lane = 0; lane < kLanes; lane += E::kWidth) {
      E::store(x, i, lane, swap(complex_at(filter_.data(), i) * E::load(x, i, lane)));
    }
  }
  decimate_in_time<kLanes>(fft_, top, x, 0, 1, [&](std::int64_t first, std::int64_t blocks) {
    with_radix(innermost.radix, [&](auto radix) {
      run_pass<radix(), kLanes, Decimation::kTime>(innermost, x + first * E::kFloats, blocks);
    });
  });
  for (std::int64_t i = 0; i < points_; ++i) {
    GPGAN_KEEP_LOOP
    for (int lane = 0; lane < kLanes; lane += E::kWidth) {
      E::store(x, i, lane, complex_at(chirp_.data(), i) * swap(E::load(x, i, lane)));
    }
  }
}

template <typename Ends>
void Dct::forward(const Ends& ends, float* batch, float* x) const {
  if (bluestein_) {
    gather_pass<1>(ends, batch, x, 0, points_);
    convolve<Ends::kLanes>(x);
  } else {
    decimate_in_time<Ends::kLanes>(fft_, fft_.passes().size() - 1, x, 0, 1, [&](auto first, auto blocks) {
      with_radix(fft_.passes()[0].radix, [&](auto radix) { gather_pass<radix()>(ends, batch, x, first, blocks); });
    });
  }
  finish_pass(ends, points_, x, batch);
}

template <typename Ends>
void Dct::inverse(const Ends& ends, float* batch, float* x) const {
  start_pass(ends, points_, batch, x);
  if (bluestein_) {
    convolve<Ends::kLanes>(x);
    scatter_pass<1>(ends, batch, x, 0, points_);
  } else {
    decimate_in_frequency<Ends::kLanes>(fft_, fft_.passes().size() - 1, x, 0, 1, [&](auto first, auto blocks) {
      with_radix(fft_.passes()[0].radix, [&](auto radix) { scatter_pass<radix()>(ends, batch, x, first, blocks); });
    });
  }
}

void Dct::forward(float* batch, float* scratch) const {
  if (length_ % 2 == 0) {
    forward(EvenEnds{length_, rows_.data(), rotations_.data()}, batch, align(scratch));
  } else {
    forward(OddEnds{length_, rows_.data(), rotations_.data()}, batch, align(scratch));
  }
}

void Dct::inverse(float* batch, float* scratch) const {
  if (length_ % 2 == 0) {
    inverse(EvenEnds{length_, rows_.data(), rotations_.data()}, batch, align(scratch));
  } else {
    inverse(OddEnds{length_, rows_.data(), rotations_.data()}, batch, align(scratch));
  }
}

// -------------------------------------------------------------------------------------------------------- rows

std::shared_ptr<const Dct> shared_dct(std::int64_t length) {
  static std::mutex mutex;
  static std::array<std::shared_ptr<const Dct>, 8> kept;
  static std::size_t oldest = 0;
  {
    const std::lock_guard lock(mutex);
    for (const auto& plan : kept) {
      if (plan && plan->length() == length) return plan;
    }
  }
  auto plan = std::make_shared<const Dct>(length);  // may take a while: others need not wait
  const std::lock_guard lock(mutex);
  kept[oldest] = plan;
  oldest = (oldest + 1) % kept.size();
  return plan;
}

void dct_rows(const Dct& plan, const core::Planes& image, bool inverse, int threads, std::vector<float>& memory) {
  const std::int64_t height = image.size.height;
  const std::int64_t width = image.size.width;
  const std::int64_t batches = (height + kBatch - 1) / kBatch;
  const std::int64_t floats = width * kBatch + plan.scratch_floats() + 16;
  const std::int64_t affordable = std::min<std::int64_t>(threads, batches * width * kBatch / kSerialElements);
  const auto workers = static_cast<int>(std::max<std::int64_t>(1, std::min(affordable, batches)));
  memory.resize(std::max(memory.size(), static_cast<std::size_t>(workers * floats)));
  parallel_tasks(batches, workers, [&](std::int64_t task, int worker) {
    float* batch = align(memory.data() + worker * floats);
    float* scratch = batch + width * kBatch;
    float* rows = image.row(task * kBatch);
    const std::int64_t count = std::min(kBatch, height - task * kBatch);
    // Lanes that are left over must hold zeros: what the last batch left there would round into its partner.
    if (count < kBatch) std::fill_n(batch, width * kBatch, 0.0F);
    transpose(rows, width, count, width, batch, kBatch);
    inverse ? plan.inverse(batch, scratch) : plan.forward(batch, scratch);
    transpose(batch, kBatch, width, count, rows, width);
  });
}

void dct_rows(const Dct& plan, const core::Planes& image, bool inverse, int threads) {
  std::vector<float> memory;
  dct_rows(plan, image, inverse, threads, memory);
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
