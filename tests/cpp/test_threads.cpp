// The number of threads changes no bit, Blenders side by side share nothing but the pool, and the pool keeps its word.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <numeric>
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

// How many threads are at work at once, at most.
class Busy {
 public:
  void enter() {
    const int now = ++now_;
    for (int most = most_; most < now && !most_.compare_exchange_weak(most, now);) {
    }
  }
  void leave() { --now_; }
  [[nodiscard]] int most() const { return most_; }

 private:
  std::atomic<int> now_ = 0;
  std::atomic<int> most_ = 0;
};

void take_a_while() { std::this_thread::sleep_for(std::chrono::microseconds(200)); }

TEST_CASE("parallel_tasks runs every task once, on at most so many threads, each with its own number") {
  for (const std::int64_t count : {0, 1, 2, 7, 100}) {
    for (const int threads : {1, 2, 3, 16}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      std::vector<std::atomic<int>> users(static_cast<std::size_t>(threads));
      std::atomic<int> shared = 0;
      Busy busy;
      cpu::parallel_tasks(count, threads, [&](std::int64_t task, int worker) {
        busy.enter();
        if (users[static_cast<std::size_t>(worker)]++ != 0) ++shared;
        take_a_while();
        ++seen[static_cast<std::size_t>(task)];
        --users[static_cast<std::size_t>(worker)];
        busy.leave();
      });
      for (const std::atomic<int>& times : seen) CHECK(times == 1);
      CHECK(shared == 0);
      CHECK(busy.most() <= threads);
    }
  }
}

TEST_CASE("one thread means the caller's") {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> elsewhere = 0;
  const auto look = [&] { elsewhere += std::this_thread::get_id() == caller ? 0 : 1; };
  cpu::parallel_tasks(100, 1, [&](std::int64_t, int) { look(); });
  cpu::parallel_for(100, cpu::kSerialElements, 1, [&](std::int64_t, std::int64_t) { look(); });
  CHECK(elsewhere == 0);
}

TEST_CASE("tasks really run side by side") {
  // Each waits for the other: one thread alone would never end.
  std::atomic<int> there = 0;
  cpu::parallel_tasks(2, 2, [&](std::int64_t, int) {
    ++there;
    while (there < 2) std::this_thread::yield();
  });
  CHECK(there == 2);
}

TEST_CASE("calls within calls share the threads of the outermost one") {
  for (const int outer : {1, 2, 3, 8}) {
    Busy busy;
    std::atomic<int> runs = 0;
    cpu::parallel_tasks(outer, 4, [&](std::int64_t, int) {
      cpu::parallel_tasks(6, 4, [&](std::int64_t, int) {
        cpu::parallel_for(3, cpu::kSerialElements, 4, [&](std::int64_t begin, std::int64_t end) {
          busy.enter();
          take_a_while();
          runs += static_cast<int>(end - begin);
          busy.leave();
        });
      });
    });
    CHECK(runs == outer * 6 * 3);
    CHECK(busy.most() <= 4);
  }
}

TEST_CASE("parallel_tasks throws on the first error in the order of the tasks, and goes on working") {
  for (int repeat = 0; repeat < 50; ++repeat) {
    const std::string message = testing::message_of<std::runtime_error>([] {
      cpu::parallel_tasks(40, 4, [](std::int64_t task, int) {
        if (task == 3) take_a_while();
        if (task >= 3) throw std::runtime_error("task " + std::to_string(task));
      });
    });
    CHECK(message == "task 3");
  }
  // From a call within a call.
  CHECK_THROWS_AS(cpu::parallel_tasks(4, 4,
                                      [](std::int64_t, int) {
                                        cpu::parallel_tasks(4, 2, [](std::int64_t task, int) {
                                          if (task == 2) throw std::runtime_error("inner");
                                        });
                                      }),
                  std::runtime_error);
  std::atomic<int> runs = 0;
  cpu::parallel_tasks(40, 4, [&](std::int64_t, int) { ++runs; });
  CHECK(runs == 40);
}

TEST_CASE("many threads may call at once, with jobs of all kinds") {
  constexpr int kCallers = 6;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&, caller] {
      for (int repeat = 0; repeat < 400; ++repeat) {
        const std::int64_t count = 1 + (repeat * 7 + caller) % 23;
        const int threads = 1 + (repeat + caller) % 5;
        std::vector<std::int64_t> out(static_cast<std::size_t>(count));  // plain memory: the pool hands it over
        const auto write = [&](std::int64_t task) { out[static_cast<std::size_t>(task)] = task + 1; };
        if (repeat % 3 == 0) {
          cpu::parallel_for(count, cpu::kSerialElements, threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) write(i);
          });
        } else {
          cpu::parallel_tasks(count, threads, [&](std::int64_t task, int) { write(task); });
        }
        if (std::accumulate(out.begin(), out.end(), std::int64_t{0}) != count * (count + 1) / 2) ++wrong;
        if (repeat % 100 == 0) take_a_while();  // long enough that the workers fall asleep
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

#if !defined(__SANITIZE_THREAD__)  // which does not allow a child of many threads to start one
TEST_CASE("the child of a fork blends, whatever other threads are about") {
  const Scene scene(203, 190, 3);
  Options options;
  options.threads = 3;
  const std::vector<float> expected = scene.blend(options);
  std::atomic<bool> stop = false;
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i) {
    others.emplace_back([&] {
      while (!stop) cpu::parallel_tasks(4, 4, [](std::int64_t, int) {});
    });
  }
  for (int repeat = 0; repeat < 30; ++repeat) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // rather than wait for ever
      std::atomic<int> there = 0;
      cpu::parallel_tasks(2, 2, [&](std::int64_t, int) {  // on two threads, or never
        ++there;
        while (there < 2) std::this_thread::yield();
      });
      _exit(repeat % 10 != 0 || scene.blend(options) == expected ? 0 : 1);
    }
    REQUIRE(child > 0);
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  stop = true;
  for (std::thread& other : others) other.join();
  CHECK(scene.blend(options) == expected);
}
#endif

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
