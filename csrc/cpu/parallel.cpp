#include "cpu/parallel.hpp"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <thread>

namespace gpgan::cpu::pool {
namespace {

// How long a worker without work looks for some before it sleeps, and a caller for its helpers' last tasks. The
// operations of a blend follow one another within microseconds, while to wake a sleeping thread takes tens; much
// longer would take the processor from other pools, such as that of the generator's framework.
constexpr std::chrono::microseconds kSpin{30};

// What is left, for calls by this thread, of the `threads` of the call that it is working for.
constexpr int kUnlimited = std::numeric_limits<int>::max();
thread_local int allowed_threads = kUnlimited;

template <typename Done>
void spin_until(Done&& done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return;
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
}

// One call of run(), on the caller's stack. What is not atomic is guarded by the pool's lock, or never changes.
struct Job {
  std::int64_t count = 0;
  Task task = nullptr;
  void* context = nullptr;
  int nested_threads = 1;  // allowed to each of its threads

  std::atomic<std::int64_t> next = 0;  // the first task that nobody has taken
  std::atomic<int> active = 0;         // helpers at work on it
  int wanted = 0;                      // helpers that may still join
  int joined = 0;                      // helpers that ever did
  bool caller_sleeps = false;
  std::condition_variable left;  // by the last helper

  std::int64_t failed = 0;  // if `error`: the first task that threw it
  std::exception_ptr error;

  // The list of jobs that want helpers.
  bool listed = false;
  Job* before = nullptr;
  Job* after = nullptr;
};

class Pool {
 public:
  void run(Job& job, int helpers) {
    job.wanted = helpers;
    int woken = 0;
    {
      const std::scoped_lock lock(mutex_);
      while (workers_ < helpers && start_worker()) ++workers_;
      enlist(job);
      woken = wake(helpers - spinning_);
    }
    for (; woken > 0; --woken) wake_.notify_one();
    work(job, 0);
    {
      const std::scoped_lock lock(mutex_);
      delist(job);
      if (job.active == 0) return;
    }
    spin_until([&] { return job.active == 0; });
    // In any case with the lock: the last helper to leave has it until it no longer needs the job.
    std::unique_lock lock(mutex_);
    job.caller_sleeps = true;
    job.left.wait(lock, [&] { return job.active == 0; });
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  // While a thread has a thread-local object with a destructor, the C library does not unload the code of it: a plugin
  // that holds this library may be closed while its workers are about, and finds them again when it is opened again.
  struct KeepsCodeLoaded {
    KeepsCodeLoaded() = default;
    ~KeepsCodeLoaded() { allowed_threads = 1; }
    KeepsCodeLoaded(const KeepsCodeLoaded&) = delete;
    KeepsCodeLoaded& operator=(const KeepsCodeLoaded&) = delete;
  };

  // The tasks are taken in order: before one that throws, all were taken. So the first error in their order is found
  // whatever the timing, although no more are begun after any error.
  void work(Job& job, int worker) {
    const int allowed = allowed_threads;
    allowed_threads = job.nested_threads;
    while (true) {
      const std::int64_t index = job.next.fetch_add(1, std::memory_order_relaxed);
      if (index >= job.count) break;
      try {
        job.task(job.context, index, worker);
      } catch (...) {
        job.next.store(job.count, std::memory_order_relaxed);
        const std::scoped_lock lock(mutex_);
        if (job.error && job.failed < index) continue;
        job.error = std::current_exception();
        job.failed = index;
      }
    }
    allowed_threads = allowed;
  }

  [[noreturn]] void serve() {
    thread_local KeepsCodeLoaded keeps_code_loaded;
    static_cast<void>(keeps_code_loaded);
    std::unique_lock lock(mutex_);
    while (true) {
      if (first_ == nullptr) await(lock);
      if (first_ == nullptr) continue;
      Job& job = *first_;
      const int worker = ++job.joined;
      ++job.active;
      if (--job.wanted == 0) delist(job);
      // Two callers may have counted on the same spinning worker.
      const bool more = first_ != nullptr && spinning_ == 0 && tickets_ == 0 && wake(1) == 1;
      lock.unlock();
      if (more) wake_.notify_one();
      work(job, worker);
      lock.lock();
      delist(job);  // there are no tasks left
      if (--job.active == 0 && job.caller_sleeps) job.left.notify_one();
    }
  }

  void await(std::unique_lock<std::mutex>& lock) {
    ++spinning_;
    lock.unlock();
    spin_until([&] { return listed_.load(std::memory_order_relaxed) > 0; });
    lock.lock();
    --spinning_;
    if (first_ != nullptr) return;
    ++sleeping_;
    wake_.wait(lock, [&] { return tickets_ > 0; });
    --tickets_;
  }

  // Gives up to `count` sleeping workers leave to wake; the caller notifies as many, best without the lock.
  int wake(int count) {
    count = std::clamp(count, 0, sleeping_);
    sleeping_ -= count;
    tickets_ += count;
    return count;
  }

  bool start_worker() {
    try {
      std::thread([this] { serve(); }).detach();
      return true;
    } catch (...) {
      return false;  // no more threads, or no memory for one: those that are there do the work
    }
  }

  void enlist(Job& job) {
    job.listed = true;
    job.before = last_;
    (last_ != nullptr ? last_->after : first_) = &job;
    last_ = &job;
    listed_.fetch_add(1, std::memory_order_relaxed);
  }

  void delist(Job& job) {
    if (!job.listed) return;
    job.listed = false;
    (job.before != nullptr ? job.before->after : first_) = job.after;
    (job.after != nullptr ? job.after->before : last_) = job.before;
    listed_.fetch_sub(1, std::memory_order_relaxed);
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  Job* first_ = nullptr;  // the job that has waited longest
  Job* last_ = nullptr;
  std::atomic<int> listed_ = 0;  // how many, to be seen without the lock
  int workers_ = 0;
  int spinning_ = 0;
  int sleeping_ = 0;  // in wake_, less those with a ticket
  int tickets_ = 0;
};

// Never destroyed: its workers sleep in it until the process has ended, and while it ends other threads may still
// blend. In the child of a fork(), where the workers are not, a new one takes its place.
alignas(Pool) std::byte pool_memory[sizeof(Pool)];

Pool& the_pool() {
  static Pool* const pool = [] {
    pthread_atfork([] { the_pool().lock(); }, [] { the_pool().unlock(); },
                   [] {
                     new (pool_memory) Pool;
                     allowed_threads = kUnlimited;
                   });
    return new (pool_memory) Pool;
  }();
  return *pool;
}

// Made when the library is loaded: a fork() while another thread makes it would leave it half made in the child.
[[maybe_unused]] const Pool& made_early = the_pool();

}  // namespace

void run(std::int64_t count, int threads, Task task, void* context) {
  threads = std::min(threads, allowed_threads);
  const int workers = static_cast<int>(std::min<std::int64_t>(threads, count));
  if (workers <= 1) {
    for (std::int64_t i = 0; i < count; ++i) task(context, i, 0);
    return;
  }
  Job job;
  job.count = count;
  job.task = task;
  job.context = context;
  job.nested_threads = threads / workers;
  the_pool().run(job, workers - 1);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace gpgan::cpu::pool
