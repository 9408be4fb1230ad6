// Fabrics in processes of their own: killed, frozen, and large frames across the border.
#include "tests/catch.hpp"
#include "tests/transport/recorder.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>

using namespace hexgen::transport;
using namespace hexgen::transport::testing;

namespace {

constexpr char child_case[] = "process: the other side";

/// This test program again, running `child_case` only, in a session of its own: in an orphaned
/// process group the kernel would continue a stopped child.
class child_process {
public:
  child_process(const std::string& dial, const std::string& zone) {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::setsid();
      ::setenv("HEXGEN_TEST_DIAL", dial.c_str(), 1);
      ::setenv("HEXGEN_TEST_ZONE", zone.c_str(), 1);
      ::execl("/proc/self/exe", "test_transport", child_case, static_cast<char*>(nullptr));
      ::_exit(127);
    }
  }
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;
  ~child_process() {
    signal(SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
  }
  void signal(int number) const { ::kill(pid_, number); }

private:
  pid_t pid_ = -1;
};

fabric_options parent_options(const std::string& zone) {
  fabric_options options = listener_options("parent");
  options.zone = zone;
  return options;
}

link_kind expected_kind(const std::string& zone) {
  return zone == "-" ? link_kind::tls : link_kind::ucx;
}

} // namespace

// Echoes every data frame until its peer is gone; run by child_process only.
TEST_CASE("process: the other side", "[.child]") {
  const char* dial = std::getenv("HEXGEN_TEST_DIAL");
  const char* zone = std::getenv("HEXGEN_TEST_ZONE");
  if (dial == nullptr || zone == nullptr)
    return;
  fabric_options options = dialer_options("child");
  options.zone = zone;
  node self(options);
  self.seen.keep_frames = false;
  self.seen.on_frame_hook = [&](const std::shared_ptr<const frame>& f) {
    self.link->send(self.seen.peer().id, *f);
  };
  self.link->dial(dial);
  self.seen.wait([&] { return !self.seen.downs.empty() || !self.seen.failed.empty(); });
}

TEST_CASE("process: frames of many sizes come back whole", "[process]") {
  const std::string zone = GENERATE("-", "");
  node parent(parent_options(zone));
  const child_process child(parent.link->address(), zone);
  REQUIRE(parent.seen.wait_up());
  CHECK(parent.seen.peer().kind == expected_kind(zone));
  const std::size_t sizes[] = {0, 1, 2304, 8000, 8192, 8193, 32'768, 1U << 20, 64U << 20};
  std::uint32_t type = 0;
  for (const std::size_t bytes : sizes)
    REQUIRE(parent.link->send(parent.seen.peer().id, make_frame(traffic::data, ++type, "head",
                                                                bytes)) == send_result::accepted);
  REQUIRE(parent.seen.wait_frames(std::size(sizes)));
  for (std::size_t i = 0; i < std::size(sizes); ++i) {
    CHECK(parent.seen.frames[i]->type == i + 1);
    CHECK(parent.seen.frames[i]->head == "head");
    CHECK(payload_is_whole(*parent.seen.frames[i], sizes[i]));
  }
}

TEST_CASE("process: a killed peer is down at once, under traffic, and a new one comes up",
          "[process]") {
  const std::string zone = GENERATE("-", "");
  node parent(parent_options(zone));
  for (std::size_t round = 0; round < 2; ++round) {
    const child_process child(parent.link->address(), zone);
    REQUIRE(parent.seen.wait_up(round + 1));
    const peer_id id = parent.seen.peer(round).id;
    const frame big = make_frame(traffic::data, 1, {}, 4U << 20);
    for (int i = 0; i < 8; ++i)
      parent.link->send(id, big);
    if (round == 1)
      REQUIRE(parent.seen.wait_frames(1));
    const auto begin = std::chrono::steady_clock::now();
    child.signal(SIGKILL);
    REQUIRE(parent.seen.wait_down(round + 1));
    // Its TLS connection closes; silence would take the 15 s that the options give it.
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
    CHECK(parent.seen.downs.at(round).reason == down_reason::closed);
    CHECK(parent.link->send(id, big) == send_result::down);
  }
}

TEST_CASE("process: a frozen peer is down after the silence that was agreed", "[process]") {
  const std::string zone = GENERATE("-", "");
  fabric_options options = parent_options(zone);
  options.heartbeat_ms = 100;
  options.down_ms = 1500;
  node parent(options);
  const child_process child(parent.link->address(), zone);
  REQUIRE(parent.seen.wait_up());
  child.signal(SIGSTOP);
  for (int i = 0; i < 100; ++i)
    parent.link->send(parent.seen.peer().id, make_frame(traffic::data, 1, {}, 10'000));
  REQUIRE(parent.seen.wait_down());
  CHECK(parent.seen.downs.at(0).reason == down_reason::timeout);
  CHECK(parent.seen.downs.at(0).detail.find("nothing heard") != std::string::npos);
}
