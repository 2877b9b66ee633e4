// What tests can see and change of the emulated device.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>

namespace gpgan_cuda_cpu {

// Since reset_counts().
struct Counts {
  std::map<std::string, std::int64_t> calls;     // of CUDA and cuFFT, by name
  std::map<std::string, std::int64_t> launches;  // by the kernel's name, without template arguments
  std::int64_t allocations = 0;                  // of device or pinned memory
  std::int64_t synchronisations = 0;             // calls that would make the host wait for the device
  std::set<cudaStream_t> streams;                // that work was put on
};
Counts counts();
void reset_counts();
std::size_t allocated_bytes();  // device and pinned memory that is not yet freed

// The next call of that name ("cudaLaunchKernel" for a launch) does nothing and gives this cudaError_t or cufftResult.
void fail_next(const std::string& call, int error);

void set_device_count(int count);  // 1 at the start; of streams and plans the device is checked, of memory told

// For the calls' own implementation: one at a time, and with them the device's memory. Between calls AddressSanitizer
// takes it for freed, since the host cannot read it either.
class Call {
 public:
  explicit Call(const char* name);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  [[nodiscard]] int failure() const { return failure_; }  // that a test asked for, or 0

 private:
  std::lock_guard<std::recursive_mutex> lock_;
  int failure_ = 0;
};
int current_device();
void use_stream(cudaStream_t stream);  // counts it
bool on_current_device(cudaStream_t stream);
bool is_stream(cudaStream_t stream);

}  // namespace gpgan_cuda_cpu
