#include "actors/shell/spawn.hpp"

namespace hexgen::actors {

planner_actor spawn_planner(caf::actor_system& system) {
  // Detached: a search may compute for a while and must not hold a scheduler thread.
  return system.spawn<caf::detached>([]() -> planner_actor::behavior_type {
    return {[](const search_request& r) {
      search_result out;
      out.id = r.id;
      try {
        out.plan = plan_for(r);
      } catch (const std::exception& e) {
        out.plan = {};
        out.plan.missing = std::string("the planner failed: ") + e.what();
      }
      return out;
    }};
  });
}

} // namespace hexgen::actors
