#include "actors/shell/child_process.hpp"
#include "tests/catch.hpp"

#include <chrono>
#include <csignal>
#include <thread>

using namespace hexgen::actors;

namespace {

template <class Condition>
bool soon(Condition holds) {
  for (int i = 0; i < 1000; ++i) {
    if (holds())
      return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

} // namespace

TEST_CASE("a child that dies is started again, with its environment") {
  std::vector<std::string> lines;
  child_process child({"/bin/sh", "-c", "test \"$HEXGEN_TEST_CHILD\" = yes && exec sleep 60"},
                      {"HEXGEN_TEST_CHILD=yes"}, [&](const std::string& l) { lines.push_back(l); });
  child.poll();
  const auto first = child.pid();
  REQUIRE(first > 0);
  ::kill(first, SIGKILL);
  CHECK(soon([&] {
    child.poll();
    return child.pid() > 0 && child.pid() != first;
  }));
  child.stop();
  CHECK(child.pid() == 0);
  child.poll();
  CHECK(child.pid() == 0); // stopped is stopped
}

TEST_CASE("a child that refuses its arguments is not started again") {
  bool given_up = false;
  child_process child({"/bin/sh", "-c", "exit 2"}, {}, [&](const std::string& l) {
    given_up |= l.find("given_up") != std::string::npos;
  });
  CHECK(soon([&] {
    child.poll();
    return given_up;
  }));
  child.poll();
  CHECK(child.pid() == 0);
}

TEST_CASE("a child that does not heed SIGTERM is killed") {
  child_process child({"/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"}, {},
                      [](const std::string&) {});
  child.poll();
  REQUIRE(child.pid() > 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(200)); // the trap is set by then or not
  child.stop(100);
  CHECK(child.pid() == 0);
}
