#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "core/backend.hpp"

namespace gpgan::bindings {

// Where the single operations of a module run.
struct Place {
  // Of the number that each operation takes last, which `parameter` is the name of.
  std::unique_ptr<core::Backend> (*make_backend)(int number);
  const char* parameter;
  bool in_host_memory;  // the backend's planes are: pixels go there, and come from there, without a further copy
};

void register_blender(pybind11::module_& m);
void register_device_blender(pybind11::module_& m);
void register_errors();
void register_info(pybind11::module_& m);
void register_ops(pybind11::module_& m, const Place& place);

}  // namespace gpgan::bindings
