// Bytes as text in the alphabet of RFC 4648.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hexgen::actors {

[[nodiscard]] std::string to_base64(std::string_view bytes);

/// Nothing: it is not that. The padding may be missing.
[[nodiscard]] std::optional<std::string> from_base64(std::string_view text);

} // namespace hexgen::actors
