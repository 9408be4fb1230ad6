#include "actors/core/generation_set.hpp"
#include "tests/catch.hpp"
#include "transport/proto/hexgen.pb.h"

using namespace hexgen;
using namespace hexgen::actors;

namespace {

generation_set::addition on(const std::vector<std::string>& nodes, std::uint64_t replica = 1) {
  generation_set::addition a;
  a.where.replica = replica;
  int first = 0;
  for (const auto& n : nodes) {
    a.where.stages.push_back({first, 10, {{n, 1, 0, 1}}});
    first += 10;
  }
  a.tokens_per_s = 10;
  return a;
}

struct script {
  generation_set set;
  std::vector<std::pair<std::string, transport::frame>> sent;
  generation_effects last;
  time_ms now = 1000;

  template <class Call>
  void run(Call call) {
    last = {};
    call(last);
    sent.insert(sent.end(), last.sends.begin(), last.sends.end());
  }
  void prepared(const std::string& node, std::uint64_t g, std::uint32_t blocks,
                const std::string& error = {}) {
    proto::prepared m;
    m.set_generation(g);
    m.set_kv_blocks(blocks);
    m.set_error(error);
    run([&](auto& fx) { set.prepared(node, m, now, fx); });
  }
  void committed(const std::string& node, std::uint64_t g) {
    proto::committed m;
    m.set_generation(g);
    run([&](auto& fx) { set.committed(node, m, now, fx); });
  }
  void released(const std::string& node, std::uint64_t g, bool drained) {
    proto::released m;
    m.set_generation(g);
    m.set_drained(drained);
    run([&](auto& fx) { set.released(node, m, now, fx); });
  }
  std::uint64_t serve(const std::vector<std::string>& nodes) {
    run([&](auto& fx) { set.exchange({on(nodes)}, {}, 4, now, fx); });
    const auto g = set.records().rbegin()->first;
    for (const auto& n : nodes)
      prepared(n, g, 8);
    for (const auto& n : nodes)
      committed(n, g);
    REQUIRE(set.records().at(g).phase == generation_phase::serving);
    return g;
  }
  int count(std::uint32_t type) const {
    int n = 0;
    for (const auto& [node, f] : sent)
      n += f.type == type ? 1 : 0;
    return n;
  }
};

} // namespace

TEST_CASE("all nodes prepare, then all commit with the least KV, then it serves") {
  script s;
  s.run([&](auto& fx) { s.set.exchange({on({"a", "b"})}, {}, 4, s.now, fx); });
  const auto g = s.set.records().begin()->first;
  CHECK(s.count(proto::PREPARE) == 2);
  s.prepared("a", g, 20);
  CHECK(s.count(proto::COMMIT) == 0);
  s.prepared("a", g, 20); // twice
  CHECK(s.count(proto::COMMIT) == 0);
  s.prepared("b", g, 6);
  REQUIRE(s.count(proto::COMMIT) == 2);
  proto::commit m;
  REQUIRE(m.ParseFromString(s.sent.back().second.head));
  CHECK(m.kv_blocks() == 6);
  s.committed("a", g);
  CHECK_FALSE(s.last.routes_changed);
  s.committed("b", g);
  CHECK(s.last.routes_changed);
  CHECK(s.set.records().at(g).phase == generation_phase::serving);
}

TEST_CASE("the old generation is drained only when the new one serves, and released when drained") {
  script s;
  const auto old = s.serve({"a"});
  s.run([&](auto& fx) { s.set.exchange({on({"b"})}, {old}, 4, s.now, fx); });
  const auto fresh = s.set.records().rbegin()->first;
  CHECK(fresh > old);
  CHECK(s.set.records().at(old).phase == generation_phase::serving);
  s.prepared("b", fresh, 8);
  CHECK(s.set.records().at(old).phase == generation_phase::serving);
  s.committed("b", fresh);
  CHECK(s.set.records().at(old).phase == generation_phase::draining);
  CHECK(s.count(proto::RELEASE) == 0);
  s.released("a", old, true);
  CHECK(s.count(proto::RELEASE) == 1);
  s.released("a", old, false);
  CHECK(s.set.records().count(old) == 0);
}

TEST_CASE("what does not fit beside the old generation waits until that has gone") {
  script s;
  const auto old = s.serve({"a"});
  s.run([&](auto& fx) { s.set.exchange({on({"a", "b"})}, {old}, 4, s.now, fx); });
  const auto fresh = s.set.records().rbegin()->first;
  s.prepared("a", fresh, 0, "too little memory");
  s.prepared("b", fresh, 8);
  CHECK(s.set.records().at(fresh).phase == generation_phase::parked);
  CHECK(s.set.records().at(old).phase == generation_phase::draining);
  const auto prepares = s.count(proto::PREPARE);
  s.released("a", old, true);
  CHECK(s.count(proto::PREPARE) == prepares); // the memory is not free yet
  s.released("a", old, false);
  s.released("a", fresh, false);
  // A node that still lets go of the first attempt would let go of the second with it.
  CHECK(s.count(proto::PREPARE) == prepares);
  s.released("b", fresh, false);
  CHECK(s.count(proto::PREPARE) == prepares + 2);
  s.prepared("a", fresh, 0, "too little memory"); // and still not: no third try
  s.prepared("b", fresh, 8);
  CHECK(s.set.records().at(fresh).phase == generation_phase::releasing);
  CHECK_FALSE(s.last.replan.empty());
}

TEST_CASE("what waits for room is given up when the room is not made in time") {
  script s;
  const auto old = s.serve({"a"});
  s.run([&](auto& fx) { s.set.exchange({on({"a"})}, {old}, 4, s.now, fx); });
  const auto fresh = s.set.records().rbegin()->first;
  s.prepared("a", fresh, 0, "too little memory");
  s.released("a", old, true);
  s.released("a", old, false); // its own release was lost
  s.now += 13'000;
  s.run([&](auto& fx) { s.set.tick(s.now, fx); });
  CHECK(s.set.records().at(fresh).phase == generation_phase::parked);
  s.now += 2'000;
  s.run([&](auto& fx) { s.set.tick(s.now, fx); });
  CHECK(s.set.records().at(fresh).phase == generation_phase::releasing);
  CHECK_FALSE(s.last.replan.empty());
}

TEST_CASE("a lost node ends its generations; the others release, nobody waits for the dead") {
  script s;
  const auto g = s.serve({"a", "b"});
  s.run([&](auto& fx) { s.set.node_lost("b", 1, "killed", s.now, fx); });
  CHECK(s.last.routes_changed);
  CHECK_FALSE(s.last.replan.empty());
  CHECK(s.set.records().at(g).phase == generation_phase::releasing);
  s.released("a", g, false);
  CHECK(s.set.records().empty());
  CHECK(s.set.failures() == 1);
}

TEST_CASE("the loss of a node that another incarnation replaced touches nothing") {
  script s;
  const auto g = s.serve({"a"});
  s.run([&](auto& fx) { s.set.node_lost("a", 99, "ghost", s.now, fx); });
  CHECK(s.set.records().at(g).phase == generation_phase::serving);
}

TEST_CASE("a node that does not answer a prepare is not waited for longer than the limit") {
  script s;
  s.run([&](auto& fx) { s.set.exchange({on({"a", "b"})}, {}, 4, s.now, fx); });
  const auto g = s.set.records().begin()->first;
  s.prepared("a", g, 8);
  s.now += 119'000;
  s.run([&](auto& fx) { s.set.tick(s.now, fx); });
  CHECK(s.set.records().at(g).phase == generation_phase::preparing);
  s.now += 2'000;
  s.run([&](auto& fx) { s.set.tick(s.now, fx); });
  CHECK(s.set.records().at(g).phase == generation_phase::releasing);
  CHECK(s.last.replan.find("no answer from b") != std::string::npos);
}

TEST_CASE("a drain has a limit") {
  script s;
  const auto old = s.serve({"a"});
  s.run([&](auto& fx) { s.set.exchange({}, {old}, 4, s.now, fx); });
  CHECK(s.set.records().at(old).phase == generation_phase::draining);
  s.now += 32'000;
  s.run([&](auto& fx) { s.set.tick(s.now, fx); });
  CHECK(s.set.records().at(old).phase == generation_phase::releasing);
}

TEST_CASE("KV is inherited where the replica's own stage holds it, and hollow elsewhere") {
  // With the replica's node lost, what the last stage knows is gone on with, if it does.
  for (const auto& [home_lost, told] : {std::pair(false, false), {true, false}, {true, true}}) {
    script s;
    auto first = on({"a", "b", "c"});
    first.where.settings.stage_recovery = true;
    s.run([&](auto& fx) { s.set.exchange({first}, {}, 4, s.now, fx); });
    const auto old = s.set.records().begin()->first;
    for (const auto* n : {"a", "b", "c"})
      s.prepared(n, old, 8);
    for (const auto* n : {"a", "b", "c"})
      s.committed(n, old);
    s.run([&](auto& fx) { s.set.node_lost(home_lost ? "a" : "b", 1, "test", s.now, fx); });
    REQUIRE(s.last.ended.size() == 1);
    proto::release r;
    REQUIRE(r.ParseFromString(s.last.sends.back().second.head));
    CHECK(r.keep());
    s.run([&](auto& fx) {
      s.set.exchange({home_lost ? on({"d", "b", "c"}) : on({"a", "d", "c"})}, {}, 4, s.now, fx);
    });
    const auto next = s.set.records().rbegin()->first;
    for (const auto* n : {"a", "b", "c", "d"}) {
      proto::prepared m;
      m.set_generation(next);
      m.set_kv_blocks(8);
      if (std::string(n) != "d")
        m.add_kept()->set_generation(old); // its device is 0
      if (told && std::string(n) == "b") { // in step 7 it wrote into block 3
        m.mutable_kept(0)->add_late_blocks(3);
        m.mutable_kept(0)->add_late_steps(7);
      }
      if (told && std::string(n) == "c")
        for (const std::uint32_t block : {2, 3}) {
          auto* known = m.mutable_kept(0)->add_known();
          known->add_blocks(block);
          known->mutable_tokens()->Resize(16, 1);
          m.mutable_kept(0)->set_known_step(6);
        }
      s.run([&](auto& fx) { s.set.prepared(n, m, s.now, fx); });
    }
    proto::commit m;
    REQUIRE(m.ParseFromString(s.sent.back().second.head));
    const bool inherits = !home_lost || told;
    CHECK(m.inherits() == (inherits ? old : 0));
    CHECK(s.set.inherited() == (inherits ? 1 : 0));
    if (inherits) {
      REQUIRE(m.hollow_size() == 1);
      CHECK(m.hollow(0) == (home_lost ? 0 : 1));
    }
    REQUIRE(m.known_size() == (told ? 1 : 0));
    if (told)
      CHECK(m.known(0).blocks(0) == 2);
  }
}
