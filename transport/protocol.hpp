// The version of what crosses a link. Peers of another version are refused at the hand-shake.
#pragma once

#include <cstdint>

namespace hexgen::transport {

/// Changes when a message or the framing changes meaning; adding a field does not change it.
inline constexpr std::uint32_t protocol_version = 1;

} // namespace hexgen::transport
