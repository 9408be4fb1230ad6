// What the transport thread saw, on its way to an actor.
#pragma once

#include "transport/fabric.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace hexgen::actors {

struct fabric_event {
  enum class kind : std::uint8_t { up, frame, down, dial_failed };
  kind what = kind::up;
  transport::peer_info peer;
  std::shared_ptr<const transport::frame> frame;
  transport::down_reason reason = transport::down_reason::closed;
  std::string text;        // down, dial_failed: detail
  std::string address;     // dial_failed
  std::uint64_t at_us = 0; // steady clock, on the transport thread
};

} // namespace hexgen::actors
