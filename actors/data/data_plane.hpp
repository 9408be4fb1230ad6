// The activation path's way out of a process: frames to a node's process, past all mailboxes.
#pragma once

#include "transport/fabric.hpp"

#include <chrono>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace hexgen::actors {

/// One process of a node. The name alone may lead to the one before, whose end is not noticed yet.
struct node_process {
  std::string name;
  std::uint64_t incarnation = 0;
  auto operator<=>(const node_process&) const = default;
};

/// Thread-safe. Frames to the own node's name come back in through the receiver of the same
/// process, so code that sends need not know where its peer is.
class data_plane {
public:
  virtual ~data_plane() = default;
  /// false: no such peer now, or its queue is full; the generation is then failed by the caller.
  virtual bool send(const node_process& to, transport::frame f) = 0;
  /// As fabric::attend.
  virtual void attend(const std::function<bool()>& ready, std::chrono::microseconds limit) = 0;
};

} // namespace hexgen::actors
