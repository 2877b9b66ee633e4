// The CUDA backend: each operation in the file of its name.
#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "core/pyramid.hpp"
#include "cuda/backend.hpp"
#include "cuda/context.hpp"
#include "cuda/operations.hpp"
#include "gpgan/cuda.hpp"

namespace gpgan::cuda {
namespace {

using core::Buffer;

// Flags that kernels set and the host reads whenever it comes by: memory of the host that the device sees.
class Flags {
 public:
  static constexpr std::array<const char*, 4> kArguments = {"source", "target", "mask", "lowres"};

  Flags() {
    check(cudaHostAlloc(reinterpret_cast<void**>(&host_), kArguments.size(), cudaHostAllocMapped), "cudaHostAlloc");
    std::fill_n(host_, kArguments.size(), std::uint8_t{0});
    if (const cudaError_t status = cudaHostGetDevicePointer(reinterpret_cast<void**>(&device_), host_, 0);
        status != cudaSuccess) {
      cudaFreeHost(host_);
      check(status, "cudaHostGetDevicePointer");
    }
  }
  ~Flags() { cudaFreeHost(host_); }
  Flags(const Flags&) = delete;
  Flags& operator=(const Flags&) = delete;

  [[nodiscard]] std::uint8_t* of(const char* argument) const {
    const auto* const at = std::find(kArguments.begin(), kArguments.end(), std::string_view(argument));
    if (at == kArguments.end()) throw LogicError(std::string(argument) + ": nothing that is loaded has this name");
    return device_ + (at - kArguments.begin());
  }

  // The first argument whose flag is set, or null.
  [[nodiscard]] const char* first() const {
    for (std::size_t i = 0; i < kArguments.size(); ++i) {
      if (static_cast<volatile const std::uint8_t*>(host_)[i] != 0) return kArguments[i];
    }
    return nullptr;
  }
  void clear() { std::fill_n(host_, kArguments.size(), std::uint8_t{0}); }

 private:
  std::uint8_t* host_ = nullptr;
  std::uint8_t* device_ = nullptr;
};

class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  [[nodiscard]] cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaBackend final : public core::Backend {
 public:
  // To be made while `device` is the current one.
  CudaBackend(int device, cudaStream_t stream) : device_(device) { context_.stream = stream; }

  void begin() override {
    scope_.emplace(device_);
    try {
      check(scope_->status(), "cudaSetDevice");
      raise();
    } catch (...) {
      scope_.reset();
      throw;
    }
  }
  void end() noexcept override {
    // Now, as the caller may destroy the stream before another one is to wait for it.
    if (cudaEventRecord(done_.get(), context_.stream) != cudaSuccess) static_cast<void>(cudaGetLastError());
    scope_.reset();
  }
  void use_stream(void* stream) override {
    auto* const next = static_cast<cudaStream_t>(stream);
    if (next == context_.stream) return;
    check(cudaStreamWaitEvent(next, done_.get(), 0), "cudaStreamWaitEvent");
    context_.stream = next;
  }
  void synchronize() override {
    wait();
    raise();
  }

  Buffer allocate(std::int64_t channels, Size size) override {
    auto memory = std::make_shared<DeviceArray<float>>(channels * size.pixels());
    return {std::shared_ptr<float>(memory, memory->data()), channels, size};
  }
  std::unique_ptr<core::Solver> make_solver(Size size, std::int64_t channels, Equation equation, double color_weight,
                                            double sigma) override {
    return cuda::make_solver(size, channels, equation, color_weight, sigma, context_);
  }
  std::unique_ptr<core::Pyramid> make_pyramid(const Options& options, const std::vector<Size>& sizes,
                                              std::int64_t channels) override {
    // All that a blend will ask for, so that it finds it there.
    const std::int64_t planes = options.batch * channels;
    reserve(extend_scratch_bytes(planes, options.batch, sizes.back()));
    if (options.inset != 0) reserve(inset_scratch_bytes(options.batch, sizes.back()));
    if (options.membrane) reserve(membrane_scratch_bytes(planes, options.batch, sizes.back()));
    if (options.pyramid == Pyramid::kSquare) reserve_planes(planes, sizes.back());
    reserve(sizeof(std::uint32_t));
    reserve_flags(options.batch);
    return Backend::make_pyramid(options, sizes, channels);
  }

  void load(const ConstImageView& view, const char* argument, Offset offset, const Planes& out) override {
    launch_load(view, offset, out, flags_.of(argument), context_.stream);
  }
  void load_mask(const ConstImageView& view, const char* argument, Offset offset, const Planes& out) override {
    reserve(sizeof(std::uint32_t));
    launch_load_mask(view, offset, out, context_.workspace.as<std::uint32_t>(), flags_.of(argument), context_.stream);
  }
  void frame(Size source, Offset offset, const Planes& out) override {
    launch_frame(source, offset, out, context_.stream);
  }
  void store(const Planes& image, const ImageView& view) override { launch_store(image, view, context_.stream); }
  void copy_pixels(const ConstImageView& from, const ImageView& to) override {
    launch_copy_pixels(from, to, context_.stream);
  }

  bool any(const Planes& mask) override {
    reserve_flags(mask.channels);
    launch_any(mask, context_.touched.data(), context_.stream);
    return true;
  }
  void multiply(const Planes& mask, const Planes& by) override { launch_multiply(mask, by, context_.stream); }
  void subtract(const Planes& image, const Planes& other) override { launch_subtract(image, other, context_.stream); }
  void copy(const Planes& image, const Planes& out) override {
    check(cudaMemcpyAsync(out.data, image.data, static_cast<std::size_t>(image.floats()) * sizeof(float),
                          cudaMemcpyDeviceToDevice, context_.stream),
          "cudaMemcpyAsync");
  }
  void clamp(const Planes& image) override { launch_clamp(image, context_.stream); }
  void composite(const Planes& difference, const Planes& target, const Planes& mask, const Planes& out) override {
    launch_composite(difference, target, mask, out, context_.stream);
  }

  void inset(const Planes& mask, int pixels) override {
    if (pixels == 0) return;
    reserve(inset_scratch_bytes(mask.channels, mask.size));
    launch_inset(mask, pixels, context_.workspace.data(), context_.stream);
  }
  void extend(const Planes& source, const Planes& alpha) override {
    reserve(extend_scratch_bytes(source.channels, alpha.channels, alpha.size));
    launch_extend(source, alpha, context_.workspace.data(), context_.stream);
  }
  void membrane(const Planes& difference, const Planes& mask) override {
    reserve(membrane_scratch_bytes(difference.channels, mask.channels, mask.size));
    launch_membrane(difference, mask, context_.workspace.data(), context_.stream);
  }
  void area_average(const Planes& image, const Planes& out) override {
    launch_area_average(image, out, context_.stream);
  }

  void downsample(const Planes& image, const Planes& out) override { launch_downsample(image, out, context_.stream); }
  void upsample(const Planes& image, const Planes& out) override { launch_upsample(image, out, context_.stream); }
  void resize(const Planes& image, const Planes& out) override { launch_resize(image, out, context_.stream); }
  void resample_bicubic(const Planes& image, const Planes& out) override {
    launch_resample_bicubic(image, out, context_.stream);
  }
  void resample_nearest(const Planes& mask, const Planes& out) override {
    launch_resample_nearest(mask, out, context_.stream);
  }
  void gaussian_blur(const Planes& image, double sigma, const Planes& out) override {
    reserve_planes(image.channels, image.size);
    launch_gaussian_blur(image, sigma, out, context_.workspace.as<float>(), context_.stream);
  }

  void upload(const float* from, const Planes& out) override {
    check(cudaMemcpyAsync(out.data, from, static_cast<std::size_t>(out.floats()) * sizeof(float),
                          cudaMemcpyHostToDevice, context_.stream),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(context_.stream), "cudaStreamSynchronize");
  }
  void download(const Planes& image, float* to) override {
    check(cudaMemcpyAsync(to, image.data, static_cast<std::size_t>(image.floats()) * sizeof(float),
                          cudaMemcpyDeviceToHost, context_.stream),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(context_.stream), "cudaStreamSynchronize");
  }
  void solve(const Planes& divergence, const Planes& color, Equation equation, double color_weight, double sigma,
             const Planes& out) override {
    cuda::solve(divergence, color, equation, color_weight, sigma, out, context_);
  }
  void guidance_divergence(const Planes& source, const Planes& target, const Planes& mask, const Planes& out) override {
    launch_guidance_divergence(source, target, mask, out, context_.stream);
  }
  void dct(const Planes& rows, bool inverse) override { cuda::dct(rows, inverse, context_); }

 private:
  // For the work of all calls before this one. Not for the stream, which its owner may have destroyed.
  void wait() const { check(cudaEventSynchronize(done_.get()), "cudaEventSynchronize"); }
  // What the device has found wrong. Once for a call: the rest of it may still be on its way, and is waited for.
  void raise() {
    const char* const argument = flags_.first();
    if (argument == nullptr) return;
    wait();
    flags_.clear();
    throw InvalidArgument(argument, "finite floats in [0, 1]", "others, which the device has now come to");
  }
  void reserve(std::int64_t bytes) { context_.workspace.reserve(bytes); }
  void reserve_planes(std::int64_t channels, Size size) {
    reserve(channels * size.pixels() * static_cast<std::int64_t>(sizeof(float)));
  }
  void reserve_flags(std::int64_t images) {
    if (context_.touched.size() < images) context_.touched = DeviceArray<std::uint8_t>(images);
  }

  int device_;
  std::optional<DeviceScope> scope_;  // between begin() and end()
  Context context_;
  Flags flags_;
  Event done_;
};

}  // namespace

std::unique_ptr<core::Backend> make_backend(const Device& device) {
  int index = device.index;
  if (index < 0) check(cudaGetDevice(&index), "cudaGetDevice");
  const DeviceScope scope(index);
  check(scope.status(), "cudaSetDevice");
  return std::make_unique<CudaBackend>(index, static_cast<cudaStream_t>(device.stream));
}

Blender make_blender(const Options& options, std::int64_t height, std::int64_t width, int channels,
                     const Device& device) {
  return {options, height, width, channels, make_backend(device)};
}

int device_count() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  return count;
}

std::string device_name(int index) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  return properties.name;
}

}  // namespace gpgan::cuda
