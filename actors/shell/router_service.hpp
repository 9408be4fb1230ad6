// The router as the API sees it: calls become messages, questions are answered from the board.
#pragma once

#include "actors/shell/spawn.hpp"

#include <atomic>

namespace hexgen::actors {

class router_service final : public generation_service {
public:
  explicit router_service(board& shown) : shown_(shown) {}
  /// Before the first request. The service lets go of the router in detach().
  void attach(router_actor router) { router_ = std::move(router); }
  void detach() { router_ = router_actor{}; }

  std::uint64_t submit(generation_request request, sink events, refused no) override {
    service_call c;
    c.ticket = ++last_;
    c.request = std::make_shared<generation_request>(std::move(request));
    c.events = std::move(events);
    c.refused = std::move(no);
    const auto ticket = c.ticket;
    caf::anon_send(router_, std::move(c));
    return ticket;
  }
  void cancel(std::uint64_t ticket) override {
    service_call c;
    c.ticket = ticket;
    caf::anon_send(router_, std::move(c));
  }
  [[nodiscard]] std::shared_ptr<const served_model> model() const override {
    return shown_.model();
  }
  [[nodiscard]] std::string not_ready() const override { return shown_.not_ready(); }
  [[nodiscard]] std::string cluster_json() const override { return shown_.cluster(); }
  [[nodiscard]] std::string metrics_text() const override { return shown_.metrics(); }

private:
  board& shown_;
  router_actor router_;
  std::atomic<std::uint64_t> last_{0};
};

} // namespace hexgen::actors
