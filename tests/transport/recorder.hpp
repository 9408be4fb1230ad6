// A fabric with a handler that keeps what it is told, and waits on conditions, never on time.
#pragma once

#include "transport/fabric.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace hexgen::transport::testing {

inline constexpr std::chrono::seconds patience{20}; // a busy machine; never spent when all is well

class recorder final : public fabric_handler {
public:
  struct down {
    peer_info peer;
    down_reason reason;
    std::string detail;
  };

  void on_up(const peer_info& peer) override {
    note([&] { ups.push_back(peer); });
  }
  void on_frame(const peer_info& /*peer*/, std::shared_ptr<const frame> f) override {
    if (on_frame_hook)
      on_frame_hook(f);
    note([&] {
      ++frame_count;
      if (keep_frames)
        frames.push_back(std::move(f));
    });
  }
  void on_down(const peer_info& peer, down_reason reason, const std::string& detail) override {
    note([&] { downs.push_back({peer, reason, detail}); });
  }
  void on_dial_failed(const std::string& address, const std::string& detail) override {
    note([&] { failed.emplace_back(address, detail); });
  }
  void on_refused(const std::string& remote, const std::string& detail) override {
    note([&] { refused.emplace_back(remote, detail); });
  }

  /// Waits until `condition` (called under the lock) holds; false: patience is at its end.
  bool wait(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, patience, condition);
  }
  bool wait_up(std::size_t count = 1) {
    return wait([&] { return ups.size() >= count; });
  }
  bool wait_frames(std::size_t count) {
    return wait([&] { return frame_count >= count; });
  }
  bool wait_down(std::size_t count = 1) {
    return wait([&] { return downs.size() >= count; });
  }
  template <class Read>
  auto read(Read read) {
    const std::lock_guard lock(mutex);
    return read();
  }
  peer_info peer(std::size_t i = 0) {
    return read([&] { return ups.at(i); });
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<peer_info> ups;
  std::vector<std::shared_ptr<const frame>> frames;
  std::size_t frame_count = 0;
  bool keep_frames = true;
  std::vector<down> downs;
  std::vector<std::pair<std::string, std::string>> failed;
  std::vector<std::pair<std::string, std::string>> refused;
  std::function<void(const std::shared_ptr<const frame>&)> on_frame_hook;

private:
  template <class Change>
  void note(Change change) {
    {
      const std::lock_guard lock(mutex);
      change();
    }
    changed.notify_all();
  }
};

inline constexpr char token[] = "0123456789abcdef0123456789abcdef";

inline fabric_options listener_options(const std::string& name) {
  fabric_options options;
  options.name = name;
  options.listen_host = "127.0.0.1";
  options.cluster_token = token;
  options.zone = "-";
  options.down_ms = 15000; // tests that want silence noticed set it lower
  options.dial_timeout_ms = 15000;
  return options;
}

inline fabric_options dialer_options(const std::string& name) {
  fabric_options options = listener_options(name);
  options.listen_host.clear();
  return options;
}

/// A started fabric with its recorder.
struct node {
  explicit node(fabric_options options) : link(make_fabric(std::move(options), seen)) {
    link->start();
  }
  ~node() { link->stop(); }
  node(const node&) = delete;
  node& operator=(const node&) = delete;

  recorder seen;
  std::unique_ptr<fabric> link;
};

inline frame make_frame(traffic traffic_class, std::uint32_t type, std::string head,
                        std::size_t payload_bytes = 0) {
  frame f;
  f.traffic_class = traffic_class;
  f.type = type;
  f.head = std::move(head);
  if (payload_bytes != 0) {
    std::vector<std::byte> bytes(payload_bytes);
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::byte>((i * 131U + (i >> 8U) + type) & 0xFFU);
    f.payload = buffer::copy_of(bytes);
  }
  return f;
}

inline bool payload_is_whole(const frame& f, std::size_t payload_bytes) {
  const auto bytes = f.payload.bytes();
  if (bytes.size() != payload_bytes)
    return false;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    if (bytes[i] != static_cast<std::byte>((i * 131U + (i >> 8U) + f.type) & 0xFFU))
      return false;
  return true;
}

} // namespace hexgen::transport::testing
