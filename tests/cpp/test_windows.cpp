// The local solver against the stencils that it inverts, and the engine made of it against the one that keeps whole
// planes and solves them by the closed form.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numbers>
#include <string>
#include <typeinfo>
#include <vector>

#include "core/backend.hpp"
#include "core/pyramid.hpp"
#include "cpu/border.hpp"
#include "cpu/dct.hpp"
#include "cpu/window_solver.hpp"
#include "support.hpp"

using namespace gpgan;
using gpgan::cpu::kBatch;
using gpgan::cpu::LocalOperator;
using gpgan::cpu::WindowSolver;

namespace {

// ------------------------------------------------------------------------------------------------ WindowSolver alone

template <typename T>
struct Grid {
  std::int64_t rows, columns;
  std::vector<T> values;
  Grid(std::int64_t rows_, std::int64_t columns_)
      : rows(rows_), columns(columns_), values(static_cast<std::size_t>(rows_ * columns_)) {}
  T& at(std::int64_t y, std::int64_t x) { return values[static_cast<std::size_t>(y * columns + x)]; }
  const T& at(std::int64_t y, std::int64_t x) const { return values[static_cast<std::size_t>(y * columns + x)]; }
  [[nodiscard]] const T& mirrored(std::int64_t y, std::int64_t x) const {
    return at(cpu::reflect(y, rows), cpu::reflect(x, columns));
  }
};

Grid<double> laplacian(const Grid<double>& f) {
  Grid<double> out(f.rows, f.columns);
  for (std::int64_t y = 0; y < f.rows; ++y) {
    for (std::int64_t x = 0; x < f.columns; ++x) {
      out.at(y, x) =
          4 * f.at(y, x) - f.mirrored(y - 1, x) - f.mirrored(y + 1, x) - f.mirrored(y, x - 1) - f.mirrored(y, x + 1);
    }
  }
  return out;
}

Grid<double> blur(const Grid<double>& f, double side) {
  Grid<double> down(f.rows, f.columns);
  Grid<double> out(f.rows, f.columns);
  for (std::int64_t y = 0; y < f.rows; ++y) {
    for (std::int64_t x = 0; x < f.columns; ++x) {
      down.at(y, x) = (1 - 2 * side) * f.at(y, x) + side * (f.mirrored(y - 1, x) + f.mirrored(y + 1, x));
    }
  }
  for (std::int64_t y = 0; y < f.rows; ++y) {
    for (std::int64_t x = 0; x < f.columns; ++x) {
      out.at(y, x) = (1 - 2 * side) * down.at(y, x) + side * (down.mirrored(y, x - 1) + down.mirrored(y, x + 1));
    }
  }
  return out;
}

// L^2 f + lambda G^2 f, from the definitions.
Grid<double> apply_operator(const Grid<double>& f, double color_weight, double sigma) {
  const double tap = std::exp(-0.5 / (sigma * sigma));
  const double side = tap / (1 + 2 * tap);
  Grid<double> out = laplacian(laplacian(f));
  const Grid<double> smooth = blur(blur(f, side), side);
  for (std::size_t i = 0; i < out.values.size(); ++i) out.values[i] += color_weight * smooth.values[i];
  return out;
}

Grid<double> random_grid(std::int64_t rows, std::int64_t columns, unsigned seed) {
  Grid<double> out(rows, columns);
  const std::vector<float> values = testing::noise(rows * columns, seed);
  for (std::size_t i = 0; i < values.size(); ++i) out.values[i] = static_cast<double>(values[i]) - 0.5;
  return out;
}

// What solve() makes of `b`; `beyond` lies in the last chunk behind the columns.
Grid<double> solve(const WindowSolver& solver, const Grid<double>& b, float beyond = 0) {
  const std::int64_t chunks = (b.columns + kBatch - 1) / kBatch;
  std::vector<float> memory(static_cast<std::size_t>(chunks * b.rows * kBatch), beyond);
  const auto place = [&](std::int64_t y, std::int64_t x) {
    return static_cast<std::size_t>((x / kBatch * b.rows + y) * kBatch + x % kBatch);
  };
  for (std::int64_t y = 0; y < b.rows; ++y) {
    for (std::int64_t x = 0; x < b.columns; ++x) memory[place(y, x)] = static_cast<float>(b.at(y, x));
  }
  // What is in the scratch must not matter.
  std::vector<float> scratch(static_cast<std::size_t>(solver.scratch_floats(b.columns)), 1e30F);
  solver.solve(memory.data(), b.columns, scratch.data());
  Grid<double> out(b.rows, b.columns);
  for (std::int64_t y = 0; y < b.rows; ++y) {
    for (std::int64_t x = 0; x < b.columns; ++x) out.at(y, x) = static_cast<double>(memory[place(y, x)]);
  }
  return out;
}

double largest_difference(const Grid<double>& a, const Grid<double>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) most = std::max(most, std::abs(a.values[i] - b.values[i]));
  return most;
}

}  // namespace

TEST_CASE("a window's solution is the inverse of the stencils") {
  for (const double color_weight : {0.01, 0.1, 1.0, 100.0}) {
    for (const double sigma : {0.5, 0.3}) {
      const LocalOperator local(color_weight, sigma);
      for (const std::int64_t rows : {8, 9, 16, 31, 100, 168}) {
        const WindowSolver solver(local, rows);
        REQUIRE(solver.rows() == rows);
        for (const std::int64_t columns : {1, 2, 3, 4, 5, 7, 15, 16, 17, 33, 200}) {
          CAPTURE(color_weight);
          CAPTURE(sigma);
          CAPTURE(rows);
          CAPTURE(columns);
          const Grid<double> x = random_grid(rows, columns, static_cast<unsigned>(rows * 1000 + columns));
          const Grid<double> b = apply_operator(x, color_weight, sigma);
          const Grid<double> found = solve(solver, b);
          // float32's eps relative to the right-hand side, which is up to 64 + lambda times x, comes back divided by
          // the operator's least eigenvalue, about lambda; rounding is at random, so that few of them add up.
          const double tolerance = 2 * 6e-8 * (64 + color_weight) / color_weight + 1e-6;
          CHECK(largest_difference(found, x) < tolerance);
        }
      }
    }
  }
}

TEST_CASE("what lies beyond a window's columns does not matter") {
  for (const std::int64_t rows : {8, 31, 100}) {
    const WindowSolver solver(LocalOperator(1, 0.5), rows);
    for (const std::int64_t columns : {1, 2, 3, 4, 5, 15, 17, 33}) {
      CAPTURE(rows);
      CAPTURE(columns);
      const Grid<double> b = random_grid(rows, columns, 3);
      const Grid<double> expected = solve(solver, b);
      // An odd length's cosine transforms go two columns at a time and share their rounding, of values that have become
      // 2 * rows times as large.
      const double shared = rows % 2 == 0 ? 0 : 4 * 1.2e-7 * static_cast<double>(2 * rows) * 0.5;
      CHECK(largest_difference(solve(solver, b, 0.5F), expected) <= shared);
      if (rows % 2 == 0) CHECK(solve(solver, b, -1e20F).values == expected.values);
    }
  }
}

TEST_CASE("a window with the halo has the whole image's solution") {
  for (const double color_weight : {0.01, 0.1, 1.0, 100.0}) {
    const LocalOperator local(color_weight, 0.5);
    // Where truncation is far above float32's rounding, in each direction alone and in both.
    for (const double tolerance : {1e-2, 1e-3}) {
      const std::int64_t halo = local.halo(tolerance);
      const std::int64_t used = 8;
      const std::int64_t size = 4 * halo + used + 32;
      const WindowSolver whole(local, size);
      const Grid<double> b = random_grid(size, size, 11);
      const Grid<double> expected = solve(whole, b);
      double most = 0;
      for (const double v : expected.values) most = std::max(most, std::abs(v));
      const auto error = [&](std::int64_t margin, bool vertically, bool horizontally) {
        const std::int64_t begin = 2 * halo + 16;
        const std::int64_t top = vertically ? begin - margin : 0;
        const std::int64_t left = horizontally ? begin - margin : 0;
        const std::int64_t rows = vertically ? used + 2 * margin : size;
        Grid<double> part(rows, horizontally ? used + 2 * margin : size);
        for (std::int64_t y = 0; y < part.rows; ++y) {
          for (std::int64_t x = 0; x < part.columns; ++x) part.at(y, x) = b.at(top + y, left + x);
        }
        const Grid<double> found = solve(WindowSolver(local, rows), part);
        double wrong = 0;
        for (std::int64_t y = begin; y < begin + used; ++y) {
          for (std::int64_t x = begin; x < begin + used; ++x) {
            wrong = std::max(wrong, std::abs(found.at(y - top, x - left) - expected.at(y, x)));
          }
        }
        return wrong;
      };
      CAPTURE(color_weight);
      CAPTURE(tolerance);
      CAPTURE(halo);
      for (const auto& [vertically, horizontally] : {std::pair{true, false}, {false, true}, {true, true}}) {
        CAPTURE(vertically);
        CAPTURE(horizontally);
        CHECK(error(halo, vertically, horizontally) < tolerance * most);
        // And no wider than it must be, or the engine would be slow: half of it is not enough.
        CHECK(error(halo / 2, vertically, horizontally) > tolerance * most);
      }
    }
  }
}

TEST_CASE("the local solver applies where its operator is local") {
  CHECK(LocalOperator::applies(Equation::kGaussianPoisson, 1, 0.5));
  CHECK(LocalOperator::applies(Equation::kGaussianPoisson, 0.05, 0.1));
  CHECK_FALSE(LocalOperator::applies(Equation::kGaussianPoisson, 0.049, 0.5));
  CHECK_FALSE(LocalOperator::applies(Equation::kGaussianPoisson, 1, 0.51));
  CHECK_FALSE(LocalOperator::applies(Equation::kScreened, 1, 0.5));
}

// --------------------------------------------------------------------------------------- strips against whole planes

namespace {

using core::Size;

std::vector<Size> level_sizes(Size size, std::int64_t image_size) {
  std::vector<Size> sizes{size};
  while ((std::min(size.height, size.width) + 1) / 2 >= image_size) {
    size = {(size.height + 1) / 2, (size.width + 1) / 2};
    sizes.insert(sizes.begin(), size);
  }
  return sizes;
}

struct Pictures {
  ConstImageView source, target, mask;
  Offset offset;
};

// What the generator gives, planar S x S, from the composite that it sees; empty: no generator.
using Colors = std::function<std::vector<float>(const std::vector<float>& harmonized)>;

// Blender's work over whole planes and closed-form solvers.
std::vector<float> by_planes(const Pictures& pictures, const Options& options, const Colors& colors) {
  const Size size{pictures.target.height, pictures.target.width};
  const std::int64_t channels = pictures.target.channels;
  const std::unique_ptr<core::Backend> backend = core::make_backend(2);
  const std::vector<Size> sizes = level_sizes(size, options.image_size);
  const std::unique_ptr<core::Pyramid> planes = core::make_plane_pyramid(*backend, options, sizes, channels);
  {
    // Else there is nothing to compare.
    const std::unique_ptr<core::Pyramid> chosen = backend->make_pyramid(options, sizes, channels);
    const core::Pyramid& one = *planes;
    const core::Pyramid& other = *chosen;
    REQUIRE(typeid(one) != typeid(other));
  }
  std::vector<float> out(static_cast<std::size_t>(channels * size.pixels()));
  const ImageView out_view = interleaved(out.data(), size.height, size.width, channels);
  const bool has_alpha = pictures.source.channels > channels;
  const int inset = options.inset.value_or(has_alpha ? 0 : 2);
  if (!planes->load({pictures.source, pictures.target, pictures.mask, pictures.offset, has_alpha, inset})) {
    backend->copy_pixels(pictures.target, out_view);
    return out;
  }
  const Size square{options.image_size, options.image_size};
  const core::Buffer target = backend->allocate(channels, square);
  const core::Buffer source = backend->allocate(channels, square);
  const core::Buffer mask = backend->allocate(1, square);
  const core::Buffer harmonized = backend->allocate(channels, square);
  planes->averages(target, source, mask);
  if (options.membrane) {
    planes->add_membrane(source);
  } else {
    backend->subtract(source, target);
  }
  backend->composite(source, target, mask, harmonized);
  if (options.membrane) backend->clamp(harmonized);
  const core::Planes& seen = harmonized.planes();
  std::vector<float> color(seen.data, seen.data + seen.floats());
  if (colors) color = colors(color);
  for (float& c : color) c = std::clamp(c, 0.0F, 1.0F);
  const core::Planes carried{color.data(), channels, square};
  for (std::size_t i = sizes.size() - 1; i > 0; --i) planes->reduce(i - 1);
  if (options.carry == Carry::kCorrection) backend->subtract(carried, harmonized);
  planes->start(carried);
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i) planes->solve(i);
  planes->finish(out_view);
  return out;
}

std::vector<float> by_strips(const Pictures& pictures, const Options& options, const Colors& colors) {
  const std::int64_t height = pictures.target.height;
  const std::int64_t width = pictures.target.width;
  const std::int64_t channels = pictures.target.channels;
  Blender blender(options, height, width, static_cast<int>(channels));
  std::vector<float> out(static_cast<std::size_t>(channels * height * width));
  Generator generator;
  if (colors) {
    generator = [&](const GeneratorInputs& inputs) {
      const auto* seen = static_cast<const float*>(inputs.harmonized.data);
      std::vector<float> color = colors({seen, seen + channels * inputs.image_size * inputs.image_size});
      for (float& c : color) c = std::clamp(c, 0.0F, 1.0F);
      return color;
    };
  }
  blender.blend(pictures.source, pictures.target, pictures.mask, generator,
                interleaved(out.data(), height, width, channels), pictures.offset);
  return out;
}

Colors rough_colors() {
  return [](const std::vector<float>& harmonized) {
    return testing::noise(static_cast<std::int64_t>(harmonized.size()), 77);
  };
}

// A change with no edges, largest at the left border.
Colors smooth_colors(std::int64_t side, float amplitude, double waves) {
  return [=](const std::vector<float>& harmonized) {
    std::vector<float> out = harmonized;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const double x = (static_cast<double>(i % static_cast<std::size_t>(side)) + 0.5) / static_cast<double>(side);
      const double y =
          (static_cast<double>(i / static_cast<std::size_t>(side) % static_cast<std::size_t>(side)) + 0.5) /
          static_cast<double>(side);
      out[i] += amplitude * static_cast<float>(0.5 * std::cos(std::numbers::pi * waves * x) +
                                               0.5 * std::cos(std::numbers::pi * waves * y));
    }
    return out;
  };
}

using MaskAt = std::function<float(std::int64_t, std::int64_t)>;

std::vector<float> paint(Size size, const MaskAt& at) {
  std::vector<float> out;
  for (std::int64_t y = 0; y < size.height; ++y) {
    for (std::int64_t x = 0; x < size.width; ++x) out.push_back(at(y, x));
  }
  return out;
}

// The mask, by name, that a strip, a block or a window may stumble over.
std::vector<std::pair<std::string, MaskAt>> masks(Size size) {
  const std::int64_t h = size.height;
  const std::int64_t w = size.width;
  const auto one_at = [](std::int64_t at_y, std::int64_t at_x) {
    return [=](std::int64_t y, std::int64_t x) { return y == at_y && x == at_x ? 1.0F : 0.0F; };
  };
  std::vector<std::pair<std::string, MaskAt>> out = {
      {"all", [](std::int64_t, std::int64_t) { return 1.0F; }},
      {"top left", one_at(0, 0)},
      {"top right", one_at(0, w - 1)},
      {"bottom left", one_at(h - 1, 0)},
      {"bottom right", one_at(h - 1, w - 1)},
      {"line", [=](std::int64_t y, std::int64_t) { return y == h / 2 ? 1.0F : 0.0F; }},
      {"column", [=](std::int64_t, std::int64_t x) { return x == w / 3 ? 1.0F : 0.0F; }},
      {"gradient",
       [=](std::int64_t y, std::int64_t x) { return static_cast<float>(x + y) / static_cast<float>(w + h - 2); }},
      {"checks", [](std::int64_t y, std::int64_t x) { return (x + y) % 2 == 0 ? 1.0F : 0.0F; }},
      {"frame",
       [=](std::int64_t y, std::int64_t x) { return y == 0 || x == 0 || y == h - 1 || x == w - 1 ? 1.0F : 0.0F; }},
      {"half", [=](std::int64_t, std::int64_t x) { return x < w / 2 ? 0.5F : 1.0F; }},
      {"bytes",
       [=](std::int64_t y, std::int64_t) { return static_cast<float>(y * 255 / std::max<std::int64_t>(h - 1, 1)); }},
  };
  for (const std::int64_t at : {15, 16, 31, 32}) {
    if (at < w && at < h) out.emplace_back("at " + std::to_string(at), one_at(at, at));
  }
  return out;
}

// Two ways through float32: each is within 2e-5 of the exact solution (tests/tolerances.py), and what they have in
// common, the right-hand sides, is exact to eps; a small lambda multiplies rounding.
float path_tolerance(double color_weight) { return static_cast<float>(2e-5 * std::max(1.0, 0.1 / color_weight)); }

void check_paths_agree(Size size, std::int64_t channels, const MaskAt& at, bool bytes, const Options& options,
                       const Colors& colors) {
  const std::int64_t floats = channels * size.pixels();
  const std::vector<float> source = testing::noise(floats, 5);
  const std::vector<float> target = testing::noise(floats, 6);
  const std::vector<float> mask = paint(size, at);
  std::vector<std::uint8_t> byte_mask;
  for (const float m : mask) byte_mask.push_back(static_cast<std::uint8_t>(m));
  const Pictures pictures{interleaved(source.data(), size.height, size.width, channels),
                          interleaved(target.data(), size.height, size.width, channels),
                          bytes ? ConstImageView(interleaved(byte_mask.data(), size.height, size.width, 1))
                                : ConstImageView(interleaved(mask.data(), size.height, size.width, 1)),
                          {}};
  CHECK(testing::largest_difference(by_strips(pictures, options, colors), by_planes(pictures, options, colors)) <
        path_tolerance(options.color_weight));
}

Options options_for(Carry carry, double color_weight, bool membrane, int image_size) {
  Options options;
  options.carry = carry;
  options.color_weight = color_weight;
  options.membrane = membrane;
  options.image_size = image_size;
  options.threads = 2;
  return options;
}

}  // namespace

TEST_CASE("strips are whole planes, whatever the mask") {
  const Size size{70, 83};  // levels of 70, 35 and 18 rows
  for (const auto& [name, at] : masks(size)) {
    for (const Carry carry : {Carry::kCorrection, Carry::kImage}) {
      for (const bool membrane : {true, false}) {
        for (const int inset : {0, 2}) {
          CAPTURE(name);
          CAPTURE(carry);
          CAPTURE(membrane);
          CAPTURE(inset);
          Options options = options_for(carry, 1, membrane, 16);
          options.inset = inset;
          check_paths_agree(size, 2, at, name == "bytes", options, rough_colors());
        }
      }
    }
  }
}

TEST_CASE("strips are whole planes, whatever the size") {
  // Beside the rows of a window (at lambda 1, 112 or so and 176), its used ones (64, 128), blocks and vectors.
  const std::int64_t halo = LocalOperator(1, 0.5).halo(5e-6);
  const std::int64_t even = (halo + 1) / 2 * 2;
  std::vector<Size> sizes = {{8, 9}, {9, 8}, {300, 17}, {17, 300}, {15, 33}, {16, 16}, {31, 47}, {257, 64}};
  for (const std::int64_t used : {64, 128}) {
    for (const std::int64_t more : {-1, 0, 1, 4, 5}) {
      sizes.push_back({used + 2 * even + more, 40 + more});
      sizes.push_back({2 * used + 2 * even + more, 31});
      sizes.push_back({34, used + 2 * even + more});
    }
  }
  for (const Size& size : sizes) {
    for (const Carry carry : {Carry::kCorrection, Carry::kImage}) {
      CAPTURE(size.height);
      CAPTURE(size.width);
      CAPTURE(carry);
      const MaskAt disc = [=](std::int64_t y, std::int64_t x) {
        return std::hypot(static_cast<double>(y) / static_cast<double>(size.height) - 0.3,
                          static_cast<double>(x) / static_cast<double>(size.width) - 0.6) < 0.25
                   ? 1.0F
                   : 0.0F;
      };
      const Options options = options_for(carry, 1, true, 8);
      check_paths_agree(size, 1, disc, false, options, rough_colors());
      check_paths_agree(size, 1, disc, false, options, smooth_colors(8, 0.3F, 1));
    }
  }
}

TEST_CASE("strips are whole planes for every lambda and number of channels") {
  const Size size{150, 131};
  const MaskAt bar = [](std::int64_t y, std::int64_t x) { return y > 40 && y < 90 && x > 20 && x < 77 ? 1.0F : 0.0F; };
  for (const double color_weight : {0.05, 0.3, 1.0, 10.0, 100.0, 1e6}) {
    for (std::int64_t channels = 1; channels <= 4; ++channels) {
      for (const Carry carry : {Carry::kCorrection, Carry::kImage}) {
        CAPTURE(color_weight);
        CAPTURE(channels);
        CAPTURE(carry);
        check_paths_agree(size, channels, bar, false, options_for(carry, color_weight, channels % 2 == 0, 32),
                          rough_colors());
        check_paths_agree(size, channels, bar, false, options_for(carry, color_weight, channels % 2 == 0, 32), {});
      }
    }
  }
}

TEST_CASE("strips are whole planes where the change is smooth up to the border") {
  // With an odd side the level below mirrors half a pixel farther out than this one: there the smoothest change has a
  // kink, and something to solve.
  for (const Size& size : {Size{255, 255}, {256, 255}, {255, 256}, {70, 511}, {256, 256}, {253, 506}}) {
    const std::int64_t side = std::min(size.height, size.width) < 128 ? 32 : 64;
    const std::vector<float> source(static_cast<std::size_t>(size.pixels()), 0.6F);
    const std::vector<float> target(source.size(), 0.5F);
    const std::vector<float> mask =
        paint(size, [](std::int64_t y, std::int64_t x) { return y == 20 && x == 20 ? 1.0F : 0.0F; });
    const Pictures pictures{interleaved(source.data(), size.height, size.width, 1),
                            interleaved(target.data(), size.height, size.width, 1),
                            interleaved(mask.data(), size.height, size.width, 1),
                            {}};
    for (const bool along : {true, false}) {
      for (const double waves : {0.5, 0.8, 0.9, 1.0, 1.5, 2.0, 4.0}) {
        CAPTURE(size.height);
        CAPTURE(size.width);
        CAPTURE(along);
        CAPTURE(waves);
        const Colors colors = [=](const std::vector<float>& harmonized) {
          std::vector<float> out = harmonized;
          for (std::size_t i = 0; i < out.size(); ++i) {
            const auto n = static_cast<std::size_t>(side);
            const double from_end = static_cast<double>(n - 1 - (along ? i % n : i / n)) + 0.5;
            out[i] +=
                0.45F * static_cast<float>(std::cos(std::numbers::pi * waves * from_end / static_cast<double>(n)));
          }
          return out;
        };
        const Options options = options_for(Carry::kCorrection, 1, false, static_cast<int>(side));
        // 2e-6 on each level may be taken for nothing; no rounding to speak of.
        CHECK(testing::largest_difference(by_strips(pictures, options, colors), by_planes(pictures, options, colors)) <
              1e-5F);
      }
    }
  }
}

TEST_CASE("a constant change moves what is far from the seam by that much and no more") {
  const Size size{400, 350};
  const std::vector<float> target(static_cast<std::size_t>(size.pixels()), 0.25F);
  const std::vector<float> source = testing::noise(size.pixels(), 9);
  const std::vector<float> mask =
      paint(size, [](std::int64_t y, std::int64_t x) { return y < 30 && x < 30 ? 1.0F : 0.0F; });
  const Pictures pictures{interleaved(source.data(), size.height, size.width, 1),
                          interleaved(target.data(), size.height, size.width, 1),
                          interleaved(mask.data(), size.height, size.width, 1),
                          {}};
  const Options options = options_for(Carry::kCorrection, 1, false, 64);
  const std::vector<float> out = by_strips(pictures, options, [](const std::vector<float>& harmonized) {
    std::vector<float> more = harmonized;
    for (float& c : more) c += 0.125F;
    return more;
  });
  float most = 0;
  // The seam's pixel on the coarsest level is 8 pixels wide, and what it disturbs reaches 24 of those.
  for (std::int64_t y = 30 + 8 * 26; y < size.height; ++y) {
    for (std::int64_t x = 0; x < size.width; ++x) {
      most = std::max(most, std::abs(out[static_cast<std::size_t>(y * size.width + x)] - 0.375F));
    }
  }
  CHECK(most < 1e-6F);
}

TEST_CASE("strips are whole planes for sources with alpha, small ones and shifted ones") {
  const Size size{130, 141};
  const std::vector<float> target = testing::noise(size.pixels() * 3, 3);
  for (const auto& [height, width, top, left, channels] : {std::tuple{130, 141, 0, 0, 4},
                                                           {60, 50, 20, 33, 3},
                                                           {60, 50, -20, 120, 4},
                                                           {200, 210, -30, -50, 3},
                                                           {1, 1, 129, 140, 3},
                                                           {141, 2, -5, 16, 4}}) {
    CAPTURE(height);
    CAPTURE(top);
    const std::vector<float> source = testing::noise(static_cast<std::int64_t>(height) * width * channels, 4);
    const std::vector<float> mask = testing::disc(height, width);
    for (const Carry carry : {Carry::kCorrection, Carry::kImage}) {
      for (const bool no_mask : {false, true}) {
        if (no_mask && channels == 3) continue;
        const Pictures pictures{interleaved(source.data(), height, width, channels),
                                interleaved(target.data(), size.height, size.width, 3),
                                no_mask ? ConstImageView{} : ConstImageView(interleaved(mask.data(), height, width, 1)),
                                {top, left}};
        const Options options = options_for(carry, 1, false, 32);
        CHECK(testing::largest_difference(by_strips(pictures, options, rough_colors()),
                                          by_planes(pictures, options, rough_colors())) < path_tolerance(1));
      }
    }
  }
}

TEST_CASE("levels made in bands are whole planes") {
  // The level below is over 2^22 pixels, and the image three bands high.
  const Size size{1290, 13100};
  const std::vector<std::uint8_t> source = [&] {
    std::vector<std::uint8_t> out;
    for (const float v : testing::noise(size.pixels(), 1)) out.push_back(static_cast<std::uint8_t>(v * 255));
    return out;
  }();
  std::vector<std::uint8_t> target(source.rbegin(), source.rend());
  std::vector<std::uint8_t> mask(source.size());
  const auto fill = [&](std::int64_t top, std::int64_t left, std::int64_t bottom, std::int64_t right) {
    for (std::int64_t y = top; y < bottom; ++y) {
      std::fill(mask.begin() + y * size.width + left, mask.begin() + y * size.width + right, std::uint8_t{255});
    }
  };
  fill(300, 2000, 700, 2600);    // across a band's border
  fill(1020, 9000, 1030, 9900);  // all but on one
  fill(511, 5000, 512, 5300);
  fill(1200, 13000, 1290, 13100);
  const Pictures pictures{interleaved<const std::uint8_t>(source.data(), size.height, size.width, 1),
                          interleaved<const std::uint8_t>(target.data(), size.height, size.width, 1),
                          interleaved<const std::uint8_t>(mask.data(), size.height, size.width, 1),
                          {}};
#if defined(__SANITIZE_THREAD__)
  const std::vector<Carry> carries{Carry::kCorrection};  // over a minute each, and the threads share the work alike
#else
  const std::vector<Carry> carries{Carry::kCorrection, Carry::kImage};
#endif
  for (const Carry carry : carries) {
    CAPTURE(carry);
    const Options options = options_for(carry, 1, false, 64);
    CHECK(testing::largest_difference(by_strips(pictures, options, rough_colors()),
                                      by_planes(pictures, options, rough_colors())) < path_tolerance(1));
  }
}
