#include "array.hpp"

#include <array>

namespace gpgan::bindings {
namespace {

DType dtype_of_array(const py::array& array, const char* argument) {
  const py::dtype dtype = array.dtype();
  if (dtype.attr("isnative").cast<bool>()) {
    const auto is = [&]<typename T>(T) { return dtype.num() == py::dtype::of<T>().num(); };
    if (is(bool{}) || is(std::uint8_t{})) return DType::kUint8;
    if (is(std::uint16_t{})) return DType::kUint16;
    if (is(float{})) return DType::kFloat32;
    if (is(double{})) return DType::kFloat64;
  }
  throw py::type_error(std::string(argument) +
                       ": expected bool, uint8, uint16, float32 or float64 in native byte order, got " +
                       py::str(dtype).cast<std::string>());
}

template <typename View, typename Pointer>
View make_view(const py::array& array, Pointer data, const char* argument) {
  if (array.ndim() != 2 && array.ndim() != 3) {
    throw py::value_error(std::string(argument) + ": expected an array (H, W) or (H, W, C), got " +
                          std::to_string(array.ndim()) + " dimensions");
  }
  View out;
  out.data = data;
  out.dtype = dtype_of_array(array, argument);
  out.height = array.shape(0);
  out.width = array.shape(1);
  out.channels = array.ndim() == 3 ? array.shape(2) : 1;
  out.strides = {array.strides(0), array.strides(1), array.ndim() == 3 ? array.strides(2) : 0};
  return out;
}

}  // namespace

ConstImageView view(const py::array& array, const char* argument) {
  return make_view<ConstImageView>(array, array.data(), argument);
}

ImageView mutable_view(py::array& array, const char* argument) {
  if (!array.writeable())
    throw py::value_error(std::string(argument) + ": expected a writable array, got a read-only one");
  return make_view<ImageView>(array, array.mutable_data(), argument);
}

py::array_t<float> to_array(const ConstImageView& planar_float, bool squeeze) {
  const auto [height, width, channels] = std::array{planar_float.height, planar_float.width, planar_float.channels};
  py::array_t<float> out(squeeze ? std::vector<py::ssize_t>{height, width}
                                 : std::vector<py::ssize_t>{height, width, channels});
  const auto* from = static_cast<const float*>(planar_float.data);
  float* to = out.mutable_data();
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t i = 0; i < height * width; ++i) to[i * channels + c] = *from++;
  }
  return out;
}

}  // namespace gpgan::bindings
