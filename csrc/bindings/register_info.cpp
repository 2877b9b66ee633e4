#include <pybind11/stl.h>

#include "gpgan/blend.hpp"
#include "register.hpp"

namespace gpgan::bindings {

void register_info(pybind11::module_& m) {
  m.def("version", &version, "The version the module was built as.");
  m.def("cpu_target", &cpu_target, "The instruction set of the CPU kernels: GPGAN_CPU_TARGET, or the best one.");
  m.def("cpu_targets", &cpu_targets, "The instruction sets that this machine can run, the best last.");
  m.def("resolve_threads", &resolve_threads, pybind11::arg("threads") = 0, "How many threads `threads` stands for.");
}

}  // namespace gpgan::bindings
