#include "compute/sampling/json_schema.hpp"

#include "compute/sampling/json_rules.hpp"
#include "compute/sampling/pattern.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace hexgen::compute {

namespace {

using json = nlohmann::ordered_json; // properties are generated in the schema's order
using rule_id = byte_grammar::rule_id;
using state_id = byte_grammar::state_id;

constexpr std::size_t max_schema_bytes = 1U << 20U;
constexpr int max_schema_depth = 64;
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

const json* find(const json& schema, const char* key) {
  const auto at = schema.find(key);
  return at == schema.end() ? nullptr : &*at;
}

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

class compiler {
public:
  explicit compiler(const json& root) : root_(root), rules_(g_) {}

  byte_grammar run() {
    g_.set_root(reference("#", "#"));
    g_.check_recursion();
    return std::move(g_);
  }

private:
  [[noreturn]] static void fail(const std::string& where, const std::string& what) {
    throw std::invalid_argument("schema at " + where + ": " + what);
  }

  rule_id reference(const std::string& pointer, const std::string& where) {
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

  rule_id compile(const json& schema, const std::string& where) {
    const auto rule = g_.add_rule();
    fill(rule, schema, where);
    return rule;
  }

  void fill(rule_id rule, const json& schema, const std::string& where) {
    if (++depth_ > max_schema_depth)
      fail(where, "is nested too deep");
    add(schema, where, g_.rule_at(rule).start, g_.rule_at(rule).end);
    --depth_;
  }

  void add(const json& schema, const std::string& where, state_id from, state_id to) {
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

  // Beside `key` only keywords that do not narrow, or those in `allowed`.
  static void only(const json& schema, const std::string& where, const std::string& key,
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

  // The types that the schema names, or that its keywords speak of; none: any value.
  static std::vector<std::string> types_of(const json& schema, const std::string& where) {
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

  void add_values(const json& values, const std::vector<std::string>& types,
                  const std::string& where, state_id from, state_id to) {
    bool any = false;
    for (const auto& value : values) {
      if (!types.empty() && std::none_of(types.begin(), types.end(), [&](const std::string& t) {
            return is_of_type(value, t);
          }))
        continue;
      any = true;
      g_.add_empty(g_.add_literal(from, value.dump()), to);
    }
    if (!any)
      fail(where, "no value of the enum has the type");
  }

  void add_type(const std::string& type, const json& schema, const std::string& where,
                state_id from, state_id to) {
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

  static std::optional<std::int64_t> count_of(const json& schema, const char* key,
                                              const std::string& where) {
    const auto* value = find(schema, key);
    if (!value)
      return std::nullopt;
    if (!value->is_number_integer() || *value < 0 || *value > 1'000'000)
      fail(where, std::string(key) + " is no number from 0 to 1,000,000");
    return value->get<std::int64_t>();
  }

  void add_string(const json& schema, const std::string& where, state_id from, state_id to) {
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
    g_.add_empty(g_.add_repeat(begin, rules_.character(), least.value_or(0), most.value_or(-1)),
                 end);
  }

  static void refuse_bounds(const json& schema, const std::string& where) {
    for (const auto* key : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
      if (schema.contains(key))
        fail(where, std::string(key) + " is served for integers only");
  }

  void add_number(const json& schema, const std::string& where, state_id from, state_id to) {
    refuse_bounds(schema, where);
    g_.add_call(from, rules_.number(), to);
  }

  void add_integer(const json& schema, const std::string& where, state_id from, state_id to) {
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

  void add_array(const json& schema, const std::string& where, state_id from, state_id to) {
    const auto least = count_of(schema, "minItems", where).value_or(0);
    auto most = count_of(schema, "maxItems", where).value_or(-1);
    std::vector<rule_id> prefix;
    if (const auto* list = find(schema, "prefixItems")) {
      if (!list->is_array() || list->size() > 1000)
        fail(where, "prefixItems is no list of at most 1,000 schemas");
      for (std::size_t i = 0; i < list->size(); ++i)
        prefix.push_back(compile((*list)[i], where + "/prefixItems/" + std::to_string(i)));
    }
    const auto prefixed = static_cast<std::int64_t>(prefix.size());
    const auto* items = find(schema, "items");
    if (items && *items == false)
      most = most < 0 ? prefixed : std::min(most, prefixed);
    if (most >= 0 && most < least)
      fail(where, "maxItems is below minItems");
    const bool open = most < 0 || most > prefixed;
    const auto item = !open   ? rule_id{-1}
                      : items ? compile(*items, where + "/items")
                              : rules_.value();

    const auto inside = g_.add_state();
    g_.add_call(g_.add_literal(from, "["), rules_.white_space(), inside);
    if (least == 0)
      g_.add_bytes(inside, ']', ']', to);
    const auto last = g_.add_state(); // behind the last item
    auto at = inside;
    const auto separate = [&](std::int64_t i) {
      if (i == 0)
        return;
      const auto next = g_.add_state();
      g_.add_call(g_.add_literal(at, ","), rules_.white_space(), next);
      at = next;
    };
    std::int64_t i = 0;
    for (; i < prefixed && (most < 0 || i < most); ++i) {
      if (i > 0 && i >= least)
        g_.add_empty(at, last);
      separate(i);
      const auto next = g_.add_state();
      g_.add_call(at, prefix[static_cast<std::size_t>(i)], next);
      at = next;
    }
    if (open) {
      if (i > 0 && i >= least)
        g_.add_empty(at, last);
      separate(i);
      const auto first = g_.add_state();
      g_.add_call(at, item, first);
      ++i;
      const auto more = g_.add_rule();
      const auto before = g_.add_state();
      g_.add_call(g_.add_literal(g_.rule_at(more).start, ","), rules_.white_space(), before);
      g_.add_call(before, item, g_.rule_at(more).end);
      at = g_.add_repeat(first, more, std::max<std::int64_t>(least - i, 0),
                         most < 0 ? -1 : most - i);
    }
    if (i > 0)
      g_.add_empty(at, last);
    const auto close = g_.add_state();
    g_.add_call(last, rules_.white_space(), close);
    g_.add_bytes(close, ']', ']', to);
  }

  void add_object(const json& schema, const std::string& where, state_id from, state_id to) {
    const auto* properties = find(schema, "properties");
    const auto* additional = find(schema, "additionalProperties");
    std::set<std::string> required;
    if (const auto* list = find(schema, "required")) {
      if (!list->is_array())
        fail(where, "required is no list");
      for (const auto& name : *list) {
        if (!name.is_string())
          fail(where, "required is no list of names");
        required.insert(name.get<std::string>());
      }
    }
    if (properties && !properties->is_object())
      fail(where, "properties is no object");
    const bool named = properties && !properties->empty();
    const bool more = additional ? *additional != false : !named && required.empty();
    const auto extra_value = [&] {
      return additional && *additional != true && *additional != false
                 ? compile(*additional, where + "/additionalProperties")
                 : rules_.value();
    };

    std::vector<std::pair<std::string, rule_id>> members;
    if (named)
      for (const auto& [name, value] : properties->items())
        members.emplace_back(name, compile(value, where + "/properties/" + name));
    for (const auto& name : required)
      if (!named || !properties->contains(name)) {
        if (additional && *additional == false)
          fail(where, "required '" + name + "' is not allowed by additionalProperties");
        members.emplace_back(name, extra_value());
      }

    // `none`: no member so far, `some`: at least one.
    auto none = g_.add_state();
    g_.add_call(g_.add_literal(from, "{"), rules_.white_space(), none);
    state_id some = -1;
    const auto comma = [&](state_id after) {
      const auto next = g_.add_state();
      g_.add_call(g_.add_literal(after, ","), rules_.white_space(), next);
      return next;
    };
    for (const auto& [name, value] : members) {
      const auto key = g_.add_state();
      if (none >= 0)
        g_.add_empty(none, key);
      if (some >= 0)
        g_.add_empty(comma(some), key);
      const auto after = g_.add_state();
      const auto before_value = g_.add_state();
      g_.add_call(g_.add_literal(key, json(name).dump() + ":"), rules_.space(), before_value);
      g_.add_call(before_value, value, after);
      if (required.count(name) == 0) {
        if (some >= 0)
          g_.add_empty(some, after);
      } else {
        none = -1;
      }
      some = after;
    }
    if (none >= 0)
      g_.add_bytes(none, '}', '}', to);
    if (more) {
      const auto member = g_.add_rule();
      const auto key = g_.add_state();
      const auto before_value = g_.add_state();
      add_other_key(members, g_.rule_at(member).start, key);
      g_.add_call(g_.add_literal(key, ":"), rules_.space(), before_value);
      g_.add_call(before_value, extra_value(), g_.rule_at(member).end);
      const auto extra = g_.add_state();
      const auto after = g_.add_state();
      if (none >= 0)
        g_.add_empty(none, extra);
      if (some >= 0)
        g_.add_empty(comma(some), extra);
      g_.add_call(extra, member, after);
      g_.add_empty(comma(after), extra);
      if (some >= 0)
        g_.add_empty(some, after);
      some = after;
    }
    if (some < 0)
      return;
    const auto close = g_.add_state();
    g_.add_call(some, rules_.white_space(), close);
    g_.add_bytes(close, '}', '}', to);
  }

  // A quoted key that is none of the members' names: in plain ASCII, for with escapes a name has
  // many spellings. Without members any string will do.
  void add_other_key(const std::vector<std::pair<std::string, rule_id>>& members, state_id from,
                     state_id to) {
    if (members.empty()) {
      g_.add_call(from, rules_.string(), to);
      return;
    }
    struct branch {
      state_id state = 0;
      std::map<char, std::size_t> children;
      bool name = false;
    };
    std::vector<branch> branches(1);
    branches[0].state = g_.add_literal(from, "\"");
    for (const auto& [name, value] : members) {
      std::size_t at = 0;
      for (const char c : name) {
        const auto [child, added] = branches[at].children.try_emplace(c, branches.size());
        at = child->second;
        if (added) {
          branches.emplace_back();
          branches.back().state = g_.add_state();
        }
      }
      branches[at].name = true;
    }
    const auto add_plain = [this](state_id s, unsigned low, unsigned high, state_id next) {
      for (auto c = low; c <= high; ++c)
        if (c != '"' && c != '\\')
          g_.add_bytes(s, static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(c), next);
    };
    const auto free = g_.add_state();
    add_plain(free, 0x20, 0x7E, free);
    g_.add_bytes(free, '"', '"', to);
    for (const auto& b : branches) {
      for (unsigned c = 0x20; c <= 0x7E; ++c) {
        const auto child = b.children.find(static_cast<char>(c));
        add_plain(b.state, c, c, child == b.children.end() ? free : branches[child->second].state);
      }
      if (!b.name)
        g_.add_bytes(b.state, '"', '"', to);
    }
  }

  const json& root_;
  byte_grammar g_;
  json_rules rules_;
  std::map<std::string, rule_id> references_;
  int depth_ = 0;
};

} // namespace

byte_grammar json_object_grammar() {
  byte_grammar g;
  json_rules rules(g);
  g.set_root(rules.object());
  return g;
}

byte_grammar json_schema_grammar(std::string_view text) {
  if (text.size() > max_schema_bytes)
    throw std::invalid_argument("the schema is longer than 1 MiB");
  // Deeply nested text would be copied and destroyed by recursion.
  int depth = 0;
  const auto within_limit = [&depth](int, json::parse_event_t event, json&) {
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start)
      depth += 1;
    else if (event == json::parse_event_t::object_end || event == json::parse_event_t::array_end)
      depth -= 1;
    if (depth > 4 * max_schema_depth)
      throw std::invalid_argument("the schema is nested too deep");
    return true;
  };
  const auto root = json::parse(text, within_limit, false);
  if (root.is_discarded())
    throw std::invalid_argument("the schema is not JSON");
  return compiler(root).run();
}

} // namespace hexgen::compute
