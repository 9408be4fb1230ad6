// Arrays and objects of schema_compiler.
#include "compute/sampling/schema_compiler.hpp"

#include <algorithm>

namespace hexgen::compute {

void schema_compiler::add_array(const json& schema, const std::string& where, state_id from,
                                state_id to) {
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
    at = g_.add_repeat(first, more, std::max<std::int64_t>(least - i, 0), most < 0 ? -1 : most - i);
  }
  if (i > 0)
    g_.add_empty(at, last);
  const auto close = g_.add_state();
  g_.add_call(last, rules_.white_space(), close);
  g_.add_bytes(close, ']', ']', to);
}

void schema_compiler::add_object(const json& schema, const std::string& where, state_id from,
                                 state_id to) {
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

  members named_members;
  if (named)
    for (const auto& [name, value] : properties->items())
      named_members.emplace_back(name, compile(value, where + "/properties/" + name));
  for (const auto& name : required)
    if (!named || !properties->contains(name)) {
      if (additional && *additional == false)
        fail(where, "required '" + name + "' is not allowed by additionalProperties");
      named_members.emplace_back(name, extra_value());
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
  for (const auto& [name, value] : named_members) {
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
    add_other_key(named_members, g_.rule_at(member).start, key);
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

// A quoted key that is none of the named_members' names: in plain ASCII, for with escapes a name
// has many spellings. Without named_members any string will do.
void schema_compiler::add_other_key(const members& named, state_id from, state_id to) {
  if (named.empty()) {
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
  for (const auto& [name, value] : named) {
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

} // namespace hexgen::compute
