// The default model's golden cases (tests/golden/smollm2.json).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace hexgen::compute::testing {

struct golden_case {
  std::string id;
  std::vector<std::int32_t> ids;                // the prompt
  std::vector<std::int32_t> greedy_ids;         // 48 tokens
  std::vector<float> margins;                   // of each of them
  std::vector<std::pair<int, float>> last_top5; // logits at the prompt's last position
};

[[nodiscard]] const std::vector<golden_case>& golden_cases();

} // namespace hexgen::compute::testing
