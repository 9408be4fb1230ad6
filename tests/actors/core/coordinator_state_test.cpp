#include "tests/actors/core/fake_cluster.hpp"
#include "tests/catch.hpp"

using namespace hexgen;
using namespace hexgen::actors;
using test::fake_cluster;

namespace {

transport::peer_info operator_peer(transport::peer_role role) {
  transport::peer_info p;
  p.id = 1'000'000;
  p.name = "operator-1";
  p.role = role;
  return p;
}

transport::frame drain_frame(const std::string& node) {
  proto::drain_node m;
  m.set_id(1);
  m.set_node(node);
  return {transport::traffic::control, proto::DRAIN_NODE, m.SerializeAsString(), {}};
}

int layers_of(const placement& p) {
  int n = 0;
  for (const auto& s : p.stages)
    n += s.layers;
  return n;
}

// Nothing is held of generations that are over.
void check_held(const fake_cluster& c) {
  for (const auto& [name, n] : c.nodes)
    for (const auto& [key, mib] : n.held_mib)
      CHECK(c.coordinator->generations().records().count(key.second) == 1);
}

bool any_uses(const fake_cluster& c, const std::string& node) {
  for (const auto& [id, g] : c.coordinator->generations().records())
    if (g.phase == generation_phase::serving && g.where.nodes().count(node) != 0)
      return true;
  return false;
}

// Every device's held memory is within its budget, and only live generations hold any.
void check_memory(const fake_cluster& c) {
  for (const auto& [name, n] : c.nodes)
    for (std::size_t d = 0; d < n.devices.size(); ++d) {
      std::uint64_t held = 0;
      for (const auto& [key, mib] : n.held_mib)
        if (key.first == d)
          held += mib;
      CHECK(held <= n.devices[d].memory_mib);
    }
}

} // namespace

TEST_CASE("the cluster says what is missing until enough devices have joined") {
  fake_cluster c;
  c.add("a", {{60, 100}});
  c.run_ms(2000);
  CHECK(c.serving() == nullptr);
  CHECK(c.table.routes.empty());
  CHECK_FALSE(c.table.missing.empty());
  CHECK_FALSE(c.table.switching);
  c.add("b", {{60, 100}});
  c.add("c", {{60, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  CHECK(layers_of(c.serving()->where) == fake_cluster::layers);
  CHECK(c.serving()->where.nodes().size() == 3);
  REQUIRE(c.table.routes.size() == 1);
  CHECK(c.table.routes[0].node == c.serving()->where.home().node);
  CHECK(c.nodes.at(c.table.routes[0].node).replicas.count(c.table.routes[0].generation) == 1);
  check_memory(c);
}

TEST_CASE("a device that keeps layers in fewer bytes is planned with those") {
  for (const std::uint64_t layer_mib : {4, 2}) {
    fake_cluster c;
    c.add("a", {{80, 100, layer_mib}}); // 30 layers
    c.run_ms(2000);
    CHECK((c.serving() != nullptr) == (layer_mib == 2));
    check_memory(c);
  }
}

TEST_CASE("a killed node's layers go to those that remain") {
  fake_cluster c;
  c.add("a", {{100, 100}});
  c.add("b", {{100, 120}});
  c.add("c", {{100, 140}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto before = c.serving()->where.generation;
  const auto victim = c.serving()->where.stages.back().ranks.front().node;
  c.kill(victim);
  c.run_ms(500); // well within a second: what remains holds the model
  REQUIRE(c.serving() != nullptr);
  CHECK(c.serving()->where.generation > before);
  CHECK(c.serving()->where.nodes().count(victim) == 0);
  CHECK(layers_of(c.serving()->where) == fake_cluster::layers);
  CHECK(c.coordinator->generations().failures() >= 1);
  check_memory(c);
  for (const auto& [name, n] : c.nodes)
    for (const auto& [key, mib] : n.held_mib)
      CHECK(key.second == c.serving()->where.generation);
}

TEST_CASE("when too little remains the table says so, and a new node heals it") {
  fake_cluster c;
  c.add("a", {{90, 100}});
  c.add("b", {{90, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  c.kill("b");
  CHECK(c.table.routes.empty());
  c.run_ms(1000);
  CHECK(c.serving() == nullptr);
  CHECK_FALSE(c.table.missing.empty());
  CHECK_FALSE(c.table.switching); // nothing is on its way: requests are refused at once
  c.add("b", {{90, 100}}, 2);     // the same name, a new incarnation
  c.run_ms(5000);
  REQUIRE(c.serving() != nullptr);
  CHECK(c.serving()->where.uses("b", 2));
}

TEST_CASE("a frozen node is suspect after a second, and a ghost when it wakes late") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.add("b", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  auto* frozen = &c.nodes.at("b");
  if (!c.serving()->where.uses("b", 1))
    frozen = &c.nodes.at("a");
  frozen->frozen = true;
  c.run_ms(700);
  CHECK_FALSE(c.logged("event=node_suspect"));
  c.run_ms(700);
  CHECK(c.logged("event=node_suspect node=" + frozen->name));
  c.run_ms(1500);
  CHECK(c.logged("event=node_gone node=" + frozen->name));
  REQUIRE(c.serving() != nullptr);
  CHECK_FALSE(c.serving()->where.uses(frozen->name, 1));
  frozen->frozen = false;
  c.run_ms(1000);
  CHECK(frozen->left_to_return);
  CHECK(frozen->left.find("ghost") != std::string::npos);
}

TEST_CASE("a coordinator that stood still blames nobody for its silence") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.add("b", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto generation = c.serving()->where.generation;
  c.now_us += 60'000'000; // the whole machine slept, say
  c.run_ms(700);
  CHECK_FALSE(c.logged("event=node_suspect"));
  REQUIRE(c.serving() != nullptr);
  CHECK(c.serving()->where.generation == generation);
  // Whoever stays silent after that is noticed as before.
  c.nodes.at("a").frozen = true;
  c.nodes.at("b").frozen = true;
  c.run_ms(1400);
  CHECK(c.logged("event=node_suspect node=a"));
  CHECK(c.logged("event=node_suspect node=b"));
}

TEST_CASE("a node that was frozen for a moment is a member again without what it lost") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.add("b", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto home = c.serving()->where.home().node;
  auto& n = c.nodes.at(home);
  n.frozen = true;
  c.run_ms(1400);
  n.frozen = false;
  c.run_ms(4000);
  CHECK(n.left.empty());
  REQUIRE(c.serving() != nullptr);
  check_held(c);
  check_memory(c);
}

TEST_CASE("names in use and ghosts are refused") {
  fake_cluster c;
  c.add("a", {{200, 100}});
  c.run_ms(1000);
  proto::join m;
  m.set_name("a");
  m.set_incarnation(77);
  auto* d = m.add_devices();
  d->set_memory_bytes(1 << 30);
  d->set_speed(1);
  transport::peer_info twin;
  twin.id = 1'000'000;
  twin.name = "a";
  twin.incarnation = 77;
  c.ask(twin, {transport::traffic::control, proto::JOIN, m.SerializeAsString(), {}});
  REQUIRE(c.answers.size() == 1);
  CHECK(c.answers[0].type == static_cast<std::uint32_t>(proto::REFUSED));
  CHECK(c.logged("in use"));
  twin.role = transport::peer_role::client;
  c.ask(twin, {transport::traffic::control, proto::JOIN, m.SerializeAsString(), {}});
  CHECK(c.logged("a client may not send it"));
}

TEST_CASE("drain moves a node's work and then says that it may go") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.add("b", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto busy = c.serving()->where.home().node;
  c.ask(operator_peer(transport::peer_role::client), drain_frame(busy));
  CHECK(c.answers.empty()); // clients may not
  c.ask(operator_peer(transport::peer_role::node), drain_frame(busy));
  c.run_ms(3000);
  REQUIRE(c.answers.size() == 1);
  proto::drain_reply r;
  REQUIRE(r.ParseFromString(c.answers[0].head));
  CHECK(r.done());
  REQUIRE(c.serving() != nullptr);
  CHECK(c.serving()->where.nodes().count(busy) == 0);
  CHECK(c.nodes.at(busy).held_mib.empty());
}

TEST_CASE("a drain that would leave nothing to serve with is refused and undone") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  c.ask(operator_peer(transport::peer_role::node), drain_frame("a"));
  c.run_ms(1000);
  REQUIRE(c.answers.size() == 1);
  proto::drain_reply r;
  REQUIRE(r.ParseFromString(c.answers[0].head));
  CHECK_FALSE(r.done());
  CHECK(c.serving() != nullptr);
  CHECK_FALSE(c.coordinator->membership().find("a")->draining);
  // What the plan without it could not use may be of use beside it.
  CHECK(c.logged("event=search why=\"a is not drained after all\""));
}

TEST_CASE("a drain outlives its coordinator") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.add("b", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto busy = c.serving()->where.home().node;
  auto who = operator_peer(transport::peer_role::node);
  c.ask(who, drain_frame(busy));
  c.run_ms(3000);
  REQUIRE(c.answers.size() == 1);
  c.restart_coordinator(2);
  c.run_ms(5000);
  REQUIRE(c.coordinator->membership().find(busy) != nullptr);
  CHECK(c.coordinator->membership().find(busy)->draining);
  CHECK_FALSE(any_uses(c, busy));
  CHECK(c.answers.size() == 1); // nobody asked this one
  // Without both nothing could serve.
  const auto other = busy == "a" ? "b" : "a";
  c.ask(who, drain_frame(other));
  c.run_ms(1000);
  REQUIRE(c.answers.size() == 2);
  proto::drain_reply r;
  REQUIRE(r.ParseFromString(c.answers[1].head));
  CHECK_FALSE(r.done());
  CHECK_FALSE(c.coordinator->membership().find(other)->draining);
  CHECK(any_uses(c, other));
}

TEST_CASE("a restarted coordinator adopts what the agents hold") {
  fake_cluster c;
  c.add("a", {{80, 100}});
  c.add("b", {{80, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto generation = c.serving()->where.generation;
  const auto held = c.nodes.at("a").held_mib;
  c.restart_coordinator(2);
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  CHECK(c.serving()->where.generation == generation);
  CHECK(c.nodes.at("a").held_mib == held); // not reloaded
  CHECK(c.logged("event=adopted"));
  REQUIRE(c.table.routes.size() == 1);
  // What comes later does not take a number that was in use.
  c.add("c", {{300, 10}});
  c.run_ms(40'000);
  CHECK(any_uses(c, "c"));
  CHECK(c.coordinator->generations().records().size() == 2);
  check_held(c);
}

TEST_CASE("a coordinator that dies in any phase of a switch leaves nothing behind") {
  for (const bool room : {true, false}) // both generations fit side by side, or not
    for (const std::string phase :
         {"search", "prepare", "make_room", "commit", "serving", "drain", "release"})
      for (const bool unsent : {false, true}) {
        if (room && phase == "make_room")
          continue;
        INFO(phase << (unsent ? ", nothing sent" : ", all sent") << (room ? "" : ", no room"));
        fake_cluster c;
        if (room)
          c.most_kv_blocks = 40;
        c.add("a", {{room ? 300U : 150U, 400}});
        c.run_ms(3000);
        REQUIRE(c.serving() != nullptr);
        c.crash_at = "event=" + phase;
        c.crash_unsent = unsent;
        c.add("b", {{90, 50}}); // eight times as fast, but too small for all: a switch
        c.run_ms(10'000);
        REQUIRE(c.crashed);
        c.restart_coordinator(2);
        c.run_ms(40'000);
        REQUIRE(c.serving() != nullptr);
        CHECK(layers_of(c.serving()->where) == fake_cluster::layers);
        CHECK(any_uses(c, "b"));
        CHECK(c.coordinator->generations().records().size() == 1);
        REQUIRE(c.table.routes.size() == 1);
        CHECK(c.nodes.at(c.table.routes[0].node).replicas ==
              std::set<std::uint64_t>{c.table.routes[0].generation});
        check_held(c);
        check_memory(c);
      }
}

TEST_CASE("of two adopted generations on one device one goes, whatever that seems to cost") {
  fake_cluster c;
  c.options().goal.max_replicas = 1;
  c.apply_options();
  c.most_kv_blocks = 40; // the next generation fits beside it
  c.add("a", {{300, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  // The new generation serves, and its coordinator dies before it has drained the old one.
  c.crash_at = "event=serving";
  c.crash_unsent = true;
  c.add("b", {{90, 50}});
  c.run_ms(5000);
  REQUIRE(c.crashed);
  c.restart_coordinator(2);
  c.run_ms(1000);
  REQUIRE_FALSE(c.logged("event=make_room"));
  REQUIRE(c.logged("event=adopted"));
  c.run_ms(5000);
  std::set<std::string> taken;
  for (const auto& [id, g] : c.coordinator->generations().records())
    for (const auto& s : g.where.stages)
      for (const auto& r : s.ranks)
        CHECK(taken.insert(r.node).second);
  CHECK(c.serving() != nullptr);
  check_held(c);
}

TEST_CASE("a coordinator that finds half a generation has it released") {
  fake_cluster c;
  c.add("a", {{80, 100}});
  c.add("b", {{80, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  c.restart_coordinator(2);
  c.kill("b");
  c.run_ms(8000);
  CHECK(c.serving() == nullptr);
  CHECK(c.nodes.at("a").held_mib.empty());
}

TEST_CASE("a better plan replaces the old one, and room is made when both do not fit") {
  fake_cluster c;
  c.add("a", {{150, 400}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto before = c.serving()->where.generation;
  c.add("b", {{90, 50}}); // eight times as fast, but too small for all
  for (int i = 0; i < 320; ++i) {
    c.run_ms(25);
    CHECK((!c.table.routes.empty() || c.table.switching)); // a switch refuses nobody
  }
  REQUIRE(c.serving() != nullptr);
  CHECK(c.serving()->where.generation > before);
  CHECK(c.serving()->where.nodes().size() == 2);
  CHECK(c.logged("event=make_room"));
  check_held(c);
  check_memory(c);
}

TEST_CASE("a replica whose place does not change is not touched") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.add("b", {{150, 100}});
  c.run_ms(3000);
  const auto replicas = [&] {
    std::map<std::string, std::uint64_t> out; // generation, by place
    for (const auto& [id, g] : c.coordinator->generations().records())
      if (g.phase == generation_phase::serving)
        out[g.where.to_text()] = id;
    return out;
  };
  const auto before = replicas();
  REQUIRE(before.size() == 2);
  c.add("c", {{150, 100}});
  c.run_ms(5000);
  auto with = replicas();
  REQUIRE(with.size() == 3);
  for (const auto& [place, generation] : before)
    CHECK(with[place] == generation);
  c.kill("c");
  c.run_ms(5000);
  CHECK(replicas() == before);
  for (const auto& [place, generation] : before)
    CHECK_FALSE(c.released_on(place.substr(0, 1), generation));
}

TEST_CASE("a better plan that does not win back its reload is not carried out") {
  for (const double us_per_layer : {99.5, 90.0}) {
    fake_cluster c;
    c.options().goal.max_replicas = 1;
    c.apply_options();
    c.add("a", {{150, 100}});
    c.run_ms(3000);
    REQUIRE(c.serving() != nullptr);
    c.add("b", {{150, us_per_layer}});
    c.run_ms(10'000);
    CHECK(any_uses(c, "b") == (us_per_layer == 90));
    CHECK(c.logged("event=plan_kept") == (us_per_layer == 99.5));
  }
}

TEST_CASE("a node that comes and goes is planned with later each time") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto first = c.serving()->where.generation;
  std::vector<std::uint64_t> waits_ms;
  for (std::uint64_t incarnation = 1; incarnation <= 7; ++incarnation) {
    c.add("b", {{150, 100}}, incarnation);
    std::uint64_t waited = 0;
    for (; waited < 60'000 && !any_uses(c, "b"); waited += 100)
      c.run_ms(100);
    REQUIRE(any_uses(c, "b"));
    waits_ms.push_back(waited);
    c.kill("b");
    c.run_ms(500);
    // Those who stay do not move for it.
    REQUIRE(c.coordinator->generations().records().count(first) == 1);
    CHECK_FALSE(c.released_on("a", first));
  }
  CHECK(waits_ms[0] <= 1'000);
  CHECK(waits_ms[1] <= 1'000); // once may happen to anybody
  for (std::size_t i = 2; i < 5; ++i)
    CHECK(waits_ms[i] >= 1.5 * static_cast<double>(waits_ms[i - 1]));
  CHECK(*std::max_element(waits_ms.begin(), waits_ms.end()) <= 31'000);
  // It is forgiven.
  c.run_ms(120'000);
  c.add("b", {{150, 100}}, 8);
  c.run_ms(1'000);
  CHECK(any_uses(c, "b"));
}

TEST_CASE("a node that comes and goes is planned with at once where nothing else serves") {
  fake_cluster c;
  for (std::uint64_t incarnation = 1; incarnation <= 5; ++incarnation) {
    c.add("a", {{150, 100}}, incarnation);
    c.run_ms(1'000);
    REQUIRE(c.serving() != nullptr);
    if (incarnation < 5)
      c.kill("a");
    c.run_ms(500);
  }
  // Others need not wait for it to be trusted again, either.
  c.add("b", {{150, 100}});
  c.run_ms(3'000);
  CHECK(any_uses(c, "b"));
  // Nor for it when they go.
  c.kill("a");
  c.run_ms(500);
  c.add("a", {{150, 100}}, 6);
  c.run_ms(1'000);
  REQUIRE_FALSE(any_uses(c, "a"));
  c.kill("b");
  c.run_ms(1'000);
  CHECK(any_uses(c, "a"));
}

TEST_CASE("a device that hangs behind a healthy heartbeat is noticed") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.add("b", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto g = c.serving()->where.generation;
  const auto replica = c.serving()->where.replica;
  const auto home = c.serving()->where.home().node;
  c.nodes.at(home).progress = {{replica, g, 5, 900}};
  c.run_ms(500);
  CHECK_FALSE(c.logged("event=node_suspect"));
  c.nodes.at(home).progress = {{replica, g, 5, 1500}};
  c.run_ms(1000);
  CHECK(c.logged("event=node_suspect node=" + home));
  REQUIRE(c.serving() != nullptr);
  CHECK_FALSE(c.serving()->where.uses(home, 1));
  c.nodes.at(home).progress.clear();
  c.run_ms(1000);
  CHECK(c.logged("event=node_recovered node=" + home));
}

TEST_CASE("how far a node has loaded its shard is seen while it loads") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto progress = [&] { return c.coordinator->membership().find("a")->load_progress; };
  CHECK_FALSE(progress());
  const auto& where = c.serving()->where;
  c.nodes.at("a").progress = {{where.replica, where.generation, 5},
                              {where.replica, where.generation + 1, 0, 0, 0, 0, 0, 0.75},
                              {where.replica, where.generation + 2, 0, 0, 0, 0, 0, 0.25}};
  c.run_ms(500);
  CHECK(progress() == 0.25);
  CHECK(c.coordinator->status_json(0).find("\"load_progress\":0.25") != std::string::npos);
  c.nodes.at("a").progress = {{where.replica, where.generation, 5}};
  c.run_ms(500);
  CHECK_FALSE(progress());
}

TEST_CASE("a step has the time that its width takes") {
  fake_cluster c;
  c.add("a", {{150, 100'000}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto& where = c.serving()->where;
  // 30 layers of 100 ms: eight times three seconds, and more for a wide one.
  c.nodes.at("a").progress = {{where.replica, where.generation, 5, 20'000, 1}};
  c.run_ms(500);
  CHECK_FALSE(c.logged("event=node_suspect"));
  // What its steps took lately counts: contexts have grown.
  c.nodes.at("a").progress = {{where.replica, where.generation, 6, 0, 0, 1, 3'000'000}};
  c.run_ms(25);
  for (std::uint64_t step = 7; step < 60; ++step) {
    c.nodes.at("a").progress = {
        {where.replica, where.generation, step, 0, 0, step - 5, (step - 5) * 12'000'000}};
    c.run_ms(25);
  }
  c.nodes.at("a").progress = {{where.replica, where.generation, 59, 60'000, 1, 54, 648'000'000}};
  c.run_ms(500);
  CHECK_FALSE(c.logged("event=node_suspect"));
  // Eight times twelve seconds.
  c.nodes.at("a").progress = {{where.replica, where.generation, 59, 97'000, 1, 54, 648'000'000}};
  c.run_ms(500);
  CHECK(c.logged("event=node_suspect node=a"));
}

TEST_CASE("a device that runs slower than it measured is planned around") {
  fake_cluster c;
  for (const auto* name : {"a", "b", "c"})
    c.add(name, {{100, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  REQUIRE(c.serving()->where.stages.size() > 1);
  const auto victim = c.serving()->where.stages.back().ranks.front().node;
  const auto layers_on = [&](const std::string& node) {
    int n = 0;
    for (const auto& s : c.serving()->where.stages)
      n += s.ranks.front().node == node ? s.layers : 0;
    return n;
  };
  const auto before = layers_on(victim);
  // Everything takes twice as long as predicted, the victim's stage eight times.
  for (std::uint64_t second = 0; second < 20; ++second) {
    const auto& where = c.serving()->where;
    wire::replica_status s;
    s.replica = where.replica;
    s.generation = where.generation;
    s.steps = 10 * second + 1;
    for (const auto& stage : where.stages)
      s.stage_us.push_back(100.0 * stage.layers * (stage.ranks.front().node == victim ? 8.0 : 2.0));
    c.report(where.home().node, s);
    c.run_ms(1000);
    REQUIRE(c.serving() != nullptr);
    if (second == 8)
      CHECK(layers_on(victim) == before); // a busy moment is no reason
  }
  CHECK(c.logged("event=straggler device=" + victim + "/0"));
  CHECK(layers_on(victim) < before);
  check_memory(c);
}

TEST_CASE("requests that moved are counted once, over all generations") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto report = [&](std::uint64_t resumed) {
    const auto& where = c.serving()->where;
    wire::replica_status s;
    s.replica = where.replica;
    s.generation = where.generation;
    s.resumed = resumed;
    c.report(where.home().node, s);
  };
  for (const std::uint64_t resumed : {2, 2, 5})
    report(resumed);
  CHECK(c.coordinator->generations().resumed() == 5);
  c.kill("a");
  c.add("a", {{150, 100}}, 2);
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  report(1);
  CHECK(c.coordinator->generations().resumed() == 6);
  CHECK(c.coordinator->status_json(0).find("\"requests_moved\":6") != std::string::npos);
}

TEST_CASE("what nodes relay is told, the coordinator's part too") {
  fake_cluster c;
  c.add("a", {{150, 100}}).state->relayed(5'000);
  c.coordinator->relayed(70);
  c.run_ms(1000);
  const auto text = c.coordinator->metrics_text();
  CHECK(text.find("hexgen:relayed_bytes_total{node=\"a\"} 5000\n") != std::string::npos);
  CHECK(text.find("hexgen:relayed_bytes_total{node=\"coordinator\"} 70\n") != std::string::npos);
}

TEST_CASE("an idle device that has become faster is found and planned with") {
  fake_cluster c;
  c.add("a", {{200, 100}});
  c.run_ms(3000);
  REQUIRE(any_uses(c, "a"));
  auto& late = c.add("b", {{60, 2000}}); // slow while it measures: of no use
  c.run_ms(10'000);
  REQUIRE_FALSE(any_uses(c, "b"));
  const auto round_ms = agent_state::measure_again_us / 1000 + 61'000;
  const auto searches = [&] {
    return std::count_if(c.log.begin(), c.log.end(), [](const std::string& line) {
      return line.find("event=search why=\"b measures itself") == 0;
    });
  };
  c.run_ms(round_ms);
  CHECK(searches() == 0); // it is measured again, and is what it was
  const auto* b = c.coordinator->membership().find("b");
  CHECK(b->devices.at(0).decode_us_per_layer == Approx(2000));
  late.devices[0].us_per_layer = 50;
  c.run_ms(round_ms);
  CHECK(searches() == 1);
  CHECK(b->devices.at(0).decode_us_per_layer == Approx(1025)); // half of what was found counts
  for (int i = 0; i < 5 && !any_uses(c, "b"); ++i)
    c.run_ms(round_ms);
  CHECK(any_uses(c, "b"));
  const auto found = b->devices.at(0).decode_us_per_layer;
  CHECK(found < 600); // after two or three rounds it pays
  c.run_ms(round_ms); // now its steps tell
  CHECK(b->devices.at(0).decode_us_per_layer == Approx(found));
}

TEST_CASE("a device thread that does not come back costs its process") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.add("b", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  const auto g = c.serving()->where.generation;
  const auto replica = c.serving()->where.replica;
  const auto home = c.serving()->where.home().node;
  auto& n = c.nodes.at(home);
  n.stuck = true;
  n.progress = {{replica, g, 5, 1500}};
  c.run_ms(500);
  CHECK(c.logged("event=node_suspect node=" + home));
  CHECK(n.left.empty());
  // After this process stood still itself, its device has a second to show that it is well.
  n.progress = {{replica, g, 5, 2500}};
  n.frozen = true;
  c.run_ms(600);
  n.frozen = false;
  c.run_ms(800);
  CHECK(n.left.empty());
  c.run_ms(400);
  CHECK(n.left.find("a device hangs: step 6 has been running for 2500 ms") != std::string::npos);
  CHECK(n.left_to_return);
  CHECK(n.left_process);
  REQUIRE(c.serving() != nullptr);
  CHECK_FALSE(c.serving()->where.uses(home, 1));
}

TEST_CASE("what a node still runs of a generation that is over is released there") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.run_ms(2000);
  REQUIRE(c.serving() != nullptr);
  c.nodes.at("a").held_mib[{0, 77}] = 1;
  c.nodes.at("a").progress = {{5, 77, 1, 0}};
  c.run_ms(500);
  CHECK(c.serving() != nullptr);
  CHECK(c.released_on("a", 77));
}

TEST_CASE("two that reach each other only after a while make a new plan") {
  fake_cluster cluster;
  cluster.unreachable = {"a:1", "b:1"};
  cluster.add("a", {test::fake_device{.memory_mib = 90}});
  cluster.add("b", {test::fake_device{.memory_mib = 90}});
  cluster.add("c", {test::fake_device{.memory_mib = 200}}); // both dial it
  cluster.run_ms(link_prober::relay_after_us / 1000 - 500);
  REQUIRE(cluster.serving() != nullptr);
  const auto searched = [&] {
    return std::count_if(cluster.log.begin(), cluster.log.end(), [](const std::string& line) {
      return line.find("event=search why=\"b and a reach each other after all") == 0;
    });
  };
  CHECK(searched() == 0);
  cluster.relays = true;
  cluster.run_ms(5'000);
  CHECK(searched() == 1);
  CHECK(any_uses(cluster, "b")); // a second replica, of a and b
}

TEST_CASE("a layout by hand is carried out as given") {
  fake_cluster c;
  scheduler::manual_layout layout;
  layout.stages = {{1, 1}};
  layout.layers = {{18, 12}};
  c.options().layout = layout;
  c.apply_options();
  c.add("a", {{150, 100}});
  c.add("b", {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  CHECK(c.serving()->where.to_text() == "a/0[0-17] b/0[18-29]");
}

TEST_CASE("with stage-local recovery another device stands in for the lost one, the others stay") {
  fake_cluster c;
  scheduler::manual_layout layout;
  layout.stages = {{1, 1, 1}};
  layout.layers = {{12, 10, 8}};
  c.options().layout = layout;
  c.options().settings.stage_recovery = true;
  c.apply_options();
  for (const auto* node : {"a", "b", "c", "d"})
    c.add(node, {{150, 100}});
  c.run_ms(3000);
  REQUIRE(c.serving() != nullptr);
  REQUIRE(c.serving()->where.to_text() == "a/0[0-11] b/0[12-21] c/0[22-29]");
  c.kill("b");
  c.run_ms(1000);
  REQUIRE(c.serving() != nullptr);
  CHECK(c.serving()->where.to_text() == "a/0[0-11] d/0[12-21] c/0[22-29]");
  c.run_ms(10'000); // nor does it move to the order of names later
  REQUIRE(c.serving() != nullptr);
  CHECK(c.serving()->where.to_text() == "a/0[0-11] d/0[12-21] c/0[22-29]");
}

TEST_CASE("messages out of range are refused and change nothing") {
  fake_cluster c;
  c.add("a", {{150, 100}});
  c.run_ms(2000);
  REQUIRE(c.serving() != nullptr);
  const auto before = c.coordinator->membership().find("a")->devices[0].decode_us_per_layer;
  const auto* member = c.coordinator->membership().find("a");
  transport::peer_info p;
  p.id = member->peer;
  p.name = "a";
  p.incarnation = 1;
  proto::heartbeat beat;
  auto* d = beat.add_devices();
  d->set_index(0);
  d->set_memory_bytes(1);
  d->set_speed(1);
  d->set_decode_us_per_layer(-1);
  c.ask(p, {transport::traffic::control, proto::HEARTBEAT, beat.SerializeAsString(), {}});
  CHECK(c.coordinator->membership().find("a")->devices[0].decode_us_per_layer == before);
  for (std::uint32_t type = 0; type < 70; ++type)
    for (const std::string& head :
         {std::string(), std::string("\xff\xff\xff\xff\x0f"), std::string(64, 'x')})
      c.ask(p, {transport::traffic::control, type, head, {}});
  c.run_ms(500);
  CHECK(c.serving() != nullptr);
}
