// Whole blends on the device beside the CPU's, and what a caller of gpgan/cuda.hpp is promised.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <cufft.h>
#include "../cpp/support.hpp"
#include "cuda/runtime.hpp"
#include "emulation.hpp"

#include "gpgan/cuda.hpp"

using namespace gpgan;
using gpgan::testing::message_of;
using gpgan::testing::noise;
using gpgan::testing::Scene;
using gpgan::testing::starts_with;

namespace {

template <typename T>
cuda::DeviceArray<T> upload(const std::vector<T>& values) {
  cuda::DeviceArray<T> out(static_cast<std::int64_t>(values.size()));
  cuda::check(cudaMemcpy(out.data(), values.data(), out.bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  return out;
}

template <typename T>
std::vector<T> download(const cuda::DeviceArray<T>& values) {
  std::vector<T> out(static_cast<std::size_t>(values.size()));
  cuda::check(cudaMemcpy(out.data(), values.data(), values.bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return out;
}

// Images side by side, as tensors (N, C, H, W) or rows of pixels hold them.
template <typename View>
View batch(View view, std::int64_t images, std::ptrdiff_t image_bytes) {
  view.images = images;
  view.image_stride = image_bytes;
  return view;
}

// Scenes on the device, their images one after another.
struct DeviceScenes {
  std::int64_t images, height, width;
  int channels, source_channels;
  cuda::DeviceArray<float> source, target, mask, out;

  explicit DeviceScenes(const std::vector<Scene>& scenes, int source_channels_ = 0)
      : images(static_cast<std::int64_t>(scenes.size())),
        height(scenes[0].height),
        width(scenes[0].width),
        channels(scenes[0].channels),
        source_channels(source_channels_ == 0 ? channels : source_channels_) {
    std::vector<float> all[3];
    for (const Scene& scene : scenes) {
      all[0].insert(all[0].end(), scene.source.begin(), scene.source.end());
      all[1].insert(all[1].end(), scene.target.begin(), scene.target.end());
      all[2].insert(all[2].end(), scene.mask.begin(), scene.mask.end());
    }
    source = upload(all[0]);
    target = upload(all[1]);
    mask = upload(all[2]);
    out = cuda::DeviceArray<float>(target.size());
  }

  [[nodiscard]] std::ptrdiff_t bytes(int channels_) const {
    return static_cast<std::ptrdiff_t>(sizeof(float)) * height * width * channels_;
  }
  [[nodiscard]] ConstImageView source_view() const {
    return batch(ConstImageView(interleaved<const float>(source.data(), height, width, source_channels)), images,
                 bytes(source_channels));
  }
  [[nodiscard]] ConstImageView target_view() const {
    return batch(ConstImageView(interleaved<const float>(target.data(), height, width, channels)), images,
                 bytes(channels));
  }
  [[nodiscard]] ConstImageView mask_view() const {
    return batch(ConstImageView(interleaved<const float>(mask.data(), height, width, 1)), images, bytes(1));
  }
  [[nodiscard]] ImageView out_view() const {
    return batch(interleaved(out.data(), height, width, channels), images, bytes(channels));
  }
};

// The colour that a generator would give: S x S x C for each image, planar.
struct Color {
  cuda::DeviceArray<float> memory;
  ConstImageView view;

  Color(const std::vector<float>& values, std::int64_t images, std::int64_t side, std::int64_t channels)
      : memory(upload(values)),
        view(batch(ConstImageView(planar<const float>(memory.data(), side, side, channels)), images,
                   static_cast<std::ptrdiff_t>(sizeof(float)) * side * side * channels)) {}
};

std::vector<float> blend(const std::vector<Scene>& scenes, Options options, const std::vector<float>& lowres,
                         Offset offset = {}, int source_channels = 0) {
  options.batch = static_cast<int>(scenes.size());
  const DeviceScenes on_device(scenes, source_channels);
  Blender blender = cuda::make_blender(options, on_device.height, on_device.width, on_device.channels);
  blender.prepare(on_device.source_view(), on_device.target_view(), on_device.mask_view(), offset);
  if (lowres.empty()) {
    blender.finish({}, on_device.out_view());
  } else {
    const Color color(lowres, on_device.images, options.image_size, on_device.channels);
    blender.finish(color.view, on_device.out_view());
  }
  blender.synchronize();
  return download(on_device.out);
}

std::vector<float> blend_on_cpu(const Scene& scene, const Options& options, const std::vector<float>& lowres) {
  Blender blender(options, scene.height, scene.width, scene.channels);
  std::vector<float> out(scene.target.size());
  blender.blend(
      scene.source_view(), scene.target_view(), scene.mask_view(),
      lowres.empty() ? Generator{} : [&](const GeneratorInputs&) { return lowres; },
      interleaved(out.data(), scene.height, scene.width, scene.channels));
  return out;
}

// A NaN counts as different.
float difference_of(const std::vector<float>& a, const std::vector<float>& b) {
  float most = a.size() == b.size() ? 0 : std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= most)) most = std::abs(a[i] - b[i]);
  }
  return most;
}

constexpr int kSide = 8;  // S: small, so that small images have several levels

Options options_of(Mode mode) {
  Options options = Options::for_mode(mode);
  options.image_size = kSide;
  return options;
}

}  // namespace

TEST_CASE("every mode, size and number of channels gives what the CPU gives") {
  for (const auto& [height, width] : {std::pair{1, 1}, {1, 9}, {9, 1}, {5, 6}, {16, 16}, {33, 47}, {70, 35}}) {
    for (const int channels : {1, 3}) {
      for (const Mode mode : {Mode::kDefault, Mode::kPaper, Mode::kReleased}) {
        for (const bool membrane : {false, true}) {
          CAPTURE(height);
          CAPTURE(width);
          CAPTURE(channels);
          CAPTURE(static_cast<int>(mode));
          CAPTURE(membrane);
          const Scene scene(height, width, channels);
          Options options = options_of(mode);
          options.membrane = membrane;
          const std::vector<float> lowres = noise(channels * kSide * kSide, 5);
          for (const auto& color : {std::vector<float>{}, lowres}) {
            // The membrane is iterative on both sides, each within a level of 255 of the truth.
            const float tolerance = membrane ? 2.0F / 255 : 2e-5F;
            CHECK(difference_of(blend({scene}, options, color), blend_on_cpu(scene, options, color)) < tolerance);
          }
        }
      }
    }
  }
}

TEST_CASE("a batch is its images one by one") {
  const std::vector<Scene> scenes = {Scene(20, 27, 3, 1), Scene(20, 27, 3, 2), Scene(20, 27, 3, 3)};
  for (const Mode mode : {Mode::kDefault, Mode::kPaper, Mode::kReleased}) {
    const Options options = options_of(mode);
    const std::vector<float> lowres = noise(3 * 3 * kSide * kSide, 5);
    const std::vector<float> together = blend(scenes, options, lowres);
    for (std::size_t i = 0; i < scenes.size(); ++i) {
      const auto part = [&](const std::vector<float>& all) {
        const auto count = static_cast<std::ptrdiff_t>(all.size() / scenes.size());
        const auto begin = all.begin() + static_cast<std::ptrdiff_t>(i) * count;
        return std::vector<float>(begin, begin + count);
      };
      // Not to the bit: a transform may take two rows at once, and which two depends on how many there are.
      CHECK(difference_of(part(together), blend({scenes[i]}, options, part(lowres))) < 1e-5F);
    }
  }
}

TEST_CASE("one source may stand for all of a batch") {
  const std::vector<Scene> scenes = {Scene(12, 13, 3, 1), Scene(12, 13, 3, 1)};
  const DeviceScenes on_device(scenes);
  Options options = options_of(Mode::kDefault);
  options.batch = 2;
  Blender blender = cuda::make_blender(options, 12, 13, 3);
  ConstImageView source = on_device.source_view();
  source.image_stride = 0;
  blender.prepare(source, on_device.target_view(), on_device.mask_view());
  blender.finish({}, on_device.out_view());
  CHECK(difference_of(download(on_device.out), blend(scenes, options, {})) == 0);
}

TEST_CASE("a source with alpha, a small one and one that hangs over the border give what the CPU gives") {
  Scene scene(24, 31, 3);
  scene.source = noise(24 * 31 * 4, 9);
  for (std::size_t i = 3; i < scene.source.size(); i += 4) scene.source[i] = i % 28 < 12 ? 0 : scene.source[i];
  const Options options = options_of(Mode::kPaper);
  for (const Offset offset : {Offset{0, 0}, Offset{5, -7}, Offset{-30, 2}}) {
    Blender blender(options, 24, 31, 3);
    std::vector<float> expected(scene.target.size());
    blender.blend(interleaved<const float>(scene.source.data(), 24, 31, 4), scene.target_view(), scene.mask_view(), {},
                  interleaved(expected.data(), 24, 31, 3), offset);
    CHECK(difference_of(blend({scene}, options, {}, offset, 4), expected) < 2e-5F);
  }
}

TEST_CASE("calls put work on the stream and do nothing else") {
  const DeviceScenes scene({Scene(40, 50, 3)});
  for (const Mode mode : {Mode::kDefault, Mode::kPaper, Mode::kReleased}) {
    Options options = options_of(mode);
    cudaStream_t stream = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    Blender blender = cuda::make_blender(options, 40, 50, 3, {-1, stream});
    const Color color(noise(3 * kSide * kSide, 5), 1, kSide, 3);
    gpgan_cuda_cpu::reset_counts();
    for (int i = 0; i < 2; ++i) {
      blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view(), {3, -4});
      blender.finish(color.view, scene.out_view());
    }
    const gpgan_cuda_cpu::Counts counts = gpgan_cuda_cpu::counts();
    CHECK(counts.allocations == 0);
    CHECK(counts.synchronisations == 0);
    CHECK(counts.streams == std::set<cudaStream_t>{stream});
    blender.synchronize();
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  }
}

TEST_CASE("a level costs two transforms and three kernels") {
  const DeviceScenes scene({Scene(64, 64, 3)});
  for (const Mode mode : {Mode::kDefault, Mode::kPaper}) {
    const Options options = options_of(mode);  // 64, 32, 16 and 8
    Blender blender = cuda::make_blender(options, 64, 64, 3);
    blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
    gpgan_cuda_cpu::reset_counts();
    blender.finish({}, scene.out_view());
    const gpgan_cuda_cpu::Counts counts = gpgan_cuda_cpu::counts();
    for (const char* kernel : {"right_side_kernel", "divide_kernel", "result_kernel"}) {
      CAPTURE(kernel);
      CHECK((counts.launches.count(kernel) != 0 ? counts.launches.at(kernel) : 0) == 4);
    }
    CHECK(counts.calls.at("cufftExecR2C") == 4);
    CHECK(counts.calls.at("cufftExecC2R") == 4);
    CHECK(counts.launches.count("upsample_kernel") == 0);
    CHECK(counts.launches.count("store_kernel") == 0);
  }
}

TEST_CASE("work follows the caller from stream to stream") {
  const DeviceScenes scene({Scene(16, 17, 3)});
  cudaStream_t streams[2];
  for (cudaStream_t& stream : streams) REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
  {
    Blender blender = cuda::make_blender(options_of(Mode::kDefault), 16, 17, 3, {-1, streams[0]});
    blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
    CHECK(cudaStreamDestroy(streams[0]) == cudaSuccess);  // what it has still to do comes to its end
    gpgan_cuda_cpu::reset_counts();
    blender.use_stream(streams[1]);
    CHECK(gpgan_cuda_cpu::counts().calls["cudaStreamWaitEvent"] == 1);
    blender.use_stream(streams[1]);  // no news
    CHECK(gpgan_cuda_cpu::counts().calls["cudaStreamWaitEvent"] == 1);
    gpgan_cuda_cpu::reset_counts();
    blender.finish({}, scene.out_view());
    CHECK(gpgan_cuda_cpu::counts().streams == std::set<cudaStream_t>{streams[1]});
  }
  CHECK(cudaStreamDestroy(streams[1]) == cudaSuccess);
}

TEST_CASE_TEMPLATE("without masked pixels the target comes back bit for bit", T, std::uint8_t, std::uint16_t, float,
                   double) {
  std::vector<T> target;
  for (const float value : noise(2 * 9 * 11 * 3, 3)) {
    target.push_back(std::is_integral_v<T> ? static_cast<T>(value * static_cast<float>(std::numeric_limits<T>::max()))
                                           : static_cast<T>(static_cast<double>(value) / 3));
  }
  const auto on_device = upload(target);
  const cuda::DeviceArray<T> out(on_device.size());
  const auto source = upload(noise(9 * 11 * 3, 4));
  std::vector<std::uint8_t> mask(2 * 9 * 11, 0);
  mask.back() = 1;  // of the second image
  const auto mask_on_device = upload(mask);
  Options options = options_of(Mode::kDefault);
  options.batch = 2;
  options.inset = 0;
  Blender blender = cuda::make_blender(options, 9, 11, 3);
  const auto bytes = static_cast<std::ptrdiff_t>(9 * 11 * 3 * sizeof(T));
  blender.prepare(batch(ConstImageView(interleaved<const float>(source.data(), 9, 11, 3)), 2, 0),
                  batch(ConstImageView(interleaved<const T>(on_device.data(), 9, 11, 3)), 2, bytes),
                  batch(ConstImageView(interleaved<const std::uint8_t>(mask_on_device.data(), 9, 11, 1)), 2, 9 * 11));
  const Color color(noise(2 * 3 * kSide * kSide, 5), 2, kSide, 3);
  blender.finish(color.view, batch(interleaved(out.data(), 9, 11, 3), 2, bytes));
  const std::vector<T> got = download(out);
  CHECK(std::memcmp(got.data(), target.data(), static_cast<std::size_t>(bytes)) == 0);
  CHECK(std::memcmp(got.data() + got.size() / 2, target.data() + got.size() / 2, static_cast<std::size_t>(bytes)) != 0);
}

TEST_CASE("values out of range are told by the next call, and give finite results until then") {
  Scene scene(12, 13, 3);
  scene.source[7] = std::numeric_limits<float>::quiet_NaN();
  scene.mask[3] = 2;
  const DeviceScenes bad({scene});
  const DeviceScenes good({Scene(12, 13, 3)});
  Blender blender = cuda::make_blender(options_of(Mode::kDefault), 12, 13, 3);
  blender.prepare(bad.source_view(), bad.target_view(), bad.mask_view());
  const auto synchronize = [&] { blender.synchronize(); };
  CHECK(starts_with(message_of<InvalidArgument>(synchronize), "source: expected finite floats in [0, 1], got "));
  blender.finish({}, bad.out_view());
  synchronize();  // once is enough
  for (const float value : download(bad.out)) REQUIRE((value >= 0 && value <= 1));
  blender.prepare(good.source_view(), good.target_view(), good.mask_view());
  std::vector<float> lowres = noise(3 * kSide * kSide, 5);
  lowres[3] = 1.5F;
  const Color color(lowres, 1, kSide, 3);
  blender.finish(color.view, good.out_view());
  const auto prepare = [&] { blender.prepare(good.source_view(), good.target_view(), good.mask_view()); };
  CHECK(starts_with(message_of<InvalidArgument>(prepare), "lowres: expected finite floats in [0, 1], got "));
  prepare();
  blender.finish({}, good.out_view());
  synchronize();
  CHECK(difference_of(download(good.out), blend({Scene(12, 13, 3)}, options_of(Mode::kDefault), {})) == 0);
}

TEST_CASE("the caller's device comes back, and work goes to the Blender's") {
  gpgan_cuda_cpu::set_device_count(3);
  REQUIRE(cudaSetDevice(2) == cudaSuccess);
  const auto current = [] {
    int device = -1;
    REQUIRE(cudaGetDevice(&device) == cudaSuccess);
    return device;
  };
  {
    Blender blender = cuda::make_blender(options_of(Mode::kDefault), 12, 13, 3, {1, nullptr});
    CHECK(current() == 2);
    const DeviceScenes scene({Scene(12, 13, 3)});
    blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
    CHECK(current() == 2);
    CHECK_THROWS_AS(blender.prepare({}, scene.target_view(), scene.mask_view()), InvalidArgument);
    CHECK(current() == 2);
    blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
    blender.finish({}, scene.out_view());
    blender.synchronize();
    CHECK(current() == 2);
  }
  CHECK(starts_with(message_of<DeviceError>([] {
                      const Blender blender = cuda::make_blender({}, 12, 13, 3, {3, nullptr});
                    }),
                    "cudaSetDevice: "));
  CHECK(current() == 2);
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  gpgan_cuda_cpu::set_device_count(1);
}

TEST_CASE("every call's failure is a typed error that leaves nothing behind") {
  const DeviceScenes scene({Scene(12, 13, 3)});
  const std::size_t before = gpgan_cuda_cpu::allocated_bytes();
  const auto blend_once = [&] {
    Blender blender = cuda::make_blender(options_of(Mode::kDefault), 12, 13, 3);
    blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
    blender.finish({}, scene.out_view());
    blender.synchronize();
  };
  for (const char* call :
       {"cudaMalloc", "cudaHostAlloc", "cudaHostGetDevicePointer", "cudaEventCreateWithFlags", "cudaMemcpyAsync",
        "cudaMemsetAsync", "cudaLaunchKernel", "cudaStreamSynchronize", "cudaEventSynchronize"}) {
    CAPTURE(call);
    gpgan_cuda_cpu::fail_next(call, cudaErrorMemoryAllocation);
    CHECK_FALSE(message_of<DeviceError>(blend_once).empty());
    CHECK(gpgan_cuda_cpu::allocated_bytes() == before);
  }
  for (const char* call : {"cufftCreate", "cufftSetAutoAllocation", "cufftMakePlanMany64", "cufftSetStream",
                           "cufftSetWorkArea", "cufftExecR2C", "cufftExecC2R"}) {
    CAPTURE(call);
    gpgan_cuda_cpu::fail_next(call, CUFFT_INTERNAL_ERROR);
    CHECK(message_of<DeviceError>(blend_once) == std::string(call) + ": CUFFT_INTERNAL_ERROR (5)");
    CHECK(gpgan_cuda_cpu::allocated_bytes() == before);
  }
  blend_once();
}

TEST_CASE("batches and streams are CUDA's alone") {
  Options options;
  options.batch = 2;
  CHECK(
      starts_with(message_of<InvalidArgument>([&] { const Blender blender(options, 4, 4, 3); }), "batch: expected 1"));
  Blender blender({}, 4, 4, 3);
  CHECK_THROWS_AS(blender.use_stream(nullptr), LogicError);
  blender.synchronize();  // the CPU is never behind
  const DeviceScenes scene({Scene(4, 4, 3)});
  Blender on_device = cuda::make_blender(options, 4, 4, 3);
  CHECK(message_of<InvalidArgument>([&] {
          on_device.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
        }) == "target: expected 2 images, got 1");
}
