// Nodes by name and incarnation: the data plane over a fabric.
#pragma once

#include "actors/data/data_plane.hpp"

#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace hexgen::actors {

/// Thread-safe. Frames to the own name go to `loopback` on the caller's thread.
class node_links final : public data_plane {
public:
  using receiver = std::function<void(std::shared_ptr<const transport::frame>)>;
  explicit node_links(std::string own_name) : own_(std::move(own_name)) {}
  /// Before anything is sent. `fabric` outlives this.
  void attach(transport::fabric& fabric, receiver loopback);
  void up(const transport::peer_info& peer);
  /// Only the connection that is in use is forgotten: a newer one of the same process stays.
  void down(const transport::peer_info& peer);
  bool send(const node_process& to, transport::frame f) override;
  void attend(const std::function<bool()>& ready, std::chrono::microseconds limit) override {
    fabric_->attend(ready, limit);
  }

private:
  std::string own_;
  transport::fabric* fabric_ = nullptr;
  receiver loopback_;
  mutable std::mutex mutex_;
  std::map<node_process, transport::peer_id> peers_;
};

} // namespace hexgen::actors
