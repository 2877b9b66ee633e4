// How a grid runs: a block's threads are fibers on the caller's own thread, each as far as its next barrier in turn.
//
// A switch is told to the sanitizers. For ThreadSanitizer a fiber is a thread, and a switch orders nothing: only
// `go` and `arrived` do, at the beginning and end of a block and at its barriers, so that a missing barrier is a data
// race. They are two, since with one a thread early in its turn would seem to be before the later ones.
#include <cuda_runtime.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulation.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(__x86_64__) || !defined(__ELF__) || defined(GPGAN_CUDA_CPU_UCONTEXT)
#include <ucontext.h>
#define GPGAN_CUDA_CPU_SWAPCONTEXT
#else
// Puts what a callee must preserve on this stack, that stack's top into *from, and goes on at the stack whose top is
// `to`. A tenth of the time of swapcontext, which asks the kernel for the signal mask.
extern "C" void gpgan_cuda_cpu_switch(void** from, void* to);
asm(R"(
.text
.globl gpgan_cuda_cpu_switch
.hidden gpgan_cuda_cpu_switch
.type gpgan_cuda_cpu_switch, @function
gpgan_cuda_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gpgan_cuda_cpu_switch, . - gpgan_cuda_cpu_switch
)");
#endif

namespace gpgan_cuda_cpu {
namespace {

// Something that runs: a fiber, or the thread that launches.
struct Context {
#if defined(GPGAN_CUDA_CPU_SWAPCONTEXT)
  ucontext_t registers{};
#else
  void* top = nullptr;  // of the stack, while something else runs
#endif
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
  // ThreadSanitizer's name for it; atomic, since nothing orders a fiber's last look at the host's and the next launch.
  std::atomic<void*> sanitizer = nullptr;
};

void before_switch([[maybe_unused]] Context& from, [[maybe_unused]] Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.sanitizer.load(std::memory_order_relaxed), __tsan_switch_to_fiber_no_sync);
#endif
}

void after_switch([[maybe_unused]] Context& from, [[maybe_unused]] Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(to.fake_stack, &from.stack, &from.stack_bytes);
#endif
}

void switch_to(Context& from, Context& to) {
  before_switch(from, to);
#if defined(GPGAN_CUDA_CPU_SWAPCONTEXT)
  swapcontext(&from.registers, &to.registers);
#else
  gpgan_cuda_cpu_switch(&from.top, to.top);
#endif
  after_switch(to, from);
}

void release([[maybe_unused]] char& token) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(&token);
#endif
}
void acquire([[maybe_unused]] char& token) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(&token);
#endif
}

struct Fiber : Context {
  uint3 index{};
  std::atomic<unsigned> line = 0;  // of the barrier that it waits at; 0: it has returned

  Fiber();
};

// All of this belongs to whoever holds the lock of a Call.
Context host;
std::atomic<Fiber*> running = nullptr;
const std::function<void()>* thread_body = nullptr;
char go = 0;
char arrived = 0;

void yield(unsigned line) {
  Fiber& self = *running.load(std::memory_order_relaxed);
  self.line.store(line, std::memory_order_relaxed);
  release(arrived);
  switch_to(self, host);
  acquire(go);
}

// One thread of a block after another, in any number of launches.
void fiber_main() {
  after_switch(host, *running.load(std::memory_order_relaxed));
  acquire(go);
  for (;;) {
    (*thread_body)();
    yield(0);
  }
}

Fiber::Fiber() {
  // AddressSanitizer makes frames several times as large. Below the stack lies a page that is not to be touched.
  const auto guard = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  stack_bytes = 256 * 1024;
  void* memory = mmap(nullptr, guard + stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) throw std::bad_alloc();
  stack = static_cast<char*>(memory) + guard;
#if defined(GPGAN_CUDA_CPU_SWAPCONTEXT)
  getcontext(&registers);
  registers.uc_stack.ss_sp = const_cast<void*>(stack);
  registers.uc_stack.ss_size = stack_bytes;
  makecontext(&registers, fiber_main, 0);
#else
  // As if fiber_main had been called, with six registers on top of its address and no caller below.
  auto* bottom = reinterpret_cast<std::uintptr_t*>(static_cast<char*>(memory) + guard + stack_bytes);
  bottom[-2] = reinterpret_cast<std::uintptr_t>(&fiber_main);
  top = bottom - 8;
#endif
#if defined(__SANITIZE_THREAD__)
  sanitizer = __tsan_create_fiber(0);
#endif
}

// Kept for the next launch. Fibers given up in the middle of a kernel leave their stacks behind.
std::vector<std::unique_ptr<Fiber>>& pool() {
  static auto& fibers = *new std::vector<std::unique_ptr<Fiber>>;
  return fibers;
}

std::string text(const uint3& at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

[[noreturn]] void throw_divergence(const char* kernel, const Fiber& one, const Fiber& other) {
  const auto where = [](const Fiber& fiber) {
    const unsigned line = fiber.line;
    return "thread " + text(fiber.index) + (line == 0 ? " has returned" : " waits in line " + std::to_string(line));
  };
  const std::string message = std::string("barrier divergence in ") + kernel + ": of block " + text(blockIdx) + ", " +
                              where(one) + " and " + where(other);
  pool().clear();
  throw std::logic_error(message);
}

void run_block(const char* kernel, std::size_t threads) {
  const auto& fibers = pool();
  do {
    release(go);
    for (std::size_t i = 0; i < threads; ++i) {
      running.store(fibers[i].get(), std::memory_order_relaxed);
      thread_index.store(&fibers[i]->index, std::memory_order_relaxed);
      switch_to(host, *fibers[i]);
    }
    acquire(arrived);
    for (std::size_t i = 1; i < threads; ++i) {
      if (fibers[i]->line != fibers[0]->line) throw_divergence(kernel, *fibers[0], *fibers[i]);
    }
  } while (fibers[0]->line != 0);
}

}  // namespace

void wait_for_block(unsigned line) { yield(line); }

void run_grid(const char* kernel, dim3 grid, dim3 block, const std::function<void()>& thread) {
#if defined(__SANITIZE_THREAD__)
  host.sanitizer = __tsan_get_current_fiber();
#endif
  thread_body = &thread;
  gridDim = grid;
  blockDim = block;
  std::size_t threads = 0;
  for (unsigned z = 0; z < block.z; ++z) {
    for (unsigned y = 0; y < block.y; ++y) {
      for (unsigned x = 0; x < block.x; ++x) {
        if (threads == pool().size()) pool().push_back(std::make_unique<Fiber>());
        pool()[threads++]->index = {x, y, z};
      }
    }
  }
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block(kernel, threads);
      }
    }
  }
}

}  // namespace gpgan_cuda_cpu
