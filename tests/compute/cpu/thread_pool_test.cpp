#include "compute/cpu/thread_pool.hpp"
#include "tests/catch.hpp"

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

} // namespace hexgen::compute
