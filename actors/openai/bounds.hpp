// The one table of what a request's numbers and lists may be: the parser checks it, the OpenAPI
// description prints it, the fuzzer and the abuse tests walk it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace hexgen::actors {

struct number_bound {
  std::string_view name;
  double lowest = 0;
  double highest = 0;
  bool integer = false;
  bool chat = true;
  bool completion = true;
  std::string_view about;
};

[[nodiscard]] std::span<const number_bound> number_bounds();
/// `name` must be in the table. "logprobs" is a number in completions only.
[[nodiscard]] const number_bound& bound_of(std::string_view name);

namespace bounds {
inline constexpr int prompts = 128; // of one completion request
inline constexpr int choices = 128; // n x prompts
inline constexpr int stop_strings = 16;
inline constexpr int stop_bytes = 1024; // of one stop string
inline constexpr int stop_ids = 64;
inline constexpr int biases = 1024; // entries of logit_bias
inline constexpr double bias = 100; // largest |logit_bias|
inline constexpr int messages = 4096;
inline constexpr int json_depth = 64;
inline constexpr int schema_bytes = 64 * 1024;
} // namespace bounds

} // namespace hexgen::actors
