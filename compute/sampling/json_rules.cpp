#include "compute/sampling/json_rules.hpp"

#include <algorithm>
#include <array>
#include <string>

namespace hexgen::compute {

namespace {

constexpr int max_indent = 20;
constexpr int more_integer_digits = 14; // 15 in all: exact in a double
constexpr int max_fraction_digits = 15;
constexpr int max_exponent_digits = 2; // 1e99 and 1e-99 are finite doubles

} // namespace

json_rules::lookup json_rules::get(part p) {
  const auto at = rules_.find(p);
  const bool fresh = at == rules_.end();
  const auto id = fresh ? g_.add_rule() : at->second;
  if (fresh)
    rules_.emplace(p, id);
  return {id, g_.rule_at(id).start, g_.rule_at(id).end, fresh};
}

json_rules::rule_id json_rules::white_space() {
  const auto r = get(part::white_space);
  if (r.fresh) {
    g_.add_empty(r.start, r.end);
    g_.add_bytes(r.start, ' ', ' ', r.end);
    auto at = g_.add_literal(r.start, "\n");
    for (int i = 0; i < max_indent; ++i) {
      g_.add_empty(at, r.end);
      at = g_.add_literal(at, " ");
    }
    g_.add_empty(at, r.end);
  }
  return r.rule;
}

json_rules::rule_id json_rules::space() {
  const auto r = get(part::space);
  if (r.fresh) {
    g_.add_empty(r.start, r.end);
    g_.add_bytes(r.start, ' ', ' ', r.end);
  }
  return r.rule;
}

void json_rules::add_beyond_ascii(state_id from, state_id to) {
  const auto last = g_.add_state();
  g_.add_bytes(last, 0x80, 0xBF, to);
  const auto last_two = g_.add_state();
  g_.add_bytes(last_two, 0x80, 0xBF, last);
  const auto after = [&](std::uint8_t lead, std::uint8_t low, std::uint8_t high, state_id next) {
    const auto second = g_.add_state();
    g_.add_bytes(from, lead, lead, second);
    g_.add_bytes(second, low, high, next);
  };
  g_.add_bytes(from, 0xC2, 0xDF, last);
  after(0xE0, 0xA0, 0xBF, last);
  g_.add_bytes(from, 0xE1, 0xEC, last_two);
  after(0xED, 0x80, 0x9F, last); // no surrogates
  g_.add_bytes(from, 0xEE, 0xEF, last_two);
  after(0xF0, 0x90, 0xBF, last_two);
  const auto last_three = g_.add_state();
  g_.add_bytes(last_three, 0x80, 0xBF, last_two);
  g_.add_bytes(from, 0xF1, 0xF3, last_three);
  after(0xF4, 0x80, 0x8F, last_two);
}

json_rules::rule_id json_rules::character() {
  const auto r = get(part::character);
  if (!r.fresh)
    return r.rule;
  g_.add_bytes(r.start, 0x20, 0x21, r.end);
  g_.add_bytes(r.start, 0x23, 0x5B, r.end);
  g_.add_bytes(r.start, 0x5D, 0x7F, r.end);
  add_beyond_ascii(r.start, r.end);
  const auto escape = g_.add_literal(r.start, "\\");
  for (const char c : std::string("\"\\/bfnrt"))
    g_.add_bytes(escape, static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(c), r.end);
  const auto hex = [this](state_id from, state_id to) {
    g_.add_bytes(from, '0', '9', to);
    g_.add_bytes(from, 'a', 'f', to);
    g_.add_bytes(from, 'A', 'F', to);
  };
  const auto either = [this](state_id from, char low, char high, state_id to) {
    g_.add_bytes(from, static_cast<std::uint8_t>(low), static_cast<std::uint8_t>(high), to);
    if (low >= 'a')
      g_.add_bytes(from, static_cast<std::uint8_t>(low - 'a' + 'A'),
                   static_cast<std::uint8_t>(high - 'a' + 'A'), to);
  };
  const auto code = g_.add_literal(escape, "u");
  const auto last = g_.add_state();
  hex(last, r.end);
  const auto last_two = g_.add_state();
  hex(last_two, last);
  const auto last_three = g_.add_state();
  hex(last_three, last_two);
  either(code, '0', '9', last_three);
  either(code, 'a', 'c', last_three);
  either(code, 'e', 'f', last_three);
  const auto d = g_.add_state();
  either(code, 'd', 'd', d);
  g_.add_bytes(d, '0', '7', last_two);
  // A high surrogate stands only before a low one.
  const auto high = g_.add_state();
  either(d, '8', '9', high);
  either(d, 'a', 'b', high);
  const auto high_last = g_.add_state();
  hex(high, high_last);
  const auto between = g_.add_state();
  hex(high_last, between);
  const auto low = g_.add_literal(between, "\\u");
  const auto low_d = g_.add_state();
  either(low, 'd', 'd', low_d);
  either(low_d, 'c', 'f', last_two);
  return r.rule;
}

json_rules::rule_id json_rules::string() {
  const auto r = get(part::string);
  if (r.fresh) {
    const auto inside = g_.add_literal(r.start, "\"");
    g_.add_call(inside, character(), inside);
    g_.add_bytes(inside, '"', '"', r.end);
  }
  return r.rule;
}

void json_rules::add_digits(state_id from, int least, int most, state_id to) {
  for (int i = 0; i < most; ++i) {
    if (i >= least)
      g_.add_empty(from, to);
    const auto next = g_.add_state();
    g_.add_bytes(from, '0', '9', next);
    from = next;
  }
  g_.add_empty(from, to);
}

json_rules::rule_id json_rules::integer() {
  const auto r = get(part::integer);
  if (r.fresh) {
    const auto digits = g_.add_state();
    g_.add_empty(r.start, digits);
    g_.add_bytes(r.start, '-', '-', digits);
    g_.add_bytes(digits, '0', '0', r.end);
    const auto more = g_.add_state();
    g_.add_bytes(digits, '1', '9', more);
    add_digits(more, 0, more_integer_digits, r.end);
  }
  return r.rule;
}

json_rules::rule_id json_rules::number() {
  const auto r = get(part::number);
  if (r.fresh) {
    const auto whole = g_.add_state();
    g_.add_call(r.start, integer(), whole);
    const auto fraction = g_.add_state();
    g_.add_empty(whole, fraction);
    add_digits(g_.add_literal(whole, "."), 1, max_fraction_digits, fraction);
    g_.add_empty(fraction, r.end);
    const auto exponent = g_.add_state();
    g_.add_bytes(fraction, 'e', 'e', exponent);
    g_.add_bytes(fraction, 'E', 'E', exponent);
    const auto digits = g_.add_state();
    g_.add_empty(exponent, digits);
    g_.add_bytes(exponent, '+', '+', digits);
    g_.add_bytes(exponent, '-', '-', digits);
    add_digits(digits, 1, max_exponent_digits, r.end);
  }
  return r.rule;
}

json_rules::rule_id json_rules::boolean() {
  const auto r = get(part::boolean);
  if (r.fresh) {
    g_.add_empty(g_.add_literal(r.start, "true"), r.end);
    g_.add_empty(g_.add_literal(r.start, "false"), r.end);
  }
  return r.rule;
}

json_rules::rule_id json_rules::null() {
  const auto r = get(part::null);
  if (r.fresh)
    g_.add_empty(g_.add_literal(r.start, "null"), r.end);
  return r.rule;
}

json_rules::rule_id json_rules::value() {
  const auto r = get(part::value);
  if (r.fresh)
    for (const auto kind : {string(), number(), boolean(), null(), object(), array()})
      g_.add_call(r.start, kind, r.end);
  return r.rule;
}

// open ws (member ("," ws member)* ws)? close
void json_rules::fill_members(const lookup& r, char open, char close, rule_id member) {
  const auto inside = g_.add_state();
  g_.add_call(g_.add_literal(r.start, std::string(1, open)), white_space(), inside);
  g_.add_bytes(inside, static_cast<std::uint8_t>(close), static_cast<std::uint8_t>(close), r.end);
  const auto first = g_.add_state();
  const auto after = g_.add_state();
  g_.add_empty(inside, first);
  g_.add_call(first, member, after);
  g_.add_call(g_.add_literal(after, ","), white_space(), first);
  const auto last = g_.add_state();
  g_.add_call(after, white_space(), last);
  g_.add_bytes(last, static_cast<std::uint8_t>(close), static_cast<std::uint8_t>(close), r.end);
}

json_rules::rule_id json_rules::object() {
  const auto r = get(part::object);
  if (r.fresh) {
    const auto member = g_.add_rule();
    const auto key = g_.add_state();
    const auto before_value = g_.add_state();
    g_.add_call(g_.rule_at(member).start, string(), key);
    g_.add_call(g_.add_literal(key, ":"), space(), before_value);
    g_.add_call(before_value, value(), g_.rule_at(member).end);
    fill_members(r, '{', '}', member);
  }
  return r.rule;
}

json_rules::rule_id json_rules::array() {
  const auto r = get(part::array);
  if (r.fresh)
    fill_members(r, '[', ']', value());
  return r.rule;
}

// Digits by digits; a state remembers whether the digits so far are those of a bound.
void json_rules::add_natural(state_id from, std::int64_t low, std::int64_t high, state_id to) {
  std::int64_t smallest = 0; // of the numbers with `length` digits
  std::int64_t largest = 9;
  for (std::size_t length = 1; smallest <= high; ++length) {
    if (largest >= low) {
      const auto least = std::to_string(std::max(low, smallest));
      const auto most = std::to_string(std::min(high, largest));
      // Both bounds, the lower, the upper, none.
      std::array<state_id, 4> at = {from, -1, -1, -1};
      for (std::size_t i = 0; i < length; ++i) {
        std::array<state_id, 4> next = {-1, -1, -1, -1};
        for (std::size_t tight = 0; tight < 4; ++tight) {
          if (at[tight] < 0)
            continue;
          const bool at_low = tight == 0 || tight == 1;
          const bool at_high = tight == 0 || tight == 2;
          const char a = at_low ? least[i] : '0';
          const char b = at_high ? most[i] : '9';
          for (char c = a; c <= b; ++c) {
            const bool low_next = at_low && c == a;
            const bool high_next = at_high && c == b;
            const std::size_t kind = low_next ? (high_next ? 0 : 1) : (high_next ? 2 : 3);
            const bool last = i + 1 == length;
            if (!last && next[kind] < 0)
              next[kind] = g_.add_state();
            g_.add_bytes(at[tight], static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(c),
                         last ? to : next[kind]);
          }
        }
        at = next;
      }
    }
    smallest = largest + 1;
    largest = largest * 10 + 9;
  }
}

void json_rules::add_integers(state_id from, std::int64_t low, std::int64_t high, state_id to) {
  if (low < 0)
    add_natural(g_.add_literal(from, "-"), std::max<std::int64_t>(1, -high), -low, to);
  if (high >= 0)
    add_natural(from, std::max<std::int64_t>(0, low), high, to);
}

} // namespace hexgen::compute
