// Work spread over threads: one function, used by every operation.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace gpgan::cpu {

// Below this many elements a thread costs more to start than it saves.
constexpr std::int64_t kSerialElements = 1 << 15;

// Calls body(begin, end) on contiguous parts of [0, count), one a thread; `grain` is the elements behind one
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
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(parts));
  const auto run = [&](std::int64_t part) {
    try {
      body(count * part / parts, count * (part + 1) / parts);
    } catch (...) {
      errors[static_cast<std::size_t>(part)] = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  workers.reserve(static_cast<std::size_t>(parts) - 1);
  std::int64_t started = 1;
  try {
    for (; started < parts; ++started) workers.emplace_back(run, started);
  } catch (...) {
    // No more threads, or no memory for them: this one does the rest.
  }
  run(0);
  for (std::int64_t part = started; part < parts; ++part) run(part);
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace gpgan::cpu
