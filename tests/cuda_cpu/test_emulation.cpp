// That the emulation is what CUDA's documentation says. What it cannot catch, planted_bugs.cpp shows it catching.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "cuda/runtime.hpp"
#include "emulation.hpp"

using gpgan::DeviceError;
using gpgan::cuda::check;
using gpgan::cuda::DeviceArray;
namespace emulation = gpgan_cuda_cpu;

namespace {

template <typename T>
std::vector<T> to_host(const DeviceArray<T>& array) {
  std::vector<T> host(static_cast<std::size_t>(array.size()));
  check(cudaMemcpy(host.data(), array.data(), array.bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return host;
}

template <typename T>
DeviceArray<T> zeros(std::int64_t count) {
  DeviceArray<T> array(count);
  check(cudaMemset(array.data(), 0, array.bytes()), "cudaMemset");
  return array;
}

// Where each thread is, told by itself.
__global__ void visit_kernel(unsigned* visits) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  atomicAdd(visits + block * (blockDim.x * blockDim.y * blockDim.z) + thread, 1);
}

// A sum by halves: a barrier in a loop, and the neighbour's value read after each.
__global__ void sum_kernel(const float* in, float* out) {
  __shared__ float partial[256];
  partial[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0];
}

__global__ void reverse_kernel(float* values) {
  __shared__ float tile[1024];
  tile[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

struct Totals {
  int sum, least, most, last;
  unsigned bits;
  float total;
  double precise;
};
__global__ void atomics_kernel(Totals* totals) {
  const int i = static_cast<int>(threadIdx.x);
  atomicAdd(&totals->sum, i);
  atomicMin(&totals->least, 50 - i);
  atomicMax(&totals->most, i);
  atomicOr(&totals->bits, 1U << (threadIdx.x % 32));
  atomicAdd(&totals->total, 0.5F);
  atomicAdd(&totals->precise, 0.25);
  atomicCAS(&totals->last, i, i + 1);  // the first thread's succeeds, whatever the order
}

template <typename T, int kAdd>
__global__ void add_kernel(T* value) {
  if (threadIdx.x == 0) atomicAdd(value, T{kAdd});
}

__global__ void diverging_kernel() {
  if (threadIdx.x > 0) __syncthreads();
}

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("every thread of every block runs once") {
  for (const auto& [grid, block] :
       {std::pair<dim3, dim3>{{1}, {1}}, {{3, 2, 2}, {4, 3, 5}}, {{2}, {1024}}, {{5, 7}, {33}}}) {
    const unsigned count = grid.x * grid.y * grid.z * block.x * block.y * block.z;
    const auto visits = zeros<unsigned>(count);
    GPGAN_LAUNCH(visit_kernel, grid, block, nullptr, visits.data());
    CHECK(to_host(visits) == std::vector<unsigned>(count, 1));
  }
}

TEST_CASE("barriers order shared memory") {
  std::vector<float> values(256 * 9);
  std::iota(values.begin(), values.end(), 0.F);
  const DeviceArray<float> in(256 * 9);
  const DeviceArray<float> out(9);
  check(cudaMemcpy(in.data(), values.data(), in.bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  GPGAN_LAUNCH(sum_kernel, 9, 256, nullptr, in.data(), out.data());
  const auto sums = to_host(out);
  for (std::size_t b = 0; b < 9; ++b) {
    CHECK(sums[b] == std::accumulate(values.begin() + 256 * b, values.begin() + 256 * (b + 1), 0.F));
  }

  // The largest block, and twice, so that fibers are used again.
  for (int turn = 0; turn < 2; ++turn) GPGAN_LAUNCH(reverse_kernel, 1, 1024, nullptr, in.data());
  CHECK(to_host(in) == values);
}

TEST_CASE("atomics") {
  const auto totals = zeros<Totals>(1);
  GPGAN_LAUNCH(atomics_kernel, 1, 100, nullptr, totals.data());
  const Totals result = to_host(totals)[0];
  CHECK(result.sum == 4950);
  CHECK(result.least == -49);
  CHECK(result.most == 99);
  CHECK(result.bits == 0xffffffffU);
  CHECK(result.total == 50);
  CHECK(result.precise == 25);
  CHECK(result.last >= 1);
}

TEST_CASE("launches from several host threads") {
  const auto count = zeros<int>(1);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) GPGAN_LAUNCH((add_kernel<int, 2>), 3, 40, nullptr, count.data());
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(to_host(count)[0] == 240);
}

TEST_CASE("a wrong grid or block is an error of the launch") {
  const auto visits = zeros<unsigned>(1);
  for (const auto& [grid, block] : {std::pair<dim3, dim3>{{0}, {1}},
                                    {{1, 0}, {1}},
                                    {{1, 65536}, {1}},
                                    {{1, 1, 65536}, {1}},
                                    {{0x80000000U}, {1}},
                                    {{1}, {0}},
                                    {{1}, {1025}},
                                    {{1}, {32, 33}},
                                    {{1}, {1, 1, 65}}}) {
    const auto launch = [&] { GPGAN_LAUNCH(visit_kernel, grid, block, nullptr, visits.data()); };
    CHECK_THROWS_AS(launch(), DeviceError);
    CHECK(message_of(launch) == "visit_kernel: invalid configuration argument (cudaErrorInvalidConfiguration)");
    CHECK(cudaGetLastError() == cudaSuccess);  // it was taken
  }
  CHECK(to_host(visits)[0] == 0);
}

TEST_CASE("threads that do not come to a barrier are an error, and the next launch works") {
  CHECK(
      message_of([] { GPGAN_LAUNCH(diverging_kernel, 2, 7, nullptr); })
          .starts_with("barrier divergence in diverging_kernel: of block (0, 0, 0), thread (0, 0, 0) has returned and "
                       "thread (1, 0, 0) waits in line "));
  const auto visits = zeros<unsigned>(16);
  GPGAN_LAUNCH(visit_kernel, 2, 8, nullptr, visits.data());
  CHECK(to_host(visits) == std::vector<unsigned>(16, 1));
}

TEST_CASE("memory: alignment, what it holds, who owns it") {
  const std::size_t before = emulation::allocated_bytes();
  {
    const DeviceArray<float> array(3);
    CHECK(reinterpret_cast<std::uintptr_t>(array.data()) % 256 == 0);
    for (const float value : to_host(array)) CHECK(std::isnan(value));
    CHECK(emulation::allocated_bytes() == before + 12);

    cudaPointerAttributes attributes{};
    CHECK(cudaPointerGetAttributes(&attributes, array.data() + 2) == cudaSuccess);
    CHECK(attributes.type == cudaMemoryTypeDevice);
    CHECK(attributes.devicePointer == array.data() + 2);
    CHECK(cudaPointerGetAttributes(&attributes, &before) == cudaSuccess);
    CHECK(attributes.type == cudaMemoryTypeUnregistered);

    float* pinned = nullptr;
    void* mapped = nullptr;
    CHECK(cudaHostAlloc(&pinned, 8, cudaHostAllocMapped) == cudaSuccess);
    CHECK(cudaHostGetDevicePointer(&mapped, pinned, 0) == cudaSuccess);
    CHECK(mapped == pinned);
    CHECK(cudaHostGetDevicePointer(&mapped, array.data(), 0) == cudaErrorInvalidValue);
    CHECK(cudaPointerGetAttributes(&attributes, pinned) == cudaSuccess);
    CHECK(attributes.type == cudaMemoryTypeHost);
    CHECK(cudaFree(pinned) == cudaErrorInvalidValue);
    CHECK(cudaFreeHost(array.data()) == cudaErrorInvalidValue);
    CHECK(cudaFreeHost(pinned) == cudaSuccess);
    CHECK(cudaFreeHost(pinned) == cudaErrorInvalidValue);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  }
  CHECK(cudaFree(nullptr) == cudaSuccess);
  CHECK(emulation::allocated_bytes() == before);
}

TEST_CASE("a copy says truly where its ends are") {
  const auto device = zeros<float>(4);
  std::vector<float> host = {1, 2, 3, 4};
  CHECK(cudaMemcpy(device.data(), host.data(), 16, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(device.data(), host.data(), 16, cudaMemcpyDeviceToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(device.data(), host.data(), 20, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(device.data(), host.data(), 16, cudaMemcpyDefault) == cudaSuccess);
  CHECK(to_host(device) == host);
  // The second column of 2 x 2 becomes a row.
  CHECK(cudaMemcpy2DAsync(host.data(), 4, device.data() + 1, 8, 4, 2, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(host == std::vector<float>{2, 4, 3, 4});
  CHECK(cudaMemsetAsync(device.data() + 1, 0, 16) == cudaErrorInvalidValue);
  cudaGetLastError();
}

TEST_CASE("what was called is counted") {
  emulation::reset_counts();
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  const DeviceArray<int> value(1);
  CHECK(emulation::counts().allocations == 1);
  CHECK(emulation::counts().synchronisations == 1);

  emulation::reset_counts();
  int* pinned = nullptr;
  int pageable = 0;
  check(cudaMallocHost(&pinned, 4), "cudaMallocHost");
  check(cudaMemsetAsync(value.data(), 0, 4, stream), "cudaMemsetAsync");
  GPGAN_LAUNCH((add_kernel<int, 1>), 2, 3, stream, value.data());
  GPGAN_LAUNCH((add_kernel<int, 5>), 2, 3, stream, value.data());
  check(cudaMemcpyAsync(pinned, value.data(), 4, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
  CHECK(emulation::counts().synchronisations == 1);  // cudaMallocHost
  check(cudaMemcpyAsync(&pageable, value.data(), 4, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
  CHECK(emulation::counts().synchronisations == 2);
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  CHECK(emulation::counts().synchronisations == 3);
  CHECK(*pinned == 12);
  CHECK(pageable == 12);
  CHECK(emulation::counts().launches == std::map<std::string, std::int64_t>{{"add_kernel", 2}});
  CHECK(emulation::counts().calls.at("cudaMemcpyAsync") == 2);
  CHECK(emulation::counts().streams == std::set<cudaStream_t>{stream});
  check(cudaFreeHost(pinned), "cudaFreeHost");
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");
}

TEST_CASE("errors can be asked for") {
  emulation::fail_next("cudaMalloc", cudaErrorMemoryAllocation);
  CHECK(message_of([] { const DeviceArray<float> array(1); }) ==
        "cudaMalloc: out of memory (cudaErrorMemoryAllocation)");
  void* memory = nullptr;
  emulation::fail_next("cudaMalloc", cudaErrorMemoryAllocation);
  cudaGetLastError();
  CHECK(cudaMalloc(&memory, 1) == cudaErrorMemoryAllocation);
  CHECK(memory == nullptr);
  CHECK(cudaPeekAtLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaSuccess);
  const auto value = zeros<int>(1);

  emulation::fail_next("cudaLaunchKernel", cudaErrorLaunchFailure);
  const auto launch = [&] { GPGAN_LAUNCH((add_kernel<int, 1>), 1, 1, nullptr, value.data()); };
  CHECK_THROWS_AS(launch(), DeviceError);
  CHECK(to_host(value)[0] == 0);
  launch();
  CHECK(to_host(value)[0] == 1);
  CHECK(std::string(cudaGetErrorString(static_cast<cudaError_t>(12345))) == "unrecognized error code");
}

TEST_CASE("devices, streams and events belong together") {
  emulation::set_device_count(0);
  int count = -1;
  CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
  CHECK(count == 0);
  emulation::set_device_count(2);
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  CHECK(cudaSetDevice(1) == cudaSuccess);
  cudaGetLastError();

  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  const auto value = zeros<int>(1);
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  const auto launch = [&] { GPGAN_LAUNCH((add_kernel<int, 1>), 1, 1, stream, value.data()); };
  launch();
  CHECK(cudaEventRecord(event, stream) == cudaSuccess);
  cudaPointerAttributes attributes{};
  CHECK(cudaPointerGetAttributes(&attributes, value.data()) == cudaSuccess);
  CHECK(attributes.device == 1);

  CHECK(cudaSetDevice(0) == cudaSuccess);
  CHECK_THROWS_AS(launch(), DeviceError);
  CHECK(cudaEventRecord(event, stream) == cudaErrorInvalidResourceHandle);
  CHECK(cudaEventRecord(event, nullptr) == cudaErrorInvalidResourceHandle);
  CHECK(cudaStreamWaitEvent(nullptr, event) == cudaSuccess);  // of whatever device

  CHECK(cudaEventDestroy(event) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
  emulation::set_device_count(1);
  cudaGetLastError();
}
