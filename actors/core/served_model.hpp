// What is served and with which settings, as three messages carry them: WELCOME, PREPARE and the
// routing table.
#pragma once

#include "actors/core/wire.hpp"

namespace hexgen::proto {
class model_reference;
class serve_settings;
} // namespace hexgen::proto

namespace hexgen::actors::wire {

void write(const model_reference& from, proto::model_reference& to);
void write(const serve_settings& from, proto::serve_settings& to);

/// As they were sent: ranges belong to the message's decoder.
[[nodiscard]] model_reference read(const proto::model_reference& from);
[[nodiscard]] serve_settings read(const proto::serve_settings& from);

} // namespace hexgen::actors::wire
