// A few threads that share the rows of one kernel call after another.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace hexgen::compute {

/// Runs one parallel loop at a time. Owned and called by one device thread, which takes part;
/// with one thread the loop is a plain call. Idle workers spin briefly, then sleep.
class thread_pool {
public:
  /// `threads` >= 1, the caller's included.
  explicit thread_pool(int threads);
  ~thread_pool();
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  [[nodiscard]] int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls `body(begin, end)` over [0, items) in runs of `chunk` (longer ones where there would be
  /// more than 65,535), which any thread may take.
  /// `body` must not throw. Returns when every run is done.
  template <class Body>
  void run(std::int64_t items, std::int64_t chunk, const Body& body) {
    if (items <= 0)
      return;
    if (workers_.empty() || items <= chunk) {
      body(std::int64_t{0}, items);
      return;
    }
    run_shared(
        items, chunk,
        [](const void* b, std::int64_t begin, std::int64_t end) {
          (*static_cast<const Body*>(b))(begin, end);
        },
        &body);
  }

private:
  using call = void (*)(const void*, std::int64_t, std::int64_t);

  void run_shared(std::int64_t items, std::int64_t chunk, call function, const void* body);
  void take_runs(std::uint64_t loop);
  void work();

  // `next_` alone says whether a run is left to take: a description is written while the loop
  // before has none left, and kept until every run of its own is done. Whoever saw a run left and
  // then takes it by compare-and-swap has therefore read the description of that run's loop.
  std::atomic<call> function_{nullptr};
  std::atomic<const void*> body_{nullptr};
  std::atomic<std::int64_t> items_{0};
  std::atomic<std::int64_t> chunk_{1};
  // loop number << 32 | runs << 16 | first run not taken
  alignas(64) std::atomic<std::uint64_t> next_{0};
  alignas(64) std::atomic<std::int64_t> done_{0}; // runs finished of the current loop
  alignas(64) std::atomic<std::uint32_t> wake_{
      0}; // low bits of the loop number; sleepers wait here
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

} // namespace hexgen::compute
