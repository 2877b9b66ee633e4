// GP-GAN image blending for C++ applications: no torch, no Python.
//
//   gpgan::Blender blender(gpgan::Options{}, height, width, 3);
//   blender.blend(source, target, mask, generator, out);     // generator: GeneratorInputs -> planar colour
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gpgan/error.hpp"
#include "gpgan/image.hpp"

namespace gpgan {

namespace core {
class Backend;
}

enum class Mode : std::uint8_t { kDefault, kPaper, kReleased };
enum class Equation : std::uint8_t { kGaussianPoisson, kScreened };
enum class Carry : std::uint8_t { kImage, kCorrection };
enum class Pyramid : std::uint8_t { kAspect, kSquare };

// The options of gpgan.blend, with the same names and meanings. Default-constructed: Mode::kDefault.
struct Options {
  double color_weight = 1.0;  // lambda of the equation, the paper's beta; > 0
  double sigma = 0.5;         // of the colour constraint's Gaussian, in pixels; > 0
  Equation equation = Equation::kGaussianPoisson;
  Carry carry = Carry::kCorrection;
  Pyramid pyramid = Pyramid::kAspect;
  bool membrane = true;
  std::optional<int> inset;  // pixels; nullopt: 2 where the source has no alpha, 0 where it has
  int image_size = 64;       // S, the side of what a generator takes and gives
  int threads = 0;           // 0: as many as the machine has, or GPGAN_NUM_THREADS
  int batch = 1;             // images that one call takes, in views of so many; more than 1 on CUDA only

  static Options for_mode(Mode mode);
};

// Where the source's and the mask's first pixel lies in the target; may be negative.
struct Offset {
  std::int64_t top = 0;
  std::int64_t left = 0;
};

// What a generator sees, S x S: planar float32 in [0, 1], valid until the next prepare().
struct GeneratorInputs {
  int image_size = 0;
  ConstImageView composite;   // plain copy-and-paste
  ConstImageView mask;        // one channel
  ConstImageView harmonized;  // the composite with the membrane; the plain one without it
  ConstImageView source;      // the whole source, extended where it is unknown
};

// Returns the colour, planar float32 (channels, S, S). For the CPU: on another device call prepare() and finish().
using Generator = std::function<std::vector<float>(const GeneratorInputs&)>;

// Blends images of one size. Plans and workspace are made in the constructor. One thread at a time may use
// one Blender; any number of Blenders may run at once.
class Blender {
 public:
  // On the CPU. Throws InvalidArgument for sizes below 1, channels outside 1..4, and options out of their range.
  Blender(const Options& options, std::int64_t height, std::int64_t width, int channels);
  // On another device: gpgan/cuda.hpp makes these.
  Blender(const Options& options, std::int64_t height, std::int64_t width, int channels,
          std::unique_ptr<core::Backend> backend);
  ~Blender();
  Blender(Blender&&) noexcept;
  Blender& operator=(Blender&&) noexcept;

  // Takes the three images in and gives what a generator needs. The source may be smaller or larger than the
  // target; a channel more than the target's is its alpha, which multiplies the mask and is the mask where
  // `mask` is empty. The mask has the source's size: floats in [0, 1], integers 0..max, or integers 0 and 1.
  // The source's and the target's memory is read again in finish(): until then it must stay valid, and as it is.
  GeneratorInputs prepare(const ConstImageView& source, const ConstImageView& target, const ConstImageView& mask = {},
                          Offset offset = {});

  // True if the last prepare() saw no masked pixel: finish() will copy the target. On CUDA, where nobody waits for the
  // answer, always false; finish() copies all the same.
  [[nodiscard]] bool unchanged() const;

  // Solves the pyramid on what prepare() took in. `lowres` is the generator's colour (S x S, any layout);
  // empty: the downsampled composite itself, the method without a generator. `out` may be the target's own
  // memory.
  void finish(const ConstImageView& lowres, const ImageView& out);

  // prepare, generator, finish. Without a generator as finish() without `lowres`.
  void blend(const ConstImageView& source, const ConstImageView& target, const ConstImageView& mask,
             const Generator& generator, const ImageView& out, Offset offset = {});

  // CUDA only: the cudaStream_t that later calls put their work on; they wait for the earlier ones' to end.
  void use_stream(void* stream);
  // CUDA only, as the CPU is never behind: waits until the device is done. Throws InvalidArgument if it found a value
  // that is not finite or not in [0, 1]; otherwise the next call throws it.
  void synchronize();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// How many threads `threads` stands for: itself, or for 0 what GPGAN_NUM_THREADS or else the machine says.
int resolve_threads(int threads);

// "1.2.3"
std::string version();

// The instruction set that the CPU kernels of a Blender made now run with: GPGAN_CPU_TARGET, or the best of
// cpu_targets(), those that this machine can run. "baseline" is what every machine of its kind has; "x86-64-v3" is
// AVX2 and FMA, "x86-64-v4" AVX-512.
std::string cpu_target();
std::vector<std::string> cpu_targets();

}  // namespace gpgan
