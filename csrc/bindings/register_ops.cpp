// Single operations for gpgan.ops and the tests: arrays in, a float32 array out.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "array.hpp"
#include "core/backend.hpp"
#include "register.hpp"

namespace gpgan::bindings {
namespace {

using core::Backend;
using core::Buffer;
using core::Planes;
using core::Size;

// The backend of one call, and what its place means for the copies in and out.
struct Device {
  Backend& backend;
  bool in_host_memory;
};

// Copies an array in unchecked: single operations take any finite range, such as a divergence.
Buffer take(const Device& device, const py::array_t<float>& array) {
  const ConstImageView from = view(array, "image");
  Buffer buffer = device.backend.allocate(from.channels, {from.height, from.width});
  std::vector<float> planar;
  if (!device.in_host_memory) planar.resize(static_cast<std::size_t>(buffer.planes().floats()));
  const auto* base = static_cast<const std::byte*>(from.data);
  float* to = device.in_host_memory ? buffer.planes().data : planar.data();
  for (std::int64_t c = 0; c < from.channels; ++c) {
    for (std::int64_t y = 0; y < from.height; ++y) {
      for (std::int64_t x = 0; x < from.width; ++x) {
        *to++ = *reinterpret_cast<const float*>(base + y * from.strides[0] + x * from.strides[1] + c * from.strides[2]);
      }
    }
  }
  if (!device.in_host_memory) device.backend.upload(planar.data(), buffer);
  return buffer;
}

// Runs body(out) without the GIL and gives `out`, of `size`, with as many dimensions as `like`.
template <typename Body>
py::array_t<float> run(const Device& device, const py::array& like, Size size, Body body) {
  const std::int64_t channels = like.ndim() == 3 ? like.shape(2) : 1;
  const Buffer out = device.backend.allocate(channels, size);
  std::vector<float> planar;
  if (!device.in_host_memory) planar.resize(static_cast<std::size_t>(out.planes().floats()));
  {
    const py::gil_scoped_release release;
    body(out.planes());
    if (!device.in_host_memory) device.backend.download(out, planar.data());
  }
  const float* result = device.in_host_memory ? out.planes().data : planar.data();
  return to_array(gpgan::planar(result, size.height, size.width, channels), like.ndim() == 2);
}

Size size_of(const py::array& array) { return {array.shape(0), array.shape(1)}; }

using Array = py::array_t<float, py::array::forcecast>;
using Shape = std::pair<std::int64_t, std::int64_t>;

using Resample = void (Backend::*)(const Planes&, const Planes&);
template <Resample kOperation>
py::array_t<float> resample(const Device& device, const Array& image, Shape shape) {
  const Buffer in = take(device, image);
  return run(device, image, {shape.first, shape.second},
             [&](const Planes& out) { (device.backend.*kOperation)(in, out); });
}

py::array_t<float> composite(const Device& device, const Array& source, const Array& target, const Array& mask) {
  const Buffer s = take(device, source);
  const Buffer t = take(device, target);
  const Buffer m = take(device, mask);
  return run(device, target, size_of(target), [&](const Planes& out) {
    device.backend.subtract(s, t);
    device.backend.composite(s, t, m, out);
  });
}

py::array_t<float> guidance_divergence(const Device& device, const Array& source, const Array& target,
                                       const Array& mask) {
  const Buffer s = take(device, source);
  const Buffer t = take(device, target);
  const Buffer m = take(device, mask);
  return run(device, target, size_of(target),
             [&](const Planes& out) { device.backend.guidance_divergence(s, t, m, out); });
}

// w = (difference with the membrane) - difference; it is target - source outside, where the former is zero.
py::array_t<float> membrane(const Device& device, const Array& source, const Array& target, const Array& mask) {
  const Buffer s = take(device, source);
  const Buffer t = take(device, target);
  const Buffer m = take(device, mask);
  return run(device, target, size_of(target), [&](const Planes& out) {
    device.backend.subtract(s, t);
    device.backend.copy(s, out);
    device.backend.membrane(out, m);
    device.backend.subtract(out, s);
  });
}

py::array_t<float> gaussian_blur(const Device& device, const Array& image, double sigma) {
  const Buffer in = take(device, image);
  return run(device, image, size_of(image), [&](const Planes& out) { device.backend.gaussian_blur(in, sigma, out); });
}

py::array_t<float> inset(const Device& device, const Array& mask, int pixels) {
  const Buffer in = take(device, mask);
  return run(device, mask, size_of(mask), [&](const Planes& out) {
    device.backend.copy(in, out);
    device.backend.inset(out, pixels);
  });
}

py::array_t<float> extend(const Device& device, const Array& source, const Array& alpha) {
  const Buffer in = take(device, source);
  const Buffer a = take(device, alpha);
  return run(device, source, size_of(source), [&](const Planes& out) {
    device.backend.copy(in, out);
    device.backend.extend(out, a);
  });
}

py::array_t<float> solve(const Device& device, const Array& divergence, const Array& color, double color_weight,
                         double sigma, bool screened) {
  const Buffer u = take(device, divergence);
  const Buffer c = take(device, color);
  return run(device, divergence, size_of(divergence), [&](const Planes& out) {
    const Equation equation = screened ? Equation::kScreened : Equation::kGaussianPoisson;
    device.backend.solve(u, c, equation, color_weight, sigma, out);
  });
}

// DCT-II (or its unnormalised inverse, type 3) of each row of an array (rows, N).
py::array_t<float> dct(const Device& device, const py::array_t<float, py::array::c_style | py::array::forcecast>& rows,
                       int type) {
  if (rows.ndim() != 2 || rows.size() == 0) throw py::value_error("rows: expected an array (rows, N), not empty");
  if (type != 2 && type != 3) throw InvalidArgument("type", "2 or 3", std::to_string(type));
  py::array_t<float> out(std::vector<py::ssize_t>{rows.shape(0), rows.shape(1)});
  const float* from = rows.data();
  float* to = out.mutable_data();
  const py::gil_scoped_release release;
  if (device.in_host_memory) {
    // A transform takes little longer than a copy: in place in the result, and no other.
    std::copy_n(from, rows.size(), to);
    device.backend.dct(Planes{to, 1, size_of(rows)}, type == 3);
  } else {
    const Buffer planes = device.backend.allocate(1, size_of(rows));
    device.backend.upload(from, planes);
    device.backend.dct(planes, type == 3);
    device.backend.download(planes, to);
  }
  return out;
}

// operation(device, arguments...) as a function of the arguments and of the number that a place makes a device of.
template <typename... Arguments>
auto at(const Place& place, py::array_t<float> (*operation)(const Device&, Arguments...)) {
  return [=](Arguments... arguments, int number) {
    const auto backend = place.make_backend(number);
    const core::Session session(*backend);
    return operation({*backend, place.in_host_memory}, arguments...);
  };
}

}  // namespace

void register_ops(py::module_& m, const Place& place) {
  using namespace pybind11::literals;
  const auto number = py::arg(place.parameter) = 0;
  m.def("composite", at(place, &composite), "source"_a, "target"_a, "mask"_a, number);
  m.def("guidance_divergence", at(place, &guidance_divergence), "source"_a, "target"_a, "mask"_a, number);
  m.def("membrane", at(place, &membrane), "source"_a, "target"_a, "mask"_a, number);
  m.def("gaussian_blur", at(place, &gaussian_blur), "image"_a, "sigma"_a, number);
  m.def("inset", at(place, &inset), "mask"_a, "pixels"_a, number);
  m.def("extend", at(place, &extend), "source"_a, "alpha"_a, number);
  m.def("solve", at(place, &solve), "divergence"_a, "color"_a, "color_weight"_a, "sigma"_a, "screened"_a, number);
  m.def("downsample", at(place, &resample<&Backend::downsample>), "image"_a, "shape"_a, number);
  m.def("upsample", at(place, &resample<&Backend::upsample>), "image"_a, "shape"_a, number);
  m.def("resize", at(place, &resample<&Backend::resize>), "image"_a, "shape"_a, number);
  m.def("resample_bicubic", at(place, &resample<&Backend::resample_bicubic>), "image"_a, "shape"_a, number);
  m.def("resample_nearest", at(place, &resample<&Backend::resample_nearest>), "mask"_a, "shape"_a, number);
  m.def("area_average", at(place, &resample<&Backend::area_average>), "image"_a, "shape"_a, number);
  m.def("dct", at(place, &dct), "rows"_a, "type"_a = 2, number);
}

}  // namespace gpgan::bindings
