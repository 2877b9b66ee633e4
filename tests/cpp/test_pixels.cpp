// Rows of any caller's pixels as floats and back, against one pixel at a time.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/pixels.hpp"
#include "support.hpp"

using namespace gpgan;
using gpgan::cpu::copy_row;
using gpgan::cpu::read_row;
using gpgan::cpu::write_row;

namespace {

constexpr std::int64_t kHeight = 3;
constexpr std::int64_t kWidth = 75;

// A view's place in memory that is larger than it, in elements.
struct Layout {
  std::string name;
  std::int64_t first;
  std::int64_t row, column, channel;
};

std::vector<Layout> layouts(std::int64_t channels) {
  const std::int64_t c = channels;
  const std::int64_t h = kHeight;
  const std::int64_t w = kWidth;
  return {
      {"interleaved", 0, w * c, c, 1},
      {"interleaved, not from the first element", 7, w * c + 3, c, 1},
      {"planar", 1, w, 1, h * w},
      {"rows flipped", (h - 1) * w * c, -w * c, c, 1},
      {"columns flipped", (w - 1) * c, w * c, -c, 1},
      {"planar, columns flipped", w - 1, w, -1, h * w},
      {"every second pixel", 5, 2 * w * c, 2 * c, 1},
      {"channels reversed", c - 1, w * c, c, -1},
      {"a channel more", 0, w * (c + 1), c + 1, 1},
      {"columns first", 2, c, h * c, 1},
  };
}

constexpr std::int64_t kElements = 2 * kHeight * kWidth * 5 + 100;

template <typename T>
std::vector<T> elements(unsigned seed) {
  const std::vector<float> values = testing::noise(kElements, seed);
  std::vector<T> out;
  for (const float v : values) {
    if constexpr (std::is_floating_point_v<T>) {
      out.push_back(static_cast<T>(v * 1.5F - 0.25F));  // out of range too
    } else {
      out.push_back(static_cast<T>(v * static_cast<float>(std::numeric_limits<T>::max())));
    }
  }
  return out;
}

template <typename Element>
auto view_of(Element* memory, const Layout& layout, std::int64_t channels) {
  using Void = std::conditional_t<std::is_const_v<Element>, const void, void>;
  constexpr auto kSize = static_cast<std::ptrdiff_t>(sizeof(Element));
  return BasicImageView<Void>{memory + layout.first,
                              dtype_of<std::remove_const_t<Element>>(),
                              kHeight,
                              kWidth,
                              channels,
                              {layout.row * kSize, layout.column * kSize, layout.channel * kSize}};
}

std::int64_t place(const Layout& layout, std::int64_t y, std::int64_t x, std::int64_t c) {
  return layout.first + y * layout.row + x * layout.column + c * layout.channel;
}

template <typename T>
double as_double(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::clamp(static_cast<double>(value), 0.0, 1.0);
  } else {
    return static_cast<double>(value) / std::numeric_limits<T>::max();
  }
}

template <typename Check>
void for_all_layouts(Check check) {
  for (std::int64_t channels = 1; channels <= 4; ++channels) {
    for (const Layout& layout : layouts(channels)) {
      CAPTURE(channels);
      CAPTURE(layout.name);
      for (const auto& [x, y] : {std::pair{0, 0}, {1, 2}, {3, 1}}) {
        for (std::int64_t count = 0; count <= 70; count += count < 20 ? 1 : 5) {
          CAPTURE(count);
          CAPTURE(x);
          check(layout, channels, y, x, count);
        }
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("rows are read from every layout", T, std::uint8_t, std::uint16_t, float, double) {
  const std::vector<T> memory = elements<T>(1);
  for_all_layouts([&](const Layout& layout, std::int64_t channels, std::int64_t y, std::int64_t x, std::int64_t count) {
    const std::int64_t stride = count + 3;
    std::vector<float> out(static_cast<std::size_t>(channels * stride + 8), -7.0F);
    read_row(view_of(memory.data(), layout, channels), y, x, count, out.data(), stride);
    double most = 0;
    bool untouched = true;
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t i = 0; i < stride; ++i) {
        const float got = out[static_cast<std::size_t>(c * stride + i)];
        if (i < count) {
          const T value = memory[static_cast<std::size_t>(place(layout, y, x + i, c))];
          most = std::max(most, std::abs(static_cast<double>(got) - as_double(value)));
        } else {
          untouched &= got == -7.0F;
        }
      }
    }
    for (std::size_t i = static_cast<std::size_t>(channels * stride); i < out.size(); ++i) untouched &= out[i] == -7.0F;
    CHECK(most <= 1.2e-7);  // the reciprocal's rounding, and the product's
    CHECK(untouched);
  });
}

TEST_CASE_TEMPLATE("rows are written to every layout, and nothing else", T, std::uint8_t, std::uint16_t, float,
                   double) {
  const std::vector<T> before = elements<T>(2);
  std::vector<float> values = testing::noise(4 * 80, 3);
  for (float& v : values) v = v * 1.5F - 0.25F;
  values[5] = std::numeric_limits<float>::quiet_NaN();
  values[90] = std::numeric_limits<float>::infinity();
  values[8] = -std::numeric_limits<float>::infinity();
  for_all_layouts([&](const Layout& layout, std::int64_t channels, std::int64_t y, std::int64_t x, std::int64_t count) {
    std::vector<T> memory = before;
    const std::int64_t stride = 79;
    write_row(values.data(), stride, view_of(memory.data(), layout, channels), y, x, count);
    double most = 0;
    std::vector<T> expected = before;
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<std::size_t>(place(layout, y, x + i, c));
        const float value = values[static_cast<std::size_t>(c * stride + i)];
        const double clamped = value > 0 ? std::min(static_cast<double>(value), 1.0) : 0.0;
        most = std::max(most, std::abs(as_double(memory[at]) - clamped));
        expected[at] = memory[at];
      }
    }
    // Half a step, and where two are all but as near float32 may take the other.
    CHECK(most <= (std::is_integral_v<T> ? 0.5 / static_cast<double>(std::numeric_limits<T>::max()) + 1.2e-7 : 0.0));
    CHECK(memory == expected);
  });
}

TEST_CASE_TEMPLATE("rows are copied between all layouts bit for bit", T, std::uint8_t, std::uint16_t, float, double) {
  std::vector<T> memory = elements<T>(4);
  if constexpr (std::is_floating_point_v<T>) memory[10] = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> before = elements<T>(5);
  for (std::int64_t channels = 1; channels <= 4; ++channels) {
    for (const Layout& from : layouts(channels)) {
      for (const Layout& to : layouts(channels)) {
        for (const std::int64_t count : {0, 1, 15, 16, 17, 70}) {
          CAPTURE(channels);
          CAPTURE(from.name);
          CAPTURE(to.name);
          CAPTURE(count);
          std::vector<T> out = before;
          std::vector<T> expected = before;
          copy_row(view_of(memory.data(), from, channels), view_of(out.data(), to, channels), 1, 2, count);
          for (std::int64_t c = 0; c < channels; ++c) {
            for (std::int64_t i = 2; i < 2 + count; ++i) {
              expected[static_cast<std::size_t>(place(to, 1, i, c))] =
                  memory[static_cast<std::size_t>(place(from, 1, i, c))];
            }
          }
          CHECK(std::memcmp(out.data(), expected.data(), out.size() * sizeof(T)) == 0);
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("every integer comes back as it was", T, std::uint8_t, std::uint16_t) {
  constexpr std::int64_t kCount = std::int64_t{std::numeric_limits<T>::max()} + 1;
  for (const std::int64_t channels : {1, 3}) {
    CAPTURE(channels);
    std::vector<T> values;
    for (std::int64_t i = 0; i < kCount * channels; ++i) values.push_back(static_cast<T>(i));
    std::vector<T> out(values.size());
    std::vector<float> floats(values.size());
    read_row(interleaved(values.data(), 1, kCount, channels), 0, 0, kCount, floats.data(), kCount);
    CHECK(*std::min_element(floats.begin(), floats.end()) == 0.0F);
    CHECK(*std::max_element(floats.begin(), floats.end()) == 1.0F);
    write_row(floats.data(), kCount, interleaved(out.data(), 1, kCount, channels), 0, 0, kCount);
    CHECK(out == values);
    // Also where each is a little off, as results are.
    for (const float off : {0.49F, -0.49F}) {
      std::vector<float> near = floats;
      for (float& x : near) x += off / static_cast<float>(kCount - 1);
      write_row(near.data(), kCount, interleaved(out.data(), 1, kCount, channels), 0, 0, kCount);
      CHECK(out == values);
    }
  }
}

TEST_CASE("bytes lie at any address") {
  // Whatever the alignment, and never beyond the last byte: the vectors are exactly as long as the row.
  const std::vector<float> in = testing::noise(3 * 64, 8);
  for (std::int64_t first = 0; first < 17; ++first) {
    for (std::int64_t count = 0; count <= 64; ++count) {
      CAPTURE(first);
      CAPTURE(count);
      std::vector<std::uint8_t> memory(static_cast<std::size_t>(first + 3 * count));
      std::vector<float> out(static_cast<std::size_t>(3 * count));
      write_row(in.data(), 64, interleaved(memory.data() + first, 1, count, 3), 0, 0, count);
      read_row(interleaved<const std::uint8_t>(memory.data() + first, 1, count, 3), 0, 0, count, out.data(), count);
      float most = 0;
      for (std::int64_t c = 0; c < 3; ++c) {
        for (std::int64_t i = 0; i < count; ++i) {
          most = std::max(
              most, std::abs(out[static_cast<std::size_t>(c * count + i)] - in[static_cast<std::size_t>(c * 64 + i)]));
        }
      }
      CHECK(most <= 0.5F / 255 + 1.2e-7F);
    }
  }
}
