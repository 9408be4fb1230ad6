// The UCX paths of all peers of one fabric, and who receives on them.
#pragma once

#include "transport/ucx_path.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace hexgen::transport {

/// Transport thread, but for attend(). A path sleeps once its worker is armed and is looked at
/// again when its event descriptor fires or somebody wakes it, so idle peers cost nothing.
///
/// An armed worker costs its peer a system call and this process a wake-up. So nothing is armed
/// while another thread attends, nor for a moment after it left with what it waited for: it will
/// be back. Meanwhile the transport thread looks every millisecond, for what comes for others.
class ucx_group {
public:
  explicit ucx_group(boost::asio::io_context& io) : io_(io), look_again_(io) {}
  ucx_group(const ucx_group&) = delete;
  ucx_group& operator=(const ucx_group&) = delete;
  ~ucx_group();

  void add(const std::shared_ptr<ucx_path>& path);
  /// Before the path's worker ends.
  void remove(const ucx_path& path);
  /// Receives and delivers; false: there was nothing to do.
  bool progress();
  /// Puts all to sleep; false: some have work, or wait for room at a peer.
  bool arm();
  /// A path's descriptor fired since the last call.
  bool take_fired();
  /// Any thread: receives and delivers until `ready()`, or until nothing came for `limit`.
  void attend(const std::function<bool()>& ready, std::chrono::microseconds limit);

private:
  struct member;
  using members = std::vector<std::shared_ptr<member>>;
  [[nodiscard]] std::shared_ptr<const members> all() const;
  [[nodiscard]] bool attended() const;
  void look_again();

  boost::asio::io_context& io_;
  mutable std::mutex mutex_;
  std::shared_ptr<const members> members_ = std::make_shared<members>(); // guarded by mutex_
  bool fired_ = false;
  boost::asio::steady_timer look_again_;
  bool looking_again_ = false;
  std::atomic<bool> watched_{false}; // all are armed: the transport thread hears of what comes
  std::atomic<int> attending_{0};
  std::atomic<std::int64_t> attended_until_ns_{0}; // steady clock
};

} // namespace hexgen::transport
