// A subset of regular expressions, as "pattern" of JSON schemas, inside a JSON string.
#pragma once

#include "compute/sampling/byte_grammar.hpp"
#include "compute/sampling/json_rules.hpp"

#include <string_view>

namespace hexgen::compute {

/// Adds the strings (without quotes) that `pattern` matches, written as JSON. Characters, `.`,
/// classes of ASCII characters, \d \w \s and their complements, groups, |, * + ? {m,n}, ^ at the
/// front and $ at the end. Not anchored, a match may stand anywhere in the string.
/// Throws std::invalid_argument for anything else.
void add_pattern(byte_grammar& grammar, json_rules& rules, std::string_view pattern,
                 byte_grammar::state_id from, byte_grammar::state_id to);

} // namespace hexgen::compute
