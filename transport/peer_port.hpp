// What other threads see of a connected peer: its outbox and its counters.
#pragma once

#include "transport/fabric.hpp"
#include "transport/outbox.hpp"

#include <atomic>
#include <cstdint>

namespace hexgen::transport {

struct peer_port {
  explicit peer_port(std::uint64_t send_queue_bytes) : box(send_queue_bytes) {}

  outbox box;
  std::atomic<std::uint64_t> frames_sent{0};
  std::atomic<std::uint64_t> frames_received{0};
  std::atomic<std::uint64_t> bytes_sent{0};
  std::atomic<std::uint64_t> bytes_received{0};
  std::atomic<double> latency_us{0};

  [[nodiscard]] link_stats stats() const {
    return {frames_sent, frames_received, bytes_sent, bytes_received, latency_us};
  }
};

} // namespace hexgen::transport
