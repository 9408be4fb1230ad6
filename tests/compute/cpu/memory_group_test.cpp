#include "tests/catch.hpp"
#include "tests/compute/cpu/memory_group.hpp"

#include <cstring>
#include <thread>

namespace hexgen::compute::testing {

void memory_group::all_gather(std::span<const std::byte> mine,
                              std::span<const std::span<std::byte>> all) {
  shared_.places[static_cast<std::size_t>(rank_)] = mine;
  shared_.barrier.arrive_and_wait();
  for (std::size_t r = 0; r < all.size(); ++r)
    if (!all[r].empty() && all[r].data() != shared_.places[r].data())
      std::memcpy(all[r].data(), shared_.places[r].data(), all[r].size());
  shared_.barrier.arrive_and_wait();
}

void memory_group::broadcast(std::span<std::byte> bytes) {
  shared_.places[static_cast<std::size_t>(rank_)] = bytes;
  shared_.barrier.arrive_and_wait();
  if (rank_ != 0 && !bytes.empty())
    std::memcpy(bytes.data(), shared_.places[0].data(), bytes.size());
  shared_.barrier.arrive_and_wait();
}

TEST_CASE("the tests' group gathers and broadcasts", "[collective]") {
  constexpr int degree = 3;
  shared_group shared(degree);
  int gathered[degree][degree] = {};
  int sent[degree] = {7, 0, 0};
  std::vector<std::thread> ranks;
  for (int r = 0; r < degree; ++r)
    ranks.emplace_back([&, r] {
      memory_group group(shared, r);
      const int mine = 10 + r;
      std::vector<std::span<std::byte>> all;
      for (int& place : gathered[r])
        all.push_back(std::as_writable_bytes(std::span(&place, 1)));
      group.all_gather(std::as_bytes(std::span(&mine, 1)), all);
      group.broadcast(std::as_writable_bytes(std::span(&sent[r], 1)));
    });
  for (auto& t : ranks)
    t.join();
  for (int r = 0; r < degree; ++r) {
    CHECK(sent[r] == 7);
    for (int k = 0; k < degree; ++k)
      CHECK(gathered[r][k] == 10 + k);
  }
}

TEST_CASE("a group of one copies, and refuses buffers of another size", "[collective]") {
  solo_collective solo;
  const int mine = 5;
  int place = 0;
  std::vector<std::span<std::byte>> all{std::as_writable_bytes(std::span(&place, 1))};
  solo.all_gather(std::as_bytes(std::span(&mine, 1)), all);
  CHECK(place == 5);
  CHECK_THROWS_AS(solo.all_gather({}, all), std::invalid_argument);
}

} // namespace hexgen::compute::testing
