#include "tests/chaos/simulated_coordinator.hpp"

#include "scheduler/serving_planner.hpp"
#include "transport/proto/hexgen.pb.h"

namespace hexgen::tests {
namespace {

constexpr time_us tick_us = 100'000;

} // namespace

actors::coordinator_options simulated_coordinator::options(std::uint64_t incarnation,
                                                           bool stage_recovery) {
  actors::coordinator_options o;
  o.incarnation = incarnation;
  o.model.name = "layers";
  o.model.digest = "d";
  o.settings.kernels = "fast";
  o.settings.kv_type = "f32";
  o.settings.max_sequence = 96;
  o.settings.max_step_tokens = 24;
  o.settings.heartbeat_ms = 250;
  o.settings.suspect_ms = 1000;
  o.settings.gone_ms = 2000;
  o.settings.prefix_cache = true;
  o.settings.stage_recovery = stage_recovery;
  o.shape.layers = layered_model_layers;
  o.shape.hidden = 64;
  o.shape.kv_heads = 4;
  o.shape.layer_bytes = 1'000'000;
  o.shape.embedding_bytes = 1'000;
  o.shape.head_bytes = 1'000;
  o.shape.kv_bytes_per_token_layer = 16;
  o.shape.activation_bytes = 1'000;
  o.goal.kv_tokens = 96;
  o.goal.prompt_tokens = 16;
  o.goal.output_tokens = 16;
  o.settle_ms = 100;
  o.links_ms = 1'000;
  o.retry_ms = 200;
  o.generations.prepare_ms = 4'000;
  o.generations.commit_ms = 2'000;
  o.generations.drain_ms = 1'000;
  o.generations.make_room_ms = 300;
  o.generations.release_ms = 2'000;
  o.generations.adopt_ms = 1'500;
  return o;
}

simulated_coordinator::simulated_coordinator(virtual_network& net, std::uint64_t incarnation,
                                             planted_bug bug, bool stage_recovery,
                                             std::function<void(const std::string&)> log)
    : net_(net), bug_(bug), log_(std::move(log)), state_(options(incarnation, stage_recovery)) {
  id_ = net_.start(this, actors::coordinator_name, incarnation, actors::coordinator_name);
  net_.after(id_, tick_us, [this] { tick(); });
}

simulated_coordinator::~simulated_coordinator() {
  net_.kill(id_);
}

void simulated_coordinator::tick() {
  if (bug_ == planted_bug::forget_lease)
    for (const auto& [node, beat] : last_beats_)
      carry_out(state_.on_frame(beat.first, beat.second, now_ms()));
  carry_out(state_.tick(now_ms()));
  net_.after(id_, tick_us, [this] { tick(); });
}

void simulated_coordinator::on_up(const transport::peer_info& peer) {
  peers_[peer.id] = peer;
}

void simulated_coordinator::on_down(const transport::peer_info& peer, const std::string& why) {
  peers_.erase(peer.id);
  if (bug_ == planted_bug::forget_lease && last_beats_.contains(peer.name))
    return; // its last heartbeat goes on for ever
  carry_out(state_.peer_down(peer.id, why, false, now_ms()));
}

void simulated_coordinator::on_packet(const transport::peer_info& peer, const packet& p) {
  const auto* f = std::get_if<transport::frame>(&p);
  if (f == nullptr)
    return;
  if (bug_ == planted_bug::forget_lease && f->type == proto::HEARTBEAT)
    last_beats_[peer.name] = {peer, *f};
  carry_out(state_.on_frame(peer, *f, now_ms()));
}

void simulated_coordinator::on_dial_failed(const std::string&, const std::string&) {}

void simulated_coordinator::carry_out(actors::coordinator_effects fx) {
  for (const auto& line : fx.log)
    log_("coordinator " + line);
  for (auto& [peer, f] : fx.sends)
    net_.send(id_, peer, std::move(f));
  if (!fx.search)
    return;
  net_.after(id_, net_.chance.in(1'000, 50'000), [this, s = std::move(*fx.search)] {
    carry_out(state_.plan_done(s.id, actors::plan_for(s), now_ms()));
  });
}

} // namespace hexgen::tests
