#include "compute/cpu/thread_pool.hpp"
#include "tests/catch.hpp"

#include <atomic>
#include <cstdint>
#include <vector>

namespace hexgen::compute {

TEST_CASE("every item of every loop runs once, on any number of threads", "[thread_pool]") {
  for (const int threads : {1, 2, 5}) {
    thread_pool pool(threads);
    CHECK(pool.threads() == threads);
    std::vector<int> counts(1000, 0);
    int expected = 0;
    for (int round = 0; round < 2000; ++round) {
      const std::int64_t items = round % 7 == 0 ? 0 : round % 1000;
      const std::int64_t chunk = 1 + round % 13;
      for (auto& c : counts)
        c = 0;
      pool.run(items, chunk, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i)
          ++counts[static_cast<std::size_t>(i)];
      });
      for (std::int64_t i = 0; i < 1000; ++i)
        expected += counts[static_cast<std::size_t>(i)] == (i < items ? 1 : 0) ? 0 : 1;
    }
    CHECK(expected == 0);
  }
}

TEST_CASE("a worker that wakes late takes nothing of the next loop", "[thread_pool]") {
  // Loops of few and of many items in turn, each with a body of its own: a run taken with one
  // loop's number and another's description would be counted twice, or in the wrong place.
  thread_pool pool(4);
  std::vector<std::atomic<int>> counts(64);
  int wrong = 0;
  for (int round = 0; round < 60'000; ++round) {
    const int items = round % 2 == 0 ? 2 : 64;
    const int mark = round % 5 + 1;
    for (auto& c : counts)
      c.store(0, std::memory_order_relaxed);
    pool.run(items, 1, [&counts, mark](std::int64_t begin, std::int64_t end) {
      for (auto i = begin; i < end; ++i)
        counts[static_cast<std::size_t>(i)].fetch_add(mark, std::memory_order_relaxed);
    });
    for (int i = 0; i < 64; ++i)
      wrong += counts[static_cast<std::size_t>(i)].load(std::memory_order_relaxed) ==
                       (i < items ? mark : 0)
                   ? 0
                   : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("more runs than a loop can count become longer runs", "[thread_pool]") {
  thread_pool pool(3);
  std::atomic<std::int64_t> sum{0};
  pool.run(200'000, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i)
      sum.fetch_add(i, std::memory_order_relaxed);
  });
  CHECK(sum.load() == 200'000LL * 199'999 / 2);
}

} // namespace hexgen::compute
