// The operations that the method is made of, and the seam between the method (blender.cpp, written once) and
// the devices. Memory is planar float32, values in [0, 1]; each operation has the name of its twin in
// gpgan.reference.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpgan/blend.hpp"
#include "gpgan/error.hpp"

namespace gpgan::core {

struct Size {
  std::int64_t height = 0;
  std::int64_t width = 0;
  [[nodiscard]] constexpr std::int64_t pixels() const { return height * width; }
  friend bool operator==(const Size&, const Size&) = default;
};

// Planes of a backend's memory, contiguous: channel c, row y at data + (c * height + y) * width. Not owning.
struct Planes {
  float* data = nullptr;
  std::int64_t channels = 0;
  Size size;

  [[nodiscard]] constexpr Planes channel(std::int64_t c) const { return {data + c * size.pixels(), 1, size}; }
  [[nodiscard]] constexpr float* row(std::int64_t y) const { return data + y * size.width; }  // of the first channel
  [[nodiscard]] constexpr std::int64_t floats() const { return channels * size.pixels(); }
};

// Owning planes; what frees the memory is the backend's business.
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::shared_ptr<float> memory, std::int64_t channels, Size size)
      : memory_(std::move(memory)), planes_{memory_.get(), channels, size} {}
  // NOLINTNEXTLINE(google-explicit-constructor): a buffer is used wherever its planes are.
  operator Planes() const { return planes_; }
  [[nodiscard]] const Planes& planes() const { return planes_; }

 private:
  std::shared_ptr<float> memory_;
  Planes planes_;
};

class Pyramid;  // core/pyramid.hpp

// What the equation of one level is made of; `difference` is source - target.
struct LevelImages {
  Planes difference, target, mask;
};

// Where the last level's image goes. An image without a masked pixel is to be the target's own pixels.
struct Destination {
  ConstImageView target;
  ImageView out;
};

// One level of the pyramid: plans and workspace for one size.
class Solver {
 public:
  Solver() = default;
  virtual ~Solver() = default;
  Solver(const Solver&) = delete;
  Solver& operator=(const Solver&) = delete;

  // The level's whole equation. What the level below handed on is either `below`, to be expanded to this level's size,
  // or, where that has no data, in `carried`: for Carry::kImage the colour constraint c, for Carry::kCorrection the
  // change e, c = G (composite + e). What this level hands on is left in `carried`; with a destination, the image, in
  // [0, 1], goes there instead, and `carried` is scratch.
  virtual void solve_level(const LevelImages& images, Carry carry, const Planes& below, const Planes& carried,
                           const Destination* destination) = 0;
};

class Backend {
 public:
  Backend() = default;
  virtual ~Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  // Around every entry of a caller into the library: Session below. begin() may throw what the device has found wrong
  // since.
  virtual void begin() {}
  virtual void end() noexcept {}
  virtual void use_stream(void* /*stream*/) { throw LogicError("use_stream: the CPU has no streams"); }
  virtual void synchronize() {}

  virtual Buffer allocate(std::int64_t channels, Size size) = 0;
  // For `channels` planes at once.
  virtual std::unique_ptr<Solver> make_solver(Size size, std::int64_t channels, Equation equation, double color_weight,
                                              double sigma) = 0;

  // The images of a blend; by default all of them in planes. The backend must outlive it.
  virtual std::unique_ptr<Pyramid> make_pyramid(const Options& options, const std::vector<Size>& sizes,
                                                std::int64_t channels);

  // --- in and out; planes are those of all images of a batch ---
  // View to planes, placed at `offset` with zeros around. Throws InvalidArgument naming `argument` if a value
  // is not finite or a float lies outside [0, 1].
  virtual void load(const ConstImageView& view, const char* argument, Offset offset, const Planes& out) = 0;
  // As load, for one channel of weights: an integer view that holds nothing but 0 and 1 means just that.
  virtual void load_mask(const ConstImageView& view, const char* argument, Offset offset, const Planes& out) = 0;
  // Ones where a source of this size at this offset is, zeros around.
  virtual void frame(Size source, Offset offset, const Planes& out) = 0;
  virtual void store(const Planes& image, const ImageView& view) = 0;  // clamps, rounds to nearest
  // Bit for bit where the dtypes are the same, else through [0, 1].
  virtual void copy_pixels(const ConstImageView& from, const ImageView& to) = 0;

  // --- elementwise ---
  // Some value > 0? A device that would have to wait for the answer says yes, and remembers it for each image until
  // the solver stores them.
  virtual bool any(const Planes& mask) = 0;
  virtual void multiply(const Planes& mask, const Planes& by) = 0;      // mask *= by
  virtual void subtract(const Planes& image, const Planes& other) = 0;  // image -= other
  virtual void copy(const Planes& image, const Planes& out) = 0;
  virtual void clamp(const Planes& image) = 0;  // to [0, 1], in place
  // target + mask * difference: Eq. 1 with difference = source - target.
  virtual void composite(const Planes& difference, const Planes& target, const Planes& mask, const Planes& out) = 0;

  // --- before the pyramid ---
  virtual void inset(const Planes& mask, int pixels) = 0;              // in place
  virtual void extend(const Planes& source, const Planes& alpha) = 0;  // in place
  // difference += membrane, in place: the result is (source + w) - target, zero where the mask is.
  virtual void membrane(const Planes& difference, const Planes& mask) = 0;
  virtual void area_average(const Planes& image, const Planes& out) = 0;

  // --- the pyramid; sizes are those of the planes ---
  virtual void downsample(const Planes& image, const Planes& out) = 0;
  virtual void upsample(const Planes& image, const Planes& out) = 0;
  virtual void resize(const Planes& image, const Planes& out) = 0;
  virtual void resample_bicubic(const Planes& image, const Planes& out) = 0;
  virtual void resample_nearest(const Planes& mask, const Planes& out) = 0;
  virtual void gaussian_blur(const Planes& image, double sigma, const Planes& out) = 0;  // out is not image

  // --- for callers of single operations; these may make their plans anew, and wait ---
  virtual void upload(const float* from, const Planes& out) = 0;  // the host's memory, in the order of the planes
  virtual void download(const Planes& image, float* to) = 0;
  // The equation for any right-hand side: u and c give x, not clamped.
  virtual void solve(const Planes& divergence, const Planes& color, Equation equation, double color_weight,
                     double sigma, const Planes& out) = 0;
  virtual void guidance_divergence(const Planes& source, const Planes& target, const Planes& mask,
                                   const Planes& out) = 0;
  // DCT-II of every row, or its unnormalised inverse (type 3), in place.
  virtual void dct(const Planes& rows, bool inverse) = 0;
};

// One entry of a caller.
class Session {
 public:
  explicit Session(Backend& backend) : backend_(backend) { backend.begin(); }
  ~Session() { backend_.end(); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  Backend& backend_;
};

// The CPU's; `threads` as in Options. Any other backend comes from a library of its own: gpgan/cuda.hpp.
std::unique_ptr<Backend> make_backend(int threads);

}  // namespace gpgan::core
