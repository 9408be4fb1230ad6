#include "actors/openai/response_format.hpp"

#include "actors/openai/api_error.hpp"
#include "actors/openai/bounds.hpp"
#include "actors/openai/json_fields.hpp"
#include "compute/sampling/json_schema.hpp"

namespace hexgen::actors {

using nlohmann::json;

namespace {

api_error bad_format(const std::string& message) {
  return bad_parameter("response_format", "response_format" + message);
}

/// The schema again, with its keys as they were sent: `json` sorts them.
std::string in_sent_order(std::string_view text) {
  using ordered = nlohmann::ordered_json;
  const auto only_format = [](int depth, ordered::parse_event_t event, ordered& key) {
    return depth != 1 || event != ordered::parse_event_t::key || key == "response_format";
  };
  const auto body = ordered::parse(text, only_format);
  return body.at("response_format").at("json_schema").at("schema").dump();
}

} // namespace

std::string read_response_format(const json& body, std::string_view text) {
  const auto* format = field(body, "response_format");
  if (format == nullptr)
    return {};
  const auto* type = format->is_object() ? field(*format, "type") : nullptr;
  if (type == nullptr || !type->is_string())
    throw bad_format(" must be an object with a type");
  const auto* holder = field(*format, "json_schema");
  if (holder != nullptr && !holder->is_object())
    throw bad_format(".json_schema must be an object");
  if (*type == "text")
    return {};
  if (*type == "json_object")
    return "json_object";
  if (*type != "json_schema")
    throw bad_format(".type must be text, json_object or json_schema");
  const auto* schema = holder != nullptr ? field(*holder, "schema") : nullptr;
  if (schema == nullptr || !(schema->is_object() || schema->is_boolean()))
    throw bad_format(".json_schema.schema must be an object");
  // Before it is parsed again: keeping order makes many keys dear.
  if (format->dump().size() > bounds::schema_bytes)
    throw bad_format(": the schema is over " + std::to_string(bounds::schema_bytes) + " bytes");
  auto grammar = in_sent_order(text);
  try {
    (void)compute::json_schema_grammar(grammar);
  } catch (const std::invalid_argument& e) {
    throw bad_format(std::string(".json_schema.schema: ") + e.what());
  }
  return grammar;
}

} // namespace hexgen::actors
