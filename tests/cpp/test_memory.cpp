// A Blender that is used again allocates nothing, and keeps what it writes apart from what it reads.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support.hpp"

// A sanitizer has operators of its own, which tell more than a count.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GPGAN_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define GPGAN_SANITIZED
#endif
#endif

namespace {

std::atomic<std::int64_t> allocations = 0;

#if defined(GPGAN_SANITIZED)
constexpr int kQuietCalls = 1;  // nothing is counted, and the sanitizer sees all in one slow call
#else
constexpr int kQuietCalls = 3;

void* allocate(std::size_t size, std::size_t alignment) {
  ++allocations;
  // aligned_alloc wants whole multiples.
  void* memory =
      std::aligned_alloc(alignment, (std::max<std::size_t>(size, 1) + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void* allocate(std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
void* allocate(std::size_t size, std::align_val_t alignment) {
  return allocate(size, std::max(static_cast<std::size_t>(alignment), alignof(std::max_align_t)));
}
#endif

}  // namespace

#if !defined(GPGAN_SANITIZED)
// The forms that do not throw call these in libstdc++ and libc++.
void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void* operator new(std::size_t size, std::align_val_t alignment) { return allocate(size, alignment); }
void* operator new[](std::size_t size, std::align_val_t alignment) { return allocate(size, alignment); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
#endif

using namespace gpgan;
using testing::Scene;

namespace {

template <typename T>
std::vector<T> converted(const std::vector<float>& values) {
  std::vector<T> out;
  for (const float v : values) {
    out.push_back(std::is_floating_point_v<T> ? static_cast<T>(v) : static_cast<T>(v * 255 + 0.5F));
  }
  return out;
}

template <typename T>
void check_allocates_nothing(Mode mode, bool soft, int threads, bool alpha, bool generator_too) {
  constexpr std::int64_t kHeight = 230;
  constexpr std::int64_t kWidth = 311;
  constexpr std::int64_t kChannels = 3;
  const std::int64_t source_channels = alpha ? kChannels + 1 : kChannels;
  const std::vector<T> source = converted<T>(testing::noise(kHeight * kWidth * source_channels, 1));
  const std::vector<T> target = converted<T>(testing::noise(kHeight * kWidth * kChannels, 2));
  std::vector<T> mask = converted<T>(testing::disc(kHeight, kWidth));
  if (!soft) {
    const T top = std::is_floating_point_v<T> ? T{1} : T{255};
    for (T& m : mask) m = m > top / 2 ? top : T{0};
  }
  // Smaller, and inside the first.
  std::vector<T> smaller = mask;
  for (std::size_t i = 0; i < smaller.size(); ++i) {
    if (i / kWidth > kHeight / 2 || i % kWidth < 20) smaller[i] = 0;
  }
  std::vector<T> out(target.size());
  std::vector<float> colors = testing::noise(kChannels * 64 * 64, 3);

  Options options = Options::for_mode(mode);
  options.threads = threads;
  Blender blender(options, kHeight, kWidth, kChannels);
  const auto blend = [&](const std::vector<T>& with) {
    const std::int64_t before = allocations;
    blender.prepare(interleaved(source.data(), kHeight, kWidth, source_channels),
                    interleaved(target.data(), kHeight, kWidth, kChannels),
                    interleaved(with.data(), kHeight, kWidth, 1));
    blender.finish(generator_too ? ConstImageView(planar(colors.data(), 64, 64, kChannels)) : ConstImageView{},
                   interleaved(out.data(), kHeight, kWidth, kChannels));
    return allocations - before;
  };
  const std::int64_t first = blend(mask);  // sizes all that is kept
#if !defined(GPGAN_SANITIZED)
  CHECK(first > 0);  // or nothing is counted
#else
  static_cast<void>(first);
#endif
  // With one thread the second call has all it needs. With helpers a worker's own memory grows until each has had the
  // largest of the tasks, which is for the scheduler to say: what is asked is that it ends.
  const auto settles = [&](const std::vector<T>& with, int calls) {
    int quiet = 0;
    for (int i = 0; i < calls && quiet < kQuietCalls; ++i) quiet = blend(with) == 0 ? quiet + 1 : 0;
    return quiet == kQuietCalls;
  };
  const int calls = threads == 1 ? 3 : 40;
  CHECK(settles(mask, calls));
  CHECK(settles(smaller, calls));
  CHECK(settles(mask, calls));
}

}  // namespace

TEST_CASE("a Blender allocates nothing from its second call on") {
  for (const Mode mode : {Mode::kDefault, Mode::kPaper}) {
    for (const bool soft : {false, true}) {
      for (const int threads : {1, 3}) {
        for (const bool generator_too : {false, true}) {
          CAPTURE(mode);
          CAPTURE(soft);
          CAPTURE(threads);
          CAPTURE(generator_too);
          {
            INFO("uint8");
            check_allocates_nothing<std::uint8_t>(mode, soft, threads, false, generator_too);
          }
          {
            INFO("float");
            check_allocates_nothing<float>(mode, soft, threads, false, generator_too);
          }
          {
            INFO("uint8 with alpha");
            check_allocates_nothing<std::uint8_t>(mode, soft, threads, true, generator_too);
          }
        }
      }
    }
  }
}

TEST_CASE("the result may have another dtype than the target, and lies within its own memory") {
  constexpr std::int64_t kHeight = 300;
  constexpr std::int64_t kWidth = 310;
  const std::vector<float> pictures = testing::noise(kHeight * kWidth * 3, 1);
  const std::vector<float> others = testing::noise(kHeight * kWidth * 3, 2);
  const std::vector<double> target(pictures.begin(), pictures.end());
  std::vector<float> mask(static_cast<std::size_t>(kHeight * kWidth));
  for (std::int64_t y = 10; y < 30; ++y) std::fill_n(mask.begin() + y * kWidth + 10, 20, 1.0F);
  const auto blend = [&](const ConstImageView& from, const ImageView& out, Mode mode) {
    Options options = Options::for_mode(mode);
    options.image_size = 150;
    Blender blender(options, kHeight, kWidth, 3);
    blender.blend(interleaved(others.data(), kHeight, kWidth, 3), from, interleaved(mask.data(), kHeight, kWidth, 1),
                  {}, out);
  };
  for (const Mode mode : {Mode::kDefault, Mode::kPaper}) {
    CAPTURE(mode);
    const std::size_t count = target.size();
    constexpr std::size_t kGuard = 8;
    std::vector<float> expected(count);
    blend(interleaved(pictures.data(), kHeight, kWidth, 3), interleaved(expected.data(), kHeight, kWidth, 3), mode);

    std::vector<std::uint8_t> bytes(8 * count + kGuard, 77);  // as many as the target has, if it is taken for one
    blend(interleaved(target.data(), kHeight, kWidth, 3), interleaved(bytes.data(), kHeight, kWidth, 3), mode);
    float most = 0;
    for (std::size_t i = 0; i < count; ++i) {
      most = std::max(most, std::abs(static_cast<float>(bytes[i]) / 255 - expected[i]));
    }
    CHECK(most < 0.5F / 255 + 2e-6F);
    CHECK(std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(count), bytes.end(),
                      [](std::uint8_t b) { return b == 77; }));

    std::vector<double> doubles(count);
    const std::vector<std::uint8_t> byte_target = converted<std::uint8_t>(pictures);
    std::vector<float> from_bytes(count);
    std::vector<float> byte_floats;
    for (const std::uint8_t b : byte_target) byte_floats.push_back(static_cast<float>(b) / 255);
    blend(interleaved(byte_floats.data(), kHeight, kWidth, 3), interleaved(from_bytes.data(), kHeight, kWidth, 3),
          mode);
    blend(interleaved(byte_target.data(), kHeight, kWidth, 3), interleaved(doubles.data(), kHeight, kWidth, 3), mode);
    most = 0;
    for (std::size_t i = 0; i < count; ++i) {
      most = std::max(most, std::abs(static_cast<float>(doubles[i]) - from_bytes[i]));
    }
    CHECK(most < 2e-6F);
  }
}

TEST_CASE("the result may overlap what it is made of") {
  constexpr std::int64_t kHeight = 90;
  constexpr std::int64_t kWidth = 101;
  constexpr std::int64_t kRow = 3 * kWidth;
  const std::vector<std::uint8_t> source = converted<std::uint8_t>(testing::noise(kHeight * kRow, 1));
  const std::vector<std::uint8_t> target = converted<std::uint8_t>(testing::noise(kHeight * kRow, 2));
  const std::vector<float> mask = testing::disc(kHeight, kWidth);
  const std::vector<float> colors = testing::noise(3 * 32 * 32, 3);
  for (const Mode mode : {Mode::kDefault, Mode::kPaper}) {
    for (const int threads : {1, 3}) {
      CAPTURE(mode);
      CAPTURE(threads);
      Options options = Options::for_mode(mode);
      options.image_size = 32;
      options.threads = threads;
      Blender blender(options, kHeight, kWidth, 3);
      const auto blend = [&](const ConstImageView& from, const ConstImageView& onto, const ImageView& out) {
        blender.prepare(from, onto, interleaved(mask.data(), kHeight, kWidth, 1));
        blender.finish(planar(colors.data(), 32, 32, 3), out);
      };
      const auto view = [](auto* data) { return interleaved(data, kHeight, kWidth, 3); };
      std::vector<std::uint8_t> expected(target.size());
      blend(view(source.data()), view(target.data()), view(expected.data()));

      std::vector<std::uint8_t> in_place = target;
      blend(view(source.data()), view(in_place.data()), view(in_place.data()));
      CHECK(in_place == expected);
      in_place = source;
      blend(view(in_place.data()), view(target.data()), view(in_place.data()));
      CHECK(in_place == expected);

      // Shifted by some rows and by one pixel, down and up, and upside down in the same memory.
      constexpr std::int64_t kShift = 7 * kRow + 3;
      for (const auto& [to, from] : {std::pair{std::int64_t{0}, kShift}, {kShift, std::int64_t{0}}}) {
        for (const bool is_target : {true, false}) {
          CAPTURE(to);
          CAPTURE(is_target);
          std::vector<std::uint8_t> memory(target.size() + kShift, 99);
          std::copy(is_target ? target.begin() : source.begin(), is_target ? target.end() : source.end(),
                    memory.begin() + from);
          const std::vector<std::uint8_t> before = memory;
          const auto moved = view(memory.data() + from);
          blend(is_target ? view(source.data()) : ConstImageView(moved),
                is_target ? ConstImageView(moved) : view(target.data()), view(memory.data() + to));
          CHECK(std::equal(expected.begin(), expected.end(), memory.begin() + to));
          const auto size = static_cast<std::int64_t>(target.size());
          CHECK(std::equal(memory.begin(), memory.begin() + to, before.begin()));
          CHECK(std::equal(memory.begin() + to + size, memory.end(), before.begin() + to + size));
        }
      }
      in_place = target;
      ImageView flipped = view(in_place.data());
      flipped.data = in_place.data() + (kHeight - 1) * kRow;
      flipped.strides[0] = -kRow;
      blend(view(source.data()), view(in_place.data()), flipped);
      bool same = true;
      for (std::int64_t y = 0; y < kHeight; ++y) {
        same &= std::equal(in_place.begin() + y * kRow, in_place.begin() + (y + 1) * kRow,
                           expected.begin() + (kHeight - 1 - y) * kRow);
      }
      CHECK(same);
    }
  }
}

TEST_CASE("what a Blender did before leaves no trace") {
  Scene scene(170, 203, 3);
  std::vector<float> hard = scene.mask;
  for (float& m : hard) m = m > 0.5F ? 1.0F : 0.0F;
  std::vector<float> corner(hard.size());
  corner.back() = 1;
  const std::vector<std::vector<float>> masks = {scene.mask, hard, corner, std::vector<float>(hard.size(), 1.0F)};
  for (const Mode mode : {Mode::kDefault, Mode::kPaper}) {
    std::vector<std::vector<float>> expected;
    Options options = Options::for_mode(mode);
    options.image_size = 32;
    options.threads = 1;
    for (const std::vector<float>& mask : masks) {
      scene.mask = mask;
      expected.push_back(scene.blend(options));
    }
    for (const int threads : {1, 2, 3, 5}) {
      CAPTURE(mode);
      CAPTURE(threads);
      options.threads = threads;
      Blender blender(options, scene.height, scene.width, 3);
      for (const std::size_t i : {0, 0, 1, 2, 0, 3, 2, 1, 1, 3}) {
        CAPTURE(i);
        scene.mask = masks[i];
        CHECK(scene.blend(blender) == expected[i]);
      }
    }
  }
}
