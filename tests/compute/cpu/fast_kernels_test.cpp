// The fast kernels against the reference on the default model.
#include "tests/catch.hpp"
#include "tests/compute/cpu/golden.hpp"
#include "tests/compute/cpu/runner.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace hexgen::compute::testing {

namespace {

/// Every golden answer, teacher-forced: 48 rows of logits for each of 16 prompts.
std::vector<std::vector<float>> forced_rows(kernel_kind kernels, std::size_t index) {
  executor_options options;
  options.kernels = kernels;
  options.threads = 2;
  options.max_step_tokens = 1024;
  static std::unique_ptr<runner> runners[2];
  auto& r = runners[kernels == kernel_kind::fast ? 0 : 1];
  if (!r)
    r = std::make_unique<runner>(default_model(), one_device(default_model()->config()), options,
                                 64);
  const auto& c = golden_cases()[index];
  auto ids = c.ids;
  ids.insert(ids.end(), c.greedy_ids.begin(), c.greedy_ids.end() - 1);
  auto rows = r->step({{0, ids, static_cast<int>(c.greedy_ids.size())}});
  r->close(0);
  return rows;
}

} // namespace

TEST_CASE("fast kernels stay close to the reference on all golden positions", "[golden]") {
  double sum = 0;
  double count = 0;
  float worst = 0;
  int positions = 0;
  for (std::size_t i = 0; i < golden_cases().size(); ++i) {
    const auto exact = forced_rows(kernel_kind::reference, i);
    const auto fast = forced_rows(kernel_kind::fast, i);
    REQUIRE(exact.size() == fast.size());
    for (std::size_t n = 0; n < exact.size(); ++n, ++positions) {
      std::vector<std::size_t> order(exact[n].size());
      for (std::size_t v = 0; v < order.size(); ++v) {
        order[v] = v;
        sum += std::fabs(exact[n][v] - fast[n][v]);
      }
      count += static_cast<double>(order.size());
      std::partial_sort(order.begin(), order.begin() + 5, order.end(),
                        [&](auto a, auto b) { return exact[n][a] > exact[n][b]; });
      for (int k = 0; k < 5; ++k)
        worst = std::max(worst, std::fabs(exact[n][order[k]] - fast[n][order[k]]));
      if (exact[n][order[0]] - exact[n][order[1]] >= 0.1F)
        CHECK(largest_index(fast[n]) == static_cast<int>(order[0]));
    }
  }
  CHECK(positions == 768);
  INFO("mean " << sum / count << ", worst of the top five " << worst);
  CHECK(sum / count <= 0.02);
  CHECK(worst <= 0.1F);
  std::printf("fast against reference: mean %.6f, worst of the top five %.6f\n", sum / count,
              static_cast<double>(worst));
}

} // namespace hexgen::compute::testing
