// A loop over independent pieces of work on a few threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace hexgen::tools {

/// Calls `work(i)` for every i below `count` on `threads` threads, the caller's among them. `work`
/// does not throw.
template <class Work>
void in_parallel(std::size_t count, int threads, Work&& work) {
  std::atomic<std::size_t> next{0};
  const auto run = [&] {
    for (auto i = next++; i < count; i = next++)
      work(i);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i)
    others.emplace_back(run);
  run();
  for (auto& one : others)
    one.join();
}

} // namespace hexgen::tools
