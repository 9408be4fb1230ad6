#include "actors/core/link_prober.hpp"
#include "tests/catch.hpp"

using namespace hexgen;
using namespace hexgen::actors;

namespace {

template <class Effect>
const Effect* first(const prober_effects& effects) {
  for (const auto& e : effects)
    if (const auto* x = std::get_if<Effect>(&e))
      return x;
  return nullptr;
}

transport::peer_info peer(std::uint64_t id, const std::string& name) {
  transport::peer_info p;
  p.id = id;
  p.name = name;
  p.incarnation = 1;
  return p;
}

constexpr std::uint64_t start_us = 1'000'000;

} // namespace

TEST_CASE("the smaller name of a pair dials, the other waits for it") {
  link_prober a("a"), b("b");
  const auto dial = a.directory({{"a", 1, "a:1"}, {"b", 1, "b:1"}}, start_us);
  REQUIRE(first<dial_peer>(dial) != nullptr);
  CHECK(first<dial_peer>(dial)->address == "b:1");
  CHECK(first<dial_peer>(b.directory({{"a", 1, "a:1"}, {"b", 1, "b:1"}}, start_us)) == nullptr);
  CHECK(first<dial_peer>(b.tick(start_us + 1'000'000)) == nullptr);
  // Nothing came of it: maybe only this side can dial.
  REQUIRE(first<dial_peer>(b.tick(start_us + 1'600'000)) != nullptr);
}

TEST_CASE("latency is half of the fastest round trip, bandwidth that of the ballast") {
  link_prober a("a");
  (void)a.directory({{"b", 1, "b:1"}}, start_us);
  auto effects = a.peer_up(peer(7, "b"), start_us);
  std::uint64_t now = start_us;
  link_result last;
  const link_result* result = nullptr;
  for (int i = 0; i < link_prober::small_probes + link_prober::big_probes; ++i) {
    const auto* probe = first<send_probe>(effects);
    REQUIRE(probe != nullptr);
    CHECK(probe->peer == 7);
    CHECK((probe->ballast_bytes == 0) == (i < link_prober::small_probes));
    // The first of each kind is slow: only the best counts.
    const std::uint64_t took = probe->ballast_bytes == 0
                                   ? (i == 0 ? 900 : 100)
                                   : (i == link_prober::small_probes ? 9000 : 1100);
    now += took;
    effects = a.probe_reply(7, probe->id, now);
    result = first<link_result>(effects);
  }
  REQUIRE(result != nullptr);
  CHECK(result->reachable);
  CHECK(result->latency_us == Approx(50));
  CHECK(result->bandwidth_gbps == Approx(link_prober::ballast_bytes * 8.0 / 1000 / 1e3));
  CHECK(a.results().size() == 1);
  last = *result;

  // A minute later it is measured anew, and half of what is found counts.
  CHECK(first<send_probe>(a.tick(now + link_prober::again_us - 1)) == nullptr);
  now += link_prober::again_us;
  effects = a.tick(now);
  while (const auto* probe = first<send_probe>(effects)) {
    now += probe->ballast_bytes == 0 ? 300 : 1300;
    effects = a.probe_reply(7, probe->id, now);
  }
  REQUIRE(first<link_result>(effects) != nullptr);
  CHECK(first<link_result>(effects)->latency_us == Approx(100));
  CHECK(first<link_result>(effects)->bandwidth_gbps == Approx(last.bandwidth_gbps));
}

TEST_CASE("a dial that fails is reported once and tried again later") {
  link_prober a("a");
  (void)a.directory({{"b", 1, "b:1"}}, start_us);
  auto effects = a.dial_failed("b:1", "refused", start_us);
  REQUIRE(first<link_result>(effects) != nullptr);
  CHECK_FALSE(first<link_result>(effects)->reachable);
  CHECK(first<link_result>(effects)->detail == "refused");
  effects = a.tick(start_us + 1'000'000);
  REQUIRE(first<dial_peer>(effects) != nullptr);
  effects = a.dial_failed("b:1", "refused", start_us + 1'000'000);
  CHECK(first<link_result>(effects) == nullptr);
}

TEST_CASE("replies of other peers, other probes and old rounds change nothing") {
  link_prober a("a");
  (void)a.directory({{"b", 1, "b:1"}}, start_us);
  const auto effects = a.peer_up(peer(7, "b"), start_us);
  const auto id = first<send_probe>(effects)->id;
  CHECK(a.probe_reply(8, id, start_us + 10).empty());
  CHECK(a.probe_reply(7, id + 5, start_us + 10).empty());
  CHECK_FALSE(a.probe_reply(7, id, start_us + 10).empty());
  CHECK(a.probe_reply(7, id, start_us + 20).empty());
}

TEST_CASE("a new incarnation is another node, and one that left is forgotten") {
  link_prober a("a");
  (void)a.directory({{"b", 1, "b:1"}}, start_us);
  (void)a.peer_up(peer(7, "b"), start_us);
  CHECK(first<dial_peer>(a.directory({{"b", 2, "b:2"}}, start_us + 10)) != nullptr);
  (void)a.dial_failed("b:2", "refused", start_us + 20);
  CHECK(a.results().size() == 1);
  (void)a.directory({}, start_us + 30);
  CHECK(a.results().empty());
}
