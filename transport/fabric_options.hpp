// What a fabric may be asked for.
#pragma once

#include "transport/fabric.hpp"

namespace hexgen::transport {

/// Throws std::invalid_argument naming what cannot work; draws the incarnation when it is 0.
[[nodiscard]] fabric_options checked_options(fabric_options options);

} // namespace hexgen::transport
