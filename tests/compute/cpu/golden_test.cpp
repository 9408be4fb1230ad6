// The default model against transformers' float32 figures (tests/golden/smollm2.json).
#include "tests/catch.hpp"
#include "tests/compute/cpu/runner.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>

namespace hexgen::compute::testing {

namespace {

const nlohmann::json& golden() {
  static const auto parsed =
      nlohmann::json::parse(std::ifstream(HEXGEN_SOURCE_DIR "/tests/golden/smollm2.json"));
  return parsed;
}

float margin(std::vector<float> logits) {
  std::nth_element(logits.begin(), logits.begin() + 1, logits.end(), std::greater<>());
  return logits[0] - logits[1];
}

} // namespace

TEST_CASE("the reference kernels give the golden tokens, logits and margins", "[golden]") {
  executor_options options;
  options.kernels = kernel_kind::reference;
  options.threads = 2;
  options.max_step_tokens = 2048;
  runner r(default_model(), one_device(default_model()->config()), options, 256);

  const auto& cases = golden().at("cases");
  REQUIRE(cases.size() == 16);
  std::vector<test_run> runs;
  for (std::size_t i = 0; i < cases.size(); ++i)
    runs.push_back({static_cast<int>(i), cases[i].at("ids").get<std::vector<std::int32_t>>(), 1});
  for (std::size_t n = 0; n < 48; ++n) {
    const auto logits = r.step(runs);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      CAPTURE(n, cases[i].at("id").get<std::string>());
      if (n == 0)
        for (const auto& top : cases[i].at("last_position_top5"))
          CHECK(std::fabs(logits[i][top[0].get<std::size_t>()] - top[1].get<float>()) <= 1e-3F);
      CHECK(std::fabs(margin(logits[i]) - cases[i].at("margins")[n].get<float>()) <= 1e-2F);
      const auto expected = cases[i].at("greedy_ids")[n].get<std::int32_t>();
      CHECK(largest_index(logits[i]) == expected);
      runs[i].ids = {expected};
    }
  }
}

} // namespace hexgen::compute::testing
