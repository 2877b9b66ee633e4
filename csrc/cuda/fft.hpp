// cuFFT's plans: owned, checked, and with their working memory in the backend's.
#pragma once

#include <cufft.h>

#include <cstdint>
#include <string>

#include "cuda/runtime.hpp"

namespace gpgan::cuda {

inline const char* name_of(cufftResult status) {
  switch (status) {
    case CUFFT_SUCCESS:
      return "CUFFT_SUCCESS";
    case CUFFT_INVALID_PLAN:
      return "CUFFT_INVALID_PLAN";
    case CUFFT_ALLOC_FAILED:
      return "CUFFT_ALLOC_FAILED";
    case CUFFT_INVALID_TYPE:
      return "CUFFT_INVALID_TYPE";
    case CUFFT_INVALID_VALUE:
      return "CUFFT_INVALID_VALUE";
    case CUFFT_INTERNAL_ERROR:
      return "CUFFT_INTERNAL_ERROR";
    case CUFFT_EXEC_FAILED:
      return "CUFFT_EXEC_FAILED";
    case CUFFT_SETUP_FAILED:
      return "CUFFT_SETUP_FAILED";
    case CUFFT_INVALID_SIZE:
      return "CUFFT_INVALID_SIZE";
    default:
      return "an error of cuFFT";
  }
}

inline void check(cufftResult status, const char* what) {
  if (status != CUFFT_SUCCESS) {
    throw DeviceError(std::string(what) + ": " + name_of(status) + " (" + std::to_string(static_cast<int>(status)) +
                      ")");
  }
}

// Real transforms of `planes` images, or with `rank` 1 of rows, in place: a row of W real numbers has room for the
// W / 2 + 1 complex ones that it becomes. Unnormalised.
class RealFft {
 public:
  enum class Direction : std::uint8_t { kForward, kInverse };

  // Floats from a row to the next.
  static std::int64_t row_floats(std::int64_t width) { return 2 * (width / 2 + 1); }

  RealFft(Direction direction, int rank, Size size, std::int64_t planes) : direction_(direction) {
    check(cudaGetDevice(&device_), "cudaGetDevice");
    check(cufftCreate(&plan_), "cufftCreate");
    try {
      check(cufftSetAutoAllocation(plan_, 0), "cufftSetAutoAllocation");
      // Along the last axis, the second to last and so on.
      long long lengths[2] = {size.height, size.width};  // NOLINT(google-runtime-int): cuFFT's type
      long long real[2] = {size.height, row_floats(size.width)};
      long long complex[2] = {size.height, size.width / 2 + 1};
      const int first = 2 - rank;
      const std::int64_t rows = rank == 2 ? size.height : 1;
      const bool forward = direction == Direction::kForward;
      const long long real_distance = rows * real[1];
      const long long complex_distance = rows * complex[1];
      check(cufftMakePlanMany64(plan_, rank, lengths + first, (forward ? real : complex) + first, 1,
                                forward ? real_distance : complex_distance, (forward ? complex : real) + first, 1,
                                forward ? complex_distance : real_distance, forward ? CUFFT_R2C : CUFFT_C2R, planes,
                                &work_bytes_),
            "cufftMakePlanMany64");
    } catch (...) {
      cufftDestroy(plan_);
      throw;
    }
  }
  ~RealFft() {
    const DeviceScope scope(device_);
    cufftDestroy(plan_);
  }
  RealFft(const RealFft&) = delete;
  RealFft& operator=(const RealFft&) = delete;

  [[nodiscard]] std::int64_t work_bytes() const { return static_cast<std::int64_t>(work_bytes_); }

  void operator()(float* images, void* work, cudaStream_t stream) const {
    check(cufftSetStream(plan_, stream), "cufftSetStream");
    check(cufftSetWorkArea(plan_, work), "cufftSetWorkArea");
    auto* complex = reinterpret_cast<cufftComplex*>(images);
    if (direction_ == Direction::kForward) {
      check(cufftExecR2C(plan_, images, complex), "cufftExecR2C");
    } else {
      check(cufftExecC2R(plan_, complex, images), "cufftExecC2R");
    }
  }

 private:
  Direction direction_;
  int device_ = 0;
  cufftHandle plan_ = 0;
  std::size_t work_bytes_ = 0;
};

}  // namespace gpgan::cuda
