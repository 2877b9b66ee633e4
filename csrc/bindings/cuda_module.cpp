// gpgan._cuda: a table of contents. The tests build it once more, under another name, on a device that is none.
#include <cufft.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "cuda/backend.hpp"
#include "gpgan/blend.hpp"
#include "gpgan/cuda.hpp"
#include "register.hpp"

#if !defined(GPGAN_CUDA_MODULE)
#define GPGAN_CUDA_MODULE _cuda
#endif

namespace {

std::unique_ptr<gpgan::core::Backend> make_backend(int device) { return gpgan::cuda::make_backend({.index = device}); }

std::string cufft_version() {
  int version = 0;
  if (cufftGetVersion(&version) != CUFFT_SUCCESS) throw gpgan::DeviceError("cufftGetVersion: cuFFT does not say it");
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 100) + "." +
         std::to_string(version % 100);
}

}  // namespace

PYBIND11_MODULE(GPGAN_CUDA_MODULE, m) {
  m.doc() = "The CUDA backend of gpgan. Use the public functions of the package; this module may change at any time.";
  gpgan::bindings::register_errors();
  m.def("version", &gpgan::version, "The version the module was built as.");
  m.def("device_count", &gpgan::cuda::device_count, "How many devices there are; RuntimeError says why none.");
  m.def("device_name", &gpgan::cuda::device_name, pybind11::arg("index"), "What a device is called.");
  m.def("cufft_version", &cufft_version, "The version of the cuFFT that was loaded.");
  gpgan::bindings::register_device_blender(m);
  gpgan::bindings::register_ops(m, {&make_backend, "device", false});
}
