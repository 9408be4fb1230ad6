#include "actors/shell/fabric_gate.hpp"
#include "tests/actors/shell/recording_fabric.hpp"
#include "tests/catch.hpp"

using namespace hexgen;
using namespace hexgen::actors;

TEST_CASE("what happens before the gate opens is handed over in order, nothing after it closes") {
  fabric_gate gate;
  gate.on_up(test::peer_named(1, "a"));
  gate.on_dial_failed("b:1", "refused");
  std::vector<std::string> seen;
  gate.open([&](fabric_event e) {
    seen.push_back(e.what == fabric_event::kind::up ? e.peer.name : e.text);
    CHECK(e.at_us > 0);
  });
  CHECK(seen == std::vector<std::string>{"a", "refused"});
  gate.on_down(test::peer_named(1, "a"), transport::down_reason::closed, "gone");
  CHECK(seen.back() == "gone");
  gate.close();
  gate.on_up(test::peer_named(2, "c"));
  CHECK(seen.size() == 3);
}
