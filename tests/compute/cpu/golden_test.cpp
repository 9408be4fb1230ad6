// The default model against transformers' float32 figures.
#include "tests/catch.hpp"
#include "tests/compute/cpu/golden.hpp"
#include "tests/compute/cpu/runner.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>

namespace hexgen::compute::testing {

namespace {

float margin(std::vector<float> logits) {
  std::nth_element(logits.begin(), logits.begin() + 1, logits.end(), std::greater<>());
  return logits[0] - logits[1];
}

std::vector<golden_case> read_cases() {
  const auto file =
      nlohmann::json::parse(std::ifstream(HEXGEN_SOURCE_DIR "/tests/golden/smollm2.json"));
  std::vector<golden_case> cases;
  for (const auto& c : file.at("cases"))
    cases.push_back(
        {c.at("id"), c.at("ids"), c.at("greedy_ids"), c.at("margins"), c.at("last_position_top5")});
  return cases;
}

} // namespace

const std::vector<golden_case>& golden_cases() {
  static const auto cases = read_cases();
  return cases;
}

TEST_CASE("the reference kernels give the golden tokens, logits and margins", "[golden]") {
  executor_options options;
  options.kernels = kernel_kind::reference;
  options.threads = 2;
  options.max_step_tokens = 2048;
  runner r(default_model(), one_device(default_model()->config()), options, 256);

  const auto& cases = golden_cases();
  REQUIRE(cases.size() == 16);
  std::vector<test_run> runs;
  for (std::size_t i = 0; i < cases.size(); ++i)
    runs.push_back({static_cast<int>(i), cases[i].ids, 1});
  for (std::size_t n = 0; n < 48; ++n) {
    const auto logits = r.step(runs);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      CAPTURE(n, cases[i].id);
      if (n == 0)
        for (const auto& [id, value] : cases[i].last_top5)
          CHECK(std::fabs(logits[i][static_cast<std::size_t>(id)] - value) <= 1e-3F);
      CHECK(std::fabs(margin(logits[i]) - cases[i].margins[n]) <= 1e-2F);
      CHECK(largest_index(logits[i]) == cases[i].greedy_ids[n]);
      runs[i].ids = {cases[i].greedy_ids[n]};
    }
  }
}

} // namespace hexgen::compute::testing
