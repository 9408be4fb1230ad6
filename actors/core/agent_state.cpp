#include "actors/core/agent_state.hpp"

#include "actors/core/coordinator_state.hpp"
#include "actors/core/served_model.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <numeric>

namespace hexgen::actors {
namespace {

template <class Message>
transport::frame control(proto::message_type type, const Message& m) {
  return {transport::traffic::control, static_cast<std::uint32_t>(type), m.SerializeAsString(), {}};
}

// 50 ms, doubling up to 2 s, half of it jitter.
std::uint64_t backoff_us(int failures, std::uint64_t salt) {
  const auto base = std::min<std::uint64_t>(2'000'000, 50'000ULL << std::min(failures, 6));
  return base / 2 + salt % (base / 2 + 1);
}

// peer_up or dial_failed comes first, but for a dial that ran into a connection which ended then;
// a second dial beside one that is slow costs nothing.
constexpr std::uint64_t lost_dial_us = 2'000'000;
constexpr int most_refusals = 20; // of a name in use: its last owner may not be noticed as gone yet
constexpr std::uint64_t refusal_us = 500'000;
constexpr int most_nodes = 1024;

void report(proto::device_report& to, const device_options& d, const std::string& description,
            const device_rates& rates) {
  to.set_index(d.index);
  to.set_kind(d.kind);
  to.set_description(description);
  to.set_memory_bytes(d.memory_bytes);
  to.set_threads(static_cast<std::uint32_t>(d.threads));
  to.set_speed(d.speed);
  to.set_decode_us_per_layer(rates.decode_us_per_layer);
  to.set_prefill_us_per_token_layer(rates.prefill_us_per_token_layer);
  to.set_decode_us_head(rates.decode_us_head);
  to.set_layer_bytes(rates.sizes.layer_bytes);
  to.set_embedding_bytes(rates.sizes.embedding_bytes);
  to.set_head_bytes(rates.sizes.head_bytes);
  to.set_kv_bytes_per_token_layer(rates.sizes.kv_bytes_per_token_layer);
  to.set_activation_bytes(rates.sizes.activation_bytes);
}

} // namespace

compute::kernel_kind kernels_of(const std::string& text) {
  if (text == "fast")
    return compute::kernel_kind::fast;
  if (text == "reference")
    return compute::kernel_kind::reference;
  throw std::invalid_argument("kernels must be fast or reference, not '" + text + "'");
}

compute::kv_type kv_type_of(const std::string& text) {
  if (text == "f32" || text == "auto" || text == "float32")
    return compute::kv_type::f32;
  if (text == "f16" || text == "float16")
    return compute::kv_type::f16;
  if (text == "bf16" || text == "bfloat16")
    return compute::kv_type::bf16;
  if (text == "q8" || text == "int8")
    return compute::kv_type::q8;
  throw std::invalid_argument("the KV cache type must be f32, f16, bf16 or q8, not '" + text + "'");
}

agent_state::agent_state(agent_options options)
    : options_(std::move(options)), links_(options_.name, options_.address, coordinator_name),
      addresses_(options_.coordinator), rates_(options_.devices.size()),
      measure_at_us_(options_.devices.size()) {}

agent_effects agent_state::start(std::uint64_t now_us) {
  agent_effects out;
  dial_at_us_ = now_us + lost_dial_us;
  out.emplace_back(agent_do::dial{addresses_.now()});
  return out;
}

void agent_state::to_coordinator(transport::frame f, agent_effects& out) const {
  if (coordinator_ != 0)
    out.emplace_back(agent_do::send{coordinator_, std::move(f)});
}

void agent_state::take(prober_effects effects, agent_effects& out) {
  proto::link_report report;
  for (auto& e : effects) {
    if (auto* d = std::get_if<dial_peer>(&e))
      out.emplace_back(agent_do::dial{d->address});
    else if (auto* t = std::get_if<dial_through>(&e))
      out.emplace_back(std::move(*t));
    else if (auto* h = std::get_if<hang_up>(&e))
      out.emplace_back(*h);
    else if (auto* p = std::get_if<send_probe>(&e))
      out.emplace_back(agent_do::probe{p->peer, p->id, p->ballast_bytes});
    else if (auto* r = std::get_if<link_result>(&e)) {
      auto* l = report.add_links();
      l->set_peer(r->peer);
      l->set_kind(r->kind == transport::link_kind::ucx ? "ucx" : "tls");
      l->set_latency_us(r->latency_us);
      l->set_bandwidth_gbps(r->bandwidth_gbps);
      l->set_reachable(r->reachable);
      l->set_detail(r->detail);
      l->set_relay(r->relay);
    }
  }
  if (report.links_size() > 0)
    to_coordinator(control(proto::LINK_REPORT, report), out);
}

agent_effects agent_state::peer_up(const transport::peer_info& peer, std::uint64_t now_us) {
  agent_effects out;
  if (peer.role != transport::peer_role::node)
    return out;
  if (peer.name == coordinator_name) {
    coordinator_ = peer.id;
    failed_dials_ = 0;
    join(out);
  }
  take(links_.peer_up(peer, now_us), out); // the coordinator may relay
  return out;
}

void agent_state::join(agent_effects& out) {
  proto::join m;
  m.set_name(options_.name);
  m.set_incarnation(options_.incarnation);
  m.set_address(options_.address);
  m.set_zone(options_.zone);
  m.set_price_per_hour(options_.price_per_hour);
  m.set_restarted_because(options_.restarted_because);
  m.set_draining(draining_);
  for (std::size_t i = 0; i < options_.devices.size(); ++i)
    report(*m.add_devices(), options_.devices[i],
           i < options_.descriptions.size() ? options_.descriptions[i] : "", rates_[i]);
  for (const auto& [id, g] : generations_) {
    if (g.failed || g.releasing)
      continue;
    auto* h = m.add_held();
    h->set_replica(g.where.replica);
    h->set_generation(id);
    h->set_placement(g.head);
    // A draining replica refuses all that is new: another coordinator must not adopt it.
    h->set_committed(g.committed && !g.draining);
    h->set_kv_blocks(g.kv_blocks);
  }
  to_coordinator(control(proto::JOIN, m), out);
}

agent_effects agent_state::peer_down(const transport::peer_info& peer, const std::string& why,
                                     std::uint64_t now_us) {
  agent_effects out;
  take(links_.peer_down(peer.id, why, now_us), out);
  if (peer.id == coordinator_ && coordinator_ != 0) {
    coordinator_ = 0;
    joined_ = false;
    join_at_us_ = 0;
    dial_at_us_ = now_us + backoff_us(0, options_.incarnation ^ now_us);
    out.emplace_back(agent_do::log{"event=coordinator_lost why=\"" + why +
                                   "\" generations_kept=" + std::to_string(generations_.size())});
    return out;
  }
  for (auto& [id, g] : generations_)
    if (g.where.uses(peer.name, peer.incarnation))
      fail(g, "the link to " + peer.name + " is down: " + why, out);
  return out;
}

agent_effects agent_state::dial_failed(const std::string& address, const std::string& why,
                                       std::uint64_t now_us) {
  agent_effects out;
  if (address == addresses_.now() && coordinator_ == 0) {
    addresses_.turn();
    // Said once, then now and then: no start order is needed.
    if (failed_dials_ % 16 == 0)
      out.emplace_back(agent_do::log{"event=coordinator_unreachable address=" + address +
                                     " why=\"" + why + "\" (trying again)"});
    ++failed_dials_;
    dial_at_us_ = now_us + backoff_us(failed_dials_, options_.incarnation ^ now_us);
    return out;
  }
  take(links_.dial_failed(address, why, now_us), out);
  return out;
}

agent_effects agent_state::on_frame(const transport::peer_info& peer, const transport::frame& f,
                                    std::uint64_t now_us) {
  agent_effects out;
  if (f.type == proto::PROBE_REPLY) {
    proto::probe_reply m;
    if (peer.role == transport::peer_role::node && m.ParseFromString(f.head))
      take(links_.probe_reply(peer.id, m.id(), now_us), out);
    return out;
  }
  if (peer.id != coordinator_) {
    out.emplace_back(agent_do::log{"event=refused_frame peer=" + peer.name +
                                   " type=" + std::to_string(f.type) +
                                   " why=\"only the coordinator may send it\""});
    return out;
  }
  switch (f.type) {
  case proto::WELCOME: {
    proto::welcome m;
    if (m.ParseFromString(f.head))
      welcome(m, now_us, out);
    break;
  }
  case proto::REFUSED: {
    proto::refused m;
    if (m.ParseFromString(f.head))
      refused(m.reason(), now_us, out);
    break;
  }
  case proto::DIRECTORY: {
    proto::directory m;
    if (!m.ParseFromString(f.head) || m.nodes_size() > most_nodes)
      break;
    std::vector<link_peer> peers;
    for (const auto& n : m.nodes())
      peers.push_back({n.name(), n.incarnation(), n.address()});
    take(links_.directory(std::move(peers), now_us), out);
    break;
  }
  case proto::HEARTBEAT_ACK: {
    proto::heartbeat_ack m;
    if (m.ParseFromString(f.head))
      draining_ = m.draining();
    break;
  }
  case proto::PREPARE:
    prepare(f, out);
    break;
  case proto::COMMIT: {
    proto::commit m;
    if (m.ParseFromString(f.head))
      commit(m, out);
    break;
  }
  case proto::DRAIN_GENERATION: {
    proto::drain_generation m;
    if (m.ParseFromString(f.head))
      drain(m, out);
    break;
  }
  case proto::RELEASE: {
    proto::release m;
    if (m.ParseFromString(f.head))
      release({m.replica(), m.generation()}, m.keep(), out);
    break;
  }
  default:
    out.emplace_back(agent_do::log{"event=unexpected_frame peer=" + peer.name +
                                   " type=" + std::to_string(f.type)});
  }
  return out;
}

void agent_state::welcome(const proto::welcome& m, std::uint64_t now_us, agent_effects& out) {
  const auto model = wire::read(m.model());
  const auto& s = m.settings();
  if (model_ &&
      (model_->digest != model.digest || settings_.kernels != s.kernels() ||
       settings_.kv_type != s.kv_type() || settings_.max_step_tokens != s.max_step_tokens() ||
       settings_.max_running != s.max_running())) {
    out.emplace_back(
        agent_do::leave{"the cluster serves another model or with other settings now", true});
    return;
  }
  joined_ = true;
  rates_changed_ = true; // the heartbeat that told them may have been lost with the link
  refusals_ = 0;
  join_at_us_ = 0;
  beat_at_us_ = now_us;
  heartbeat_ms_ = std::clamp<std::uint32_t>(s.heartbeat_ms(), 10, 60'000);
  out.emplace_back(
      agent_do::log{"event=joined model=" + model.name + " epoch=" + std::to_string(m.epoch())});
  // What broke while the coordinator was away, nobody will ask to be released.
  std::vector<generation_id> broken;
  for (const auto& [id, g] : generations_)
    if (g.failed && !g.releasing)
      broken.push_back({g.where.replica, id});
  for (const auto& id : broken)
    release(id, false, out);
  // A coordinator that was restarted does not know the links.
  prober_effects known;
  for (auto& r : links_.results())
    known.emplace_back(std::move(r));
  take(std::move(known), out);
  if (model_)
    return;
  model_ = model;
  settings_ = wire::read(s);
  try {
    (void)executor_of(settings_);
  } catch (const std::invalid_argument& e) {
    out.emplace_back(agent_do::leave{e.what(), false});
    return;
  }
  out.emplace_back(agent_do::open_model{model});
}

compute::executor_options agent_state::executor_of(const wire::serve_settings& s) const {
  compute::executor_options e;
  e.kernels = kernels_of(s.kernels);
  e.kv = kv_type_of(s.kv_type);
  e.max_step_tokens = static_cast<int>(std::clamp<std::uint32_t>(s.max_step_tokens, 1, 65536));
  e.max_logit_rows = static_cast<int>(std::min<std::uint32_t>(s.running_limit(), 65536));
  return e;
}

agent_effects agent_state::model_opened(const std::string& error,
                                        const compute::model_config& config, std::uint64_t) {
  agent_effects out;
  if (!error.empty()) {
    out.emplace_back(agent_do::leave{"the model cannot be opened: " + error, false});
    return out;
  }
  config_ = config;
  model_open_ = true;
  out.emplace_back(agent_do::measure_devices{executor_of(settings_),
                                             static_cast<int>(settings_.max_sequence), 0,
                                             static_cast<std::uint32_t>(rates_.size())});
  measuring_ = true;
  return out;
}

agent_effects agent_state::device_measured(std::uint32_t device, const device_rates& rates,
                                           std::uint64_t now_us) {
  agent_effects out;
  if (device >= rates_.size())
    return out;
  auto& known = rates_[device];
  const bool again = known.decode_us_per_layer > 0;
  measuring_ = !again && device + 1 < rates_.size();
  if (again && rates.decode_us_per_layer <= 0)
    return out; // it could not: what is known stays
  if (again) {  // one round among many, as with links
    known.decode_us_per_layer = std::midpoint(known.decode_us_per_layer, rates.decode_us_per_layer);
    known.prefill_us_per_token_layer =
        std::midpoint(known.prefill_us_per_token_layer, rates.prefill_us_per_token_layer);
    known.decode_us_head = std::midpoint(known.decode_us_head, rates.decode_us_head);
    known.sizes = rates.sizes;
  } else {
    known = rates;
  }
  rates_changed_ = true;
  beat_at_us_ = now_us; // told at once
  out.emplace_back(agent_do::log{
      "event=measured device=" + std::to_string(device) +
      " decode_us_per_layer=" + std::to_string(rates.decode_us_per_layer) +
      " prefill_us_per_token_layer=" + std::to_string(rates.prefill_us_per_token_layer) +
      " head_us=" + std::to_string(rates.decode_us_head)});
  return out;
}

// Steps tell how fast a device that works is (the coordinator's straggler_watch); of one that does
// not nobody would notice.
void agent_state::measure_idle(std::uint64_t now_us, agent_effects& out) {
  for (std::uint32_t d = 0; d < rates_.size(); ++d) {
    const bool busy = std::any_of(generations_.begin(), generations_.end(),
                                  [&](const auto& g) { return g.second.ranks.count(d) != 0; });
    auto& at = measure_at_us_[d];
    if (busy || at == 0 || measuring_) { // jitter: those that started together would meet
      at = now_us + measure_again_us + (options_.incarnation + d) % 60 * 1'000'000;
    } else if (now_us >= at && rates_[d].decode_us_per_layer > 0 && joined_) {
      at = 0;
      measuring_ = true;
      out.emplace_back(agent_do::measure_devices{
          executor_of(settings_), static_cast<int>(settings_.max_sequence), d, d + 1});
    }
  }
}

void agent_state::refused(const std::string& reason, std::uint64_t now_us, agent_effects& out) {
  joined_ = false;
  if (leaving_)
    return;
  if (reason.rfind("ghost", 0) == 0) {
    leaving_ = true;
    out.emplace_back(agent_do::leave{reason, true});
    return;
  }
  if (reason.find("in use") != std::string::npos && ++refusals_ < most_refusals) {
    join_at_us_ = now_us + refusal_us;
    return;
  }
  if (reason.rfind("not a member", 0) == 0) {
    join_at_us_ = now_us;
    return;
  }
  leaving_ = true;
  out.emplace_back(agent_do::leave{"the coordinator refused this node: " + reason, false});
}

bool agent_state::works_with(const std::string& node) const {
  return std::any_of(generations_.begin(), generations_.end(),
                     [&](const auto& g) { return g.second.where.nodes().count(node) != 0; });
}

agent_effects agent_state::tick(const std::vector<rank_progress>& progress, std::uint64_t now_us) {
  agent_effects out;
  note_steps(progress);
  if (coordinator_ == 0) {
    if (now_us >= dial_at_us_) {
      dial_at_us_ = now_us + lost_dial_us;
      out.emplace_back(agent_do::dial{addresses_.now()});
    }
  } else if (join_at_us_ != 0 && now_us >= join_at_us_) {
    join_at_us_ = 0;
    join(out);
  } else if (joined_ && now_us >= beat_at_us_) {
    beat_at_us_ = now_us + heartbeat_ms_ * 1000ULL;
    proto::heartbeat m;
    m.set_sequence(++beat_);
    m.set_relayed_bytes(relayed_bytes_);
    const auto late = late_after_ms(progress);
    for (const auto& p : progress) {
      if (p.loaded < 1) { // of several the one that is least far
        m.set_load_progress(m.has_load_progress() ? std::min(m.load_progress(), p.loaded)
                                                  : p.loaded);
        continue;
      }
      auto* g = m.add_progress();
      g->set_replica(p.replica);
      g->set_generation(p.generation);
      g->set_last_step(p.last_step);
      g->set_oldest_step_age_ms(p.running_ms);
      g->set_late_after_ms(late);
    }
    if (rates_changed_)
      for (std::size_t i = 0; i < options_.devices.size(); ++i)
        report(*m.add_devices(), options_.devices[i], "", rates_[i]);
    rates_changed_ = false;
    to_coordinator(control(proto::HEARTBEAT, m), out);
  }
  take(links_.tick(now_us, [this](const auto& node) { return works_with(node); }), out);
  measure_idle(now_us, out);
  watch_devices(progress, now_us, out);
  return out;
}

} // namespace hexgen::actors
