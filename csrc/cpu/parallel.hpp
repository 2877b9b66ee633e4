// Work spread over threads: two functions, used by every operation, and the library's own pool behind them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace gpgan::cpu::pool {

using Task = void (*)(void* context, std::int64_t index, int worker);

// task(context, i, worker) for every i in [0, count), each taken in order by whoever of at most `threads` threads is
// free: the caller, who is worker 0, and helpers that sleep between the calls. Many threads may call at once. A task
// may call again: what it starts gets its share of `threads`, so that no call ever keeps more of them busy. The error
// of the first task that throws is thrown on; later tasks may then not be run. Needs no memory but when a call asks for
// more threads than any before.
void run(std::int64_t count, int threads, Task task, void* context);

}  // namespace gpgan::cpu::pool

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// Below this many elements a thread costs more to wake than it saves.
constexpr std::int64_t kSerialElements = 1 << 15;

// Calls body(task, worker) for every task in [0, count), whoever is free taking the next; `worker` in [0, threads) is
// for scratch memory of its own. The first exception in the order of the tasks is thrown on.
template <typename Body>
void parallel_tasks(std::int64_t count, int threads, Body&& body) {
  using Function = std::remove_reference_t<Body>;
  pool::run(
      count, threads,
      [](void* context, std::int64_t task, int worker) { (*static_cast<Function*>(context))(task, worker); },
      const_cast<std::remove_const_t<Function>*>(&body));
}

// Calls body(begin, end) on contiguous parts of [0, count), at most one a thread; `grain` is the elements behind one
// count. The parts never depend on timing, so results are the same for any number of threads wherever the
// body's are. The first exception in the order of the parts is thrown on.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t grain, int threads, Body&& body) {
  if (count <= 0) return;
  const std::int64_t affordable = std::max<std::int64_t>(1, count * std::max<std::int64_t>(1, grain) / kSerialElements);
  const std::int64_t parts = std::min({static_cast<std::int64_t>(threads), count, affordable});
  if (parts <= 1) {
    body(std::int64_t{0}, count);
    return;
  }
  parallel_tasks(parts, threads,
                 [&](std::int64_t part, int /*worker*/) { body(count * part / parts, count * (part + 1) / parts); });
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
