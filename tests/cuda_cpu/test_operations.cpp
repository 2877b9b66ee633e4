// Each launcher beside the CPU backend's operation of the same name.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "core/backend.hpp"
#include "cuda/operations.hpp"

using namespace gpgan;
using namespace gpgan::cuda;
using core::Backend;
using core::Buffer;

namespace {

constexpr Size kSizes[] = {{1, 1}, {1, 7}, {7, 1}, {2, 2}, {3, 5}, {31, 33}, {64, 64}, {65, 127}, {128, 129}};
constexpr Size kSmallSizes[] = {{1, 1}, {1, 7}, {7, 1}, {2, 2}, {3, 5}, {31, 33}};
constexpr std::int64_t kImages = 2;
constexpr cudaStream_t kStream = nullptr;
// Both sum a few float32 terms up to 1, in another order.
constexpr float kRounding = 1e-6F;

using Values = std::vector<float>;

// ------------------------------------------------------------------------------------------------ device and host
template <typename T>
DeviceArray<T> to_device(const std::vector<T>& values) {
  DeviceArray<T> out(static_cast<std::int64_t>(values.size()));
  check(cudaMemcpy(out.data(), values.data(), out.bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  return out;
}
template <typename T>
std::vector<T> to_host(const DeviceArray<T>& array) {
  std::vector<T> out(static_cast<std::size_t>(array.size()));
  check(cudaMemcpy(out.data(), array.data(), array.bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return out;
}

// Planes on the device.
struct DevicePlanes {
  DeviceArray<float> memory;
  Planes planes;

  DevicePlanes(const Values& values, std::int64_t channels, Size size)
      : memory(to_device(values)), planes{memory.data(), channels, size} {
    REQUIRE(planes.floats() == memory.size());
  }
  // Not a number in it is right until it is written.
  DevicePlanes(std::int64_t channels, Size size)
      : DevicePlanes(Values(static_cast<std::size_t>(channels * size.pixels()), std::nanf("")), channels, size) {}
  [[nodiscard]] Values values() const { return to_host(memory); }
};

// The same in the CPU backend's memory: just the host's.
struct HostPlanes {
  Values memory;
  std::int64_t channels;
  Size size;

  HostPlanes(Values values, std::int64_t channels_, Size size_)
      : memory(std::move(values)), channels(channels_), size(size_) {
    REQUIRE(planes().floats() == static_cast<std::int64_t>(memory.size()));
  }
  HostPlanes(std::int64_t channels_, Size size_)
      : HostPlanes(Values(static_cast<std::size_t>(channels_ * size_.pixels())), channels_, size_) {}
  [[nodiscard]] Planes planes() { return {memory.data(), channels, size}; }
  // The planes of one image of a batch.
  [[nodiscard]] Planes image(std::int64_t i) {
    return {planes().channel(i * channels / kImages).data, channels / kImages, size};
  }
};

Values noise(std::int64_t count, unsigned seed, float low = 0, float high = 1) {
  std::mt19937 engine(seed);
  Values out(static_cast<std::size_t>(count));
  for (float& x : out) x = low + (high - low) * static_cast<float>(engine() % 65536) / 65535.0F;
  return out;
}

float largest_difference(const Values& a, const Values& b) {
  REQUIRE(a.size() == b.size());
  float most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= most)) most = std::abs(a[i] - b[i]);  // NaN too
    if (std::isnan(most)) return std::numeric_limits<float>::infinity();
  }
  return most;
}

std::string name_of(Size size) { return std::to_string(size.height) + " x " + std::to_string(size.width); }

// -------------------------------------------------------------------------------------------------------- views
// Where a view's elements lie in its memory, in elements of its type.
struct Layout {
  std::ptrdiff_t begin;
  std::array<std::ptrdiff_t, 3> strides;
  std::ptrdiff_t image;  // how much an image takes
};

const char* const kLayouts[] = {"interleaved", "planar",   "cropped",    "upside down",
                                "mirrored",    "reversed", "transposed", "planar, every other column"};

Layout layout_of(const std::string& name, std::ptrdiff_t h, std::ptrdiff_t w, std::ptrdiff_t c) {
  if (name == "interleaved") return {0, {w * c, c, 1}, h * w * c};
  if (name == "planar") return {0, {w, 1, h * w}, c * h * w};
  if (name == "cropped") return {(w + 3 + 1) * c, {(w + 3) * c, c, 1}, (h + 2) * (w + 3) * c};
  if (name == "upside down") return {(h - 1) * w * c, {-w * c, c, 1}, h * w * c};
  if (name == "mirrored") return {(w - 1) * c, {w * c, -c, 1}, h * w * c};
  if (name == "reversed") return {c - 1, {w * c, c, -1}, h * w * c};
  if (name == "transposed") return {0, {c, h * c, 1}, h * w * c};
  REQUIRE(name == "planar, every other column");
  return {0, {2 * w, 2, 2 * h * w}, 2 * c * h * w};
}

// A batch of images of one kind, on both sides.
template <typename T>
struct Batch {
  std::vector<T> memory;
  DeviceArray<T> on_device;
  ImageView view;  // of `memory`

  Batch(const std::string& layout_name, Size size, std::int64_t channels, std::int64_t images, std::uint64_t seed) {
    const Layout layout = layout_of(layout_name, size.height, size.width, channels);
    std::mt19937_64 engine(seed);
    memory.resize(static_cast<std::size_t>(layout.image * images));
    for (T& value : memory) {
      if constexpr (std::is_floating_point_v<T>) {
        value = static_cast<T>(static_cast<double>(engine() % 100000) * 1.001e-5 - 5e-4);  // beyond [0, 1] too
      } else {
        value = static_cast<T>(engine() % (std::uint64_t{std::numeric_limits<T>::max()} + 1));
      }
    }
    constexpr auto kItem = static_cast<std::ptrdiff_t>(sizeof(T));
    view = {memory.data() + layout.begin,
            dtype_of<T>(),
            size.height,
            size.width,
            channels,
            {layout.strides[0] * kItem, layout.strides[1] * kItem, layout.strides[2] * kItem},
            images,
            layout.image * kItem};
  }
  [[nodiscard]] std::ptrdiff_t begin() const { return static_cast<T*>(view.data) - memory.data(); }
  T& at(std::int64_t image, std::int64_t y, std::int64_t x, std::int64_t c) {
    return *reinterpret_cast<T*>(static_cast<std::byte*>(view.data) + image * view.image_stride + y * view.strides[0] +
                                 x * view.strides[1] + c * view.strides[2]);
  }
  // A batch of which all images are the first.
  void repeat() { view.image_stride = 0; }

  [[nodiscard]] ImageView image(std::int64_t i) const {
    ImageView one = view;
    one.data = static_cast<std::byte*>(view.data) + i * view.image_stride;
    one.images = 1;
    one.image_stride = 0;
    return one;
  }
  ImageView upload() {
    on_device = to_device(memory);
    ImageView out = view;
    out.data = on_device.data() + begin();
    return out;
  }
};

template <typename T>
constexpr T top_of() {
  return std::is_integral_v<T> ? std::numeric_limits<T>::max() : T{1};
}

class Flag {
 public:
  Flag() : memory_(to_device(std::vector<std::uint8_t>{0})) {}
  [[nodiscard]] std::uint8_t* data() const { return memory_.data(); }
  [[nodiscard]] int value() const { return to_host(memory_)[0]; }

 private:
  DeviceArray<std::uint8_t> memory_;
};

constexpr Offset kOffsets[] = {{0, 0}, {2, 3}, {-1, -2}, {-1, 4}, {1000, 0}, {0, -1000}};

}  // namespace

// ---------------------------------------------------------------------------------------------------- in and out

TEST_CASE_TEMPLATE("load and store are the CPU's for every layout", T, std::uint8_t, std::uint16_t, float, double) {
  const auto cpu = core::make_backend(1);
  for (const Size size : {Size{1, 1}, Size{1, 7}, Size{7, 1}, Size{3, 5}, Size{31, 33}, Size{65, 40}}) {
    for (const std::string layout : kLayouts) {
      for (const std::int64_t channels : {1, 3, 4}) {
        CAPTURE(name_of(size));
        CAPTURE(layout);
        CAPTURE(channels);
        Batch<T> batch(layout, size, channels, kImages, 1);
        DevicePlanes loaded(kImages * channels, size);
        const Flag bad;
        launch_load(batch.upload(), {}, loaded.planes, bad.data(), kStream);
        HostPlanes expected(kImages * channels, size);
        for (std::int64_t i = 0; i < kImages; ++i) cpu->load(batch.image(i), "image", {}, expected.image(i));
        CHECK(loaded.values() == expected.memory);
        CHECK(bad.value() == 0);

        // Whatever lies between the view's elements stays.
        const HostPlanes image(noise(kImages * channels * size.pixels(), 2, -0.5F, 1.5F), kImages * channels, size);
        HostPlanes host = image;
        host.memory[0] = std::nanf("");
        const DevicePlanes device(host.memory, kImages * channels, size);
        launch_store(device.planes, batch.upload(), kStream);
        for (std::int64_t i = 0; i < kImages; ++i) cpu->store(host.image(i), batch.image(i));
        CHECK(to_host(batch.on_device) == batch.memory);
      }
    }
  }
}

TEST_CASE_TEMPLATE("load places at an offset, and one image may stand for all", T, std::uint8_t, std::uint16_t, float,
                   double) {
  const auto cpu = core::make_backend(1);
  for (const Size size : {Size{1, 1}, Size{3, 5}, Size{34, 37}}) {
    for (const Offset offset : kOffsets) {
      for (const bool repeated : {false, true}) {
        CAPTURE(offset.top);
        CAPTURE(offset.left);
        CAPTURE(repeated);
        Batch<T> batch("interleaved", {4, 35}, 3, kImages, 1);
        if (repeated) batch.repeat();
        DevicePlanes loaded(kImages * 3, size);
        const Flag bad;
        launch_load(batch.upload(), offset, loaded.planes, bad.data(), kStream);
        HostPlanes expected(kImages * 3, size);
        for (std::int64_t i = 0; i < kImages; ++i) cpu->load(batch.image(i), "image", offset, expected.image(i));
        CHECK(loaded.values() == expected.memory);
        CHECK(bad.value() == 0);

        DevicePlanes frame(kImages, size);
        launch_frame({4, 35}, offset, frame.planes, kStream);
        HostPlanes expected_frame(kImages, size);
        for (std::int64_t i = 0; i < kImages; ++i) cpu->frame({4, 35}, offset, expected_frame.image(i));
        CHECK(frame.values() == expected_frame.memory);
      }
    }
  }
}

TEST_CASE_TEMPLATE("load says that a float is wrong, wherever it lies, and takes the nearest that is right", T, float,
                   double) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  constexpr T kNone = std::numeric_limits<T>::quiet_NaN();
  for (const std::string layout : {"interleaved", "planar"}) {
    for (const T wrong : {kNone, kInfinity, -kInfinity, T{1.01}, T{-0.01}, T{1e30}}) {
      for (const Offset offset : {Offset{0, 0}, Offset{-1, 0}, Offset{0, 3}, Offset{100, 100}}) {
        for (const std::int64_t row : {0, 4}) {
          CAPTURE(wrong);
          CAPTURE(offset.top);
          CAPTURE(row);
          Batch<T> batch(layout, {5, 6}, 3, kImages, 1);
          batch.at(1, row, 5, 2) = wrong;
          DevicePlanes loaded(kImages * 3, {5, 6});
          const Flag bad;
          launch_load(batch.upload(), offset, loaded.planes, bad.data(), kStream);
          CHECK(bad.value() == 1);
          const Values values = loaded.values();
          CHECK(std::all_of(values.begin(), values.end(), [](float v) { return v >= 0 && v <= 1; }));
          if (offset.top == 0 && offset.left == 0) {
            const auto at = static_cast<std::size_t>(((1 * 3 + 2) * 5 + row) * 6 + 5);
            CHECK(values[at] == (wrong > 0 ? 1.0F : 0.0F));
          }
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("load_mask is the CPU's", T, std::uint8_t, std::uint16_t, float, double) {
  const auto cpu = core::make_backend(1);
  constexpr T kOther = std::is_integral_v<T> ? T{2} : static_cast<T>(0.25);
  const std::vector<std::vector<T>> palettes = {
      {T{0}}, {T{1}}, {T{0}, T{1}}, {T{0}, T{1}, kOther}, {T{0}, top_of<T>()}};
  for (const Size size : {Size{1, 1}, Size{3, 5}, Size{31, 65}}) {
    for (const std::string layout : {"interleaved", "mirrored", "cropped"}) {
      for (const std::vector<T>& palette : palettes) {
        for (const Offset offset : {Offset{0, 0}, Offset{-1, 1}}) {
          CAPTURE(name_of(size));
          CAPTURE(layout);
          CAPTURE(palette.size());
          Batch<T> batch(layout, size, 1, kImages, 1);
          std::size_t next = 0;
          for (T& value : batch.memory) value = palette[next++ % palette.size()];
          // The largest value lies in the last pixel, where the offset may cut it off.
          for (std::int64_t i = 0; i < kImages; ++i) batch.at(i, size.height - 1, size.width - 1, 0) = palette.back();
          DevicePlanes loaded(kImages, size);
          const DeviceArray<std::uint32_t> largest = to_device(std::vector<std::uint32_t>{77});
          const Flag bad;
          launch_load_mask(batch.upload(), offset, loaded.planes, largest.data(), bad.data(), kStream);
          HostPlanes expected(kImages, size);
          for (std::int64_t i = 0; i < kImages; ++i) cpu->load_mask(batch.image(i), "mask", offset, expected.image(i));
          CHECK(loaded.values() == expected.memory);
          CHECK(bad.value() == 0);
        }
      }
    }
  }
}

TEST_CASE("load_mask asks the whole batch what 1 means") {
  Batch<std::uint8_t> batch("interleaved", {2, 2}, 1, kImages, 1);
  batch.memory = {0, 1, 1, 0, 0, 1, 255, 0};
  DevicePlanes loaded(kImages, {2, 2});
  const DeviceArray<std::uint32_t> largest(1);
  const Flag bad;
  launch_load_mask(batch.upload(), {}, loaded.planes, largest.data(), bad.data(), kStream);
  constexpr float kOne = 1.0F / 255;
  CHECK(loaded.values() == Values{0, kOne, kOne, 0, 0, kOne, 1, 0});
}

TEST_CASE_TEMPLATE("every integer is divided right, and comes back", T, std::uint8_t, std::uint16_t) {
  constexpr Size kSize{256, std::is_same_v<T, std::uint8_t> ? 1 : 256};
  Batch<T> batch("interleaved", kSize, 1, 1, 1);
  for (std::size_t i = 0; i < batch.memory.size(); ++i) batch.memory[i] = static_cast<T>(i);
  DevicePlanes planes(1, kSize);
  const Flag bad;
  launch_load(batch.upload(), {}, planes.planes, bad.data(), kStream);
  const Values loaded = planes.values();
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < loaded.size(); ++i) {
    if (loaded[i] != static_cast<float>(i) / static_cast<float>(top_of<T>())) ++wrong;
  }
  CHECK(wrong == 0);
  Batch<T> back("interleaved", kSize, 1, 1, 2);
  launch_store(planes.planes, back.upload(), kStream);
  CHECK(to_host(back.on_device) == batch.memory);
}

namespace {

template <typename From, typename To>
void check_copy(const std::string& from_layout, const std::string& to_layout, std::int64_t channels) {
  const auto cpu = core::make_backend(1);
  for (const Size size : {Size{1, 1}, Size{7, 1}, Size{33, 35}}) {
    Batch<From> from(from_layout, size, channels, kImages, 1);
    Batch<To> to(to_layout, size, channels, kImages, 2);
    launch_copy_pixels(from.upload(), to.upload(), kStream);
    for (std::int64_t i = 0; i < kImages; ++i) cpu->copy_pixels(from.image(i), to.image(i));
    const std::vector<To> got = to_host(to.on_device);
    CAPTURE(name_of(size));
    CAPTURE(from_layout);
    CAPTURE(to_layout);
    CAPTURE(channels);
    if constexpr (std::is_same_v<From, To>) {
      CHECK(std::memcmp(got.data(), to.memory.data(), got.size() * sizeof(To)) == 0);
    } else {
      for (std::size_t i = 0; i < got.size(); ++i) {
        // The CPU multiplies by the reciprocal.
        const double tolerance = std::is_floating_point_v<To> ? 1.2e-7 : 0;
        if (std::abs(static_cast<double>(got[i]) - static_cast<double>(to.memory[i])) <= tolerance) continue;
        FAIL("element " << i << ": " << +got[i] << " and not " << +to.memory[i]);
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("copy_pixels copies all images of any layouts", T, std::uint8_t, std::uint16_t, float, double) {
  for (const std::string from : kLayouts) {
    for (const std::string to : {"interleaved", "planar", "cropped", "upside down"}) {
      check_copy<T, T>(from, to, 3);
      check_copy<T, T>(from, to, 4);
    }
    check_copy<T, std::uint8_t>(from, "planar", 1);
    check_copy<T, std::uint16_t>(from, "interleaved", 3);
    check_copy<T, float>(from, "mirrored", 3);
    check_copy<T, double>(from, "interleaved", 4);
  }
}

// --------------------------------------------------------------------------------------------------- elementwise

TEST_CASE("any tells planes apart") {
  for (const Size size : kSizes) {
    constexpr std::int64_t kPlanes = 5;
    const std::int64_t pixels = size.pixels();
    Values values(static_cast<std::size_t>(kPlanes * pixels));
    values[static_cast<std::size_t>(2 * pixels - 1)] = 1e-30F;
    values[static_cast<std::size_t>(2 * pixels)] = -1;
    values[static_cast<std::size_t>(3 * pixels)] = 0.5F;
    values[static_cast<std::size_t>(4 * pixels)] = std::nanf("");
    const DevicePlanes mask(values, kPlanes, size);
    const DeviceArray<std::uint8_t> touched = to_device(std::vector<std::uint8_t>(kPlanes, 9));
    launch_any(mask.planes, touched.data(), kStream);
    CHECK(to_host(touched) == std::vector<std::uint8_t>{0, 1, 0, 1, 0});
  }
}

TEST_CASE("multiply, subtract and clamp are the CPU's") {
  const auto cpu = core::make_backend(1);
  for (const Size size : kSizes) {
    CAPTURE(name_of(size));
    const std::int64_t count = 3 * size.pixels();
    const Values a = noise(count, 1, -2, 2);
    const Values b = noise(count, 2, -2, 2);
    HostPlanes other(b, 3, size);
    const DevicePlanes device_other(b, 3, size);

    HostPlanes product(a, 3, size);
    DevicePlanes device_product(a, 3, size);
    cpu->multiply(product.planes(), other.planes());
    launch_multiply(device_product.planes, device_other.planes, kStream);
    CHECK(device_product.values() == product.memory);

    HostPlanes difference(a, 3, size);
    DevicePlanes device_difference(a, 3, size);
    cpu->subtract(difference.planes(), other.planes());
    launch_subtract(device_difference.planes, device_other.planes, kStream);
    CHECK(device_difference.values() == difference.memory);

    cpu->clamp(difference.planes());
    launch_clamp(device_difference.planes, kStream);
    CHECK(device_difference.values() == difference.memory);
  }
}

TEST_CASE("composite and guidance_divergence are the CPU's, with a mask for each image or for all") {
  const auto cpu = core::make_backend(1);
  for (const Size size : kSizes) {
    for (const std::int64_t channels : {1, 3}) {
      for (const bool shared : {false, true}) {
        CAPTURE(name_of(size));
        CAPTURE(channels);
        CAPTURE(shared);
        const std::int64_t planes = kImages * channels;
        HostPlanes source(noise(planes * size.pixels(), 1, -1, 1), planes, size);
        HostPlanes target(noise(planes * size.pixels(), 2), planes, size);
        HostPlanes mask(noise(kImages * size.pixels(), 3), kImages, size);
        HostPlanes composite(planes, size);
        HostPlanes divergence(planes, size);
        for (std::int64_t i = 0; i < kImages; ++i) {
          const Planes weights = mask.image(shared ? 0 : i);
          cpu->composite(source.image(i), target.image(i), weights, composite.image(i));
          cpu->guidance_divergence(source.image(i), target.image(i), weights, divergence.image(i));
        }
        const DevicePlanes device_source(source.memory, planes, size);
        const DevicePlanes device_target(target.memory, planes, size);
        const DevicePlanes all_masks(mask.memory, kImages, size);
        const Planes device_mask = shared ? all_masks.planes.channel(0) : all_masks.planes;
        DevicePlanes out(planes, size);
        launch_composite(device_source.planes, device_target.planes, device_mask, out.planes, kStream);
        CHECK(largest_difference(out.values(), composite.memory) < kRounding);
        launch_guidance_divergence(device_source.planes, device_target.planes, device_mask, out.planes, kStream);
        CHECK(largest_difference(out.values(), divergence.memory) < 4 * kRounding);  // sums of up to 8
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------------ resample

namespace {

using Launch = void (*)(const Planes&, const Planes&, cudaStream_t);
using Operation = void (Backend::*)(const Planes&, const Planes&);

void check_resample(Launch launch, Operation operation, Size from, Size to, std::int64_t planes = 3,
                    float tolerance = kRounding) {
  const auto cpu = core::make_backend(1);
  CAPTURE(name_of(from));
  CAPTURE(name_of(to));
  HostPlanes image(noise(planes * from.pixels(), 1), planes, from);
  HostPlanes expected(planes, to);
  for (std::int64_t c = 0; c < planes; ++c) {
    (cpu.get()->*operation)(image.planes().channel(c), expected.planes().channel(c));
  }
  const DevicePlanes device(image.memory, planes, from);
  DevicePlanes out(planes, to);
  launch(device.planes, out.planes, kStream);
  CHECK(largest_difference(out.values(), expected.memory) <= tolerance);
}

Size halved(Size size) { return {(size.height + 1) / 2, (size.width + 1) / 2}; }

}  // namespace

TEST_CASE("downsample and upsample are the CPU's") {
  for (const Size size : kSizes) {
    check_resample(launch_downsample, &Backend::downsample, size, halved(size));
    check_resample(launch_upsample, &Backend::upsample, halved(size), size);
    check_resample(launch_upsample, &Backend::upsample, size, {2 * size.height, 2 * size.width}, 1);
  }
}

TEST_CASE("resize and the resamplings between any sizes are the CPU's") {
  for (const Size from : kSizes) {
    for (const Size to : {Size{1, 1}, Size{3, 2}, Size{1, 40}, Size{40, 1}, Size{33, 64}, Size{64, 31}}) {
      check_resample(launch_resize, &Backend::resize, from, to, 2);
      check_resample(launch_resample_bicubic, &Backend::resample_bicubic, from, to, 1);
      check_resample(launch_resample_nearest, &Backend::resample_nearest, from, to, 2, 0);
      check_resample(launch_area_average, &Backend::area_average, from, to, 2);
    }
    check_resample(launch_resize, &Backend::resize, from, from, 1, 0);
  }
}

TEST_CASE("area_average is the CPU's where output pixels cover many") {
  check_resample(launch_area_average, &Backend::area_average, {300, 260}, {32, 32});
  check_resample(launch_area_average, &Backend::area_average, {300, 260}, {5, 7});
  check_resample(launch_area_average, &Backend::area_average, {7, 2000}, {7, 3});
  check_resample(launch_area_average, &Backend::area_average, {2000, 3}, {3, 3});
  check_resample(launch_area_average, &Backend::area_average, {397, 401}, {64, 64}, 1);
}

// ------------------------------------------------------------------------------------------------- gaussian_blur

TEST_CASE("gaussian_blur is the CPU's, fused and in two passes, for a radius beyond the image too") {
  const auto cpu = core::make_backend(1);
  const auto check_blur = [&](Size size, double sigma) {
    CAPTURE(name_of(size));
    CAPTURE(sigma);
    constexpr std::int64_t kPlanes = 2;
    HostPlanes image(noise(kPlanes * size.pixels(), 1), kPlanes, size);
    HostPlanes expected(kPlanes, size);
    cpu->gaussian_blur(image.planes(), sigma, expected.planes());
    const DevicePlanes device(image.memory, kPlanes, size);
    DevicePlanes out(kPlanes, size);
    const DevicePlanes scratch(kPlanes, size);
    launch_gaussian_blur(device.planes, sigma, out.planes, scratch.planes.data, kStream);
    CHECK(largest_difference(out.values(), expected.memory) < kRounding);
  };
  for (const Size size : kSizes) {
    for (const double sigma : {0.1, 0.5, 1.0}) check_blur(size, sigma);
  }
  for (const Size size : kSmallSizes) {
    for (const double sigma : {0.6, 1.2, 1.5, 2.0, 2.3, 2.6, 2.7, 10.0}) check_blur(size, sigma);
  }
  check_blur({5, 33}, 100.0);  // more taps than the block has threads
}

// ---------------------------------------------------------------------------------------------- inset and extend

namespace {

Values plane_of(Size size, const std::function<float(std::int64_t, std::int64_t)>& value) {
  Values out;
  for (std::int64_t y = 0; y < size.height; ++y) {
    for (std::int64_t x = 0; x < size.width; ++x) out.push_back(value(y, x));
  }
  return out;
}

const char* const kMasks[] = {"none", "all", "disc", "soft noise", "dots", "bars", "comb", "snake"};

Values mask_of(const std::string& name, Size size) {
  const auto [h, w] = size;
  if (name == "none") return Values(static_cast<std::size_t>(size.pixels()));
  if (name == "all") return Values(static_cast<std::size_t>(size.pixels()), 1.0F);
  if (name == "disc") {
    return plane_of(size, [h = h, w = w](auto y, auto x) {
      const double dy = (static_cast<double>(y) + 0.5) / static_cast<double>(h) - 0.45;
      const double dx = (static_cast<double>(x) + 0.5) / static_cast<double>(w) - 0.55;
      return static_cast<float>(std::clamp((0.42 - std::hypot(dy, dx)) * 8, 0.0, 1.0));
    });
  }
  if (name == "soft noise") {
    Values values = noise(size.pixels(), 5, -0.7F, 1);
    for (float& value : values) value = std::max(value, 0.0F);
    return values;
  }
  // What vanishes beside what does not.
  if (name == "dots")
    return plane_of(size, [](auto y, auto x) { return x % 24 < 1 + y / 16 && y % 16 < 9 ? 0.5F : 0.0F; });
  if (name == "bars") return plane_of(size, [](auto, auto x) { return x % 13 < 1 + x / 13 ? 1.0F : 0.0F; });
  if (name == "comb") return plane_of(size, [](auto y, auto x) { return y % 40 < 9 || x % 2 == 0 ? 1.0F : 0.0F; });
  REQUIRE(name == "snake");  // one long component that comes to every tile
  return plane_of(size, [w = w](auto y, auto x) { return y % 2 == 0 || x == (y % 4 == 1 ? w - 1 : 0) ? 0.25F : 0.0F; });
}

}  // namespace

TEST_CASE("inset is the CPU's") {
  const auto cpu = core::make_backend(1);
  for (const Size size : kSizes) {
    for (const int pixels : {0, 1, 2, 3, 7, 13, 1000}) {
      if (pixels == 1000 && size.pixels() > 40 * 40) continue;
      HostPlanes masks(std::size(kMasks), size);
      for (std::size_t i = 0; i < std::size(kMasks); ++i) {
        const Values mask = mask_of(kMasks[i], size);
        std::copy(mask.begin(), mask.end(), masks.planes().channel(static_cast<std::int64_t>(i)).data);
      }
      DevicePlanes device(masks.memory, masks.channels, size);
      const DeviceArray<std::uint8_t> scratch(inset_scratch_bytes(masks.channels, size));
      launch_inset(device.planes, pixels, scratch.data(), kStream);
      const Values got = device.values();
      for (std::int64_t i = 0; i < masks.channels; ++i) {
        CAPTURE(name_of(size));
        CAPTURE(pixels);
        const std::string mask = kMasks[i];
        CAPTURE(mask);
        const Planes expected = masks.planes().channel(i);
        cpu->inset(expected, pixels);
        const auto begin = got.begin() + i * size.pixels();
        CHECK(Values(begin, begin + size.pixels()) == Values(expected.data, expected.data + size.pixels()));
      }
    }
  }
}

TEST_CASE("extend is the CPU's, whatever lies under alpha 0") {
  const auto cpu = core::make_backend(1);
  const std::vector<std::pair<const char*, const char*>> pairs = {
      {"none", "all"}, {"all", "none"}, {"disc", "dots"}, {"soft noise", "bars"}, {"snake", "comb"}};
  for (const Size size : kSizes) {
    for (const std::int64_t channels : {1, 3}) {
      for (const auto& [first, second] : pairs) {
        CAPTURE(name_of(size));
        CAPTURE(channels);
        const std::string names = std::string(first) + ", " + second;
        CAPTURE(names);
        const std::int64_t planes = kImages * channels;
        Values weights = mask_of(first, size);
        const Values others = mask_of(second, size);
        weights.insert(weights.end(), others.begin(), others.end());
        HostPlanes alpha(weights, kImages, size);
        HostPlanes source(noise(planes * size.pixels(), 1), planes, size);
        for (std::int64_t p = 0; p < planes; ++p) {
          const float* known = alpha.image(p / channels).data;
          float* plane = source.planes().channel(p).data;
          for (std::int64_t i = 0; i < size.pixels(); ++i) {
            if (known[i] > 0) continue;
            plane[i] = i % 2 == 0 ? std::nanf("") : std::numeric_limits<float>::infinity();
          }
        }
        const DevicePlanes device_alpha(alpha.memory, kImages, size);
        DevicePlanes device_source(source.memory, planes, size);
        const DeviceArray<std::uint8_t> scratch(extend_scratch_bytes(planes, kImages, size));
        launch_extend(device_source.planes, device_alpha.planes, scratch.data(), kStream);
        for (std::int64_t i = 0; i < kImages; ++i) cpu->extend(source.image(i), alpha.image(i));
        CHECK(largest_difference(device_source.values(), source.memory) < kRounding);
      }
    }
  }
}
