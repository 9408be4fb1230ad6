// The UCX paths of all peers in one event loop.
#pragma once

#include "transport/ucx_path.hpp"

#include <boost/asio/io_context.hpp>

#include <memory>
#include <vector>

namespace hexgen::transport {

/// Transport thread. A path sleeps once its worker is armed and is looked at again when its event
/// descriptor fires or somebody wakes it, so idle peers cost nothing.
class ucx_group {
public:
  explicit ucx_group(boost::asio::io_context& io) : io_(io) {}
  ucx_group(const ucx_group&) = delete;
  ucx_group& operator=(const ucx_group&) = delete;
  ~ucx_group();

  void add(const std::shared_ptr<ucx_path>& path);
  /// Before the path's worker ends.
  void remove(const ucx_path& path);
  /// Progresses and delivers; false: there was nothing to do.
  bool progress();
  /// Puts all to sleep; false: some have work, or wait for room at a peer.
  bool arm();
  /// A path's descriptor fired since the last call.
  bool take_fired();

private:
  struct member;
  boost::asio::io_context& io_;
  std::vector<std::shared_ptr<member>> members_;
  bool fired_ = false;
};

} // namespace hexgen::transport
