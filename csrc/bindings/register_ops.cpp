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

// Copies an array in unchecked: single operations take any finite range, such as a divergence.
Buffer take(Backend& backend, const py::array_t<float>& array) {
  const ConstImageView from = view(array, "image");
  Buffer buffer = backend.allocate(from.channels, {from.height, from.width});
  const auto* base = static_cast<const std::byte*>(from.data);
  float* to = buffer.planes().data;
  for (std::int64_t c = 0; c < from.channels; ++c) {
    for (std::int64_t y = 0; y < from.height; ++y) {
      for (std::int64_t x = 0; x < from.width; ++x) {
        *to++ = *reinterpret_cast<const float*>(base + y * from.strides[0] + x * from.strides[1] + c * from.strides[2]);
      }
    }
  }
  return buffer;
}

py::array_t<float> give(const Planes& planes, bool squeeze) {
  return to_array(planar<const float>(planes.data, planes.size.height, planes.size.width, planes.channels), squeeze);
}

// Runs body(backend, out) without the GIL and gives `out`, of `size`, with as many dimensions as `like`.
template <typename Body>
py::array_t<float> run(Backend& backend, const py::array& like, Size size, Body body) {
  const std::int64_t channels = like.ndim() == 3 ? like.shape(2) : 1;
  Buffer out = backend.allocate(channels, size);
  {
    const py::gil_scoped_release release;
    body(out);
  }
  return give(out, like.ndim() == 2);
}

Size size_of(const py::array& array) { return {array.shape(0), array.shape(1)}; }

using Array = py::array_t<float, py::array::forcecast>;
using Shape = std::pair<std::int64_t, std::int64_t>;

using Resample = void (Backend::*)(const Planes&, const Planes&);
template <Resample kOperation>
py::array_t<float> resample(const Array& image, Shape shape, int threads) {
  const auto backend = core::make_backend(threads);
  const Buffer in = take(*backend, image);
  return run(*backend, image, {shape.first, shape.second}, [&](const Planes& out) { (*backend.*kOperation)(in, out); });
}

py::array_t<float> composite(const Array& source, const Array& target, const Array& mask, int threads) {
  const auto backend = core::make_backend(threads);
  const Buffer s = take(*backend, source);
  const Buffer t = take(*backend, target);
  const Buffer m = take(*backend, mask);
  return run(*backend, target, size_of(target), [&](const Planes& out) {
    backend->subtract(s, t);
    backend->composite(s, t, m, out);
  });
}

py::array_t<float> guidance_divergence(const Array& source, const Array& target, const Array& mask, int threads) {
  const auto backend = core::make_backend(threads);
  const Buffer s = take(*backend, source);
  const Buffer t = take(*backend, target);
  const Buffer m = take(*backend, mask);
  return run(*backend, target, size_of(target), [&](const Planes& out) { backend->guidance_divergence(s, t, m, out); });
}

// w = (difference with the membrane) - difference; it is target - source outside, where the former is zero.
py::array_t<float> membrane(const Array& source, const Array& target, const Array& mask, int threads) {
  const auto backend = core::make_backend(threads);
  const Buffer s = take(*backend, source);
  const Buffer t = take(*backend, target);
  const Buffer m = take(*backend, mask);
  return run(*backend, target, size_of(target), [&](const Planes& out) {
    backend->subtract(s, t);
    backend->copy(s, out);
    backend->membrane(out, m);
    backend->subtract(out, s);
  });
}

py::array_t<float> gaussian_blur(const Array& image, double sigma, int threads) {
  const auto backend = core::make_backend(threads);
  const Buffer in = take(*backend, image);
  return run(*backend, image, size_of(image), [&](const Planes& out) { backend->gaussian_blur(in, sigma, out); });
}

py::array_t<float> inset(const Array& mask, int pixels, int threads) {
  const auto backend = core::make_backend(threads);
  const Buffer in = take(*backend, mask);
  return run(*backend, mask, size_of(mask), [&](const Planes& out) {
    backend->copy(in, out);
    backend->inset(out, pixels);
  });
}

py::array_t<float> extend(const Array& source, const Array& alpha, int threads) {
  const auto backend = core::make_backend(threads);
  const Buffer in = take(*backend, source);
  const Buffer a = take(*backend, alpha);
  return run(*backend, source, size_of(source), [&](const Planes& out) {
    backend->copy(in, out);
    backend->extend(out, a);
  });
}

py::array_t<float> solve(const Array& divergence, const Array& color, double color_weight, double sigma, bool screened,
                         int threads) {
  const auto backend = core::make_backend(threads);
  const Buffer u = take(*backend, divergence);
  const Buffer c = take(*backend, color);
  return run(*backend, divergence, size_of(divergence), [&](const Planes& out) {
    const Equation equation = screened ? Equation::kScreened : Equation::kGaussianPoisson;
    backend->solve(u, c, equation, color_weight, sigma, out);
  });
}

// DCT-II (or its unnormalised inverse, type 3) of each row of an array (rows, N).
py::array_t<float> dct(const py::array_t<float, py::array::c_style | py::array::forcecast>& rows, int type,
                       int threads) {
  if (rows.ndim() != 2 || rows.size() == 0) throw py::value_error("rows: expected an array (rows, N), not empty");
  if (type != 2 && type != 3) throw InvalidArgument("type", "2 or 3", std::to_string(type));
  const auto backend = core::make_backend(threads);
  // A transform takes little longer than a copy: in place in the result, and no other.
  py::array_t<float> out(std::vector<py::ssize_t>{rows.shape(0), rows.shape(1)});
  const float* from = rows.data();
  float* to = out.mutable_data();
  const py::gil_scoped_release release;
  std::copy_n(from, rows.size(), to);
  backend->dct(Planes{to, 1, size_of(rows)}, type == 3);
  return out;
}

}  // namespace

void register_ops(py::module_& m) {
  using namespace pybind11::literals;
  m.def("composite", &composite, "source"_a, "target"_a, "mask"_a, "threads"_a = 0);
  m.def("guidance_divergence", &guidance_divergence, "source"_a, "target"_a, "mask"_a, "threads"_a = 0);
  m.def("membrane", &membrane, "source"_a, "target"_a, "mask"_a, "threads"_a = 0);
  m.def("gaussian_blur", &gaussian_blur, "image"_a, "sigma"_a, "threads"_a = 0);
  m.def("inset", &inset, "mask"_a, "pixels"_a, "threads"_a = 0);
  m.def("extend", &extend, "source"_a, "alpha"_a, "threads"_a = 0);
  m.def("solve", &solve, "divergence"_a, "color"_a, "color_weight"_a, "sigma"_a, "screened"_a, "threads"_a = 0);
  m.def("downsample", &resample<&Backend::downsample>, "image"_a, "shape"_a, "threads"_a = 0);
  m.def("upsample", &resample<&Backend::upsample>, "image"_a, "shape"_a, "threads"_a = 0);
  m.def("resize", &resample<&Backend::resize>, "image"_a, "shape"_a, "threads"_a = 0);
  m.def("resample_bicubic", &resample<&Backend::resample_bicubic>, "image"_a, "shape"_a, "threads"_a = 0);
  m.def("resample_nearest", &resample<&Backend::resample_nearest>, "mask"_a, "shape"_a, "threads"_a = 0);
  m.def("area_average", &resample<&Backend::area_average>, "image"_a, "shape"_a, "threads"_a = 0);
  m.def("dct", &dct, "rows"_a, "type"_a = 2, "threads"_a = 0);
}

}  // namespace gpgan::bindings
