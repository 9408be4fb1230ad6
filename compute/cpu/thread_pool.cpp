#include "compute/cpu/thread_pool.hpp"

#include <immintrin.h>

#include <algorithm>

namespace hexgen::compute {

namespace {
constexpr int spins_before_sleep = 4000; // some 50 us: longer than the gap between two kernels
constexpr std::int64_t most_runs = 0xFFFF;
} // namespace

thread_pool::thread_pool(int threads) {
  workers_.reserve(static_cast<std::size_t>(std::max(threads, 1) - 1));
  for (int i = 1; i < threads; ++i)
    workers_.emplace_back([this] { work(); });
}

thread_pool::~thread_pool() {
  stop_.store(true);
  wake_.fetch_add(1);
  wake_.notify_all();
  for (auto& w : workers_)
    w.join();
}

void thread_pool::run_shared(std::int64_t items, std::int64_t chunk, call function,
                             const void* body) {
  const std::uint64_t loop = (next_.load(std::memory_order_relaxed) >> 32) + 1;
  chunk = std::max(chunk, (items + most_runs - 1) / most_runs);
  const std::int64_t runs = (items + chunk - 1) / chunk;
  function_.store(function, std::memory_order_relaxed);
  body_.store(body, std::memory_order_relaxed);
  items_.store(items, std::memory_order_relaxed);
  chunk_.store(chunk, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  next_.store(loop << 32 | static_cast<std::uint64_t>(runs) << 16, std::memory_order_release);
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_all();

  take_runs(loop);
  for (int spin = 0;; ++spin) {
    const auto done = done_.load(std::memory_order_acquire);
    if (done == runs)
      return;
    if (spin < spins_before_sleep)
      _mm_pause();
    else
      done_.wait(done, std::memory_order_acquire);
  }
}

void thread_pool::take_runs(std::uint64_t loop) {
  auto next = next_.load(std::memory_order_acquire);
  while (next >> 32 == (loop & 0xFFFFFFFFU)) {
    const auto run = static_cast<std::int64_t>(next & 0xFFFFU);
    const auto runs = static_cast<std::int64_t>(next >> 16 & 0xFFFFU);
    if (run == runs)
      return;
    const auto function = function_.load(std::memory_order_relaxed);
    const auto* body = body_.load(std::memory_order_relaxed);
    const auto items = items_.load(std::memory_order_relaxed);
    const auto chunk = chunk_.load(std::memory_order_relaxed);
    if (!next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel))
      continue;
    function(body, run * chunk, std::min((run + 1) * chunk, items));
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == runs)
      done_.notify_one();
    next = next_.load(std::memory_order_acquire);
  }
}

void thread_pool::work() {
  for (;;) {
    // Read before `stop_` and before looking for work: whatever is set after this read also changes
    // `wake_`, so the wait below does not miss it.
    const auto seen = wake_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_acquire))
      return;
    take_runs(next_.load(std::memory_order_acquire) >> 32);
    for (int spin = 0; wake_.load(std::memory_order_acquire) == seen; ++spin) {
      if (spin < spins_before_sleep)
        _mm_pause();
      else
        wake_.wait(seen, std::memory_order_acquire);
    }
  }
}

} // namespace hexgen::compute
