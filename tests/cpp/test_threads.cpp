// The number of threads changes no bit, and Blenders side by side share nothing.
#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cpu/parallel.hpp"
#include "support.hpp"

using namespace gpgan;
using testing::Scene;

TEST_CASE("results are the same for any number of threads") {
  const Scene scene(203, 190, 3);  // large enough that work is really spread
  for (const Mode mode : {Mode::kDefault, Mode::kReleased}) {
    Options options = Options::for_mode(mode);
    options.threads = 1;
    const std::vector<float> one = scene.blend(options);
    for (const int threads : {2, 3, 5}) {
      options.threads = threads;
      CHECK(scene.blend(options) == one);
    }
  }
}

TEST_CASE("many Blenders may run at once") {
  constexpr int kThreads = 6;
  std::vector<Scene> scenes;
  std::vector<std::vector<float>> expected;
  for (unsigned i = 0; i < kThreads; ++i) {
    scenes.emplace_back(90 + i, 100, 3, i);
    expected.push_back(scenes.back().blend());
  }
  std::atomic<int> wrong = 0;
  std::vector<std::thread> workers;
  for (std::size_t i = 0; i < kThreads; ++i) {
    workers.emplace_back([&, i] {
      Options options;
      options.threads = 2;
      Blender blender(options, scenes[i].height, scenes[i].width, 3);
      for (int repeat = 0; repeat < 2; ++repeat) wrong += scenes[i].blend(blender) == expected[i] ? 0 : 1;
    });
  }
  for (std::thread& worker : workers) worker.join();
  CHECK(wrong == 0);
}

TEST_CASE("parallel_for covers every index once") {
  for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
    for (const int threads : {1, 2, 3, 16}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      cpu::parallel_for(count, cpu::kSerialElements, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      for (const std::atomic<int>& times : seen) CHECK(times == 1);
    }
  }
}

TEST_CASE("parallel_for throws on the first error in the order of the parts") {
  for (int repeat = 0; repeat < 20; ++repeat) {
    const std::string message = testing::message_of<std::runtime_error>([] {
      cpu::parallel_for(4, cpu::kSerialElements, 4, [](std::int64_t begin, std::int64_t) {
        if (begin > 0) throw std::runtime_error("part " + std::to_string(begin));
      });
    });
    CHECK(message == "part 1");
  }
}

TEST_CASE("bad values are reported alike for any number of threads") {
  Scene scene(300, 300, 1);
  scene.source[100 * 300 + 7] = 2;
  scene.source[250 * 300 + 9] = 3;
  for (const int threads : {1, 2, 4}) {
    Options options;
    options.threads = threads;
    const std::string message = testing::message_of<InvalidArgument>([&] { scene.blend(options); });
    CHECK(message == "source: expected finite floats in [0, 1], got 2.000000 at row 100, column 7");
  }
}
