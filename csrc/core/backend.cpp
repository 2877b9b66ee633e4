#include "core/backend.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

#include <cstdlib>
#include <thread>

#include "cpu/dispatch.hpp"

namespace gpgan {
namespace {

constexpr int kMaxThreads = 4096;

// Processors that the calling thread may run on: containers and batch systems often give fewer than the machine has.
int processors() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : static_cast<int>(cores);
}

}  // namespace

int resolve_threads(int threads) {
  if (threads < 0 || threads > kMaxThreads) {
    throw InvalidArgument("threads", "0 to " + std::to_string(kMaxThreads), std::to_string(threads));
  }
  if (threads > 0) return threads;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): read only; nobody here calls setenv.
  if (const char* said = std::getenv("GPGAN_NUM_THREADS"); said != nullptr && *said != '\0') {
    char* end = nullptr;
    const long value = std::strtol(said, &end, 10);
    if (*end != '\0' || value < 1 || value > kMaxThreads) {
      throw InvalidArgument("GPGAN_NUM_THREADS", "a whole number from 1 to " + std::to_string(kMaxThreads),
                            "'" + std::string(said) + "'");
    }
    return static_cast<int>(value);
  }
  return processors();
}

std::string version() { return GPGAN_VERSION; }

std::string cpu_target() { return cpu::chosen_target(); }

std::vector<std::string> cpu_targets() { return cpu::available_targets(); }

namespace core {

std::unique_ptr<Backend> make_backend(int threads) { return cpu::make_best_backend(resolve_threads(threads)); }

}  // namespace core
}  // namespace gpgan
