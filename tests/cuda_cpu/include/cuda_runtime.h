// The CUDA execution model and runtime for an ordinary C++ compiler, as far as csrc/cuda uses them: the very sources
// that nvcc compiles run on the CPU, under its sanitizers. Each thread of a block is a fiber; blocks run one after
// another. What belongs to CUDA keeps CUDA's name, value and meaning. Tests look behind it with emulation.hpp.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <type_traits>

// ------------------------------------------------------------------------------------------------ the language
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// Blocks run one after another, so one copy is enough, and AddressSanitizer guards it on both sides.
#define __shared__ static

#define GPGAN_CUDA_CPU_VECTOR2(T, name) \
  struct alignas(2 * sizeof(T)) name {  \
    T x, y;                             \
  };                                    \
  inline constexpr name make_##name(T x, T y) { return name{x, y}; }
#define GPGAN_CUDA_CPU_VECTOR4(T, name)                     \
  struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) name { \
    T x, y, z, w;                                           \
  };                                                        \
  inline constexpr name make_##name(T x, T y, T z, T w) { return name{x, y, z, w}; }
GPGAN_CUDA_CPU_VECTOR2(float, float2)
GPGAN_CUDA_CPU_VECTOR2(double, double2)
GPGAN_CUDA_CPU_VECTOR2(int, int2)
GPGAN_CUDA_CPU_VECTOR2(unsigned, uint2)
GPGAN_CUDA_CPU_VECTOR4(float, float4)
GPGAN_CUDA_CPU_VECTOR4(unsigned char, uchar4)
#undef GPGAN_CUDA_CPU_VECTOR2
#undef GPGAN_CUDA_CPU_VECTOR4

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  // NOLINTNEXTLINE(google-explicit-constructor)
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  unsigned x, y, z;
};

inline uint3 blockIdx{};
inline dim3 blockDim, gridDim;
// Atomic, since the ThreadSanitizer takes every fiber for a thread of its own.
namespace gpgan_cuda_cpu {
inline std::atomic<const uint3*> thread_index{nullptr};
void wait_for_block(unsigned line);
}  // namespace gpgan_cuda_cpu
#define threadIdx (*::gpgan_cuda_cpu::thread_index.load(std::memory_order_relaxed))

inline void __syncthreads(std::source_location here = std::source_location::current()) {
  gpgan_cuda_cpu::wait_for_block(here.line());
}
inline void __threadfence() { std::atomic_signal_fence(std::memory_order_seq_cst); }

// For just the types that CUDA has them for. Relaxed, as CUDA's are.
namespace gpgan_cuda_cpu {
template <typename T, typename... Types>
concept one_of = (std::same_as<T, Types> || ...);

template <typename T, typename Next>
T atomic_update(T* address, Next next) {
  const std::atomic_ref<T> value(*address);
  T old = value.load(std::memory_order_relaxed);
  while (!value.compare_exchange_weak(old, next(old), std::memory_order_relaxed)) {
  }
  return old;
}
}  // namespace gpgan_cuda_cpu

template <gpgan_cuda_cpu::one_of<int, unsigned, unsigned long long, float, double> T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return gpgan_cuda_cpu::atomic_update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <gpgan_cuda_cpu::one_of<int, unsigned> T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return gpgan_cuda_cpu::atomic_update(address, [=](T old) { return static_cast<T>(old - value); });
}
template <gpgan_cuda_cpu::one_of<int, unsigned, long long, unsigned long long> T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return gpgan_cuda_cpu::atomic_update(address, [=](T old) { return value < old ? value : old; });
}
template <gpgan_cuda_cpu::one_of<int, unsigned, long long, unsigned long long> T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return gpgan_cuda_cpu::atomic_update(address, [=](T old) { return old < value ? value : old; });
}
template <gpgan_cuda_cpu::one_of<int, unsigned, unsigned long long> T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return gpgan_cuda_cpu::atomic_update(address, [=](T old) { return old & value; });
}
template <gpgan_cuda_cpu::one_of<int, unsigned, unsigned long long> T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return gpgan_cuda_cpu::atomic_update(address, [=](T old) { return old | value; });
}
template <gpgan_cuda_cpu::one_of<int, unsigned, unsigned long long, float> T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return gpgan_cuda_cpu::atomic_update(address, [=](T) { return value; });
}
template <gpgan_cuda_cpu::one_of<int, unsigned, unsigned long long> T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return gpgan_cuda_cpu::atomic_update(address, [=](T old) { return old == compare ? value : old; });
}

template <typename T>
T __ldg(const T* address) {
  return *address;
}
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline void sincospi(double x, double* sine, double* cosine) {
  const double turn = 3.14159265358979323846 * std::remainder(x, 2.0);
  *sine = std::sin(turn);
  *cosine = std::cos(turn);
}
inline void sincospif(float x, float* sine, float* cosine) {
  double s = 0;
  double c = 0;
  sincospi(x, &s, &c);
  *sine = static_cast<float>(s);
  *cosine = static_cast<float>(c);
}

// ------------------------------------------------------------------------------------------------- the runtime
#define CUDART_VERSION 13000

// With an underlying type, so that a value that is not listed is not undefined.
enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInitializationError = 3,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidMemcpyDirection = 21,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
  cudaErrorUnknown = 999,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};
enum cudaMemoryType {
  cudaMemoryTypeUnregistered = 0,
  cudaMemoryTypeHost = 1,
  cudaMemoryTypeDevice = 2,
  cudaMemoryTypeManaged = 3,
};
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
  void* devicePointer;
  void* hostPointer;
};
struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  std::size_t sharedMemPerBlock;
  int multiProcessorCount;
  int major;
  int minor;
};

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
inline const cudaStream_t cudaStreamLegacy = reinterpret_cast<cudaStream_t>(1);
inline const cudaStream_t cudaStreamPerThread = reinterpret_cast<cudaStream_t>(2);

constexpr unsigned cudaHostAllocDefault = 0;
constexpr unsigned cudaHostAllocPortable = 1;
constexpr unsigned cudaHostAllocMapped = 2;
constexpr unsigned cudaStreamDefault = 0;
constexpr unsigned cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDefault = 0;
constexpr unsigned cudaEventBlockingSync = 1;
constexpr unsigned cudaEventDisableTiming = 2;

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDriverGetVersion(int* version);

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaMalloc(void** memory, std::size_t size);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaHostAlloc(void** memory, std::size_t size, unsigned flags);
cudaError_t cudaMallocHost(void** memory, std::size_t size);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned flags);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer);
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* memory, int value, std::size_t size);
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t size, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

template <typename T>
cudaError_t cudaMalloc(T** memory, std::size_t size) {
  return cudaMalloc(reinterpret_cast<void**>(memory), size);
}
template <typename T>
cudaError_t cudaHostAlloc(T** memory, std::size_t size, unsigned flags) {
  return cudaHostAlloc(reinterpret_cast<void**>(memory), size, flags);
}
template <typename T>
cudaError_t cudaMallocHost(T** memory, std::size_t size) {
  return cudaMallocHost(reinterpret_cast<void**>(memory), size);
}
template <typename T>
cudaError_t cudaHostGetDevicePointer(T** device, void* host, unsigned flags) {
  return cudaHostGetDevicePointer(reinterpret_cast<void**>(device), host, flags);
}

// --------------------------------------------------------------------------------------------------- launches
namespace gpgan_cuda_cpu {

// Calls `thread` once for each thread of the grid. A wrong grid or block is for cudaGetLastError to tell; a barrier
// that not all threads of a block come to throws std::logic_error.
void run(const char* kernel, dim3 grid, dim3 block, cudaStream_t stream, const std::function<void()>& thread);

// As at a real launch, arguments become parameters once, on the host, and each thread gets a copy.
template <typename... Parameters>
void launch(const char* name, dim3 grid, dim3 block, cudaStream_t stream, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters>... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "kernels take values that are copied bit by bit");
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "more than a kernel's parameters may take");
  run(name, grid, block, stream, [&] { kernel(arguments...); });
}

}  // namespace gpgan_cuda_cpu

#define GPGAN_LAUNCH(kernel, grid, block, stream, ...)                                                \
  do {                                                                                                \
    ::gpgan_cuda_cpu::launch(#kernel, (grid), (block), (stream), (kernel)__VA_OPT__(, ) __VA_ARGS__); \
    ::gpgan::cuda::check(cudaGetLastError(), #kernel);                                                \
  } while (false)
