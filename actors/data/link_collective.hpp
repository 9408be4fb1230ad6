// The collective over frames: ranks of a stage in one process, two, or two hosts.
#pragma once

#include "actors/core/wire.hpp"
#include "actors/data/compute_slot.hpp"
#include "actors/data/data_plane.hpp"
#include "compute/collective.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

namespace hexgen::actors {

/// What arrived for one rank and was not taken yet. deliver() is called by the transport thread,
/// take() by the rank's thread, abort() by anyone.
class collective_mailbox {
public:
  /// false: the mailbox is full or the step is far off; the generation must fail.
  bool deliver(const wire::collective_head& head, std::shared_ptr<const transport::frame> f);
  /// Waits for rank `from`'s bytes of operation (step, index). Throws
  /// compute::collective_aborted on abort and past the deadline.
  std::shared_ptr<const transport::frame> take(std::uint64_t step, std::uint32_t index,
                                               std::uint32_t from,
                                               std::chrono::steady_clock::time_point deadline);
  /// Whether take() would return at once.
  [[nodiscard]] bool has(std::uint64_t step, std::uint32_t index, std::uint32_t from) const;
  void abort(const std::string& reason);
  [[nodiscard]] bool aborted() const { return aborted_.load(std::memory_order_acquire); }
  /// Drops what is left of steps before `step`.
  void forget_before(std::uint64_t step);

private:
  using key = std::tuple<std::uint64_t, std::uint32_t, std::uint32_t>; // step, index, rank
  static constexpr std::size_t capacity = 8192;

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<key, std::shared_ptr<const transport::frame>> frames_;
  std::string reason_;
  std::atomic<bool> aborted_{false};
};

/// One rank's view. Gives the compute slot up while it waits, and pays the device's speed debt
/// before it lets others see its part.
class link_collective final : public compute::collective {
public:
  struct place {
    std::uint64_t replica = 0, generation = 0;
    std::uint32_t stage = 0;
    int rank = 0;
    std::vector<node_process> rank_nodes;
    std::chrono::milliseconds timeout{10'000}; // of one operation
  };
  link_collective(place where, data_plane& out, collective_mailbox& mail, compute_slot& slot,
                  speed_limiter& limiter);

  [[nodiscard]] int rank() const override { return where_.rank; }
  [[nodiscard]] int degree() const override { return static_cast<int>(where_.rank_nodes.size()); }
  void all_gather(std::span<const std::byte> mine,
                  std::span<const std::span<std::byte>> all) override;
  void broadcast(std::span<std::byte> bytes) override;

  /// Operations of this step are counted from 0.
  void begin_step(std::uint64_t number);
  /// Time spent computing since begin_step, waits left out; ends the count.
  double end_step();

private:
  void post(std::uint32_t to, const transport::buffer& payload);
  void receive(std::uint32_t from, std::span<std::byte> into);
  void pause();

  place where_;
  data_plane& out_;
  collective_mailbox& mail_;
  compute_slot& slot_;
  speed_limiter& limiter_;
  std::uint64_t step_ = 0;
  std::uint32_t index_ = 0;
  double compute_us_ = 0;
};

} // namespace hexgen::actors
