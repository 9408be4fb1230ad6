#include "actors/openai/openapi.hpp"

#include "actors/openai/bounds.hpp"

#include <nlohmann/json.hpp>

#include <limits>

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
  const json one = {{"type", "string"}, {"minLength", 1}, {"maxLength", bounds::stop_bytes}};
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
  message["properties"]["role"] = {
      {"type", "string"},
      {"enum", {"system", "developer", "user", "assistant", "tool", "function"}}};
  message["properties"]["content"] =
      nullable({{"oneOf", {text(), {{"type", "array"}, {"items", part}}}}});
  return message;
}

json messages_schema() {
  return {{"type", "array"},
          {"items", message_schema()},
          {"minItems", 1},
          {"maxItems", bounds::messages}};
}

json generation_schema(bool chat) {
  json schema;
  schema["type"] = "object";
  schema["additionalProperties"] = true;
  auto& properties = schema["properties"];
  properties["model"] = nullable(text());
  if (chat) {
    schema["required"] = json::array({"messages"});
    properties["messages"] = messages_schema();
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
    json ids = id_list(0);
    ids["minItems"] = 1;
    properties["prompt"] = {{"oneOf", {text(), texts, ids, lists}}};
    properties["echo"] = truth();
    properties["add_special_tokens"] = truth();
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
  properties["seed"] = nullable({{"type", "integer"},
                                 {"minimum", std::numeric_limits<std::int64_t>::min()},
                                 {"maximum", std::numeric_limits<std::uint64_t>::max()}});
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
  json schema = {{"type", "object"}, {"description", "one of prompt, messages and content"}};
  schema["properties"]["model"] = nullable(text());
  schema["properties"]["prompt"] = nullable(text());
  schema["properties"]["messages"] = nullable(messages_schema());
  schema["properties"]["content"] = nullable(text());
  for (const char* name :
       {"add_special_tokens", "return_token_strs", "add_special", "with_pieces", "parse_special"})
    schema["properties"][name] = truth();
  return schema;
}

json detokenize_schema() {
  json schema = {{"type", "object"}};
  schema["required"] = json::array({"tokens"});
  schema["properties"]["tokens"] = id_list(0);
  schema["properties"]["model"] = nullable(text());
  return schema;
}

json whole(int least) {
  return {{"type", "integer"}, {"minimum", least}};
}
json list_of(json items) {
  return {{"type", "array"}, {"items", std::move(items)}};
}

/// An object that has all of `properties`, and maybe more.
json object(json properties) {
  json schema = {{"type", "object"}};
  for (const auto& [name, property] : properties.items())
    schema["required"].push_back(name);
  schema["properties"] = std::move(properties);
  return schema;
}

json generation_answer(bool chat) {
  json choice;
  choice["index"] = whole(0);
  if (chat)
    choice["message"] = object({{"role", text()}, {"content", text()}});
  else
    choice["text"] = text();
  choice["logprobs"] = nullable({{"type", "object"}});
  choice["finish_reason"] = {{"type", "string"}, {"enum", {"stop", "length"}}};
  json answer;
  answer["id"] = text();
  answer["object"] = {{"type", "string"}, {"enum", {chat ? "chat.completion" : "text_completion"}}};
  answer["created"] = whole(0);
  answer["model"] = text();
  answer["choices"] = list_of(object(std::move(choice)));
  answer["usage"] = object(
      {{"prompt_tokens", whole(1)}, {"completion_tokens", whole(0)}, {"total_tokens", whole(1)}});
  return object(std::move(answer));
}

json tokenize_answer() {
  // Of a prompt or messages also count and max_model_len.
  return object({{"tokens", {{"type", "array"}}}});
}

json answer(const char* about, const char* type, json schema = json::object()) {
  return {{"description", about}, {"content", {{type, {{"schema", std::move(schema)}}}}}};
}

json refusal(const char* about, bool try_again = false) {
  auto response = answer(about, "application/json", {{"$ref", "#/components/schemas/Error"}});
  if (try_again)
    response["headers"]["Retry-After"] = {
        {"description", "seconds"}, {"required", true}, {"schema", whole(1)}};
  return response;
}

json deadline(const char* name, const char* about) {
  return {{"name", name},
          {"in", "header"},
          {"description", about},
          {"schema",
           {{"type", "number"}, {"minimum", 0}, {"exclusiveMinimum", true}, {"maximum", 1e9}}}};
}

json post(const char* summary, json schema, json reply, bool generates) {
  json operation;
  operation["summary"] = summary;
  if (generates)
    operation["parameters"] = {deadline("x-slo-ttft-ms", "the first token is due after so long"),
                               deadline("x-slo-tpot-ms", "each further token is")};
  operation["requestBody"] = {{"required", true},
                              {"content", {{"application/json", {{"schema", std::move(schema)}}}}}};
  auto& responses = operation["responses"];
  responses["200"] = answer("the answer", "application/json", std::move(reply));
  if (generates) {
    responses["200"]["content"]["text/event-stream"] = json::object();
    responses["429"] = refusal("full", true);
  }
  responses["400"] = refusal("error.param names the parameter");
  responses["401"] = refusal("the key is missing or wrong");
  responses["404"] = refusal("unknown model");
  responses["405"] = refusal("another method: see Allow");
  responses["413"] = refusal("the body is too large");
  responses["503"] = refusal("cannot serve now", true);
  return {{"post", std::move(operation)}};
}

json get(const char* summary, const char* type, json reply) {
  json operation;
  operation["summary"] = summary;
  auto& responses = operation["responses"];
  responses["200"] = answer(summary, type, std::move(reply));
  responses["401"] = refusal("the key is missing or wrong");
  responses["405"] = refusal("another method: see Allow");
  return {{"get", std::move(operation)}};
}

json model_answer() {
  return object({{"id", text()},
                 {"object", {{"type", "string"}, {"enum", {"model"}}}},
                 {"created", whole(0)},
                 {"owned_by", text()},
                 {"root", text()},
                 {"max_model_len", whole(1)}});
}

json one_model() {
  auto path = get("The model, when it has this name", "application/json", model_answer());
  path["get"]["parameters"] =
      json::array({{{"name", "model"}, {"in", "path"}, {"required", true}, {"schema", text()}}});
  path["get"]["responses"]["404"] = refusal("unknown model");
  path["get"]["responses"]["503"] = refusal("no model is served yet", true);
  return path;
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
  paths["/v1/chat/completions"] =
      post("Answer a conversation", generation_schema(true), generation_answer(true), true);
  paths["/v1/completions"] =
      post("Continue a text", generation_schema(false), generation_answer(false), true);
  paths["/tokenize"] = post("Text to token ids", tokenize_schema(), tokenize_answer(), false);
  paths["/detokenize"] = post("Token ids to text", detokenize_schema(),
                              object({{"prompt", text()}, {"content", text()}}), false);
  paths["/v1/models"] = get("The served model", "application/json",
                            object({{"object", text()}, {"data", list_of(model_answer())}}));
  paths["/v1/models/{model}"] = one_model();
  for (const char* name : {"/health", "/v1/health"}) {
    paths[name] = get("Ready to serve", "application/json", object({{"status", text()}}));
    paths[name]["get"]["responses"]["503"] = refusal("cannot serve now", true);
    paths[name]["get"]["responses"].erase("401");
    paths[name]["get"]["security"] = json::array(); // for everybody
  }
  paths["/version"] = get("The version", "application/json", object({{"version", text()}}));
  paths["/cluster"] =
      get("Nodes, devices, links and plan", "application/json", {{"type", "object"}});
  paths["/metrics"] = get("Prometheus text", "text/plain", text());
  paths["/openapi.json"] = get("This description", "application/json", {{"type", "object"}});
  paths["/"] = get("The cluster page", "text/html", text());
  api["components"]["schemas"]["Error"] = error_schema();
  if (needs_key) {
    api["components"]["securitySchemes"]["key"] = {{"type", "http"}, {"scheme", "bearer"}};
    api["security"] = json::array({{{"key", json::array()}}});
  }
  return api.dump(2);
}

} // namespace hexgen::actors
