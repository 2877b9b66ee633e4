// The public class: validation, order of calls, moves, offsets, alpha, generators.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "support.hpp"

using namespace gpgan;
using testing::message_of;
using testing::Scene;
using testing::starts_with;

namespace {

// The composite, as a generator must give it back.
std::vector<float> copy_planes(const ConstImageView& view) {
  const auto* data = static_cast<const float*>(view.data);
  return {data, data + view.channels * view.height * view.width};
}

}  // namespace

TEST_CASE("options out of range are refused by name") {
  const auto refused = [](auto change) {
    Options options;
    change(options);
    return message_of<InvalidArgument>([&] { const Blender blender(options, 4, 4, 3); });
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {0.0, -1.0, nan, std::numeric_limits<double>::infinity()}) {
    CHECK(starts_with(refused([&](Options& o) { o.color_weight = bad; }), "color_weight: expected "));
    CHECK(starts_with(refused([&](Options& o) { o.sigma = bad; }), "sigma: expected "));
  }
  CHECK(starts_with(refused([](Options& o) { o.sigma = 1001; }), "sigma: expected "));
  CHECK(starts_with(refused([](Options& o) { o.inset = -1; }), "inset: expected "));
  CHECK(starts_with(refused([](Options& o) { o.image_size = 0; }), "image_size: expected "));
  CHECK(starts_with(refused([](Options& o) { o.image_size = 1 << 13; }), "image_size: expected "));
  CHECK(starts_with(refused([](Options& o) { o.threads = -1; }), "threads: expected 0 to 4096, got -1"));
  CHECK(refused([](Options&) {}).empty());
}

TEST_CASE("sizes and channels out of range are refused by name") {
  const auto refused = [](std::int64_t height, std::int64_t width, int channels) {
    return message_of<InvalidArgument>([&] { const Blender blender({}, height, width, channels); });
  };
  CHECK(refused(0, 5, 3) == "shape: expected sides from 1 to 2^31 pixels, got 0 x 5");
  CHECK(starts_with(refused(5, -1, 3), "shape: "));
  CHECK(refused(5, 5, 0) == "channels: expected 1 to 4, got 0");
  CHECK(starts_with(refused(5, 5, 5), "channels: "));
}

TEST_CASE("views that do not fit are refused by name") {
  const Scene scene(8, 9, 3);
  std::vector<float> out(scene.target.size());
  const ImageView out_view = interleaved(out.data(), 8, 9, 3);
  Blender blender({}, 8, 9, 3);
  const auto refused = [&](const ConstImageView& source, const ConstImageView& target, const ConstImageView& mask,
                           const ImageView& to) {
    return message_of<InvalidArgument>([&] { blender.blend(source, target, mask, {}, to); });
  };
  const ConstImageView source = scene.source_view();
  const ConstImageView target = scene.target_view();
  const ConstImageView mask = scene.mask_view();
  ConstImageView narrow = target;
  narrow.width = 8;
  ConstImageView grey = target;
  grey.channels = 1;
  ConstImageView wide_mask = mask;
  wide_mask.channels = 2;
  ConstImageView short_mask = mask;
  short_mask.height = 7;
  ImageView small_out = out_view;
  small_out.height = 7;
  CHECK(starts_with(refused(source, narrow, mask, out_view), "target: expected 8 x 9 pixels of 3 channels, got 8 x 8"));
  CHECK(starts_with(refused(source, {}, mask, out_view), "target: "));
  CHECK(starts_with(refused(source, grey, mask, out_view), "target: "));
  CHECK(starts_with(refused({}, target, mask, out_view), "source: "));
  CHECK(starts_with(refused(grey, target, mask, out_view), "source: expected 3 channels like the target, or one more"));
  CHECK(starts_with(refused(source, target, {}, out_view), "mask: expected a mask, as the source has no alpha"));
  CHECK(starts_with(refused(source, target, wide_mask, out_view), "mask: expected one channel, got 2"));
  CHECK(
      starts_with(refused(source, target, short_mask, out_view), "mask: expected the source's size, 8 x 9, got 7 x 9"));
  CHECK(starts_with(refused(source, target, mask, small_out), "out: "));
  CHECK(starts_with(refused(source, target, mask, {}), "out: "));
  CHECK(refused(source, target, mask, out_view).empty());
}

TEST_CASE("values that are not finite or out of range are refused by name and place") {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1.5F, -0.5F}) {
    for (const std::string argument : {"source", "target", "mask"}) {
      Scene scene(8, 9, 1);
      (argument == "source" ? scene.source : argument == "target" ? scene.target : scene.mask)[40] = bad;
      const std::string message = message_of<InvalidArgument>([&] { scene.blend(); });
      CAPTURE(message);
      CHECK(starts_with(message, argument + ": expected finite floats in [0, 1], got "));
      CHECK(message.find("at row 4, column 4") != std::string::npos);
    }
  }
}

TEST_CASE("finish before prepare, and twice, is a logic error") {
  const Scene scene(8, 9, 3);
  std::vector<float> out(scene.target.size());
  const ImageView view = interleaved(out.data(), 8, 9, 3);
  Blender blender({}, 8, 9, 3);
  CHECK(starts_with(message_of<LogicError>([&] { blender.finish({}, view); }), "finish: call prepare first"));
  blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
  blender.finish({}, view);
  CHECK_THROWS_AS(blender.finish({}, view), LogicError);
  // A prepare that fails leaves nothing to finish.
  blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
  CHECK_THROWS_AS(blender.prepare(scene.source_view(), scene.target_view()), InvalidArgument);
  CHECK_THROWS_AS(blender.finish({}, view), LogicError);
  // A finish that is refused may be tried again.
  blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
  CHECK_THROWS_AS(blender.finish({}, {}), InvalidArgument);
  blender.finish({}, view);
  CHECK(out == scene.blend());
}

TEST_CASE("all errors are gpgan::Error and std::exception") {
  const auto bad = [] { const Blender blender({}, 0, 0, 0); };
  CHECK_THROWS_AS(bad(), Error);
  CHECK_THROWS_AS(bad(), std::exception);
}

TEST_CASE("a Blender moves with all it holds") {
  const Scene scene(20, 31, 3);
  const std::vector<float> expected = scene.blend();
  Blender first({}, 20, 31, 3);
  first.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
  Blender second(std::move(first));
  std::vector<float> out(expected.size());
  second.finish({}, interleaved(out.data(), 20, 31, 3));
  CHECK(out == expected);
  Blender third({}, 2, 2, 1);
  third = std::move(second);
  CHECK(scene.blend(third) == expected);
  static_assert(std::is_nothrow_move_constructible_v<Blender> && !std::is_copy_constructible_v<Blender>);
}

TEST_CASE("modes are the three sets of options") {
  const Options paper = Options::for_mode(Mode::kPaper);
  CHECK(paper.equation == Equation::kGaussianPoisson);
  CHECK(paper.carry == Carry::kImage);
  CHECK(paper.pyramid == Pyramid::kAspect);
  CHECK_FALSE(paper.membrane);
  CHECK(paper.inset == 0);
  const Options released = Options::for_mode(Mode::kReleased);
  CHECK(released.equation == Equation::kScreened);
  CHECK(released.carry == Carry::kImage);
  CHECK(released.pyramid == Pyramid::kSquare);
  CHECK_FALSE(released.membrane);
  CHECK(released.inset == 0);
  const Options best = Options::for_mode(Mode::kDefault);
  CHECK(best.carry == Carry::kCorrection);
  CHECK(best.membrane);
  CHECK_FALSE(best.inset.has_value());
}

TEST_CASE("every size and number of channels blends, in every mode") {
  for (const Mode mode : {Mode::kDefault, Mode::kPaper, Mode::kReleased}) {
    for (const auto& [height, width] : {std::pair{1, 1}, {1, 7}, {7, 1}, {2, 3}, {70, 33}, {65, 130}}) {
      for (int channels = 1; channels <= 4; ++channels) {
        CAPTURE(height);
        CAPTURE(width);
        const Scene scene(height, width, channels);
        Options options = Options::for_mode(mode);
        options.image_size = 16;
        const std::vector<float> out = scene.blend(options);
        bool in_range = true;
        for (const float x : out) in_range &= x >= 0 && x <= 1;
        CHECK(in_range);
      }
    }
  }
}

TEST_CASE("an image into itself stays as it is") {
  for (const auto& [height, width] : {std::pair{1, 1}, {5, 4}, {64, 65}}) {
    Scene scene(height, width, 2);
    scene.source = scene.target;
    CHECK(testing::largest_difference(scene.blend(), scene.target) < 1e-6F);
  }
}

TEST_CASE("without masked pixels the target comes back bit for bit") {
  const std::vector<std::uint16_t> target{0, 1, 2, 65535, 40000, 7};
  const std::vector<std::uint16_t> source(6, 999);
  const std::vector<std::uint8_t> nothing(6, 0);
  std::vector<std::uint16_t> out(6);
  Blender blender({}, 2, 3, 1);
  bool called = false;
  const Generator generator = [&](const GeneratorInputs&) {
    called = true;
    return std::vector<float>();
  };
  blender.blend(interleaved(source.data(), 2, 3, 1), interleaved(target.data(), 2, 3, 1),
                interleaved(nothing.data(), 2, 3, 1), generator, interleaved(out.data(), 2, 3, 1));
  CHECK(blender.unchanged());
  CHECK(out == target);
  CHECK_FALSE(called);
  // Into the target's own memory too.
  std::vector<std::uint16_t> self = target;
  blender.blend(interleaved(source.data(), 2, 3, 1), interleaved(self.data(), 2, 3, 1),
                interleaved(nothing.data(), 2, 3, 1), {}, interleaved(self.data(), 2, 3, 1));
  CHECK(self == target);
}

TEST_CASE("the result may be written over the target") {
  const Scene scene(24, 17, 3);
  const std::vector<float> expected = scene.blend();
  std::vector<float> self = scene.target;
  Blender blender({}, 24, 17, 3);
  blender.blend(scene.source_view(), interleaved(self.data(), 24, 17, 3), scene.mask_view(), {},
                interleaved(self.data(), 24, 17, 3));
  CHECK(self == expected);
}

TEST_CASE("alpha multiplies the mask and hides what is under it") {
  const Scene scene(22, 26, 3);
  std::vector<float> rgba;
  std::vector<float> fuzzed;
  std::vector<float> product;
  const std::vector<float> alpha = testing::disc(26, 22);  // another shape than the mask
  for (std::size_t i = 0; i < scene.mask.size(); ++i) {
    for (std::size_t c = 0; c < 3; ++c) {
      rgba.push_back(scene.source[3 * i + c]);
      fuzzed.push_back(alpha[i] > 0 ? scene.source[3 * i + c] : static_cast<float>(i % 2));
    }
    rgba.push_back(alpha[i]);
    fuzzed.push_back(alpha[i]);
    product.push_back(alpha[i] * scene.mask[i]);
  }
  Blender blender({}, 22, 26, 3);
  const auto run = [&](const std::vector<float>& source, const ConstImageView& mask) {
    std::vector<float> out(scene.target.size());
    blender.blend(interleaved(source.data(), 22, 26, 4), scene.target_view(), mask, {},
                  interleaved(out.data(), 22, 26, 3));
    return out;
  };
  const std::vector<float> expected = run(rgba, scene.mask_view());
  CHECK(expected != scene.target);
  CHECK(run(fuzzed, scene.mask_view()) == expected);
  CHECK(run(rgba, interleaved(product.data(), 22, 26, 1)) != expected);  // alpha counts once more
  const std::vector<float> ones(scene.mask.size(), 1.0F);
  CHECK(run(rgba, {}) == run(rgba, interleaved(ones.data(), 22, 26, 1)));
}

TEST_CASE("offsets clip on every side") {
  const Scene target(20, 30, 1, 5);
  const Scene source(12, 14, 1, 6);
  Options options;
  options.inset = 0;
  Blender blender(options, 20, 30, 1);
  const auto place = [&](Offset offset) {
    std::vector<float> out(target.target.size());
    blender.blend(source.source_view(), target.target_view(), source.mask_view(), {},
                  interleaved(out.data(), 20, 30, 1), offset);
    return out;
  };
  for (const Offset offset : {Offset{3, 4}, {-5, 2}, {2, -6}, {14, 5}, {4, 24}, {-6, -7}, {15, 25}}) {
    CAPTURE(offset.top);
    CAPTURE(offset.left);
    // The same in a full frame, with alpha where the source is.
    std::vector<float> frame(static_cast<std::size_t>(20 * 30 * 2), 0.0F);
    std::vector<float> mask(static_cast<std::size_t>(20 * 30), 0.0F);
    for (std::int64_t y = 0; y < 12; ++y) {
      for (std::int64_t x = 0; x < 14; ++x) {
        const std::int64_t j = y + offset.top;
        const std::int64_t i = x + offset.left;
        if (j < 0 || j >= 20 || i < 0 || i >= 30) continue;
        frame[static_cast<std::size_t>((j * 30 + i) * 2)] = source.source[static_cast<std::size_t>(y * 14 + x)];
        frame[static_cast<std::size_t>((j * 30 + i) * 2 + 1)] = 1;
        mask[static_cast<std::size_t>(j * 30 + i)] = source.mask[static_cast<std::size_t>(y * 14 + x)];
      }
    }
    std::vector<float> expected(target.target.size());
    blender.blend(interleaved(frame.data(), 20, 30, 2), target.target_view(), interleaved(mask.data(), 20, 30, 1), {},
                  interleaved(expected.data(), 20, 30, 1));
    CHECK(place(offset) == expected);
  }
  for (const Offset offset :
       {Offset{20, 0}, {-12, 0}, {0, 30}, {0, -14}, {std::int64_t{1} << 40, -(std::int64_t{1} << 40)}}) {
    CHECK(place(offset) == target.target);
    CHECK(blender.unchanged());
  }
}

TEST_CASE("the generator sees S x S planes and its colour counts") {
  const Scene scene(50, 41, 3);
  Options options;
  options.image_size = 12;
  Blender blender(options, 50, 41, 3);
  std::vector<float> given;
  const std::vector<float> result = scene.blend(blender, [&](const GeneratorInputs& inputs) {
    CHECK(inputs.image_size == 12);
    for (const ConstImageView* view : {&inputs.composite, &inputs.harmonized, &inputs.source}) {
      CHECK(view->height == 12);
      CHECK(view->width == 12);
      CHECK(view->channels == 3);
      CHECK(view->dtype == DType::kFloat32);
    }
    CHECK(inputs.mask.channels == 1);
    given = copy_planes(inputs.source);
    return given;
  });
  CHECK(result != scene.blend(options));

  // In two steps, the colour interleaved.
  std::vector<float> pixels(given.size());
  for (std::size_t i = 0; i < 144; ++i) {
    for (std::size_t c = 0; c < 3; ++c) pixels[3 * i + c] = given[c * 144 + i];
  }
  std::vector<float> out(result.size());
  blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
  blender.finish(interleaved(pixels.data(), 12, 12, 3), interleaved(out.data(), 50, 41, 3));
  CHECK(out == result);
}

TEST_CASE("no generator is the harmonized composite") {
  const Scene scene(30, 30, 1);
  for (const Mode mode : {Mode::kDefault, Mode::kPaper}) {
    const Options options = Options::for_mode(mode);
    Blender blender(options, 30, 30, 1);
    std::vector<float> out(scene.target.size());
    const GeneratorInputs inputs = blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
    std::vector<float> color = copy_planes(inputs.harmonized);
    for (float& x : color) x = std::clamp(x, 0.0F, 1.0F);
    if (mode == Mode::kPaper) CHECK(color == copy_planes(inputs.composite));
    blender.finish({}, interleaved(out.data(), 30, 30, 1));
    CHECK(out == scene.blend(options));
  }
}

TEST_CASE("a generator's colour is checked, and its failure leaves the Blender usable") {
  const Scene scene(16, 16, 3);
  Blender blender({}, 16, 16, 3);
  const std::vector<float> expected = scene.blend(blender);
  const auto refused = [&](const Generator& generator) {
    return message_of<InvalidArgument>([&] { scene.blend(blender, generator); });
  };
  CHECK(starts_with(refused([](const GeneratorInputs&) { return std::vector<float>(5); }),
                    "generator: expected 12288 floats, planar (channels, S, S), got 5"));
  CHECK(starts_with(refused([](const GeneratorInputs&) { return std::vector<float>(12288, 2.0F); }),
                    "lowres: expected finite floats in [0, 1], got 2"));
  struct OutOfColour {};
  CHECK_THROWS_AS(scene.blend(blender, [](const GeneratorInputs&) -> std::vector<float> { throw OutOfColour(); }),
                  OutOfColour);
  CHECK(scene.blend(blender) == expected);

  const std::vector<float> wrong(3 * 63 * 63);
  std::vector<float> out(scene.target.size());
  blender.prepare(scene.source_view(), scene.target_view(), scene.mask_view());
  CHECK(starts_with(message_of<InvalidArgument>(
                        [&] { blender.finish(planar(wrong.data(), 63, 63, 3), interleaved(out.data(), 16, 16, 3)); }),
                    "lowres: expected 64 x 64 pixels of 3 channels, got 63 x 63 of 3"));
}

TEST_CASE("one Blender after another image gives what a new one gives") {
  Blender blender({}, 33, 29, 3);
  for (unsigned seed = 1; seed <= 4; ++seed) {
    const Scene scene(33, 29, 3, seed);
    CHECK(scene.blend(blender) == scene.blend());
  }
}

TEST_CASE("version and target are told") {
  CHECK(version().find('.') != std::string::npos);
  CHECK_FALSE(cpu_target().empty());
  CHECK(resolve_threads(3) == 3);
  CHECK(resolve_threads(0) >= 1);
}
