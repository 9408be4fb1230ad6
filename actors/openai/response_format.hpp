// Structured output: what `response_format` asks for, as the sampler's grammar.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>

namespace hexgen::actors {

/// "" for free text, "json_object", or the text of a JSON schema that can be served, its properties
/// in the client's order (a model fills them in that order). `text` is the text that `body` was
/// parsed from. Throws api_error naming response_format.
[[nodiscard]] std::string read_response_format(const nlohmann::json& body, std::string_view text);

} // namespace hexgen::actors
