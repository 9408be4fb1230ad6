// The client's secret in an Authorization header.
#pragma once

#include <string>
#include <string_view>

namespace hexgen::actors {

/// True when `authorization` is "Bearer KEY", or "Basic base64(anyone:KEY)" as a browser sends it
/// after asking (`allow_basic`). Takes the same time whatever the key's bytes are.
[[nodiscard]] bool has_key(std::string_view authorization, std::string_view key, bool allow_basic);

} // namespace hexgen::actors
