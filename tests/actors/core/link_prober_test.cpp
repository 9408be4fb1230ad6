#include "actors/core/link_prober.hpp"
#include "tests/catch.hpp"

#include <optional>
#include <set>

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
  link_prober a("a", "a:1"), b("b", "b:1");
  const auto dial = a.directory({{"a", 1, "a:1"}, {"b", 1, "b:1"}}, start_us);
  REQUIRE(first<dial_peer>(dial) != nullptr);
  CHECK(first<dial_peer>(dial)->address == "b:1");
  CHECK(first<dial_peer>(b.directory({{"a", 1, "a:1"}, {"b", 1, "b:1"}}, start_us)) == nullptr);
  CHECK(first<dial_peer>(b.tick(start_us + 1'000'000)) == nullptr);
  // Nothing came of it: maybe only this side can dial.
  REQUIRE(first<dial_peer>(b.tick(start_us + 1'600'000)) != nullptr);
}

TEST_CASE("latency is half of the fastest round trip, bandwidth that of the ballast") {
  link_prober a("a", "a:1");
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
  link_prober a("a", "a:1");
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
  link_prober a("a", "a:1");
  (void)a.directory({{"b", 1, "b:1"}}, start_us);
  const auto effects = a.peer_up(peer(7, "b"), start_us);
  const auto id = first<send_probe>(effects)->id;
  CHECK(a.probe_reply(8, id, start_us + 10).empty());
  CHECK(a.probe_reply(7, id + 5, start_us + 10).empty());
  CHECK_FALSE(a.probe_reply(7, id, start_us + 10).empty());
  CHECK(a.probe_reply(7, id, start_us + 20).empty());
}

TEST_CASE("a new incarnation is another node, and one that left is forgotten") {
  link_prober a("a", "a:1");
  (void)a.directory({{"b", 1, "b:1"}}, start_us);
  (void)a.peer_up(peer(7, "b"), start_us);
  CHECK(first<dial_peer>(a.directory({{"b", 2, "b:2"}}, start_us + 10)) != nullptr);
  (void)a.dial_failed("b:2", "refused", start_us + 20);
  CHECK(a.results().size() == 1);
  (void)a.directory({}, start_us + 30);
  CHECK(a.results().empty());
}

namespace {

transport::peer_info relayed_peer(std::uint64_t id, const std::string& name,
                                  const std::string& relay) {
  auto p = peer(id, name);
  p.relay = relay;
  return p;
}

/// Answers every probe until the round is over.
std::optional<link_result> measure(link_prober& prober, prober_effects effects, std::uint64_t peer,
                                   std::uint64_t& now_us, std::uint64_t took_us) {
  while (const auto* probe = first<send_probe>(effects))
    effects = prober.probe_reply(peer, probe->id, now_us += took_us);
  const auto* result = first<link_result>(effects);
  return result == nullptr ? std::nullopt : std::optional(*result);
}

} // namespace

TEST_CASE("two that cannot be dialled ask for a relay soon, the smaller name for both") {
  link_prober a("a", "", "coordinator"), b("b", "", "coordinator");
  (void)a.peer_up(peer(1, "coordinator"), start_us);
  (void)b.peer_up(peer(1, "coordinator"), start_us);
  CHECK(a.directory({{"a", 1, ""}, {"b", 4, ""}}, start_us).empty());
  const auto effects = a.tick(start_us + 1'000'000);
  CHECK(first<dial_peer>(effects) == nullptr);
  const auto* ask = first<dial_through>(effects);
  REQUIRE(ask != nullptr);
  CHECK(ask->relay == 1);
  CHECK(ask->name == "b");
  CHECK(ask->incarnation == 4);
  CHECK(b.directory({{"a", 1, ""}, {"b", 4, ""}}, start_us).empty());
  CHECK(b.tick(start_us + 10 * link_prober::relay_after_us).empty());

  // It is measured as any link is, and says through whom.
  auto up = relayed_peer(9, "b", "coordinator");
  up.incarnation = 4;
  auto now = start_us;
  const auto result = measure(a, a.peer_up(up, now), 9, now, 200);
  REQUIRE(result);
  CHECK(result->reachable);
  CHECK(result->relay == "coordinator");
  CHECK(result->latency_us == Approx(100));
  CHECK(first<dial_through>(a.tick(now + 10'000'000)) == nullptr);
}

TEST_CASE("whoever cannot be dialled dials at once") {
  link_prober b("b", "");
  CHECK(first<dial_peer>(b.directory({{"a", 1, "a:1"}}, start_us)) != nullptr);
}

TEST_CASE("when one of the two can be dialled a relay waits for that") {
  link_prober a("a", "", "coordinator");
  (void)a.peer_up(peer(1, "coordinator"), start_us);
  auto effects = a.directory({{"b", 1, "b:1"}}, start_us);
  CHECK(first<dial_peer>(effects) != nullptr);
  CHECK(first<dial_through>(effects) == nullptr);
  (void)a.dial_failed("b:1", "no answer within 3000 ms", start_us + 3'000'000);
  CHECK(first<dial_through>(a.tick(start_us + link_prober::relay_after_us - 1)) == nullptr);
  CHECK(first<dial_through>(a.tick(start_us + link_prober::relay_after_us)) != nullptr);
}

TEST_CASE("the nearest agent relays, then another, and the coordinator last") {
  link_prober a("a", "", "coordinator");
  auto now = start_us;
  const std::vector<link_peer> nodes{
      {"b", 1, ""}, {"far", 1, "far:1"}, {"near", 1, "near:1"}, {"nat", 1, ""}};
  (void)a.peer_up(peer(1, "coordinator"), now);
  (void)a.peer_up(relayed_peer(5, "nat", "near"), now); // it would be a chain
  auto client = peer(6, "client");
  client.role = transport::peer_role::client;
  (void)a.peer_up(client, now);
  // Nobody else is there yet.
  (void)a.directory(nodes, now);
  auto effects = a.tick(now += 1'000'000);
  REQUIRE(first<dial_through>(effects) != nullptr);
  CHECK(first<dial_through>(effects)->relay == 1);
  REQUIRE(measure(a, a.peer_up(peer(2, "far"), now), 2, now, 900));
  REQUIRE(measure(a, a.peer_up(peer(3, "near"), now), 3, now, 90));

  const auto next = [&]() -> transport::peer_id {
    for (const auto until = now + 10'000'000; now < until; now += 25'000) {
      effects = a.tick(now);
      if (const auto* ask = first<dial_through>(effects))
        return ask->relay;
    }
    return 0;
  };
  const auto fails = [&](const std::string& relay) {
    return first<link_result>(a.dial_failed(transport::relayed_address("b", relay),
                                            "is not connected", now)) != nullptr;
  };
  CHECK_FALSE(fails("coordinator"));
  CHECK(next() == 3);
  CHECK_FALSE(fails("near"));
  CHECK(next() == 2);
  CHECK(fails("far")); // that were all: the coordinator is told that there is no link
  CHECK(next() == 3);  // and so on
  CHECK_FALSE(fails("nobody that was asked"));

  // Without an answer (the relay went) another is asked.
  CHECK(next() == 2);
  REQUIRE(measure(a, a.peer_up(relayed_peer(9, "b", "far"), now), 9, now, 2000));
  // The relay dies: the link with it, and the next one is asked at once.
  (void)a.peer_down(2, "closed", now);
  (void)a.peer_down(9, "closed", now);
  const auto before = now;
  CHECK(next() == 3);
  CHECK(now - before <= 150'000);
}

TEST_CASE("a link through the coordinator moves to an agent, when nobody uses it") {
  link_prober a("a", "", "coordinator");
  auto now = start_us;
  (void)a.peer_up(peer(1, "coordinator"), now);
  (void)a.directory({{"b", 1, ""}, {"near", 1, "near:1"}}, now);
  REQUIRE(measure(a, a.peer_up(relayed_peer(9, "b", "coordinator"), now), 9, now, 500));
  const auto wait = [&](std::uint64_t us, const std::set<std::string>& in_use = {}) {
    prober_effects out;
    for (const auto until = now + us; now < until && out.empty(); now += 25'000)
      for (auto& e : a.tick(now, [&](const auto& name) { return in_use.count(name) != 0; }))
        if (const auto* ask = std::get_if<dial_through>(&e); ask != nullptr && ask->name == "b")
          out.push_back(std::move(e));
        else if (std::holds_alternative<hang_up>(e))
          out.push_back(std::move(e));
        else if (const auto* probe = std::get_if<send_probe>(&e))
          (void)measure(a, {*probe}, probe->peer, now, 500);
    return out;
  };
  CHECK(wait(2 * link_prober::again_us).empty()); // there is no better one
  REQUIRE(measure(a, a.peer_up(peer(3, "near"), now), 3, now, 90));
  CHECK(wait(2 * link_prober::again_us, {"b"}).empty());
  auto effects = wait(2 * link_prober::again_us);
  REQUIRE(first<hang_up>(effects) != nullptr);
  CHECK(first<hang_up>(effects)->peer == 9);
  (void)a.peer_down(9, "local", now);
  effects = wait(1'000'000);
  REQUIRE(first<dial_through>(effects) != nullptr);
  CHECK(first<dial_through>(effects)->relay == 3);
  // It does not reach the other: the coordinator has it again, and keeps it for a while.
  (void)a.dial_failed(transport::relayed_address("b", "near"), "b is not connected", now);
  effects = wait(10'000'000);
  REQUIRE(first<dial_through>(effects) != nullptr);
  CHECK(first<dial_through>(effects)->relay == 1);
  REQUIRE(measure(a, a.peer_up(relayed_peer(10, "b", "coordinator"), now), 10, now, 500));
  CHECK(wait(link_prober::move_again_us - 30'000'000).empty());
  effects = wait(2 * link_prober::again_us);
  REQUIRE(first<hang_up>(effects) != nullptr);
  CHECK(first<hang_up>(effects)->peer == 10);
  (void)a.peer_down(10, "local", now);
  // An agent's link stays: the way from there to the other end is not known here.
  REQUIRE(measure(a, a.peer_up(relayed_peer(11, "b", "near"), now), 11, now, 500));
  CHECK(wait(2 * link_prober::move_again_us).empty());
}

TEST_CASE("where nobody can relay, the coordinator is told that there is no link") {
  link_prober a("a", "");
  (void)a.directory({{"b", 1, ""}}, start_us);
  const auto effects = a.tick(start_us + 1'000'000);
  REQUIRE(first<link_result>(effects) != nullptr);
  CHECK_FALSE(first<link_result>(effects)->reachable);
  CHECK(first<link_result>(a.tick(start_us + 10'000'000)) == nullptr); // once
}
