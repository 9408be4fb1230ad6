// Shared by the device catalogue and a cluster's `devices:` overrides.
#pragma once

#include "config/device_kind.hpp"

namespace hexgen::config {

class yaml_reader;

/// Reads a kind's mapping; what is absent keeps `known`'s value, and is required without one.
[[nodiscard]] device_kind read_device_kind(yaml_reader& from, const std::string& name,
                                           const device_kind* known);

} // namespace hexgen::config
