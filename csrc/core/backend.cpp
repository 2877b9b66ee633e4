#include "core/backend.hpp"

#include <cstdlib>
#include <thread>

#include "cpu/backend.hpp"

namespace gpgan {
namespace {

constexpr int kMaxThreads = 4096;

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
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : static_cast<int>(cores);
}

std::string version() { return GPGAN_VERSION; }

std::string cpu_target() { return cpu::target(); }

namespace core {

std::unique_ptr<Backend> make_backend(int threads) { return cpu::make_backend(resolve_threads(threads)); }

}  // namespace core
}  // namespace gpgan
