#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "gpgan/cuda.hpp"
#include "option_names.hpp"
#include "register.hpp"

namespace gpgan::bindings {
namespace {

namespace py = pybind11;

// Images of the device's memory, as Python describes them: address, dtype, (N, H, W, C), strides in bytes.
using Described = std::tuple<std::uintptr_t, std::string, std::array<std::int64_t, 4>, std::array<std::ptrdiff_t, 4>>;
// What a generator is given: address and (N, C, S, S) of float32 without gaps.
using Planar = std::pair<std::uintptr_t, std::array<std::int64_t, 4>>;

DType dtype_of_name(const std::string& name, const char* argument) {
  static constexpr std::pair<const char*, DType> kAll[] = {{"bool", DType::kUint8},
                                                           {"uint8", DType::kUint8},
                                                           {"uint16", DType::kUint16},
                                                           {"float32", DType::kFloat32},
                                                           {"float64", DType::kFloat64}};
  for (const auto& [text, dtype] : kAll) {
    if (name == text) return dtype;
  }
  throw py::type_error(std::string(argument) + ": expected bool, uint8, uint16, float32 or float64, got " + name);
}

ImageView device_view(const Described& described, const char* argument) {
  const auto& [address, dtype, shape, strides] = described;
  if (address == 0) throw InvalidArgument(argument, "an address of the device's memory", "none");
  ImageView out;
  out.data = reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr): Python has no pointers
  out.dtype = dtype_of_name(dtype, argument);
  out.images = shape[0];
  out.height = shape[1];
  out.width = shape[2];
  out.channels = shape[3];
  out.image_stride = strides[0];
  out.strides = {strides[1], strides[2], strides[3]};
  return out;
}

ConstImageView device_view(const std::optional<Described>& described, const char* argument) {
  return described ? ConstImageView(device_view(*described, argument)) : ConstImageView{};
}

Planar describe(const ConstImageView& planar) {
  return {reinterpret_cast<std::uintptr_t>(planar.data), {planar.images, planar.channels, planar.height, planar.width}};
}

void* to_stream(std::uintptr_t stream) {
  return reinterpret_cast<void*>(stream);  // NOLINT(performance-no-int-to-ptr)
}

struct DeviceBlender {
  Blender core;
};

DeviceBlender make_blender(std::int64_t height, std::int64_t width, int channels, int batch, int image_size,
                           double color_weight, double sigma, const std::string& equation, const std::string& carry,
                           const std::string& pyramid, bool membrane, std::optional<int> inset, int device,
                           std::uintptr_t stream) {
  Options options = make_options(image_size, color_weight, sigma, equation, carry, pyramid, membrane, inset);
  options.batch = batch;
  const py::gil_scoped_release release;
  return {cuda::make_blender(options, height, width, channels, {.index = device, .stream = to_stream(stream)})};
}

std::array<Planar, 4> prepare(DeviceBlender& blender, const Described& source, const Described& target,
                              const std::optional<Described>& mask, std::pair<std::int64_t, std::int64_t> offset,
                              std::uintptr_t stream) {
  const ConstImageView source_view = device_view(source, "source");
  const ConstImageView target_view = device_view(target, "target");
  const ConstImageView mask_view = device_view(mask, "mask");
  const py::gil_scoped_release release;
  blender.core.use_stream(to_stream(stream));
  const GeneratorInputs inputs =
      blender.core.prepare(source_view, target_view, mask_view, {offset.first, offset.second});
  return {describe(inputs.composite), describe(inputs.mask), describe(inputs.harmonized), describe(inputs.source)};
}

void finish(DeviceBlender& blender, const std::optional<Described>& lowres, const Described& out,
            std::uintptr_t stream) {
  const ConstImageView lowres_view = device_view(lowres, "lowres");
  const ImageView out_view = device_view(out, "out");
  const py::gil_scoped_release release;
  blender.core.use_stream(to_stream(stream));
  blender.core.finish(lowres_view, out_view);
}

}  // namespace

void register_device_blender(py::module_& m) {
  using namespace pybind11::literals;
  py::class_<DeviceBlender>(m, "Blender", py::module_local(),
                            "Plans and workspace for batches of one size on one device; for one thread at a time.")
      .def(py::init(&make_blender), "height"_a, "width"_a, "channels"_a, py::kw_only(), "batch"_a, "image_size"_a,
           "color_weight"_a, "sigma"_a, "equation"_a, "carry"_a, "pyramid"_a, "membrane"_a, "inset"_a, "device"_a,
           "stream"_a)
      .def("prepare", &prepare, "source"_a, "target"_a, "mask"_a.none(true), "offset"_a, "stream"_a,
           "The generator's four inputs, (address, (N, C, S, S)) of contiguous float32: composite, mask, harmonized, "
           "source. Images are (address, dtype, (N, H, W, C), strides in bytes); the source and the target are read "
           "again in finish.")
      .def("finish", &finish, "lowres"_a.none(true), "out"_a, "stream"_a,
           "Solve the pyramid and write the result to `out`, as far as the stream is concerned.")
      .def(
          "synchronize", [](DeviceBlender& blender) { blender.core.synchronize(); },
          py::call_guard<py::gil_scoped_release>(),
          "Wait for the device; ValueError if it found a value that is not finite or not in [0, 1].");
}

}  // namespace gpgan::bindings
