// The CUDA runtime's calls: memory is the host's, work is done when it is put on a stream.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "emulation.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#endif

struct CUstream_st {
  int device;
};
struct CUevent_st {
  int device;
};

namespace gpgan_cuda_cpu {

void run_grid(const char* kernel, dim3 grid, dim3 block, const std::function<void()>& thread);

namespace {

struct Allocation {
  std::size_t size;
  int device;
  bool pinned;  // the host's own
};

struct State {
  std::recursive_mutex mutex;
  int depth = 0;  // of calls within calls
  int devices = 1;
  std::map<const std::byte*, Allocation> allocations;
  std::set<cudaStream_t> streams;
  std::set<cudaEvent_t> events;
  std::map<std::string, int, std::less<>> failures;
  Counts counts;
};
// Never destroyed: static objects of other files may still call.
State& state() {
  static auto& the_state = *new State;
  return the_state;
}

thread_local int device = 0;
thread_local cudaError_t last_error = cudaSuccess;

void show_device_memory(bool show) {
  for (const auto& [memory, allocation] : state().allocations) {
    if (allocation.pinned) continue;
    if (show) {
      ASAN_UNPOISON_MEMORY_REGION(memory, allocation.size);
    } else {
      ASAN_POISON_MEMORY_REGION(memory, allocation.size);
    }
  }
}

// The allocation that [pointer, pointer + size) lies in, if there is one.
const Allocation* find_allocation(const void* pointer, std::size_t size = 0) {
  const auto* first = static_cast<const std::byte*>(pointer);
  const auto& allocations = state().allocations;
  auto after = allocations.upper_bound(first);
  if (after == allocations.begin()) return nullptr;
  const auto& [memory, allocation] = *--after;
  const auto offset = static_cast<std::size_t>(first - memory);
  return offset < allocation.size && size <= allocation.size - offset ? &allocation : nullptr;
}

template <typename Body>
cudaError_t call(const char* name, Body&& body) {
  const Call guard(name);
  const cudaError_t status = guard.failure() != 0 ? static_cast<cudaError_t>(guard.failure()) : body();
  if (status != cudaSuccess) last_error = status;
  return status;
}
template <typename Body>
cudaError_t synchronising_call(const char* name, Body&& body) {
  return call(name, [&] {
    ++state().counts.synchronisations;
    return body();
  });
}
// Of work that is put on a stream.
template <typename Body>
cudaError_t stream_call(const char* name, cudaStream_t stream, Body&& body) {
  return call(name, [&] {
    if (!on_current_device(stream)) return cudaErrorInvalidResourceHandle;
    use_stream(stream);
    return body();
  });
}

cudaError_t allocate(void** memory, std::size_t size, bool pinned) {
  if (memory == nullptr) return cudaErrorInvalidValue;
  *memory = nullptr;
  if (state().devices == 0) return cudaErrorNoDevice;
  if (size == 0) return cudaSuccess;
  // Just so large, so that AddressSanitizer sees the end. Of all bits set, a float is NaN.
  if (posix_memalign(memory, 256, size) != 0) return cudaErrorMemoryAllocation;
  std::memset(*memory, 0xff, size);
  state().allocations[static_cast<std::byte*>(*memory)] = {size, device, pinned};
  ++state().counts.allocations;
  return cudaSuccess;
}

cudaError_t release(void* memory, bool pinned) {
  if (memory == nullptr) return cudaSuccess;
  auto& allocations = state().allocations;
  const auto found = allocations.find(static_cast<std::byte*>(memory));
  if (found == allocations.end() || found->second.pinned != pinned) return cudaErrorInvalidValue;
  allocations.erase(found);
  std::free(memory);
  return cudaSuccess;
}

// Whether all of `memory` is where a copy's kind says; pinned memory is both the host's and the device's.
bool lies_there(const void* memory, std::size_t bytes, bool on_device, cudaMemcpyKind kind) {
  const Allocation* allocation = find_allocation(memory);
  if (allocation == nullptr) return kind == cudaMemcpyDefault || !on_device;
  return find_allocation(memory, bytes) != nullptr && (kind == cudaMemcpyDefault || on_device || allocation->pinned);
}

cudaError_t copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
                 std::size_t height, cudaMemcpyKind kind) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (to_pitch < width || from_pitch < width) return cudaErrorInvalidValue;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (!lies_there(to, (height - 1) * to_pitch + width, to_device, kind) ||
      !lies_there(from, (height - 1) * from_pitch + width, from_device, kind)) {
    return cudaErrorInvalidValue;
  }
  for (std::size_t y = 0; y < height; ++y) {
    std::memcpy(static_cast<std::byte*>(to) + y * to_pitch, static_cast<const std::byte*>(from) + y * from_pitch,
                width);
  }
  return cudaSuccess;
}

// From the device into memory that is not pinned, no copy is asynchronous.
void count_copy(const void* to, const void* from) {
  const Allocation* source = find_allocation(from);
  if (source != nullptr && !source->pinned && find_allocation(to) == nullptr) ++state().counts.synchronisations;
}

// foo_kernel for "(foo_kernel<float, 3>)".
std::string base_name(std::string_view kernel) {
  kernel.remove_prefix(std::min(kernel.find_first_not_of("( "), kernel.size()));
  return std::string(kernel.substr(0, kernel.find_first_of("<) ")));
}

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};
const ErrorText& error_text(cudaError_t error) {
  static constexpr ErrorText kUnknown = {cudaErrorUnknown, "unrecognized error code", "unrecognized error code"};
  const auto* found =
      std::find_if(std::begin(kErrors), std::end(kErrors), [&](const ErrorText& e) { return e.error == error; });
  return found == std::end(kErrors) ? kUnknown : *found;
}

}  // namespace

Call::Call(const char* name) : lock_(state().mutex) {
  ++state().counts.calls[name];
  const auto failure = state().failures.find(name);
  if (failure != state().failures.end()) {
    failure_ = failure->second;
    state().failures.erase(failure);
  }
  if (state().depth++ == 0) show_device_memory(true);
}
Call::~Call() {
  if (--state().depth == 0) show_device_memory(false);
}

Counts counts() {
  const std::lock_guard lock(state().mutex);
  return state().counts;
}
void reset_counts() {
  const std::lock_guard lock(state().mutex);
  state().counts = {};
}
std::size_t allocated_bytes() {
  const std::lock_guard lock(state().mutex);
  std::size_t bytes = 0;
  for (const auto& [memory, allocation] : state().allocations) bytes += allocation.size;
  return bytes;
}
void fail_next(const std::string& name, int error) {
  const std::lock_guard lock(state().mutex);
  state().failures[name] = error;
}
void set_device_count(int count) {
  const std::lock_guard lock(state().mutex);
  state().devices = count;
  device = 0;
}

int current_device() { return device; }
void use_stream(cudaStream_t stream) { state().counts.streams.insert(stream); }
bool is_stream(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread ||
         state().streams.contains(stream);
}
bool on_current_device(cudaStream_t stream) {
  return is_stream(stream) && (!state().streams.contains(stream) || stream->device == device);
}

void run(const char* kernel, dim3 grid, dim3 block, cudaStream_t stream, const std::function<void()>& thread) {
  stream_call("cudaLaunchKernel", stream, [&] {
    ++state().counts.launches[base_name(kernel)];
    if (grid.x < 1 || grid.x > 0x7fffffff || grid.y < 1 || grid.y > 0xffff || grid.z < 1 || grid.z > 0xffff ||
        block.x < 1 || block.x > 1024 || block.y < 1 || block.y > 1024 || block.z < 1 || block.z > 64 ||
        block.x * block.y * block.z > 1024) {
      return cudaErrorInvalidConfiguration;
    }
    run_grid(kernel, grid, block, thread);
    return cudaSuccess;
  });
}

}  // namespace gpgan_cuda_cpu

using namespace gpgan_cuda_cpu;

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorName(cudaError_t error) { return error_text(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return error_text(error).text; }
cudaError_t cudaRuntimeGetVersion(int* version) {
  return call("cudaRuntimeGetVersion", [&] { return *version = CUDART_VERSION, cudaSuccess; });
}
cudaError_t cudaDriverGetVersion(int* version) {
  return call("cudaDriverGetVersion", [&] { return *version = CUDART_VERSION, cudaSuccess; });
}

// ------------------------------------------------------------------------------------------------------ devices
cudaError_t cudaGetDeviceCount(int* count) {
  return call("cudaGetDeviceCount", [&] {
    *count = state().devices;
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
  });
}
cudaError_t cudaGetDevice(int* current) {
  return call("cudaGetDevice", [&] {
    *current = device;
    return state().devices > 0 ? cudaSuccess : cudaErrorNoDevice;
  });
}
cudaError_t cudaSetDevice(int next) {
  return call("cudaSetDevice", [&] {
    if (next < 0 || next >= state().devices) return cudaErrorInvalidDevice;
    device = next;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int of) {
  return call("cudaGetDeviceProperties", [&] {
    if (of < 0 || of >= state().devices) return cudaErrorInvalidDevice;
    *properties = {"CPU, emulating CUDA", std::size_t{1} << 34, 48 * 1024, 1, 9, 0};
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int of) {
  return call("cudaDeviceGetAttribute", [&] {
    if (of < 0 || of >= state().devices) return cudaErrorInvalidDevice;
    switch (attribute) {
      case cudaDevAttrMaxThreadsPerBlock:
        return *value = 1024, cudaSuccess;
      case cudaDevAttrMaxSharedMemoryPerBlock:
        return *value = 48 * 1024, cudaSuccess;
      case cudaDevAttrMultiProcessorCount:
        return *value = 1, cudaSuccess;
      case cudaDevAttrComputeCapabilityMajor:
        return *value = 9, cudaSuccess;
      case cudaDevAttrComputeCapabilityMinor:
        return *value = 0, cudaSuccess;
    }
    return cudaErrorInvalidValue;
  });
}
cudaError_t cudaDeviceSynchronize() {
  return synchronising_call("cudaDeviceSynchronize", [] { return cudaSuccess; });
}

// ------------------------------------------------------------------------------------------------------- memory
cudaError_t cudaMalloc(void** memory, std::size_t size) {
  return synchronising_call("cudaMalloc", [&] { return allocate(memory, size, false); });
}
cudaError_t cudaFree(void* memory) {
  return synchronising_call("cudaFree", [&] { return release(memory, false); });
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return call("cudaMemGetInfo", [&] {
    *total = std::size_t{1} << 34;
    *free = *total - std::min(*total, allocated_bytes());
    return cudaSuccess;
  });
}
cudaError_t cudaHostAlloc(void** memory, std::size_t size, unsigned /*flags*/) {
  return synchronising_call("cudaHostAlloc", [&] { return allocate(memory, size, true); });
}
cudaError_t cudaMallocHost(void** memory, std::size_t size) {
  return synchronising_call("cudaMallocHost", [&] { return allocate(memory, size, true); });
}
cudaError_t cudaFreeHost(void* memory) {
  return synchronising_call("cudaFreeHost", [&] { return release(memory, true); });
}
cudaError_t cudaHostGetDevicePointer(void** pointer, void* host, unsigned flags) {
  return call("cudaHostGetDevicePointer", [&] {
    const Allocation* allocation = find_allocation(host);
    if (flags != 0 || allocation == nullptr || !allocation->pinned) return cudaErrorInvalidValue;
    *pointer = host;
    return cudaSuccess;
  });
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return call("cudaPointerGetAttributes", [&] {
    void* writable = const_cast<void*>(pointer);
    const Allocation* allocation = find_allocation(pointer);
    if (allocation == nullptr) {
      *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, writable};
    } else if (allocation->pinned) {
      *attributes = {cudaMemoryTypeHost, allocation->device, writable, writable};
    } else {
      *attributes = {cudaMemoryTypeDevice, allocation->device, writable, nullptr};
    }
    return cudaSuccess;
  });
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size, cudaMemcpyKind kind) {
  return synchronising_call("cudaMemcpy", [&] { return copy(to, size, from, size, size, 1, kind); });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  return stream_call("cudaMemcpyAsync", stream, [&] {
    count_copy(to, from);
    return copy(to, size, from, size, size, 1, kind);
  });
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return stream_call("cudaMemcpy2DAsync", stream, [&] {
    count_copy(to, from);
    return copy(to, to_pitch, from, from_pitch, width, height, kind);
  });
}
cudaError_t cudaMemset(void* memory, int value, std::size_t size) { return cudaMemsetAsync(memory, value, size); }
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t size, cudaStream_t stream) {
  return stream_call("cudaMemsetAsync", stream, [&] {
    if (size > 0 && find_allocation(memory, size) == nullptr) return cudaErrorInvalidValue;
    std::memset(memory, value, size);
    return cudaSuccess;
  });
}

// ------------------------------------------------------------------------------------------- streams and events
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  return call("cudaStreamCreateWithFlags", [&] {
    *stream = new CUstream_st{device};
    state().streams.insert(*stream);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call("cudaStreamDestroy", [&] {
    if (state().streams.erase(stream) == 0) return cudaErrorInvalidResourceHandle;
    delete stream;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call("cudaStreamQuery", [&] { return is_stream(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle; });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return synchronising_call("cudaStreamSynchronize",
                            [&] { return is_stream(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle; });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  return call("cudaStreamWaitEvent", [&] {
    return is_stream(stream) && state().events.contains(event) ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  return call("cudaEventCreateWithFlags", [&] {
    *event = new CUevent_st{device};
    state().events.insert(*event);
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call("cudaEventDestroy", [&] {
    if (state().events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call("cudaEventQuery",
              [&] { return state().events.contains(event) ? cudaSuccess : cudaErrorInvalidResourceHandle; });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return stream_call("cudaEventRecord", stream, [&] {
    const bool here = state().events.contains(event) && event->device == device;
    return here ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return synchronising_call("cudaEventSynchronize", [&] {
    return state().events.contains(event) ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}
