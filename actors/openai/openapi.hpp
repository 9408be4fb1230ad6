// The OpenAPI description of what the API takes, made from the parser's own table of bounds.
#pragma once

#include <string>

namespace hexgen::actors {

[[nodiscard]] std::string openapi_json(const std::string& version, bool needs_key);

} // namespace hexgen::actors
