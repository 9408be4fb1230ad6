// A fabric that only remembers what was sent.
#pragma once

#include "transport/fabric.hpp"

#include <mutex>
#include <vector>

namespace hexgen::actors::test {

class recording_fabric final : public transport::fabric {
public:
  void start() override {}
  void stop() override {}
  [[nodiscard]] std::string address() const override { return "here:1"; }
  [[nodiscard]] std::uint64_t incarnation() const override { return 1; }
  void dial(const std::string&) override {}
  void dial_through(transport::peer_id, const std::string&, std::uint64_t) override {}
  transport::send_result send(transport::peer_id peer, transport::frame f) override {
    const std::lock_guard guard(mutex_);
    if (full)
      return transport::send_result::would_block;
    sent_.emplace_back(peer, std::move(f));
    return transport::send_result::accepted;
  }
  void attend(const std::function<bool()>& /*ready*/,
              std::chrono::microseconds /*limit*/) override {}
  void disconnect(transport::peer_id) override {}
  [[nodiscard]] transport::link_stats stats(transport::peer_id) const override { return {}; }
  [[nodiscard]] std::uint64_t relayed_bytes() const override { return 0; }
  void post(std::function<void()>, std::uint32_t) override {}

  [[nodiscard]] std::vector<std::pair<transport::peer_id, transport::frame>> sent() const {
    const std::lock_guard guard(mutex_);
    return sent_;
  }
  bool full = false;

private:
  mutable std::mutex mutex_;
  std::vector<std::pair<transport::peer_id, transport::frame>> sent_;
};

inline transport::peer_info peer_named(transport::peer_id id, const std::string& name) {
  transport::peer_info p;
  p.id = id;
  p.name = name;
  p.incarnation = 1;
  return p;
}

} // namespace hexgen::actors::test
