// JSON schemas to grammars.
#pragma once

#include "compute/sampling/byte_grammar.hpp"

#include <string_view>

namespace hexgen::compute {

/// Any JSON object.
[[nodiscard]] byte_grammar json_object_grammar();

/// The values of a schema: type (or several), properties, required, additionalProperties, items,
/// prefixItems, minItems, maxItems, enum, const, minLength, maxLength, pattern (a subset), minimum
/// and maximum of integers, anyOf, oneOf (as anyOf), allOf of one, local $ref with recursion.
/// Properties come in the schema's order; more than the named ones only when
/// additionalProperties says so or none are named. Keywords that do not narrow the values
/// (title, format, default, ...) are ignored. Throws std::invalid_argument naming the place in the
/// schema and the keyword that cannot be served.
[[nodiscard]] byte_grammar json_schema_grammar(std::string_view text);

} // namespace hexgen::compute
