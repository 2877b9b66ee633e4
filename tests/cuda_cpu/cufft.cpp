// cuFFT's calls on gpgan::cpu::Dct. A DFT V of N real numbers v is a DCT-II X of the same numbers in another order
// (Makhoul): v[n] = x[2n], v[N-1-n] = x[2n+1] and V[k] = exp(i pi k / 2N) (X[k] - i X[N-k]) / 2, where X[N] = 0.
#include <cufft.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <numbers>
#include <vector>

#include "cpu/dct.hpp"
#include "emulation.hpp"

namespace {

using gpgan::cpu::Dct;
using gpgan::cpu::kBatch;
using Complex = std::complex<float>;

class RealDft {
 public:
  explicit RealDft(std::int64_t length) : dct_(length), n_(length) {
    for (std::int64_t k = 0; k < n_; ++k) {
      const double angle = std::numbers::pi * static_cast<double>(k) / (2 * static_cast<double>(n_));
      rotations_.emplace_back(std::polar(1.0, angle));
    }
  }

  // Of `count` sequences: element i of sequence s is get(s, i), and put(s, k, V[k]) is called for every k below N.
  template <typename Get, typename Put>
  void forward(std::int64_t count, Get get, Put put) const {
    each_batch(count, [&](std::int64_t first, std::int64_t lanes, std::vector<float>& batch, float* scratch) {
      for (std::int64_t i = 0; i < n_; ++i) {
        for (std::int64_t j = 0; j < lanes; ++j) batch[at(i, j)] = get(first + j, place(i));
      }
      dct_.forward(batch.data(), scratch);
      for (std::int64_t k = 0; k < n_; ++k) {
        for (std::int64_t j = 0; j < lanes; ++j) {
          const Complex rotated(batch[at(k, j)], k == 0 ? 0 : -batch[at(n_ - k, j)]);
          put(first + j, k, 0.5F * rotations_[static_cast<std::size_t>(k)] * rotated);
        }
      }
    });
  }

  // The unnormalised inverse: get(s, k) for k up to N / 2, put(s, i, N v[i]).
  template <typename Get, typename Put>
  void inverse(std::int64_t count, Get get, Put put) const {
    each_batch(count, [&](std::int64_t first, std::int64_t lanes, std::vector<float>& batch, float* scratch) {
      for (std::int64_t k = 0; k <= n_ / 2; ++k) {
        const bool real = k == 0 || 2 * k == n_;
        for (std::int64_t j = 0; j < lanes; ++j) {
          const Complex value = get(first + j, k);
          const Complex rotated =
              std::conj(rotations_[static_cast<std::size_t>(k)]) * (real ? Complex(value.real()) : value);
          if (k > 0) batch[at(n_ - k, j)] = -2 * rotated.imag();
          batch[at(k, j)] = 2 * rotated.real();
        }
      }
      dct_.inverse(batch.data(), scratch);
      for (std::int64_t i = 0; i < n_; ++i) {
        for (std::int64_t j = 0; j < lanes; ++j) put(first + j, place(i), 0.5F * batch[at(i, j)]);
      }
    });
  }

 private:
  static std::size_t at(std::int64_t i, std::int64_t lane) { return static_cast<std::size_t>(i * kBatch + lane); }
  [[nodiscard]] std::int64_t place(std::int64_t i) const { return i % 2 == 0 ? i / 2 : n_ - 1 - i / 2; }

  template <typename Body>
  void each_batch(std::int64_t count, Body body) const {
    std::vector<float> batch(at(n_, 0));
    std::vector<float> scratch(static_cast<std::size_t>(dct_.scratch_floats()));
    for (std::int64_t first = 0; first < count; first += kBatch) {
      body(first, std::min(kBatch, count - first), batch, scratch.data());
    }
  }

  Dct dct_;
  std::int64_t n_;
  std::vector<Complex> rotations_;
};

// Where element (y, x) of a batch's image lies.
struct Layout {
  std::int64_t distance, pitch, stride;
  [[nodiscard]] std::int64_t operator()(std::int64_t image, std::int64_t y, std::int64_t x) const {
    return image * distance + (y * pitch + x) * stride;
  }
};

// Of images of rows: those of rank 1 have one row.
struct Plan {
  bool made = false;
  bool automatic = true;
  int device = gpgan_cuda_cpu::current_device();
  cudaStream_t stream = nullptr;
  cufftType type{};
  std::int64_t height = 0, width = 0, images = 0;
  Layout input{}, output{};
  bool embedded = false;  // else packed
  std::unique_ptr<RealDft> along_rows, along_columns;
  Complex* work = nullptr;
  void* own_work = nullptr;

  [[nodiscard]] std::int64_t half() const { return width / 2 + 1; }
  [[nodiscard]] std::int64_t rows() const { return images * height; }
  [[nodiscard]] std::size_t work_bytes() const { return static_cast<std::size_t>(rows() * half()) * sizeof(Complex); }

  // The work area holds the images' spectra, packed. Sequence s of the columns is the real or, odd, the imaginary part
  // of column s / 2; of all images' columns. The inverse is the conjugate of the conjugate's transform.
  void transform_columns(bool inverse) const {
    const float sign = inverse ? -1 : 1;
    const auto element = [&](std::int64_t sequence, std::int64_t y) -> Complex& {
      const std::int64_t column = sequence / 2;
      return work[(column / half() * height + y) * half() + column % half()];
    };
    std::vector<Complex> out(work_bytes() / sizeof(Complex));
    along_columns->forward(
        2 * images * half(),
        [&](std::int64_t s, std::int64_t y) { return s % 2 == 0 ? element(s, y).real() : sign * element(s, y).imag(); },
        [&](std::int64_t s, std::int64_t k, Complex value) {
          out[static_cast<std::size_t>(&element(s, k) - work)] +=
              s % 2 == 0 ? value : Complex(-value.imag(), value.real());
        });
    std::transform(out.begin(), out.end(), work, [&](Complex c) { return inverse ? std::conj(c) : c; });
  }

  void real_to_complex(const cufftReal* in, cufftComplex* out) const {
    along_rows->forward(
        rows(), [&](std::int64_t row, std::int64_t x) { return in[input(row / height, row % height, x)]; },
        [&](std::int64_t row, std::int64_t k, Complex value) {
          if (k < half()) work[row * half() + k] = value;
        });
    if (height > 1) transform_columns(false);
    for (std::int64_t row = 0; row < rows(); ++row) {
      for (std::int64_t k = 0; k < half(); ++k) {
        const Complex value = work[row * half() + k];
        out[output(row / height, row % height, k)] = {value.real(), value.imag()};
      }
    }
  }

  void complex_to_real(cufftComplex* in, cufftReal* out) const {
    constexpr float kLost = std::numeric_limits<float>::quiet_NaN();
    for (std::int64_t row = 0; row < rows(); ++row) {
      for (std::int64_t k = 0; k < half(); ++k) {
        cufftComplex& value = in[input(row / height, row % height, k)];
        work[row * half() + k] = {value.x, value.y};
        value = {kLost, kLost};  // cuFFT may put anything there
      }
    }
    if (height > 1) transform_columns(true);
    along_rows->inverse(
        rows(), [&](std::int64_t row, std::int64_t k) { return work[row * half() + k]; },
        [&](std::int64_t row, std::int64_t x, float value) { out[output(row / height, row % height, x)] = value; });
  }
};

// Never destroyed: static objects of other files may still call. Used within a Call.
std::map<cufftHandle, Plan>& plans() {
  static auto& all = *new std::map<cufftHandle, Plan>;
  return all;
}

template <typename Body>
cufftResult call(const char* name, Body body) {
  const gpgan_cuda_cpu::Call guard(name);
  return guard.failure() != 0 ? static_cast<cufftResult>(guard.failure()) : body();
}
template <typename Body>
cufftResult plan_call(const char* name, cufftHandle handle, Body body) {
  return call(name, [&] {
    const auto found = plans().find(handle);
    return found == plans().end() ? CUFFT_INVALID_PLAN : body(found->second);
  });
}
template <typename Body>
cufftResult exec_call(const char* name, cufftHandle handle, cufftType type, const void* in, const void* out,
                      Body body) {
  return plan_call(name, handle, [&](Plan& plan) {
    if (!plan.made) return CUFFT_INVALID_PLAN;
    if (plan.type != type) return CUFFT_INVALID_TYPE;
    if (plan.work == nullptr) return CUFFT_NO_WORKSPACE;
    // Packed rows of real and of complex numbers do not lie over one another.
    if (in == nullptr || out == nullptr || (in == out && !plan.embedded)) return CUFFT_INVALID_VALUE;
    if (plan.device != gpgan_cuda_cpu::current_device()) return CUFFT_INVALID_DEVICE;
    if (!gpgan_cuda_cpu::on_current_device(plan.stream)) return CUFFT_EXEC_FAILED;
    gpgan_cuda_cpu::use_stream(plan.stream);
    body(plan);
    return CUFFT_SUCCESS;
  });
}

}  // namespace

cufftResult cufftGetVersion(int* version) {
  return call("cufftGetVersion", [&] { return *version = CUFFT_VERSION, CUFFT_SUCCESS; });
}

cufftResult cufftCreate(cufftHandle* plan) {
  return call("cufftCreate", [&] {
    *plan = plans().empty() ? 1 : plans().rbegin()->first + 1;
    plans()[*plan];
    return CUFFT_SUCCESS;
  });
}

cufftResult cufftDestroy(cufftHandle handle) {
  return plan_call("cufftDestroy", handle, [&](const Plan& plan) {
    if (plan.own_work != nullptr) cudaFree(plan.own_work);
    plans().erase(handle);
    return CUFFT_SUCCESS;
  });
}

cufftResult cufftSetAutoAllocation(cufftHandle handle, int automatic) {
  return plan_call("cufftSetAutoAllocation", handle, [&](Plan& plan) {
    if (plan.made) return CUFFT_INVALID_PLAN;  // too late
    plan.automatic = automatic != 0;
    return CUFFT_SUCCESS;
  });
}

cufftResult cufftMakePlanMany64(cufftHandle handle, int rank, long long* n, long long* inembed, long long istride,
                                long long idist, long long* onembed, long long ostride, long long odist, cufftType type,
                                long long batch, std::size_t* work_size) {
  return plan_call("cufftMakePlanMany64", handle, [&](Plan& plan) {
    if (plan.made) return CUFFT_INVALID_PLAN;
    if (type != CUFFT_R2C && type != CUFFT_C2R) return CUFFT_NOT_IMPLEMENTED;
    if (rank < 1 || rank > 2 || n == nullptr || work_size == nullptr) return CUFFT_INVALID_VALUE;
    plan.type = type;
    plan.height = rank == 2 ? n[0] : 1;
    plan.width = n[rank - 1];
    plan.images = batch;
    if (plan.height < 1 || plan.width < 1 || batch < 1) return CUFFT_INVALID_SIZE;
    plan.embedded = inembed != nullptr && onembed != nullptr;
    if (plan.embedded) {
      if (std::min({istride, idist, ostride, odist}) < 1) return CUFFT_INVALID_VALUE;
      plan.input = {idist, inembed[rank - 1], istride};
      plan.output = {odist, onembed[rank - 1], ostride};
    } else {
      const Layout real = {plan.height * plan.width, plan.width, 1};
      const Layout complex = {plan.height * plan.half(), plan.half(), 1};
      plan.input = type == CUFFT_R2C ? real : complex;
      plan.output = type == CUFFT_R2C ? complex : real;
    }
    *work_size = plan.work_bytes();
    if (plan.automatic) {
      if (cudaMalloc(&plan.own_work, plan.work_bytes()) != cudaSuccess) return CUFFT_ALLOC_FAILED;
      plan.work = static_cast<Complex*>(plan.own_work);
    }
    plan.along_rows = std::make_unique<RealDft>(plan.width);
    plan.along_columns = std::make_unique<RealDft>(plan.height);
    plan.made = true;
    return CUFFT_SUCCESS;
  });
}

cufftResult cufftGetSize(cufftHandle handle, std::size_t* work_size) {
  return plan_call("cufftGetSize", handle, [&](const Plan& plan) {
    if (!plan.made) return CUFFT_INVALID_PLAN;
    *work_size = plan.work_bytes();
    return CUFFT_SUCCESS;
  });
}

cufftResult cufftSetWorkArea(cufftHandle handle, void* work_area) {
  return plan_call("cufftSetWorkArea", handle, [&](Plan& plan) {
    // As what cufftMakePlan would allocate; what less is enough nobody says.
    if (reinterpret_cast<std::uintptr_t>(work_area) % 256 != 0) return CUFFT_INVALID_VALUE;
    plan.work = static_cast<Complex*>(work_area);
    return CUFFT_SUCCESS;
  });
}

cufftResult cufftSetStream(cufftHandle handle, cudaStream_t stream) {
  return plan_call("cufftSetStream", handle, [&](Plan& plan) {
    if (!gpgan_cuda_cpu::is_stream(stream)) return CUFFT_INVALID_VALUE;
    plan.stream = stream;
    return CUFFT_SUCCESS;
  });
}

cufftResult cufftExecR2C(cufftHandle handle, cufftReal* input, cufftComplex* output) {
  return exec_call("cufftExecR2C", handle, CUFFT_R2C, input, output,
                   [&](const Plan& plan) { plan.real_to_complex(input, output); });
}

cufftResult cufftExecC2R(cufftHandle handle, cufftComplex* input, cufftReal* output) {
  return exec_call("cufftExecC2R", handle, CUFFT_C2R, input, output,
                   [&](const Plan& plan) { plan.complex_to_real(input, output); });
}
