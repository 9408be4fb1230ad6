// Between a fabric, which must exist before the actors, and the actors, which need the fabric.
#pragma once

#include "actors/shell/fabric_event.hpp"

#include <functional>
#include <mutex>
#include <vector>

namespace hexgen::actors {

/// Keeps what happens before open() and hands it over then, in order. The sink runs on the
/// transport thread (once, inside open(), on the caller's) and must not block.
class fabric_gate final : public transport::fabric_handler {
public:
  using sink = std::function<void(fabric_event)>;
  void open(sink to);
  /// From now on events are dropped.
  void close();

  void on_up(const transport::peer_info& peer) override;
  void on_frame(const transport::peer_info& peer,
                std::shared_ptr<const transport::frame> f) override;
  void on_down(const transport::peer_info& peer, transport::down_reason reason,
               const std::string& detail) override;
  void on_dial_failed(const std::string& address, const std::string& detail) override;

private:
  void pass(fabric_event e);

  static constexpr std::size_t most_early = 4096;
  std::mutex mutex_;
  sink to_;
  bool closed_ = false;
  std::vector<fabric_event> early_;
};

} // namespace hexgen::actors
