// The method of the paper, written once over a Backend: what happens in which order, on which level.
//
// The core carries `difference` = source - target instead of the source. Every operation on the pyramid is
// linear in it, the membrane is a membrane of it alone (zero outside the mask), and composite = target + mask
// * difference.
#include "gpgan/blend.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <type_traits>
#include <utility>

#include "core/backend.hpp"
#include "core/pyramid.hpp"

namespace gpgan {
namespace {

using core::Backend;
using core::Buffer;
using core::Planes;
using core::Size;

constexpr int kDefaultInset = 2;
constexpr int kMaxInset = 1 << 20;
constexpr int kMaxImageSize = 1 << 10;
constexpr int kMaxBatch = 1 << 12;
constexpr std::int64_t kMaxSide = std::int64_t{1} << 31;
constexpr std::int64_t kMaxOffset = std::int64_t{1} << 40;  // far beyond any image, far from where sums would overflow

Size halved(Size size) { return {(size.height + 1) / 2, (size.width + 1) / 2}; }

std::string to_string(Size size) { return std::to_string(size.height) + " x " + std::to_string(size.width); }

// Sizes of the levels, coarsest first: gpgan.reference.pyramid_shapes.
std::vector<Size> pyramid_shapes(Size size, std::int64_t image_size, Pyramid pyramid) {
  std::vector<Size> sizes{size};
  if (pyramid == Pyramid::kAspect) {
    while (std::max(size.height, size.width) > 1 && (std::min(size.height, size.width) + 1) / 2 >= image_size) {
      size = halved(size);
      sizes.insert(sizes.begin(), size);
    }
  } else {
    std::vector<Size> squares;
    for (std::int64_t side = image_size; side < std::max(size.height, size.width); side *= 2) {
      squares.push_back({side, side});
    }
    sizes.insert(sizes.begin(), squares.begin(), squares.end());
  }
  return sizes;
}

// The texts are made only where they are needed: every blend passes here.
template <typename Expected, typename Got>
void require(bool holds, const char* argument, Expected expected, Got got) {
  const auto text = [](auto what) -> std::string {
    if constexpr (std::is_invocable_v<decltype(what)>) {
      return what();
    } else {
      return what;
    }
  };
  if (!holds) throw InvalidArgument(argument, text(expected), text(got));
}

void validate(const Options& options) {
  const auto text = [](double x) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%g", x);
    return std::string(digits);
  };
  // The quotient of spectra is taken in float32, which ends not far outside.
  require(options.color_weight >= 1e-30 && options.color_weight <= 1e30, "color_weight",
          "a number above 0, from 1e-30 to 1e30", [&] { return text(options.color_weight); });
  require(options.sigma > 0 && options.sigma <= 1000, "sigma", "a number above 0 and up to 1000 px",
          [&] { return text(options.sigma); });
  require(
      options.inset.value_or(0) >= 0 && options.inset.value_or(0) <= kMaxInset, "inset",
      [&] { return "0 to " + std::to_string(kMaxInset) + " px"; },
      [&] { return std::to_string(options.inset.value_or(0)); });
  require(
      options.batch >= 1 && options.batch <= kMaxBatch, "batch", [&] { return "1 to " + std::to_string(kMaxBatch); },
      [&] { return std::to_string(options.batch); });
  require(
      options.image_size >= 1 && options.image_size <= kMaxImageSize, "image_size",
      [&] { return "1 to " + std::to_string(kMaxImageSize); }, [&] { return std::to_string(options.image_size); });
}

ConstImageView as_view(const Planes& planes, int batch) {
  const std::int64_t channels = planes.channels / batch;
  ConstImageView view = planar<const float>(planes.data, planes.size.height, planes.size.width, channels);
  view.images = batch;
  view.image_stride = static_cast<std::ptrdiff_t>(sizeof(float)) * channels * planes.size.pixels();
  return view;
}

}  // namespace

Options Options::for_mode(Mode mode) {
  Options options;
  if (mode == Mode::kDefault) return options;
  options.carry = Carry::kImage;
  options.membrane = false;
  options.inset = 0;
  if (mode == Mode::kReleased) {
    options.equation = Equation::kScreened;
    options.pyramid = Pyramid::kSquare;
  }
  return options;
}

struct Blender::Impl {
  Options options;
  Size size;
  std::int64_t channels;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<core::Pyramid> pyramid;
  std::size_t levels;
  Buffer small_composite, small_mask, small_harmonized, small_source, small_target, small_color;
  ConstImageView target_view;
  bool prepared = false;
  bool unchanged = false;

  Impl(const Options& options_, Size size_, int channels_, std::unique_ptr<Backend> backend_)
      : options(options_), size(size_), channels(channels_), backend(std::move(backend_)) {
    validate(options);
    require(size.height >= 1 && size.width >= 1 && size.height <= kMaxSide && size.width <= kMaxSide, "shape",
            "sides from 1 to 2^31 pixels", [&] { return to_string(size); });
    require(channels >= 1 && channels <= 4, "channels", "1 to 4", [&] { return std::to_string(channels); });
    const core::Session session(*backend);
    const std::vector<Size> sizes = pyramid_shapes(size, options.image_size, options.pyramid);
    levels = sizes.size();
    pyramid = backend->make_pyramid(options, sizes, channels);
    const Size square{options.image_size, options.image_size};
    for (Buffer* small : {&small_composite, &small_harmonized, &small_source, &small_target, &small_color}) {
      *small = backend->allocate(options.batch * channels, square);
    }
    small_mask = backend->allocate(options.batch, square);
  }

  void check_batch(const ConstImageView& view, const char* argument) const {
    require(
        view.images == options.batch, argument, [&] { return std::to_string(options.batch) + " images"; },
        [&] { return std::to_string(view.images); });
  }

  void check_views(const ConstImageView& source, const ConstImageView& target, const ConstImageView& mask) const {
    require(
        !target.empty() && target.height == size.height && target.width == size.width && target.channels == channels,
        "target", [&] { return to_string(size) + " pixels of " + std::to_string(channels) + " channels"; },
        [&] {
          return to_string({target.height, target.width}) + " of " + std::to_string(target.channels);
        });
    check_batch(target, "target");
    check_batch(source, "source");
    require(!source.empty() && source.height >= 1 && source.width >= 1, "source", "at least 1 x 1 pixels", [&] {
      return to_string({source.height, source.width});
    });
    require(
        source.channels == channels || source.channels == channels + 1, "source",
        [&] { return std::to_string(channels) + " channels like the target, or one more as alpha"; },
        [&] { return std::to_string(source.channels); });
    require(!mask.empty() || source.channels == channels + 1, "mask", "a mask, as the source has no alpha channel",
            "none");
    if (mask.empty()) return;
    check_batch(mask, "mask");
    require(mask.channels == 1, "mask", "one channel", [&] { return std::to_string(mask.channels); });
    require(
        mask.height == source.height && mask.width == source.width, "mask",
        [&] {
          return "the source's size, " + to_string({source.height, source.width});
        },
        [&] {
          return to_string({mask.height, mask.width});
        });
  }

  GeneratorInputs prepare(const ConstImageView& source, const ConstImageView& target, const ConstImageView& mask_view,
                          Offset offset) {
    prepared = false;
    const core::Session session(*backend);
    check_views(source, target, mask_view);
    require(std::clamp(offset.top, -kMaxOffset, kMaxOffset) == offset.top &&
                std::clamp(offset.left, -kMaxOffset, kMaxOffset) == offset.left,
            "offset", "values within 2^40 pixels",
            [&] { return std::to_string(offset.top) + ", " + std::to_string(offset.left); });

    const bool has_alpha = source.channels == channels + 1;
    const int inset = options.inset.value_or(has_alpha ? 0 : kDefaultInset);
    unchanged = !pyramid->load({source, target, mask_view, offset, has_alpha, inset});
    pyramid->averages(small_target, small_source, small_mask);
    backend->copy(small_source, small_color);
    backend->subtract(small_color, small_target);
    backend->composite(small_color, small_target, small_mask, small_composite);
    if (options.membrane && !unchanged) {
      pyramid->add_membrane(small_color);
      backend->composite(small_color, small_target, small_mask, small_harmonized);
      // The membrane can leave the range; a generator neither sees nor gives what does. The correction is taken from
      // this same image, so that a generator that changes nothing leaves Poisson cloning untouched.
      backend->clamp(small_harmonized);
    } else {
      backend->copy(small_composite, small_harmonized);
    }
    target_view = target;
    prepared = true;
    const int batch = options.batch;
    return {options.image_size, as_view(small_composite, batch), as_view(small_mask, batch),
            as_view(small_harmonized, batch), as_view(small_source, batch)};
  }

  void finish(const ConstImageView& lowres, const ImageView& out) {
    if (!prepared) throw LogicError("finish: call prepare first, and once for every finish");
    const core::Session session(*backend);
    require(
        !out.empty() && out.height == size.height && out.width == size.width && out.channels == channels, "out",
        [&] { return to_string(size) + " pixels of " + std::to_string(channels) + " channels"; },
        [&] {
          return to_string({out.height, out.width}) + " of " + std::to_string(out.channels);
        });
    check_batch(out, "out");
    if (!lowres.empty()) {
      check_batch(lowres, "lowres");
      const std::int64_t side = options.image_size;
      require(
          lowres.height == side && lowres.width == side && lowres.channels == channels, "lowres",
          [&] {
            return to_string({side, side}) + " pixels of " + std::to_string(channels) + " channels";
          },
          [&] {
            return to_string({lowres.height, lowres.width}) + " of " + std::to_string(lowres.channels);
          });
      backend->load(lowres, "lowres", {}, small_color);
    } else {
      backend->copy(small_harmonized, small_color);
    }
    prepared = false;
    if (unchanged) return backend->copy_pixels(target_view, out);

    // Algorithm 1 of the paper; for Carry::kCorrection on the change to the composite instead of on the image.
    for (std::size_t i = levels - 1; i > 0; --i) pyramid->reduce(i - 1);
    if (options.carry == Carry::kCorrection) backend->subtract(small_color, small_harmonized);
    pyramid->start(small_color);
    for (std::size_t i = 0; i + 1 < levels; ++i) pyramid->solve(i);
    pyramid->finish(out);
  }
};

Blender::Blender(const Options& options, std::int64_t height, std::int64_t width, int channels)
    : Blender(options, height, width, channels, core::make_backend(options.threads)) {
  require(options.batch == 1, "batch", "1 on the CPU", [&] { return std::to_string(options.batch); });
}
Blender::Blender(const Options& options, std::int64_t height, std::int64_t width, int channels,
                 std::unique_ptr<core::Backend> backend)
    : impl_(std::make_unique<Impl>(options, Size{height, width}, channels, std::move(backend))) {}
Blender::~Blender() = default;
Blender::Blender(Blender&&) noexcept = default;
Blender& Blender::operator=(Blender&&) noexcept = default;

GeneratorInputs Blender::prepare(const ConstImageView& source, const ConstImageView& target, const ConstImageView& mask,
                                 Offset offset) {
  return impl_->prepare(source, target, mask, offset);
}

bool Blender::unchanged() const { return impl_->unchanged; }

void Blender::finish(const ConstImageView& lowres, const ImageView& out) { impl_->finish(lowres, out); }

void Blender::blend(const ConstImageView& source, const ConstImageView& target, const ConstImageView& mask,
                    const Generator& generator, const ImageView& out, Offset offset) {
  const GeneratorInputs inputs = prepare(source, target, mask, offset);
  if (!generator || unchanged()) return finish({}, out);
  const std::vector<float> lowres = generator(inputs);
  const std::int64_t side = inputs.image_size;
  require(
      static_cast<std::int64_t>(lowres.size()) == impl_->channels * side * side, "generator",
      [&] { return std::to_string(impl_->channels * side * side) + " floats, planar (channels, S, S)"; },
      [&] { return std::to_string(lowres.size()); });
  finish(planar(lowres.data(), side, side, impl_->channels), out);
}

void Blender::use_stream(void* stream) {
  const core::Session session(*impl_->backend);
  impl_->backend->use_stream(stream);
}

void Blender::synchronize() {
  const core::Session session(*impl_->backend);
  impl_->backend->synchronize();
}

}  // namespace gpgan
