// Ranks of one stage as threads of one process: the collective of the tests.
#pragma once

#include "compute/collective.hpp"

#include <barrier>
#include <memory>
#include <vector>

namespace hexgen::compute::testing {

struct shared_group {
  explicit shared_group(int degree) : barrier(degree), places(static_cast<std::size_t>(degree)) {}
  std::barrier<> barrier;
  std::vector<std::span<const std::byte>> places;
};

class memory_group final : public collective {
public:
  memory_group(shared_group& shared, int rank) : shared_(shared), rank_(rank) {}
  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int degree() const override { return static_cast<int>(shared_.places.size()); }
  void all_gather(std::span<const std::byte> mine,
                  std::span<const std::span<std::byte>> all) override;
  void broadcast(std::span<std::byte> bytes) override;

private:
  shared_group& shared_;
  int rank_;
};

} // namespace hexgen::compute::testing
