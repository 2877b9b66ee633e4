// The project's own cosine transform: DCT-II and DCT-III of any length, many sequences at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/backend.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// Sequences lie in vector lanes, so that the transform's arithmetic is plain vertical vector code for any
// length. A batch is kBatch sequences: element i of sequence j at [i * kBatch + j]. 16 floats are one cache
// line, so kBatch neighbouring columns of an image are a batch as they lie there.
constexpr std::int64_t kBatch = 16;

// A plan for complex transforms in place: Cooley and Tukey's passes over mixed radices. Decimation in time takes its
// input in reversed order (`order`) and leaves the output in natural order; decimation in frequency is the same
// backwards. The passes themselves are templates on the number of lanes, next to their callers.
class Fft {
 public:
  // `radix` transforms of `inner` elements each become one; pass 0 works on single elements.
  struct Pass {
    int radix;
    std::int64_t inner;
    std::vector<float> twiddles;  // for each of `inner` offsets, radix - 1 complex numbers
  };

  explicit Fft(std::int64_t length);  // a product of 2, 3, 5, 7, 11 and 13

  [[nodiscard]] std::int64_t length() const { return length_; }
  [[nodiscard]] const std::vector<Pass>& passes() const { return passes_; }
  [[nodiscard]] std::vector<std::uint32_t> order() const;  // which element lies at each place

  static bool has_length(std::int64_t length);

 private:
  std::int64_t length_;
  std::vector<Pass> passes_;
};

// scipy.fft.dct's unnormalised types 2 and 3: inverse(forward(x)) = 2 N x. An even length makes a complex transform of
// length N / 2 of each sequence; an odd one makes one of length N of every two sequences. Where that has prime factors
// above 13, it is Bluestein's convolution.
class Dct {
 public:
  explicit Dct(std::int64_t length);

  [[nodiscard]] std::int64_t length() const { return length_; }
  [[nodiscard]] std::int64_t scratch_floats() const;

  // In place on one batch, length() * kBatch floats. Fastest where that is aligned to a cache line.
  void forward(float* batch, float* scratch) const;
  void inverse(float* batch, float* scratch) const;

 private:
  template <typename Ends>
  void forward(const Ends& ends, float* batch, float* x) const;
  template <typename Ends>
  void inverse(const Ends& ends, float* batch, float* x) const;
  template <int kLanes>
  void convolve(float* x) const;

  std::int64_t length_;
  std::int64_t points_;  // of the complex transform
  bool bluestein_;
  Fft fft_;
  std::vector<std::uint32_t> rows_;  // the element of a sequence that each part of the complex input is
  std::vector<float> rotations_;     // between the complex transform and the cosine one
  std::vector<float> chirp_;         // Bluestein: exp(-i pi k^2 / points)
  std::vector<float> filter_;        // and its transform, in reversed order, for the convolution
};

// The plan for a length; the last few are kept for whoever asks again.
std::shared_ptr<const Dct> shared_dct(std::int64_t length);

// Every row of one channel, in place; kBatch rows at a time, their columns gathered into lanes. `memory` is working
// space that a caller may keep.
void dct_rows(const Dct& plan, const core::Planes& image, bool inverse, int threads, std::vector<float>& memory);
void dct_rows(const Dct& plan, const core::Planes& image, bool inverse, int threads);

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
