#include "tests/scheduler/run_planning.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace {

const auto folder = hexgen::test::scratch();

/// The named row of the printed JSON.
nlohmann::json row_of(const nlohmann::json& made, const std::string& name) {
  for (const auto& row : made["rows"])
    if (row["name"].get<std::string>().find(name) != std::string::npos)
      return row;
  FAIL("no row " << name);
  return {};
}

} // namespace

TEST_CASE("compare prints the paper's evaluation", "[compare]") {
  const auto made =
      hexgen::test::run_planning("compare --seconds-each 0.05 --requests 40000 --json");
  REQUIRE(made.code == 0);
  const auto json = nlohmann::json::parse(made.out);
  CHECK(json["complete"] == true);
  // What no search decides, to the printed digits of the reference.
  const auto alone = row_of(json, "mean single request");
  CHECK(alone["values"][0].get<double>() == Approx(1.631).margin(0.0005));
  CHECK(alone["values"][1].get<double>() == Approx(1.927).margin(0.0005));
  CHECK(row_of(json, "case study: tuned PP8")["values"][0].get<double>() ==
        Approx(2.41).margin(0.005));
  CHECK(row_of(json, "case study: PP2xTP4")["values"][0].get<double>() ==
        Approx(19.7).margin(0.05));
  const auto fixed = row_of(json, "scale 3/5/8/15: A100 4xTP4");
  CHECK(fixed["expected"] == "1.02 / 1.43 / 1.63 / 1.87");
  CHECK_FALSE(fixed["spread"].get<std::string>().empty());
  const double expected[] = {1.02, 1.43, 1.63, 1.87};
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(fixed["values"][i].get<double>() == Approx(expected[i]).epsilon(0.10));
  // Rates rise with the deadline, and plans of an arm never lose to its own fixed shapes.
  for (const auto* name : {"A100 best", "half price", "full price"}) {
    const auto values =
        row_of(json, std::string("scale 3/5/8/15: ") + name)["values"].get<std::vector<double>>();
    CHECK(values.front() > 0);
    CHECK(std::is_sorted(values.begin(), values.end()));
  }
  const auto ratios = row_of(json, "rate ratio full / 4xTP4")["values"];
  for (const auto& value : ratios)
    CHECK(value.get<double>() > 1); // 1.8 to 2.5 when the searches have the time they want
  const auto bound = row_of(json, "upper bound")["values"];
  const auto reached = row_of(json, "capacity, req/s: A100")["values"];
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(reached[i + 1].get<double>() <= bound[i].get<double>() * (1 + 1e-6));
}

TEST_CASE("Helix's clusters need calibrated mode", "[compare]") {
  const auto said = hexgen::test::run_planning("compare --part helix", true);
  CHECK(said.code == 1);
  CHECK(said.out.find("--part helix: its clusters are compared with --mode calibrated") !=
        std::string::npos);
}

TEST_CASE("interrupted, compare ends with the rows that it knows", "[compare]") {
  // A shell starts it with searches that would take hours, and presses Ctrl-C after the first row.
  const auto out = (folder / "compare").string();
  const auto command = std::string("set -m; ") + HEXGEN_PLANNING +
                       " compare --seconds-each 600 --requests 1000 > " + out +
                       " & pid=$!; for i in $(seq 1200); do grep -q TP4 " + out +
                       " && break; sleep 0.05; done; kill -INT $pid; wait $pid";
  const int status = std::system(("bash -c '" + command + "'").c_str());
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  std::ifstream file(out);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  CHECK(text.find("mean single request") != std::string::npos);
  CHECK(text.find("interrupted: the rows that follow are not known") != std::string::npos);
  CHECK(text.find("case study") == std::string::npos);
}
