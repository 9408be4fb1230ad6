#include "actors/shell/fabric_gate.hpp"

#include "actors/shell/clock.hpp"

namespace hexgen::actors {

void fabric_gate::open(sink to) {
  const std::lock_guard guard(mutex_);
  to_ = std::move(to);
  for (auto& e : early_)
    to_(std::move(e));
  early_.clear();
}

void fabric_gate::close() {
  const std::lock_guard guard(mutex_);
  closed_ = true;
  to_ = nullptr;
  early_.clear();
}

// The lock is held while the sink runs, so that open() hands over what came early in order.
void fabric_gate::pass(fabric_event e) {
  e.at_us = now_us();
  const std::lock_guard guard(mutex_);
  if (to_)
    to_(std::move(e));
  else if (!closed_ && early_.size() < most_early)
    early_.push_back(std::move(e));
}

void fabric_gate::on_up(const transport::peer_info& peer) {
  fabric_event e;
  e.what = fabric_event::kind::up;
  e.peer = peer;
  pass(std::move(e));
}

void fabric_gate::on_frame(const transport::peer_info& peer,
                           std::shared_ptr<const transport::frame> f) {
  fabric_event e;
  e.what = fabric_event::kind::frame;
  e.peer = peer;
  e.frame = std::move(f);
  pass(std::move(e));
}

void fabric_gate::on_down(const transport::peer_info& peer, transport::down_reason reason,
                          const std::string& detail) {
  fabric_event e;
  e.what = fabric_event::kind::down;
  e.peer = peer;
  e.reason = reason;
  e.text = detail;
  pass(std::move(e));
}

void fabric_gate::on_dial_failed(const std::string& address, const std::string& detail) {
  fabric_event e;
  e.what = fabric_event::kind::dial_failed;
  e.address = address;
  e.text = detail;
  pass(std::move(e));
}

} // namespace hexgen::actors
