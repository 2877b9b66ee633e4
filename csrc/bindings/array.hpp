// Between NumPy arrays and the library's views.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "gpgan/image.hpp"

namespace gpgan::bindings {

namespace py = pybind11;

// A view of an array (H, W) or (H, W, C) as it lies in memory; throws TypeError/ValueError naming the
// argument.
ConstImageView view(const py::array& array, const char* argument);
ImageView mutable_view(py::array& array, const char* argument);

// A new float32 array (H, W, C), or (H, W) for `squeeze`, filled from a view.
py::array_t<float> to_array(const ConstImageView& planar_float, bool squeeze);

}  // namespace gpgan::bindings
