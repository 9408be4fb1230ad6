// The zone: which processes may trust one another's UCX.
#pragma once

#include <string>

namespace hexgen::transport {

/// This boot of this machine, this network namespace, this user and this pid namespace: processes
/// that share all four can map one another's memory. "-" (never UCX) when /proc does not tell.
[[nodiscard]] std::string default_zone();

/// What options.zone means: "" is default_zone(), "-" is never (returned empty).
[[nodiscard]] std::string resolve_zone(const std::string& option);

} // namespace hexgen::transport
