// Kernels that are wrong on purpose, and their right twins: a check that has never failed may not be able to. Called
// with a bug's name and "wrong" or "right".
#include <cstdio>
#include <exception>
#include <string_view>

#include "cuda/runtime.hpp"

using gpgan::cuda::DeviceArray;

namespace {

constexpr int kThreads = 64;

template <bool kWrong>
__global__ void global_read_kernel(const float* in, float* out) {
  const unsigned i = threadIdx.x;
  out[i] = kWrong || i + 1 < blockDim.x ? in[i + 1] : 0;
}

template <bool kWrong>
__global__ void global_write_kernel(const float* in, float* out) {
  const unsigned i = threadIdx.x + 1;
  if (kWrong || i < blockDim.x) out[i] = in[threadIdx.x];
}

template <bool kWrong>
__global__ void shared_access_kernel(const float* in, float* out) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  const unsigned right = threadIdx.x + 1;
  out[threadIdx.x] = tile[kWrong ? right : right % kThreads];
}

template <bool kWrong>
__global__ void missing_barrier_kernel(const float* in, float* out) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  if constexpr (!kWrong) __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x ^ 1U];
}

// The second tile is written while others may still read the first.
template <bool kWrong>
__global__ void missing_second_barrier_kernel(const float* in, float* out) {
  __shared__ float tile[kThreads];
  float sum = 0;
  for (int turn = 0; turn < 2; ++turn) {
    tile[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    sum += tile[threadIdx.x ^ 1U];
    if constexpr (!kWrong) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

template <bool kWrong>
__global__ void write_conflict_kernel(const float* in, float* out) {
  if constexpr (kWrong) {
    out[0] += in[threadIdx.x];
  } else {
    atomicAdd(out, in[threadIdx.x]);
  }
}

template <bool kWrong>
__global__ void divergence_kernel(const float* in, float* out) {
  if (kWrong && threadIdx.x == 5) return;
  __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}

// Every thread waits, but not for the same barrier.
template <bool kWrong>
__global__ void two_barriers_kernel(const float* in, float* out) {
  if (kWrong && threadIdx.x == 5) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = in[threadIdx.x];
}

// Not in a kernel: the host takes a device's address for its own.
template <bool kWrong>
void read_on_the_host(const float* in) {
  float value = 0;
  if constexpr (kWrong) {
    value = in[3];
  } else {
    gpgan::cuda::check(cudaMemcpy(&value, in + 3, sizeof(value), cudaMemcpyDeviceToHost), "cudaMemcpy");
  }
  std::printf("%g\n", static_cast<double>(value));
}

template <bool kWrong>
bool run(std::string_view bug) {
  const DeviceArray<float> in(kThreads);
  const DeviceArray<float> out(kThreads);
  gpgan::cuda::check(cudaMemset(in.data(), 0, in.bytes()), "cudaMemset");
  gpgan::cuda::check(cudaMemset(out.data(), 0, out.bytes()), "cudaMemset");
  const auto launch = [&](auto kernel) { GPGAN_LAUNCH(kernel, 2, kThreads, nullptr, in.data(), out.data()); };
  if (bug == "global_read") return launch(global_read_kernel<kWrong>), true;
  if (bug == "global_write") return launch(global_write_kernel<kWrong>), true;
  if (bug == "shared_access") return launch(shared_access_kernel<kWrong>), true;
  if (bug == "missing_barrier") return launch(missing_barrier_kernel<kWrong>), true;
  if (bug == "missing_second_barrier") return launch(missing_second_barrier_kernel<kWrong>), true;
  if (bug == "write_conflict") return launch(write_conflict_kernel<kWrong>), true;
  if (bug == "divergence") return launch(divergence_kernel<kWrong>), true;
  if (bug == "two_barriers") return launch(two_barriers_kernel<kWrong>), true;
  if (bug == "host_access") return read_on_the_host<kWrong>(in.data()), true;
  return false;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const bool wrong = std::string_view(arguments[2]) == "wrong";
  try {
    if (!(wrong ? run<true>(arguments[1]) : run<false>(arguments[1]))) return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::puts("survived");
}
