// Every actor's interface and every message type, in one place. All messages stay in the process;
// what crosses a link is Protobuf (transport/proto/hexgen.proto). Append only.
#pragma once

#include "actors/core/agent_state.hpp"
#include "actors/core/coordinator_state.hpp"
#include "actors/core/router_state.hpp"
#include "actors/shell/fabric_event.hpp"
#include "transport/fabric.hpp"

#include <caf/all.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <variant>

namespace hexgen::actors {

/// A device worker's answer.
struct device_event {
  enum class kind : std::uint8_t { opened, measured, prepared, committed, released, failed };
  kind what = kind::measured;
  std::uint32_t device = 0;
  generation_id id;
  device_rates rates;
  prepare_result prepared;
  std::string error;
};

/// A replica's word to its agent.
struct replica_event {
  enum class kind : std::uint8_t { drained, broken, status };
  kind what = kind::status;
  generation_id id;
  std::string why;
  wire::replica_status status;
};

/// A router's frame (from: its connection) or a step's result, decoded on the transport thread.
struct replica_input {
  transport::peer_id from = 0;
  std::variant<wire::submit, wire::cancel, wire::step_result> message;
};

/// The planner's answer to a search.
struct search_result {
  std::uint64_t id = 0;
  scheduler::serving_plan plan;
};

/// A request on its way from the gateway to the router; sinks are called by the router.
struct service_call {
  ticket_id ticket = 0;
  std::shared_ptr<generation_request> request; // nullptr: cancel
  generation_service::sink events;
  generation_service::refused refused;
};

} // namespace hexgen::actors

CAF_BEGIN_TYPE_ID_BLOCK(hexgen, caf::first_custom_type_id)
CAF_ADD_TYPE_ID(hexgen, (hexgen::actors::fabric_event))
CAF_ADD_TYPE_ID(hexgen, (hexgen::actors::device_event))
CAF_ADD_TYPE_ID(hexgen, (hexgen::actors::replica_event))
CAF_ADD_TYPE_ID(hexgen, (hexgen::actors::replica_input))
CAF_ADD_TYPE_ID(hexgen, (hexgen::actors::search_request))
CAF_ADD_TYPE_ID(hexgen, (hexgen::actors::search_result))
CAF_ADD_TYPE_ID(hexgen, (hexgen::actors::service_call))
CAF_ADD_TYPE_ID(hexgen, (hexgen::actors::wire::routing_table))
CAF_ADD_ATOM(hexgen, hexgen::actors, drain_atom, "drain")
CAF_ADD_ATOM(hexgen, hexgen::actors, lost_atom, "lost")
CAF_ADD_ATOM(hexgen, hexgen::actors, limit_atom, "limit")
CAF_END_TYPE_ID_BLOCK(hexgen)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(hexgen::actors::fabric_event)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(hexgen::actors::device_event)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(hexgen::actors::replica_event)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(hexgen::actors::replica_input)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(hexgen::actors::search_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(hexgen::actors::search_result)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(hexgen::actors::service_call)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(hexgen::actors::wire::routing_table)

namespace hexgen::actors {

/// Runs the search off the control path.
using planner_actor = caf::typed_actor<caf::replies_to<search_request>::with<search_result>>;

using coordinator_actor = caf::typed_actor<
    /// Control frames, peers that came and went.
    caf::reacts_to<fabric_event>,
    /// INTERNAL: time passes.
    caf::reacts_to<caf::tick_atom>>;

using agent_actor = caf::typed_actor<
    /// Control frames, peers that came and went.
    caf::reacts_to<fabric_event>,
    /// What a device worker answers.
    caf::reacts_to<device_event>,
    /// What a replica that lives here says.
    caf::reacts_to<replica_event>,
    /// INTERNAL: time passes.
    caf::reacts_to<caf::tick_atom>>;

using replica_actor = caf::typed_actor<
    /// A router's frame or a step's result.
    caf::reacts_to<replica_input>,
    /// A router's connection is gone.
    caf::reacts_to<lost_atom, std::uint64_t>,
    /// No new requests; what is there has so many milliseconds.
    caf::reacts_to<drain_atom, std::uint32_t>,
    /// INTERNAL: they have passed.
    caf::reacts_to<limit_atom>,
    /// The generation is over: what is there fails with retry, and the actor ends.
    caf::reacts_to<caf::close_atom, std::string>,
    /// INTERNAL: time passes.
    caf::reacts_to<caf::tick_atom>>;

using router_actor = caf::typed_actor<
    /// Frames of replicas and, in a gateway, of the coordinator.
    caf::reacts_to<fabric_event>,
    /// A new table from the coordinator of the same process.
    caf::reacts_to<wire::routing_table>,
    /// A request or its cancellation.
    caf::reacts_to<service_call>,
    /// INTERNAL: time passes.
    caf::reacts_to<caf::tick_atom>>;

} // namespace hexgen::actors
