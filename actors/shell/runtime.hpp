// The process's CAF: configuration in one place, and an orderly end.
#pragma once

#include <caf/all.hpp>

namespace hexgen::actors {

/// Destruction waits for all actors: they must have been told to end.
class runtime {
public:
  runtime() : system_(config_) {}
  caf::actor_system& actors() { return system_; }

private:
  struct config : caf::actor_system_config {
    config() {
      // One queue and a condition variable: an idle worker of the default policy sleeps in steps.
      set("scheduler.policy", caf::atom("sharing"));
      set("scheduler.max-threads", std::int64_t{2});
      set("middleman.attach-utility-actors", false);
    }
  };
  config config_;
  caf::actor_system system_;
};

} // namespace hexgen::actors
