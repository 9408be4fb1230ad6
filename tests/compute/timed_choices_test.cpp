#include "compute/timed_choices.hpp"
#include "tests/catch.hpp"

#include <unistd.h>

#include <fstream>

using hexgen::compute::timed_choices;

namespace {

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (const int v : values)
    out.push_back(static_cast<std::byte>(v));
  return out;
}

} // namespace

TEST_CASE("what was chosen by timing is there at the next start") {
  const auto folder =
      std::filesystem::temp_directory_path() / ("hexgen-timed-" + std::to_string(::getpid()));
  const auto file = folder / "deep" / "h200.txt";
  {
    timed_choices t(file);
    CHECK_FALSE(t.find("8x4096", 3));
    t.keep("8x4096", bytes({0, 171, 255}));
    t.keep("16x4096", bytes({1, 2, 3}));
    t.keep("8x4096", bytes({4, 5, 6}));
  }
  timed_choices again(file);
  CHECK(again.find("8x4096", 3) == bytes({4, 5, 6})); // the last one counts
  CHECK(again.find("16x4096", 3) == bytes({1, 2, 3}));
  CHECK_FALSE(again.find("16x4096", 4)); // of another kind of choice
  std::filesystem::remove_all(folder);
}

TEST_CASE("a spoilt file of choices costs no more than a new timing") {
  const auto file =
      std::filesystem::temp_directory_path() / ("hexgen-timed-" + std::to_string(::getpid()));
  std::ofstream(file) << "a 0g\n\nb\nc 012\nd 0102 03\ne 0aff\n\xff\xfe";
  timed_choices t(file);
  for (const char* key : {"a", "b", "c", "d"})
    CHECK_FALSE(t.find(key, 1));
  CHECK(t.find("e", 2) == bytes({10, 255}));
  std::filesystem::remove(file);
}

TEST_CASE("choices can be kept nowhere") {
  timed_choices t({});
  t.keep("a", bytes({1}));
  CHECK(t.find("a", 1));
  timed_choices unwritable("/proc/none/x");
  unwritable.keep("a", bytes({1}));
  CHECK(unwritable.find("a", 1));
}
