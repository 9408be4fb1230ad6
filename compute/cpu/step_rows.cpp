#include "compute/cpu/step_rows.hpp"

#include <stdexcept>
#include <string>

namespace hexgen::compute {

namespace {

constexpr std::int32_t last_position = 1 << 22; // rotary angles are exact up to here

void require(bool holds, const char* what) {
  if (!holds)
    throw std::invalid_argument(std::string("step: ") + what);
}

void check_entry(const step_entry& e, const step_limits& limits) {
  require(e.tokens >= 1 && e.tokens <= limits.tokens, "an entry's token count is out of range");
  require(e.position >= 0 && e.position <= last_position - e.tokens, "a position is out of range");
  require(e.logits >= 0 && e.logits <= e.tokens, "an entry wants more logits than it has tokens");
  const auto needed = (e.position + e.tokens + block_tokens - 1) / block_tokens;
  require(e.blocks.size() >= static_cast<std::size_t>(needed),
          "a block table does not cover its entry");
  for (std::int32_t i = 0; i < needed; ++i)
    require(e.blocks[static_cast<std::size_t>(i)] < limits.blocks, "a block is outside the pool");
}

} // namespace

step_rows lay_out(const step& s, const step_limits& limits) {
  for (const auto& [from, to] : s.copies)
    require(from < limits.blocks && to < limits.blocks, "a copied block is outside the pool");
  step_rows rows;
  for (const auto& e : s.entries) {
    check_entry(e, limits);
    require(rows.tokens.size() + static_cast<std::size_t>(e.tokens) <=
                static_cast<std::size_t>(limits.tokens),
            "it is wider than max_step_tokens");
    for (std::int32_t i = 0; i < e.tokens; ++i) {
      if (i >= e.tokens - e.logits)
        rows.logits.push_back(static_cast<std::int32_t>(rows.tokens.size()));
      rows.tokens.push_back({&e, e.position + i});
    }
  }
  require(rows.logits.size() <= static_cast<std::size_t>(limits.logit_rows),
          "it wants more logit rows than max_logit_rows");
  return rows;
}

} // namespace hexgen::compute
