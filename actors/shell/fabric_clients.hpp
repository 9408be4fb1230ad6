// Clients that speak over the fabric: CLIENT_REQUEST in, CLIENT_CHUNKs out, by the same API as
// HTTP.
#pragma once

#include "actors/openai/openai_api.hpp"
#include "actors/shell/fabric_event.hpp"

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace hexgen::actors {

/// Frames are taken on the transport thread; requests are parsed and tokenised on a thread of its
/// own. A client's key was checked by the hand-shake of its role.
class fabric_clients {
public:
  fabric_clients(transport::fabric& fabric, openai_api& api);
  ~fabric_clients();
  /// True when the frame was a client's (CLIENT_REQUEST, CLIENT_CANCEL).
  bool on_frame(const fabric_event& e);
  void peer_lost(transport::peer_id peer);

  static constexpr std::size_t most_requests_per_client = 256;
  static constexpr std::size_t most_waiting = 1024;

private:
  class sink;
  using key = std::pair<transport::peer_id, std::uint64_t>;
  struct job {
    key id;
    std::string path, body;
  };
  void work();
  void finished(key id);
  void refuse(key id, int status, const std::string& message);

  transport::fabric& fabric_;
  openai_api& api_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<key, std::shared_ptr<sink>> open_;
  std::deque<job> jobs_;
  bool closing_ = false;
  std::thread worker_;
};

} // namespace hexgen::actors
