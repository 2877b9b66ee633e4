#include <pybind11/stl.h>

#include <string>
#include <utility>

#include "array.hpp"
#include "gpgan/blend.hpp"
#include "option_names.hpp"
#include "register.hpp"

namespace gpgan::bindings {
namespace {

py::dict options(const std::string& mode) {
  const Options said = Options::for_mode(parse<Mode>(mode));
  py::dict out;
  out["color_weight"] = said.color_weight;
  out["sigma"] = said.sigma;
  out["equation"] = name_of(said.equation);
  out["carry"] = name_of(said.carry);
  out["pyramid"] = name_of(said.pyramid);
  out["membrane"] = said.membrane;
  out["inset"] = said.inset;
  return out;
}

// Keeps the arrays of a prepare(), which the core looks at again, until its finish().
struct HoldingBlender {
  Blender core;
  py::object source, target;
};

HoldingBlender make_blender(std::int64_t height, std::int64_t width, int channels, int image_size, double color_weight,
                            double sigma, const std::string& equation, const std::string& carry,
                            const std::string& pyramid, bool membrane, std::optional<int> inset, int threads) {
  Options options = make_options(image_size, color_weight, sigma, equation, carry, pyramid, membrane, inset);
  options.threads = threads;
  const auto make = [&] {
    const py::gil_scoped_release release;
    return Blender(options, height, width, channels);
  };
  return {make(), py::none(), py::none()};
}

py::tuple prepare(HoldingBlender& blender, const py::array& source, const py::array& target,
                  const std::optional<py::array>& mask, std::pair<std::int64_t, std::int64_t> offset) {
  const ConstImageView source_view = view(source, "source");
  const ConstImageView target_view = view(target, "target");
  const ConstImageView mask_view = mask ? view(*mask, "mask") : ConstImageView{};
  GeneratorInputs inputs;
  {
    const py::gil_scoped_release release;
    inputs = blender.core.prepare(source_view, target_view, mask_view, {offset.first, offset.second});
  }
  blender.source = source;
  blender.target = target;
  return py::make_tuple(to_array(inputs.composite, false), to_array(inputs.mask, true),
                        to_array(inputs.harmonized, false), to_array(inputs.source, false));
}

void finish(HoldingBlender& blender, const std::optional<py::array>& lowres, py::array& out) {
  const ConstImageView lowres_view = lowres ? view(*lowres, "lowres") : ConstImageView{};
  const ImageView out_view = mutable_view(out, "out");
  {
    const py::gil_scoped_release release;
    blender.core.finish(lowres_view, out_view);
  }
  blender.source = blender.target = py::none();
}

}  // namespace

void register_blender(py::module_& m) {
  using namespace pybind11::literals;
  m.def("options", &options, "mode"_a, "What a mode says for each option; an inset of None depends on the source.");
  py::class_<HoldingBlender>(m, "Blender", "Plans and workspace for images of one size; for one thread at a time.")
      .def(py::init(&make_blender), "height"_a, "width"_a, "channels"_a, py::kw_only(), "image_size"_a,
           "color_weight"_a, "sigma"_a, "equation"_a, "carry"_a, "pyramid"_a, "membrane"_a, "inset"_a, "threads"_a)
      .def("prepare", &prepare, "source"_a, "target"_a, "mask"_a.none(true), "offset"_a = std::pair(0, 0),
           "The generator's four inputs, float32: composite, mask, harmonized, source. The source and the target are "
           "read again in finish.")
      .def_property_readonly(
          "unchanged", [](const HoldingBlender& blender) { return blender.core.unchanged(); },
          "True if the last prepare saw no masked pixel.")
      .def("finish", &finish, "lowres"_a.none(true), "out"_a, "Solve the pyramid and write the result to `out`.");
}

}  // namespace gpgan::bindings
