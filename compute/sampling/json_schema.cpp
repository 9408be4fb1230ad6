#include "compute/sampling/json_schema.hpp"

#include "compute/sampling/json_rules.hpp"
#include "compute/sampling/schema_compiler.hpp"

#include <stdexcept>

namespace hexgen::compute {

namespace {

using json = schema_compiler::json;

constexpr std::size_t max_schema_bytes = 1U << 20U;

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
    if (depth > 4 * schema_compiler::max_depth)
      throw std::invalid_argument("the schema is nested too deep");
    return true;
  };
  const auto root = json::parse(text, within_limit, false);
  if (root.is_discarded())
    throw std::invalid_argument("the schema is not JSON");
  return schema_compiler(root).run();
}

} // namespace hexgen::compute
