// The activation path's way out of a process: frames to a node by name, past all mailboxes.
#pragma once

#include "transport/fabric.hpp"

#include <chrono>
#include <functional>
#include <string>

namespace hexgen::actors {

/// Thread-safe. Frames to the own node's name come back in through the receiver of the same
/// process, so code that sends need not know where its peer is.
class data_plane {
public:
  virtual ~data_plane() = default;
  /// false: no such peer now, or its queue is full; the generation is then failed by the caller.
  virtual bool send(const std::string& node, transport::frame f) = 0;
  /// As fabric::attend.
  virtual void attend(const std::function<bool()>& ready, std::chrono::microseconds limit) = 0;
};

} // namespace hexgen::actors
