// _emulation, in the same file as _cuda_cpu: what tests see and change of the device that is none.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>

#include "emulation.hpp"

namespace py = pybind11;

namespace {

py::dict counts() {
  const gpgan_cuda_cpu::Counts now = gpgan_cuda_cpu::counts();
  py::dict out;
  out["calls"] = now.calls;
  out["launches"] = now.launches;
  out["allocations"] = now.allocations;
  out["synchronisations"] = now.synchronisations;
  py::set streams;
  for (const cudaStream_t stream : now.streams) streams.add(reinterpret_cast<std::uintptr_t>(stream));
  out["streams"] = streams;
  return out;
}

std::uintptr_t make_stream() {
  cudaStream_t stream = nullptr;
  if (cudaStreamCreate(&stream) != cudaSuccess) throw std::runtime_error("cudaStreamCreate");
  return reinterpret_cast<std::uintptr_t>(stream);
}

}  // namespace

PYBIND11_MODULE(_emulation, m) {
  using namespace pybind11::literals;
  m.def("counts", &counts);
  m.def("reset_counts", &gpgan_cuda_cpu::reset_counts);
  m.def("allocated_bytes", &gpgan_cuda_cpu::allocated_bytes);
  m.def("fail_next", &gpgan_cuda_cpu::fail_next, "call"_a, "error"_a);
  m.def("set_device_count", &gpgan_cuda_cpu::set_device_count, "count"_a);
  m.def("current_device", &gpgan_cuda_cpu::current_device);
  m.def("set_device", [](int device) {
    if (cudaSetDevice(device) != cudaSuccess) throw std::runtime_error("cudaSetDevice");
  });
  m.def("make_stream", &make_stream);
}
