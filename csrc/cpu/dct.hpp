// The project's own cosine transform: DCT-II and DCT-III of any length, many sequences at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.hpp"

namespace gpgan::cpu {

// Sequences lie in vector lanes, so that the transform's arithmetic is plain vertical vector code for any
// length. A batch is kBatch sequences: element i of sequence j at [i * kBatch + j]. 16 floats are one cache
// line, so kBatch neighbouring columns of an image are a batch as they lie there.
constexpr std::int64_t kLanes = 8;
constexpr std::int64_t kBatch = 2 * kLanes;

// Complex FFT of kLanes sequences; element i is kLanes real parts, then kLanes imaginary parts. Stockham's
// form: radix 4, 2, 3 and 5 passes between two arrays, in natural order throughout.
class Fft {
 public:
  explicit Fft(std::int64_t length);  // 2^a 3^b 5^c

  [[nodiscard]] std::int64_t length() const { return length_; }
  // Transforms `x`, using `y` of the same size; returns whichever of the two holds the result.
  float* forward(float* x, float* y) const;

  static bool has_length(std::int64_t length);

 private:
  struct Pass {
    int radix;
    std::int64_t groups;          // sub-transform length after this pass
    std::vector<float> twiddles;  // (radix - 1) complex numbers a group
  };
  std::int64_t length_;
  std::vector<Pass> passes_;
};

// scipy.fft.dct's unnormalised types 2 and 3: inverse(forward(x)) = 2 N x. Two real sequences share one
// complex transform of the same length N (Makhoul's permutation makes the DCT of one); a length with other
// factors than 2, 3 and 5 goes through Bluestein's convolution.
class Dct {
 public:
  explicit Dct(std::int64_t length);

  [[nodiscard]] std::int64_t length() const { return length_; }
  [[nodiscard]] std::int64_t scratch_floats() const;

  // In place on one batch, length() * kBatch floats.
  void forward(float* batch, float* scratch) const;
  void inverse(float* batch, float* scratch) const;

 private:
  float* transform(float* x, float* y) const;

  std::int64_t length_;
  bool bluestein_;
  Fft fft_;
  std::vector<float> twiddles_;  // (cos, sin) of pi k / 2N for k <= N / 2
  std::vector<float> chirp_;     // Bluestein: exp(-i pi k^2 / N)
  std::vector<float> filter_;    // and its transform, for the convolution
};

// Every row of one channel, in place; kBatch rows at a time, their columns gathered into lanes.
void dct_rows(const Dct& plan, const core::Planes& image, bool inverse, int threads);

}  // namespace gpgan::cpu
