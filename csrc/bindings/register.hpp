#pragma once

#include <pybind11/pybind11.h>

namespace gpgan::bindings {

void register_info(pybind11::module_& m);
void register_blender(pybind11::module_& m);
void register_ops(pybind11::module_& m);

}  // namespace gpgan::bindings
