// The walk from a JSON schema to a byte_grammar; used by json_schema.cpp alone.
#pragma once

#include "compute/sampling/byte_grammar.hpp"
#include "compute/sampling/json_rules.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace hexgen::compute {

/// Places in the schema ("#/properties/a") are passed along for the errors, which are
/// std::invalid_argument. Every add_ function leads from one state of the grammar to another.
class schema_compiler {
public:
  using json = nlohmann::ordered_json; // properties are generated in the schema's order
  using rule_id = byte_grammar::rule_id;
  using state_id = byte_grammar::state_id;

  /// A deeper schema is refused.
  static constexpr int max_depth = 64;

  /// `root` outlives the compiler.
  explicit schema_compiler(const json& root) : root_(root), rules_(g_) {}
  /// Once.
  [[nodiscard]] byte_grammar run();

private:
  using members = std::vector<std::pair<std::string, rule_id>>;

  [[noreturn]] static void fail(const std::string& where, const std::string& what);
  /// nullptr when the schema has no such keyword.
  static const json* find(const json& schema, const char* key);
  static std::optional<std::int64_t> count_of(const json& schema, const char* key,
                                              const std::string& where);
  static void refuse_bounds(const json& schema, const std::string& where);
  /// Beside `key` only keywords that do not narrow, or those in `allowed`.
  static void only(const json& schema, const std::string& where, const std::string& key,
                   const std::set<std::string>& allowed);
  /// The types that the schema names, or that its keywords speak of; none: any value.
  static std::vector<std::string> types_of(const json& schema, const std::string& where);

  rule_id reference(const std::string& pointer, const std::string& where);
  rule_id compile(const json& schema, const std::string& where);
  void fill(rule_id rule, const json& schema, const std::string& where);
  void add(const json& schema, const std::string& where, state_id from, state_id to);
  void add_values(const json& values, const std::vector<std::string>& types,
                  const std::string& where, state_id from, state_id to);
  void add_type(const std::string& type, const json& schema, const std::string& where,
                state_id from, state_id to);
  void add_string(const json& schema, const std::string& where, state_id from, state_id to);
  void add_number(const json& schema, const std::string& where, state_id from, state_id to);
  void add_integer(const json& schema, const std::string& where, state_id from, state_id to);
  void add_array(const json& schema, const std::string& where, state_id from, state_id to);
  void add_object(const json& schema, const std::string& where, state_id from, state_id to);
  void add_other_key(const members& named, state_id from, state_id to);

  const json& root_;
  byte_grammar g_;
  json_rules rules_;
  std::map<std::string, rule_id> references_;
  int depth_ = 0;
};

} // namespace hexgen::compute
