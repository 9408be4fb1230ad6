#include "actors/openai/openapi.hpp"

#include "actors/openai/bounds.hpp"

#include <nlohmann/json.hpp>

namespace hexgen::actors {

using json = nlohmann::ordered_json;

namespace {

json nullable(json schema) {
  schema["nullable"] = true;
  return schema;
}

json text() {
  return {{"type", "string"}};
}
json truth() {
  return nullable({{"type", "boolean"}});
}
json id_list(int most) {
  json list = {{"type", "array"}, {"items", {{"type", "integer"}, {"minimum", 0}}}};
  if (most > 0)
    list["maxItems"] = most;
  return list;
}

json stop_schema() {
  const json one = {{"type", "string"}, {"minLength", 1}, {"maxLength", bounds::stop_bytes / 4}};
  return nullable(
      {{"oneOf", {one, {{"type", "array"}, {"items", one}, {"maxItems", bounds::stop_strings}}}}});
}

json message_schema() {
  json part;
  part["type"] = "object";
  part["required"] = {"type", "text"};
  part["properties"]["type"] = {{"type", "string"}, {"enum", {"text"}}};
  part["properties"]["text"] = text();
  json message;
  message["type"] = "object";
  message["required"] = json::array({"role"});
  message["properties"]["role"] = {{"type", "string"},
                                   {"enum", {"system", "developer", "user", "assistant", "tool"}}};
  message["properties"]["content"] =
      nullable({{"oneOf", {text(), {{"type", "array"}, {"items", part}}}}});
  return message;
}

json generation_schema(bool chat) {
  json schema;
  schema["type"] = "object";
  schema["additionalProperties"] = true;
  auto& properties = schema["properties"];
  properties["model"] = nullable(text());
  if (chat) {
    schema["required"] = json::array({"messages"});
    properties["messages"] = {{"type", "array"},
                              {"items", message_schema()},
                              {"minItems", 1},
                              {"maxItems", bounds::messages}};
    properties["logprobs"] = truth();
    properties["add_generation_prompt"] = truth();
    properties["continue_final_message"] = truth();
    properties["chat_template_kwargs"] = nullable({{"type", "object"}});
  } else {
    schema["required"] = json::array({"prompt"});
    json list = {{"type", "array"}, {"minItems", 1}, {"maxItems", bounds::prompts}};
    json texts = list;
    texts["items"] = text();
    json lists = list;
    lists["items"] = id_list(0);
    properties["prompt"] = {{"oneOf", {text(), texts, id_list(0), lists}}};
    properties["echo"] = truth();
  }
  for (const auto& bound : number_bounds()) {
    if (chat ? !bound.chat : !bound.completion)
      continue;
    auto& number = properties[std::string(bound.name)];
    number = {{"type", bound.integer ? "integer" : "number"}, {"nullable", true}};
    if (bound.integer) {
      number["minimum"] = static_cast<std::int64_t>(bound.lowest);
      number["maximum"] = static_cast<std::int64_t>(bound.highest);
    } else {
      number["minimum"] = bound.lowest;
      number["maximum"] = bound.highest;
    }
    number["description"] = bound.about;
  }
  properties["seed"] = nullable({{"type", "integer"}, {"format", "int64"}});
  properties["stop"] = stop_schema();
  properties["stop_token_ids"] = nullable(id_list(bounds::stop_ids));
  properties["logit_bias"] =
      nullable({{"type", "object"},
                {"maxProperties", bounds::biases},
                {"additionalProperties",
                 {{"type", "number"}, {"minimum", -bounds::bias}, {"maximum", bounds::bias}}}});
  properties["response_format"] =
      nullable({{"type", "object"},
                {"required", json::array({"type"})},
                {"properties",
                 {{"type", {{"type", "string"}, {"enum", {"text", "json_object", "json_schema"}}}},
                  {"json_schema",
                   {{"type", "object"}, {"properties", {{"schema", {{"type", "object"}}}}}}}}}});
  for (const char* name : {"stream", "ignore_eos", "skip_special_tokens", "return_token_ids"})
    properties[name] = truth();
  properties["stream_options"] =
      nullable({{"type", "object"}, {"properties", {{"include_usage", truth()}}}});
  properties["user"] = nullable(text());
  return schema;
}

json tokenize_schema() {
  json schema = {{"type", "object"}};
  schema["properties"]["prompt"] = text();
  schema["properties"]["messages"] = {{"type", "array"}, {"items", message_schema()}};
  schema["properties"]["content"] = text();
  for (const char* name :
       {"add_special_tokens", "return_token_strs", "add_special", "with_pieces", "parse_special"})
    schema["properties"][name] = truth();
  return schema;
}

json detokenize_schema() {
  json schema = {{"type", "object"}};
  schema["required"] = json::array({"tokens"});
  schema["properties"]["tokens"] = id_list(0);
  return schema;
}

json answer(const char* about, const char* type) {
  return {{"description", about}, {"content", {{type, json::object()}}}};
}

json post(const char* summary, json schema, bool streams) {
  json operation;
  operation["summary"] = summary;
  operation["requestBody"] = {{"required", true},
                              {"content", {{"application/json", {{"schema", std::move(schema)}}}}}};
  auto& responses = operation["responses"];
  responses["200"] = answer("the answer", "application/json");
  if (streams)
    responses["200"]["content"]["text/event-stream"] = json::object();
  for (const auto& [status, about] : {std::pair{"400", "names the parameter in error.param"},
                                      {"401", "the key is missing or wrong"},
                                      {"404", "unknown model"},
                                      {"413", "the body is too large"},
                                      {"429", "full: see Retry-After"},
                                      {"503", "cannot serve now: see Retry-After"}}) {
    auto response = answer(about, "application/json");
    response["content"]["application/json"]["schema"]["$ref"] = "#/components/schemas/Error";
    responses[status] = std::move(response);
  }
  return {{"post", std::move(operation)}};
}

json get(const char* summary, const char* type) {
  return {{"get",
           {{"summary", summary},
            {"responses",
             {{"200", answer(summary, type)},
              {"401", answer("the key is missing or wrong", "application/json")},
              {"503", answer("cannot serve now", "application/json")}}}}}};
}

json error_schema() {
  json error;
  error["type"] = "object";
  error["required"] = {"message", "type", "param", "code"};
  error["properties"]["message"] = text();
  error["properties"]["type"] = text();
  error["properties"]["param"] = nullable(text());
  error["properties"]["code"] = {{"oneOf", {{{"type", "integer"}}, text()}}};
  return {{"type", "object"},
          {"required", json::array({"error"})},
          {"properties", {{"error", std::move(error)}}}};
}

} // namespace

std::string openapi_json(const std::string& version, bool needs_key) {
  json api;
  api["openapi"] = "3.0.3";
  api["info"] = {{"title", "Hexgen"}, {"version", version}};
  auto& paths = api["paths"];
  paths["/v1/chat/completions"] = post("Answer a conversation", generation_schema(true), true);
  paths["/v1/completions"] = post("Continue a text", generation_schema(false), true);
  paths["/tokenize"] = post("Text to token ids", tokenize_schema(), false);
  paths["/detokenize"] = post("Token ids to text", detokenize_schema(), false);
  paths["/v1/models"] = get("The served model", "application/json");
  paths["/health"] = get("Ready to serve", "application/json");
  paths["/version"] = get("The version", "application/json");
  paths["/cluster"] = get("Nodes, devices, links and plan", "application/json");
  paths["/metrics"] = get("Prometheus text", "text/plain");
  api["components"]["schemas"]["Error"] = error_schema();
  if (needs_key) {
    api["components"]["securitySchemes"]["key"] = {{"type", "http"}, {"scheme", "bearer"}};
    api["security"] = json::array({{{"key", json::array()}}});
  }
  return api.dump(2);
}

} // namespace hexgen::actors
