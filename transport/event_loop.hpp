// The transport thread's loop: Asio's handlers and UCX's progress, asleep when both are idle.
#pragma once

#include "transport/fabric.hpp"

#include <boost/asio/io_context.hpp>

namespace hexgen::transport {

class ucx_group;

/// Runs until `io` is stopped. `group` may be null. wakeup::event sleeps at once when there is
/// nothing to do, spin polls for 50 us first, busy never sleeps (only with cores to spare).
void run_event_loop(boost::asio::io_context& io, ucx_group* group, wakeup wake);

} // namespace hexgen::transport
