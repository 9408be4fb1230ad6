// Clusters that do not exist yet: changed ones, and the best that a budget rents.
#pragma once

#include "tools/planning/solve.hpp"

#include <string>
#include <vector>

namespace hexgen::tools {

/// Applies `add:KIND×N@NODE` (x for ×; a new NODE joins the region after '@REGION', else the first
/// node's) or `remove:NODE` or `remove:NODE/N` (N devices fewer). Throws std::invalid_argument.
void apply_what_if(config::cluster& cluster, const std::string& change);

/// The cluster that serves most (upper bound per dollar leads, plans decide) for at most `budget`
/// dollars an hour, made of whole nodes of `offers`. Throws std::invalid_argument when nothing
/// fits.
[[nodiscard]] config::cluster rent_within(const input_flags& flags, const config::cluster& offers,
                                          double budget);

} // namespace hexgen::tools
