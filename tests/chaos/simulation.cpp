#include "tests/chaos/simulation.hpp"

#include "tests/chaos/history_checker.hpp"
#include "tests/chaos/layered_model.hpp"
#include "tests/chaos/simulated_coordinator.hpp"
#include "tests/chaos/simulated_gateway.hpp"
#include "tests/chaos/virtual_network.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

namespace hexgen::tests {
namespace {

constexpr time_us chaos_from_us = 1'000'000;
constexpr time_us heal_limit_us = 60'000'000; // then everything must have ended
constexpr time_us quiet_us = 500'000;         // after the last request
// Who came and went often is planned with again after half a minute at most.
constexpr time_us full_limit_us = 40'000'000;
// A generation that lost a stage holds its sequences until it is released: at most the time to
// adopt and to release it.
constexpr time_us leftovers_us = 6'000'000;

class world {
public:
  explicit world(const simulation_options& o)
      : options_(o), net_(o.seed), chaos_us_(net_.chance.in(2'000'000, 7'000'000)) {}

  simulation_result run();

private:
  struct machine {
    std::string name;
    simulated_device device;
    std::unique_ptr<simulated_agent> agent;
    bool down_for_good = false;
  };

  void log(const std::string& line) const {
    if (options_.log)
      options_.log(std::to_string(net_.now() / 1000) + " ms " + line);
  }
  void violation(const std::string& what) {
    violations_.push_back("at " + std::to_string(net_.now()) + " us: " + what);
  }
  void start_agent(machine& m);
  void stop_agent(machine& m, time_us back_after);
  void start_coordinator();
  void start_gateway();
  void fault();
  void next_fault();
  void next_request();
  void submit_request();
  void heal();
  [[nodiscard]] machine& any_machine() {
    return *machines_[net_.chance.in(0, machines_.size() - 1)];
  }
  [[nodiscard]] std::string any_host();
  [[nodiscard]] bool served() const;
  [[nodiscard]] std::string leftovers() const;
  [[nodiscard]] std::string assigned_wrongly() const;
  [[nodiscard]] std::string left_out() const;
  bool run_until(time_us until, const std::function<bool()>& done);

  simulation_options options_;
  virtual_network net_;
  time_us chaos_us_;
  history_checker clients_;
  std::vector<std::unique_ptr<machine>> machines_;
  std::unique_ptr<simulated_coordinator> coordinator_;
  std::unique_ptr<simulated_gateway> gateway_;
  std::vector<std::uint64_t> tickets_; // of this gateway
  std::uint64_t next_incarnation_ = 1, next_ticket_ = 1;
  std::uint64_t requests_ = 0, moved_ = 0, refilled_ = 0, faults_ = 0, events_ = 0;
  bool healed_ = false;
  std::vector<std::string> violations_;
};

void world::start_agent(machine& m) {
  log("start " + m.name);
  simulated_agent::reports tell;
  tell.violation = [this](const std::string& what) { violation(what); };
  tell.log = [this](const std::string& line) { log(line); };
  tell.leave = [this, &m](bool) { stop_agent(m, net_.chance.in(1'000, 500'000)); };
  m.agent = std::make_unique<simulated_agent>(net_, m.name, next_incarnation_++, m.device,
                                              options_.bug, std::move(tell));
}

void world::stop_agent(machine& m, time_us back_after) {
  const auto id = m.agent->id();
  // Not from within: it may be the one that asks.
  net_.after(0, 0, [this, &m, id, back_after] {
    if (!m.agent || m.agent->id() != id)
      return;
    log("stop " + m.name);
    refilled_ += m.agent->refilled();
    m.agent.reset();
    net_.after(0, back_after, [this, &m] {
      if (!m.agent)
        start_agent(m);
    });
  });
}

void world::start_coordinator() {
  log("start coordinator");
  coordinator_ = std::make_unique<simulated_coordinator>(
      net_, next_incarnation_++, options_.bug, options_.seed % 5 < 2, // stage-local recovery
      [this](const std::string& line) { log(line); });
}

void world::start_gateway() {
  log("start gateway");
  gateway_ = std::make_unique<simulated_gateway>(net_, next_incarnation_++, options_.bug, clients_,
                                                 [this](const std::string& line) { log(line); });
}

std::string world::any_host() {
  const auto i = net_.chance.in(0, machines_.size() + 1);
  return i < machines_.size()    ? machines_[i]->name
         : i == machines_.size() ? std::string(actors::coordinator_name)
                                 : std::string("gateway");
}

void world::fault() {
  ++faults_;
  auto& m = any_machine();
  switch (net_.chance.in(0, 11)) {
  case 0:
  case 1:
  case 2:
  case 3:
    if (m.agent)
      stop_agent(m, net_.chance.in(1'000, 3'000'000));
    break;
  case 4:
  case 5:
    if (m.agent) {
      const auto us = net_.chance.in(100'000, 4'000'000);
      log("freeze " + m.name + " for " + std::to_string(us / 1000) + " ms");
      net_.freeze(m.agent->id(), us);
    }
    break;
  case 6:
  case 7: {
    const auto a = any_host(), b = any_host();
    if (a == b)
      break;
    const bool both = !net_.chance.one_in(3);
    const auto us = net_.chance.in(100'000, 4'000'000);
    log("cut " + a + (both ? " <-> " : " -> ") + b + " for " + std::to_string(us / 1000) + " ms");
    net_.cut(a, b);
    if (both)
      net_.cut(b, a);
    net_.after(0, us, [this, a, b] {
      net_.heal(a, b);
      net_.heal(b, a);
    });
    break;
  }
  case 8:
    if (m.agent) {
      log("hang the device of " + m.name);
      m.agent->hang(net_.chance.in(500'000, 10'000'000), net_.chance.one_in(2));
    }
    break;
  case 9:
    log("stop coordinator");
    coordinator_.reset();
    net_.after(0, net_.chance.in(50'000, 2'000'000), [this] {
      if (!coordinator_)
        start_coordinator();
    });
    break;
  case 10:
    if (m.agent) {
      log("drain " + m.name);
      m.agent->ask_drain();
    }
    break;
  default:
    if (!net_.chance.one_in(3) || !gateway_)
      break;
    log("stop gateway");
    moved_ += gateway_->router().stats().moved;
    for (const auto t : tickets_)
      clients_.connection_lost(t);
    tickets_.clear();
    gateway_.reset();
    net_.after(0, net_.chance.in(1'000, 500'000), [this] {
      if (!gateway_)
        start_gateway();
    });
  }
}

void world::next_fault() {
  net_.after(0, net_.chance.in(50'000, 1'500'000), [this] {
    if (healed_)
      return;
    fault();
    next_fault();
  });
}

void world::next_request() {
  net_.after(0, net_.chance.in(20'000, 600'000), [this] {
    if (healed_)
      return;
    submit_request();
    next_request();
  });
}

void world::submit_request() {
  if (!gateway_)
    return;
  actors::generation_request r;
  const auto alike = net_.chance.in(0, 2); // beginnings that are shared now and then
  for (std::uint64_t i = 0, n = net_.chance.in(1, 50); i < n; ++i)
    r.prompt.push_back(static_cast<int>((alike * 50 + i) % 250));
  if (net_.chance.one_in(2))
    r.prompt.push_back(static_cast<int>(net_.chance.in(0, 255)));
  r.params.seed = net_.chance.in(0, 3);
  r.params.max_tokens = static_cast<int>(net_.chance.in(1, 40));
  r.params.ignore_eos = net_.chance.one_in(4);
  r.choices = net_.chance.one_in(5) ? static_cast<int>(net_.chance.in(2, 3)) : 1;
  const auto ticket = next_ticket_++;
  std::vector<std::vector<int>> expected;
  std::vector<bool> by_length;
  for (int c = 0; c < r.choices; ++c) {
    auto p = r.params;
    p.choice = static_cast<std::uint32_t>(c);
    expected.push_back(answer_of(r.prompt, p));
    bool length = false;
    (void)is_last(expected.back().back(), static_cast<int>(expected.back().size()) - 1, p, length);
    by_length.push_back(length);
  }
  ++requests_;
  tickets_.push_back(ticket);
  clients_.submitted(ticket, std::move(expected), std::move(by_length));
  gateway_->submit(ticket, std::move(r));
  if (net_.chance.one_in(6))
    net_.after(gateway_->id(), net_.chance.in(1'000, 500'000), [this, ticket] {
      clients_.cancelled(ticket);
      gateway_->cancel(ticket);
    });
}

void world::heal() {
  log("heal");
  healed_ = true;
  net_.heal_all();
  if (!coordinator_)
    start_coordinator();
  if (!gateway_)
    start_gateway();
  for (auto& m : machines_) {
    if (!m->agent)
      start_agent(*m);
    net_.thaw(m->agent->id());
    m->agent->hang(0);
  }
}

bool world::served() const {
  return gateway_ && coordinator_ && gateway_->router().not_ready().empty() &&
         !coordinator_->state().generations().exchanging() &&
         coordinator_->state().generations().serving_tokens_per_s() > 0;
}

std::string world::leftovers() const {
  for (const auto& m : machines_)
    if (m->agent)
      if (auto left = m->agent->leftovers(); !left.empty())
        return left;
  return {};
}

// A layer that a replica lacks or has twice, or a device that serves in two places.
std::string world::assigned_wrongly() const {
  std::map<std::pair<std::string, std::uint32_t>, std::uint64_t> taken; // by which generation
  for (const auto& [id, g] : coordinator_->state().generations().records()) {
    if (g.phase != actors::generation_phase::serving)
      continue;
    int next = 0;
    for (const auto& s : g.where.stages) {
      if (s.first_layer != next || s.layers <= 0)
        return "generation " + std::to_string(id) + " goes from layer " + std::to_string(next) +
               " to layer " + std::to_string(s.first_layer);
      next += s.layers;
      for (const auto& r : s.ranks)
        if (!taken.emplace(std::pair(r.node, r.device), id).second)
          return r.node + "/" + std::to_string(r.device) + " has two places";
    }
    if (next != simulated_coordinator::options(1).shape.layers)
      return "generation " + std::to_string(id) + " ends after layer " + std::to_string(next);
  }
  return {};
}

// A node that neither serves nor is idle for a reason that the plan gives.
std::string world::left_out() const {
  if (!coordinator_)
    return "the coordinator";
  const auto view = nlohmann::json::parse(coordinator_->state().status_json(net_.now() / 1000));
  std::set<std::string> planned;
  const auto add = [&](const std::string& device) {
    planned.insert(device.substr(0, device.find('/')));
  };
  for (const auto& r : view.at("plan").at("replicas"))
    if (r.at("state") == "serving")
      for (const auto& s : r.at("stages"))
        for (const auto& d : s.at("devices"))
          add(d);
  for (const auto& line : view.at("plan").at("why"))
    if (line.get<std::string>().find("does not pay") != std::string::npos)
      return {}; // there is a better plan, but not by much
  for (const auto& i : view.at("plan").at("idle"))
    add(i.at("device"));
  for (const auto& m : machines_) {
    const auto& nodes = view.at("nodes");
    const auto n = std::find_if(nodes.begin(), nodes.end(),
                                [&](const auto& node) { return node.at("name") == m->name; });
    if (n == nodes.end())
      return m->name + ", which has not joined";
    if (n->at("state") != "draining" && planned.count(m->name) == 0)
      return m->name + ", which is " + n->at("state").get<std::string>();
  }
  return {};
}

bool world::run_until(time_us until, const std::function<bool()>& done) {
  while (!done()) {
    if (options_.steps != 0 && events_ >= options_.steps)
      return false;
    if (!net_.step(until))
      return done();
    ++events_;
  }
  return true;
}

simulation_result world::run() {
  const auto count = net_.chance.in(2, 4);
  for (std::uint64_t i = 0; i < count; ++i) {
    auto m = std::make_unique<machine>();
    m->name = "n" + std::to_string(i);
    // Some hold the whole model, some a layer or two of it; two always hold it together.
    m->device.memory_bytes = 200'000 + 1'000'000 * net_.chance.in(2, 3);
    m->device.kv_blocks = static_cast<std::uint32_t>(net_.chance.in(12, 60));
    m->device.step_us = net_.chance.in(500, 8'000);
    m->device.load_us = net_.chance.in(5'000, 400'000);
    m->device.ahead = net_.chance.in(0, 1) == 0;
    m->device.port = options_.seed % 4 != 1 || i > 1; // two that only dial out need a relay
    machines_.push_back(std::move(m));
  }
  start_coordinator();
  start_gateway();
  for (auto& m : machines_)
    net_.after(0, net_.chance.in(0, 300'000), [this, p = m.get()] { start_agent(*p); });
  net_.after(0, chaos_from_us, [this] {
    next_fault();
    next_request();
  });
  run_until(chaos_from_us + chaos_us_, [] { return false; });
  const bool cut_short = options_.steps != 0 && events_ >= options_.steps;
  if (!cut_short) {
    heal();
    const auto deadline = net_.now() + heal_limit_us;
    run_until(deadline, [this] { return clients_.open() == 0 && served(); });
    // Who serves refuses nobody.
    const auto refusals = clients_.refusals();
    for (int i = 0; i < 3 && served(); ++i)
      submit_request();
    run_until(deadline, [this] { return clients_.open() == 0 && served(); });
    if (clients_.refusals() != refusals)
      violation("a request is refused although everything was healed");
    clients_.close();
    if (!served())
      violation("nothing serves although everything was healed: " +
                (gateway_ ? gateway_->router().not_ready() : std::string("no gateway")));
    run_until(net_.now() + quiet_us, [] { return false; });
    time_us look_at = net_.now();
    std::string wrong;
    run_until(net_.now() + full_limit_us, [&] {
      if (net_.now() < look_at)
        return false;
      look_at = net_.now() + 200'000;
      const std::string out = left_out();
      wrong = out.empty() ? assigned_wrongly() : "the plan is not full: it leaves out " + out;
      return wrong.empty();
    });
    if (!wrong.empty())
      violation(wrong);
    run_until(net_.now() + leftovers_us, [this] { return leftovers().empty(); });
    if (const auto left = leftovers(); !left.empty())
      violation(left);
    if (gateway_ && gateway_->router().stats().sequences != 0)
      violation("the router holds sequences after all requests have ended");
  }
  simulation_result r;
  r.violations = clients_.violations();
  r.violations.insert(r.violations.end(), violations_.begin(), violations_.end());
  r.requests = requests_;
  r.finished = clients_.finished();
  r.refused = clients_.refusals();
  r.moved = moved_ + (gateway_ ? gateway_->router().stats().moved : 0);
  for (const auto& m : machines_)
    refilled_ += m->agent ? m->agent->refilled() : 0;
  r.refilled = refilled_;
  r.relayed = net_.relayed();
  r.faults = faults_;
  r.events = events_;
  r.virtual_ms = net_.now() / 1000;
  return r;
}

} // namespace

simulation_result simulate(const simulation_options& options) {
  return world(options).run();
}

} // namespace hexgen::tests
