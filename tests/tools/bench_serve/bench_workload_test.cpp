#include "tests/catch.hpp"
#include "tools/bench_serve/bench_workload.hpp"

using namespace hexgen::tools;

TEST_CASE("a bench workload is exact, seeded and in bounds") {
  bench_options options;
  options.input_len = 20;
  options.output_len = 10;
  options.prefix_len = 3;
  options.request_rate = 4;
  options.lowest_id = 7;
  options.highest_id = 9;
  const auto all = make_workload(options, 50, 0);
  REQUIRE(all.size() == 50);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(all[i].prompt.size() == 23);
    CHECK(std::vector<int>(all[i].prompt.begin(), all[i].prompt.begin() + 3) ==
          std::vector<int>(all[0].prompt.begin(), all[0].prompt.begin() + 3));
    for (const int id : all[i].prompt)
      CHECK((id >= 7 && id <= 9));
    CHECK(all[i].output_len == 10);
    CHECK((i == 0 || all[i].at_s >= all[i - 1].at_s));
  }
  CHECK(all.back().at_s == Approx(50 / 4.0)); // rescaled to N / rate
  const auto again = make_workload(options, 50, 0);
  CHECK(again[7].prompt == all[7].prompt);
  CHECK(again[7].at_s == all[7].at_s);
  CHECK(make_workload(options, 50, 1)[7].prompt != all[7].prompt);
}

TEST_CASE("bench lengths may vary around their mean") {
  bench_options options;
  options.input_len = 100;
  options.range_ratio = 0.5;
  std::size_t shortest = 1000, longest = 0;
  for (const auto& one : make_workload(options, 500, 0)) {
    shortest = std::min(shortest, one.prompt.size());
    longest = std::max(longest, one.prompt.size());
    CHECK(one.at_s == 0); // rate inf: all at once
  }
  CHECK(shortest >= 50);
  CHECK(shortest < 60);
  CHECK(longest <= 150);
  CHECK(longest > 140);
}
