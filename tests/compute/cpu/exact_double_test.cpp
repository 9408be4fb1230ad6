#include "compute/cpu/exact_double.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <random>

namespace hexgen::compute {

TEST_CASE("own sine, cosine, logarithm and exponential are as good as libm's", "[exact]") {
  std::mt19937_64 random(3);
  for (int i = 0; i < 20000; ++i) {
    const double x = std::uniform_real_distribution<>(-140000, 140000)(random);
    const auto angle = exact_sine_cosine(x);
    CHECK(std::fabs(angle.sine - std::sin(x)) < 1e-15);
    CHECK(std::fabs(angle.cosine - std::cos(x)) < 1e-15);
    const double y = std::exp(std::uniform_real_distribution<>(-50, 50)(random));
    CHECK(std::fabs(exact_log(y) - std::log(y)) <= 1e-15 * std::fmax(1, std::fabs(std::log(y))));
    const double z = std::uniform_real_distribution<>(-50, 50)(random);
    CHECK(std::fabs(exact_exp_double(z) / std::exp(z) - 1) < 1e-15);
  }
  CHECK(exact_sine_cosine(0).cosine == 1.0);
  CHECK(exact_log(1) == 0.0);
  CHECK(exact_exp_double(0) == 1.0);
}

} // namespace hexgen::compute
