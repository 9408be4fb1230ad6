#include "actors/data/node_links.hpp"

namespace hexgen::actors {

void node_links::attach(transport::fabric& fabric, receiver loopback) {
  fabric_ = &fabric;
  loopback_ = std::move(loopback);
}

void node_links::up(const transport::peer_info& peer) {
  if (peer.role != transport::peer_role::node)
    return;
  const std::lock_guard guard(mutex_);
  peers_[{peer.name, peer.incarnation}] = peer.id;
}

void node_links::down(const transport::peer_info& peer) {
  const std::lock_guard guard(mutex_);
  auto i = peers_.find({peer.name, peer.incarnation});
  if (i != peers_.end() && i->second == peer.id)
    peers_.erase(i);
}

bool node_links::send(const node_process& to, transport::frame f) {
  if (to.name == own_) {
    loopback_(std::make_shared<const transport::frame>(std::move(f)));
    return true;
  }
  transport::peer_id peer = 0;
  {
    const std::lock_guard guard(mutex_);
    auto i = peers_.find(to);
    if (i == peers_.end())
      return false;
    peer = i->second;
  }
  return fabric_->send(peer, std::move(f)) == transport::send_result::accepted;
}

} // namespace hexgen::actors
