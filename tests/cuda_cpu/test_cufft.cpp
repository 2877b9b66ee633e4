// The emulated cuFFT against the definition, in double.
#include <cufft.h>
#include <doctest/doctest.h>

#include <cmath>
#include <complex>
#include <cstdint>
#include <numbers>
#include <random>
#include <vector>

#include "cuda/runtime.hpp"
#include "emulation.hpp"

using gpgan::cuda::check;
using gpgan::cuda::DeviceArray;
using Complex = std::complex<double>;

namespace {

struct Shape {
  long long height, width;
  [[nodiscard]] long long half() const { return width / 2 + 1; }
};

// sum over (y, x) of in * exp(sign 2 pi i (y k / height + x l / width)), term by term.
std::vector<Complex> naive(const std::vector<Complex>& in, Shape shape, int sign) {
  const auto at = [&](long long y, long long x) { return static_cast<std::size_t>(y * shape.width + x); };
  std::vector<Complex> out(in.size());
  for (long long k = 0; k < shape.height; ++k) {
    for (long long l = 0; l < shape.width; ++l) {
      for (long long y = 0; y < shape.height; ++y) {
        for (long long x = 0; x < shape.width; ++x) {
          const double turns = static_cast<double>(y * k % shape.height) / static_cast<double>(shape.height) +
                               static_cast<double>(x * l % shape.width) / static_cast<double>(shape.width);
          out[at(k, l)] += in[at(y, x)] * std::polar(1.0, sign * 2 * std::numbers::pi * turns);
        }
      }
    }
  }
  return out;
}

// Where a plan finds its numbers: of an image, `rows` rows, `pitch` from one to the next.
struct Embedding {
  long long rows, pitch, stride, distance;
  [[nodiscard]] std::size_t operator()(long long image, long long y, long long x) const {
    return static_cast<std::size_t>(image * distance + (y * pitch + x) * stride);
  }
};

class Plan {
 public:
  Plan() { REQUIRE(cufftCreate(&handle) == CUFFT_SUCCESS); }
  ~Plan() { CHECK(cufftDestroy(handle) == CUFFT_SUCCESS); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  cufftResult make(int rank, Shape shape, const Embedding* in, const Embedding* out, cufftType type, long long images) {
    long long lengths[] = {shape.height, shape.width};
    const int first = 2 - rank;
    if (in == nullptr) {
      return cufftMakePlanMany64(handle, rank, lengths + first, nullptr, 1, 0, nullptr, 1, 0, type, images,
                                 &work_bytes);
    }
    long long inembed[] = {in->rows, in->pitch};
    long long onembed[] = {out->rows, out->pitch};
    return cufftMakePlanMany64(handle, rank, lengths + first, inembed + first, in->stride, in->distance,
                               onembed + first, out->stride, out->distance, type, images, &work_bytes);
  }

  cufftHandle handle = CUFFT_PLAN_NULL;
  std::size_t work_bytes = 0;
};

// Both directions. Null embeddings: packed. With `in_place`, both lie in the same memory.
void compare(int rank, Shape shape, long long images, const Embedding* real, const Embedding* complex, bool in_place) {
  CAPTURE(rank);
  CAPTURE(shape.height);
  CAPTURE(shape.width);
  const Embedding packed_real = {shape.height, shape.width, 1, shape.height * shape.width};
  const Embedding packed_complex = {shape.height, shape.half(), 1, shape.height * shape.half()};
  const Embedding& r = real != nullptr ? *real : packed_real;
  const Embedding& c = complex != nullptr ? *complex : packed_complex;

  // Up to the last element and no further; a spectrum is the longer of two in one place.
  const std::size_t real_count = r(images - 1, shape.height - 1, shape.width - 1) + 1;
  const std::size_t complex_count = c(images - 1, shape.height - 1, shape.half() - 1) + 1;
  const DeviceArray<float> reals(static_cast<std::int64_t>(in_place ? 2 * complex_count : real_count));
  const DeviceArray<float2> other(static_cast<std::int64_t>(in_place ? 0 : complex_count));
  auto* const complexes = in_place ? reinterpret_cast<float2*>(reals.data()) : other.data();
  std::vector<float> host_reals(real_count);
  std::vector<float2> host_complexes(complex_count);
  std::mt19937 random(static_cast<unsigned>(shape.height * 1000 + shape.width));
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<std::vector<Complex>> images_in;
  for (long long b = 0; b < images; ++b) {
    auto& image = images_in.emplace_back();
    for (long long y = 0; y < shape.height; ++y) {
      for (long long x = 0; x < shape.width; ++x) image.emplace_back(host_reals[r(b, y, x)] = uniform(random));
    }
  }
  const double tolerance = 1e-6 * static_cast<double>(shape.height * shape.width);

  Plan forward;
  REQUIRE(forward.make(rank, shape, real, complex, CUFFT_R2C, images) == CUFFT_SUCCESS);
  check(cudaMemcpy(reals.data(), host_reals.data(), real_count * sizeof(float), cudaMemcpyHostToDevice), "cudaMemcpy");
  REQUIRE(cufftExecR2C(forward.handle, reals.data(), complexes) == CUFFT_SUCCESS);
  const std::size_t complex_bytes = complex_count * sizeof(float2);
  check(cudaMemcpy(host_complexes.data(), complexes, complex_bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
  for (long long b = 0; b < images; ++b) {
    const auto expected = naive(images_in[static_cast<std::size_t>(b)], shape, -1);
    double error = 0;
    for (long long k = 0; k < shape.height; ++k) {
      for (long long l = 0; l < shape.half(); ++l) {
        const float2 value = host_complexes[c(b, k, l)];
        error = std::max(error,
                         std::abs(Complex(value.x, value.y) - expected[static_cast<std::size_t>(k * shape.width + l)]));
      }
    }
    CHECK(error <= tolerance);
  }

  // Unnormalised: back comes N times what went.
  Plan inverse;
  REQUIRE(inverse.make(rank, shape, complex, real, CUFFT_C2R, images) == CUFFT_SUCCESS);
  REQUIRE(cufftExecC2R(inverse.handle, complexes, reals.data()) == CUFFT_SUCCESS);
  check(cudaMemcpy(host_reals.data(), reals.data(), real_count * sizeof(float), cudaMemcpyDeviceToHost), "cudaMemcpy");
  const auto points = static_cast<double>(shape.height * shape.width);
  for (long long b = 0; b < images; ++b) {
    double error = 0;
    for (long long y = 0; y < shape.height; ++y) {
      for (long long x = 0; x < shape.width; ++x) {
        const double expected =
            points * images_in[static_cast<std::size_t>(b)][static_cast<std::size_t>(y * shape.width + x)].real();
        error = std::max(error, std::abs(host_reals[r(b, y, x)] - expected));
      }
    }
    CHECK(error <= 4 * tolerance);  // twice the work, of a sum N times as large
  }
  if (!in_place) {
    check(cudaMemcpy(host_complexes.data(), complexes, complex_bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
    CHECK(std::isnan(host_complexes[c(0, 0, 0)].x));
  }
}

}  // namespace

TEST_CASE("cufft is the definition, in one dimension") {
  for (const long long width : {1, 2, 3, 4, 5, 8, 12, 13, 17, 31, 64, 100}) {
    const Shape row = {1, width};
    compare(1, row, 1, nullptr, nullptr, false);
    compare(1, row, 19, nullptr, nullptr, false);  // more than a batch of the transform beneath
    // In place, as rows with room for both.
    const Embedding real = {1, 2 * row.half(), 1, 2 * row.half()};
    const Embedding complex = {1, row.half(), 1, row.half()};
    compare(1, row, 3, &real, &complex, true);
    // The columns of an image of 5.
    const Embedding columns = {1, width, 5, 1};
    const Embedding spectra = {1, row.half(), 5, 1};
    compare(1, row, 5, &columns, &spectra, false);
  }
}

TEST_CASE("cufft is the definition, in two dimensions") {
  for (const Shape shape : {Shape{1, 1}, {1, 7}, {5, 1}, {2, 2}, {6, 9}, {13, 16}, {16, 13}, {17, 4}}) {
    compare(2, shape, 1, nullptr, nullptr, false);
    compare(2, shape, 3, nullptr, nullptr, false);
    const Embedding real = {shape.height, 2 * shape.half(), 1, shape.height * 2 * shape.half()};
    const Embedding complex = {shape.height, shape.half(), 1, shape.height * shape.half()};
    compare(2, shape, 3, &real, &complex, true);
    const Embedding real_spread = {shape.height + 1, shape.width + 3, 2,
                                   (shape.height + 1) * (shape.width + 3) * 2 + 1};
    const Embedding complex_spread = {shape.height, shape.half() + 1, 3, shape.height * (shape.half() + 1) * 3 + 4};
    compare(2, shape, 2, &real_spread, &complex_spread, false);
  }
}

TEST_CASE("a complex-to-real transform takes what must be real for real") {
  // Of a spectrum with imaginary parts at frequencies 0 and N / 2, where no real signal has any.
  const DeviceArray<float2> spectrum(3);
  const DeviceArray<float> signal(4);
  const std::vector<float2> host = {{1, 5}, {0, 0}, {2, 6}};
  check(cudaMemcpy(spectrum.data(), host.data(), spectrum.bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  Plan plan;
  REQUIRE(plan.make(1, {1, 4}, nullptr, nullptr, CUFFT_C2R, 1) == CUFFT_SUCCESS);
  REQUIRE(cufftExecC2R(plan.handle, spectrum.data(), signal.data()) == CUFFT_SUCCESS);
  std::vector<float> values(4);
  check(cudaMemcpy(values.data(), signal.data(), signal.bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
  for (std::size_t i = 0; i < 4; ++i) CHECK(values[i] == doctest::Approx(i % 2 == 0 ? 3 : -1));
}

TEST_CASE("a plan's memory and stream are the caller's") {
  const auto real = DeviceArray<float>(12);
  const auto complex = DeviceArray<float2>(12);
  check(cudaMemset(real.data(), 0, real.bytes()), "cudaMemset");
  Plan plan;
  CHECK(cufftExecR2C(plan.handle, real.data(), complex.data()) == CUFFT_INVALID_PLAN);
  CHECK(cufftSetAutoAllocation(plan.handle, 0) == CUFFT_SUCCESS);
  const std::size_t before = gpgan_cuda_cpu::allocated_bytes();
  CHECK(plan.make(2, {3, 4}, nullptr, nullptr, CUFFT_R2C, 1) == CUFFT_SUCCESS);
  CHECK(gpgan_cuda_cpu::allocated_bytes() == before);
  std::size_t size = 0;
  CHECK(cufftGetSize(plan.handle, &size) == CUFFT_SUCCESS);
  CHECK(size == plan.work_bytes);
  CHECK(cufftExecR2C(plan.handle, real.data(), complex.data()) == CUFFT_NO_WORKSPACE);

  const DeviceArray<char> work(static_cast<std::int64_t>(plan.work_bytes));
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  CHECK(cufftSetWorkArea(plan.handle, work.data()) == CUFFT_SUCCESS);
  CHECK(cufftSetStream(plan.handle, stream) == CUFFT_SUCCESS);
  gpgan_cuda_cpu::reset_counts();
  CHECK(cufftExecR2C(plan.handle, real.data(), complex.data()) == CUFFT_SUCCESS);
  CHECK(gpgan_cuda_cpu::counts().streams == std::set<cudaStream_t>{stream});
  CHECK(gpgan_cuda_cpu::counts().allocations == 0);
  CHECK(cufftExecC2R(plan.handle, complex.data(), real.data()) == CUFFT_INVALID_TYPE);
  gpgan_cuda_cpu::fail_next("cufftExecR2C", CUFFT_EXEC_FAILED);
  CHECK(cufftExecR2C(plan.handle, real.data(), complex.data()) == CUFFT_EXEC_FAILED);
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");
  CHECK(cufftExecR2C(plan.handle, real.data(), complex.data()) == CUFFT_EXEC_FAILED);
}

TEST_CASE("plans that cannot be made") {
  Plan plan;
  CHECK(plan.make(1, {1, 0}, nullptr, nullptr, CUFFT_R2C, 1) == CUFFT_INVALID_SIZE);
  CHECK(plan.make(1, {1, 4}, nullptr, nullptr, CUFFT_R2C, 0) == CUFFT_INVALID_SIZE);
  CHECK(plan.make(1, {1, 4}, nullptr, nullptr, CUFFT_C2C, 1) == CUFFT_NOT_IMPLEMENTED);
  gpgan_cuda_cpu::fail_next("cudaMalloc", cudaErrorMemoryAllocation);
  CHECK(plan.make(1, {1, 4}, nullptr, nullptr, CUFFT_R2C, 1) == CUFFT_ALLOC_FAILED);
  CHECK(cufftDestroy(CUFFT_PLAN_NULL) == CUFFT_INVALID_PLAN);
  cudaGetLastError();
}
