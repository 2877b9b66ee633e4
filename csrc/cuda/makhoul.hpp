// A DCT-II of N points is a real FFT of N points of the same numbers in another order, but for a rotation by k / 4N of
// a turn. J. Makhoul, A fast cosine transform in one and two dimensions, IEEE Transactions on Acoustics, Speech and
// Signal Processing 28(1), 1980.
#pragma once

#include "cuda/runtime.hpp"

#if defined(__CUDACC__) || defined(GPGAN_CUDA_ON_CPU)
namespace gpgan::cuda {

// Where element i goes: the even ones in order, then the odd ones backwards.
__device__ inline std::int64_t makhoul_place(std::int64_t i, std::int64_t n) {
  return i % 2 == 0 ? i / 2 : n - (i + 1) / 2;
}

struct alignas(8) Complex {  // so that it is read at once
  float re, im;
};
__device__ inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
__device__ inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
__device__ inline Complex operator*(Complex a, Complex b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
__device__ inline Complex operator*(float a, Complex b) { return {a * b.re, a * b.im}; }
__device__ inline Complex conj(Complex a) { return {a.re, -a.im}; }
__device__ inline Complex times_i(Complex a) { return {-a.im, a.re}; }

}  // namespace gpgan::cuda
#endif
