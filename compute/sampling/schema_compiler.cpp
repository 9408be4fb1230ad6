#include "compute/sampling/schema_compiler.hpp"

#include "compute/sampling/pattern.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string_view>

namespace hexgen::compute {

namespace {

using json = schema_compiler::json;

constexpr std::int64_t integer_limit = 999'999'999'999'999; // 15 digits, as json_rules::integer

// They narrow the values in ways that are not served: ignoring them would break a promise.
constexpr std::array<std::string_view, 18> unserved = {"not",
                                                       "if",
                                                       "then",
                                                       "else",
                                                       "dependentSchemas",
                                                       "dependentRequired",
                                                       "dependencies",
                                                       "patternProperties",
                                                       "propertyNames",
                                                       "minProperties",
                                                       "maxProperties",
                                                       "unevaluatedProperties",
                                                       "unevaluatedItems",
                                                       "contains",
                                                       "additionalItems",
                                                       "multipleOf",
                                                       "$dynamicRef",
                                                       "$recursiveRef"};

bool is_of_type(const json& value, const std::string& type) {
  if (type == "integer")
    return value.is_number_integer();
  if (type == "number")
    return value.is_number();
  if (type == "string")
    return value.is_string();
  if (type == "boolean")
    return value.is_boolean();
  if (type == "null")
    return value.is_null();
  return type == "object" ? value.is_object() : value.is_array();
}

} // namespace

byte_grammar schema_compiler::run() {
  g_.set_root(reference("#", "#"));
  g_.check_recursion();
  return std::move(g_);
}

const schema_compiler::json* schema_compiler::find(const json& schema, const char* key) {
  const auto at = schema.find(key);
  return at == schema.end() ? nullptr : &*at;
}

void schema_compiler::fail(const std::string& where, const std::string& what) {
  throw std::invalid_argument("schema at " + where + ": " + what);
}

schema_compiler::rule_id schema_compiler::reference(const std::string& pointer,
                                                    const std::string& where) {
  if (const auto at = references_.find(pointer); at != references_.end())
    return at->second;
  if (pointer.empty() || pointer.front() != '#')
    fail(where, "$ref '" + pointer + "' is not local");
  const json* target = nullptr;
  try {
    target = &root_.at(json::json_pointer(pointer.substr(1)));
  } catch (const json::exception&) {
    fail(where, "$ref '" + pointer + "' leads nowhere");
  }
  const auto rule = g_.add_rule();
  references_.emplace(pointer, rule);
  fill(rule, *target, pointer);
  return rule;
}

schema_compiler::rule_id schema_compiler::compile(const json& schema, const std::string& where) {
  const auto rule = g_.add_rule();
  fill(rule, schema, where);
  return rule;
}

void schema_compiler::fill(rule_id rule, const json& schema, const std::string& where) {
  if (++depth_ > max_depth)
    fail(where, "is nested too deep");
  add(schema, where, g_.rule_at(rule).start, g_.rule_at(rule).end);
  --depth_;
}

void schema_compiler::add(const json& schema, const std::string& where, state_id from,
                          state_id to) {
  if (schema.is_boolean()) {
    if (!schema.get<bool>())
      fail(where, "no value can match false");
    g_.add_call(from, rules_.value(), to);
    return;
  }
  if (!schema.is_object())
    fail(where, "is neither an object nor a boolean");
  for (const auto key : unserved)
    if (schema.contains(std::string(key)))
      fail(where, std::string(key) + " is not served");
  if (const auto* unique = find(schema, "uniqueItems"); unique && *unique == true)
    fail(where, "uniqueItems is not served");
  if (const auto* ref = find(schema, "$ref")) {
    only(schema, where, "$ref", {});
    if (!ref->is_string())
      fail(where, "$ref is no string");
    g_.add_call(from, reference(ref->get<std::string>(), where), to);
    return;
  }
  for (const auto* key : {"anyOf", "oneOf", "allOf"})
    if (const auto* list = find(schema, key)) {
      only(schema, where, key, {"type"});
      if (!list->is_array() || list->empty() || list->size() > 1000)
        fail(where, std::string(key) + " is no list of 1 to 1,000 schemas");
      if (std::string_view(key) == "allOf" && list->size() > 1)
        fail(where, "allOf of more than one schema is not served");
      for (std::size_t i = 0; i < list->size(); ++i)
        g_.add_call(from, compile((*list)[i], where + "/" + key + "/" + std::to_string(i)), to);
      return;
    }
  if (const auto* value = find(schema, "const")) {
    add_values(json::array({*value}), types_of(schema, where), where, from, to);
    return;
  }
  if (const auto* values = find(schema, "enum")) {
    if (!values->is_array() || values->empty())
      fail(where, "enum is no list of values");
    add_values(*values, types_of(schema, where), where, from, to);
    return;
  }
  const auto types = types_of(schema, where);
  if (types.empty())
    g_.add_call(from, rules_.value(), to);
  for (const auto& type : types)
    add_type(type, schema, where, from, to);
}

void schema_compiler::only(const json& schema, const std::string& where, const std::string& key,
                           const std::set<std::string>& allowed) {
  static const std::set<std::string> narrowing = {"$ref",
                                                  "anyOf",
                                                  "oneOf",
                                                  "allOf",
                                                  "enum",
                                                  "const",
                                                  "type",
                                                  "items",
                                                  "minItems",
                                                  "maxItems",
                                                  "pattern",
                                                  "minimum",
                                                  "maximum",
                                                  "prefixItems",
                                                  "properties",
                                                  "required",
                                                  "additionalProperties",
                                                  "minLength",
                                                  "maxLength",
                                                  "exclusiveMinimum",
                                                  "exclusiveMaximum"};
  for (const auto& [name, value] : schema.items())
    if (name != key && narrowing.count(name) != 0 && allowed.count(name) == 0)
      fail(where, name + " beside " + key + " is not served");
}

std::vector<std::string> schema_compiler::types_of(const json& schema, const std::string& where) {
  static const std::set<std::string> known = {"object",  "array",   "string", "number",
                                              "integer", "boolean", "null"};
  std::vector<std::string> types;
  if (const auto* type = find(schema, "type")) {
    for (const auto& t : type->is_array() ? *type : json::array({*type})) {
      if (!t.is_string() || known.count(t.get<std::string>()) == 0)
        fail(where, "type is not one of JSON's");
      types.push_back(t.get<std::string>());
    }
    if (types.empty())
      fail(where, "type is empty");
    return types;
  }
  const auto has = [&](std::initializer_list<const char*> keys) {
    return std::any_of(keys.begin(), keys.end(),
                       [&](const char* key) { return schema.contains(key); });
  };
  if (has({"properties", "required", "additionalProperties"}))
    types.emplace_back("object");
  if (has({"items", "prefixItems", "minItems", "maxItems"}))
    types.emplace_back("array");
  if (has({"minLength", "maxLength", "pattern"}))
    types.emplace_back("string");
  if (has({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}))
    types.emplace_back("number");
  return types;
}

void schema_compiler::add_values(const json& values, const std::vector<std::string>& types,
                                 const std::string& where, state_id from, state_id to) {
  bool any = false;
  for (const auto& value : values) {
    if (!types.empty() && std::none_of(types.begin(), types.end(),
                                       [&](const std::string& t) { return is_of_type(value, t); }))
      continue;
    any = true;
    g_.add_empty(g_.add_literal(from, value.dump()), to);
  }
  if (!any)
    fail(where, "no value of the enum has the type");
}

void schema_compiler::add_type(const std::string& type, const json& schema,
                               const std::string& where, state_id from, state_id to) {
  if (type == "object")
    add_object(schema, where, from, to);
  else if (type == "array")
    add_array(schema, where, from, to);
  else if (type == "string")
    add_string(schema, where, from, to);
  else if (type == "integer")
    add_integer(schema, where, from, to);
  else if (type == "number")
    add_number(schema, where, from, to);
  else
    g_.add_call(from, type == "null" ? rules_.null() : rules_.boolean(), to);
}

std::optional<std::int64_t> schema_compiler::count_of(const json& schema, const char* key,
                                                      const std::string& where) {
  const auto* value = find(schema, key);
  if (!value)
    return std::nullopt;
  if (!value->is_number_integer() || *value < 0 || *value > 1'000'000)
    fail(where, std::string(key) + " is no number from 0 to 1,000,000");
  return value->get<std::int64_t>();
}

void schema_compiler::add_string(const json& schema, const std::string& where, state_id from,
                                 state_id to) {
  const auto least = count_of(schema, "minLength", where);
  const auto most = count_of(schema, "maxLength", where);
  const auto* pattern = find(schema, "pattern");
  const auto begin = g_.add_literal(from, "\"");
  const auto end = g_.add_state();
  g_.add_bytes(end, '"', '"', to);
  if (pattern) {
    if (least || most)
      fail(where, "pattern beside minLength or maxLength is not served");
    if (!pattern->is_string())
      fail(where, "pattern is no string");
    try {
      add_pattern(g_, rules_, pattern->get<std::string>(), begin, end);
    } catch (const std::invalid_argument& e) {
      fail(where, e.what());
    }
    return;
  }
  if (most && *most < least.value_or(0))
    fail(where, "maxLength is below minLength");
  g_.add_empty(g_.add_repeat(begin, rules_.character(), least.value_or(0), most.value_or(-1)), end);
}

void schema_compiler::refuse_bounds(const json& schema, const std::string& where) {
  for (const auto* key : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
    if (schema.contains(key))
      fail(where, std::string(key) + " is served for integers only");
}

void schema_compiler::add_number(const json& schema, const std::string& where, state_id from,
                                 state_id to) {
  refuse_bounds(schema, where);
  g_.add_call(from, rules_.number(), to);
}

void schema_compiler::add_integer(const json& schema, const std::string& where, state_id from,
                                  state_id to) {
  std::int64_t low = -integer_limit;
  std::int64_t high = integer_limit;
  bool bounded = false;
  const auto bound = [&](const char* key) -> std::optional<double> {
    const auto* value = find(schema, key);
    if (!value)
      return std::nullopt;
    if (!value->is_number() || std::abs(value->get<double>()) > 1e15)
      fail(where, std::string(key) + " is no number within 10^15");
    bounded = true;
    return value->get<double>();
  };
  if (const auto b = bound("minimum"))
    low = std::max(low, static_cast<std::int64_t>(std::ceil(*b)));
  if (const auto b = bound("exclusiveMinimum"))
    low = std::max(low, static_cast<std::int64_t>(std::floor(*b)) + 1);
  if (const auto b = bound("maximum"))
    high = std::min(high, static_cast<std::int64_t>(std::floor(*b)));
  if (const auto b = bound("exclusiveMaximum"))
    high = std::min(high, static_cast<std::int64_t>(std::ceil(*b)) - 1);
  if (!bounded) {
    g_.add_call(from, rules_.integer(), to);
    return;
  }
  if (low > high)
    fail(where, "no integer lies between the bounds");
  rules_.add_integers(from, low, high, to);
}

} // namespace hexgen::compute
