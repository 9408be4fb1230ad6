// What is decided from a shard's weights alone.
#include "compute/cpu/shard_weights.hpp"
#include "tests/catch.hpp"

namespace hexgen::compute::testing {

namespace {

stacked_matrices stack_of(std::initializer_list<std::pair<code_kind, scale_kind>> kinds) {
  stacked_matrices stack;
  for (const auto& [codes, scales] : kinds) {
    matrix_view weights;
    weights.codes = codes;
    weights.scales = scales;
    stack.parts.push_back({weights, 0});
  }
  return stack;
}

constexpr std::pair q4{code_kind::nibble, scale_kind::super_min};
constexpr std::pair q6{code_kind::byte, scale_kind::super_pair};
constexpr std::pair table{code_kind::nibble_table, scale_kind::half};
constexpr std::pair floats{code_kind::f32, scale_kind::none};

} // namespace

TEST_CASE("inputs take 12 bits only where all codes that they meet have four", "[shard_weights]") {
  CHECK(stack_of({q4, q4, q4}).input_bits() == code_bits::twelve);
  CHECK(stack_of({q4, q4, q6}).input_bits() == code_bits::sixteen);
  CHECK(stack_of({q6, q4, q4}).input_bits() == code_bits::sixteen);
  CHECK(stack_of({table}).input_bits() == code_bits::sixteen);
  CHECK(stack_of({floats, q4}).input_bits() == code_bits::twelve);
  CHECK_FALSE(stack_of({floats, floats}).input_bits().has_value());
  auto outliers = stack_of({q4});
  outliers.wide_inputs = true;
  CHECK(outliers.input_bits() == code_bits::sixteen);
}

} // namespace hexgen::compute::testing
