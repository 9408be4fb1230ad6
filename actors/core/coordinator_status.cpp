// What /cluster, `status` and `top` show.
#include "actors/core/coordinator_state.hpp"
#include "compute/step.hpp"
#include "scheduler/engine/step_batcher.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdio>

namespace hexgen::actors {
namespace {

using json = nlohmann::json;

const char* text_of(member_phase p) {
  switch (p) {
  case member_phase::measuring:
    return "measuring";
  case member_phase::ready:
    return "ready";
  case member_phase::suspect:
    return "suspect";
  }
  return "?";
}

json sizes_json(const scheduler::serving_sizes& s) {
  return {{"layer_bytes", s.layer_bytes},
          {"embedding_bytes", s.embedding_bytes},
          {"head_bytes", s.head_bytes},
          {"kv_bytes_per_token_layer", s.kv_bytes_per_token_layer},
          {"activation_bytes", s.activation_bytes}};
}

json node_json(const member& m, time_ms now) {
  json devices = json::array();
  for (const auto& d : m.devices)
    devices.push_back({{"id", m.name + "/" + std::to_string(d.index)},
                       {"kind", d.kind},
                       {"description", d.description},
                       {"memory_bytes", d.memory_bytes},
                       {"threads", d.threads},
                       {"speed", d.speed},
                       {"decode_us_per_layer", d.decode_us_per_layer},
                       {"prefill_us_per_token_layer", d.prefill_us_per_token_layer},
                       {"decode_us_head", d.decode_us_head},
                       {"sizes", sizes_json(d.sizes)}});
  return {{"name", m.name},
          {"incarnation", std::to_string(m.incarnation)}, // 64 bits do not fit a JSON number
          {"address", m.address},
          {"zone", m.zone},
          {"state", m.draining ? "draining" : text_of(m.phase)},
          {"why", m.suspicion},
          {"restarted_because", m.restarted_because},
          {"load_progress", m.load_progress ? json(*m.load_progress) : json()},
          {"relayed_bytes", m.relayed_bytes},
          {"heard_ms_ago", now - std::min(now, m.heard_ms)},
          {"devices", std::move(devices)}};
}

json replica_json(const generation_record& g) {
  json stages = json::array();
  for (const auto& s : g.where.stages) {
    json devices = json::array();
    for (const auto& r : s.ranks)
      devices.push_back(r.node + "/" + std::to_string(r.device));
    stages.push_back({{"first_layer", s.first_layer},
                      {"layers", s.layers},
                      {"degree", s.ranks.size()},
                      {"devices", std::move(devices)}});
  }
  json out{{"replica", g.where.replica},
           {"generation", g.where.generation},
           {"epoch", g.where.epoch},
           {"state", to_string(g.phase)},
           {"predicted_tokens_per_s", g.tokens_per_s},
           {"kv_blocks", g.kv_blocks},
           {"weight_bytes", g.weight_bytes},
           {"stages", std::move(stages)}};
  if (g.status) {
    const auto& s = *g.status;
    out["load"] = {{"running", s.running},
                   {"waiting", s.waiting},
                   {"free_blocks", s.free_blocks},
                   {"blocks", s.blocks},
                   {"tokens_per_s", s.tokens_per_s},
                   {"stage_us", s.stage_us},
                   {"steps", s.steps},
                   {"preemptions", s.preemptions},
                   {"prefix_queries", s.prefix_queries},
                   {"prefix_hits", s.prefix_hits},
                   {"draft_tokens", s.draft_tokens},
                   {"accepted_tokens", s.accepted_tokens},
                   {"prompt_tokens", s.prompt_tokens},
                   {"generated_tokens", s.generated_tokens}};
  }
  return out;
}

// All that the search knew: with it a plan can be checked and found again.
json searched_json(const search_request& r) {
  json devices = json::array(), links = json::array();
  for (const auto& d : r.devices)
    devices.push_back({{"node", d.node},
                       {"index", d.index},
                       {"memory_bytes", d.memory_bytes},
                       {"decode_us_per_layer", d.decode_us_per_layer},
                       {"prefill_us_per_token_layer", d.prefill_us_per_token_layer},
                       {"head_us", d.head_us},
                       {"draining", d.draining},
                       {"sizes", sizes_json(d.sizes)}});
  for (const auto& l : r.links)
    links.push_back({{"from", l.from},
                     {"to", l.to},
                     {"latency_us", l.latency_us},
                     {"bandwidth_gbps", l.bandwidth_gbps}});
  auto model = sizes_json(r.model);
  model.update({{"layers", r.model.layers},
                {"hidden", r.model.hidden},
                {"kv_heads", r.model.kv_heads},
                {"attention_share", r.model.attention_share},
                {"ffn_leaves", r.model.ffn_leaves}});
  return {{"devices", std::move(devices)},
          {"links", std::move(links)},
          {"model", std::move(model)},
          {"goal",
           {{"kv_tokens", r.goal.kv_tokens},
            {"prompt_tokens", r.goal.prompt_tokens},
            {"output_tokens", r.goal.output_tokens},
            {"max_replicas", r.goal.max_replicas},
            {"concurrency", r.goal.concurrency},
            {"tensor_parallel_overhead_us", r.goal.tensor_parallel_overhead_us}}}};
}

// The value of a Prometheus label.
std::string label(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

} // namespace

std::string coordinator_state::status_json(time_ms now) const {
  json nodes = json::array(), links = json::array(), replicas = json::array(), idle = json::array(),
       gateways = json::array();
  for (const auto& [name, m] : membership_.members()) {
    nodes.push_back(node_json(m, now));
    for (const auto& [to, l] : m.links)
      links.push_back({{"from", name},
                       {"to", to},
                       {"kind", l.kind},
                       {"latency_us", l.latency_us},
                       {"bandwidth_gbps", l.bandwidth_gbps},
                       {"reachable", l.reachable},
                       {"detail", l.detail},
                       {"relay", l.relay}});
  }
  bool ready = false;
  for (const auto& [id, g] : generations_.records()) {
    replicas.push_back(replica_json(g));
    ready |= g.phase == generation_phase::serving;
  }
  for (const auto& i : plan_.idle)
    if (i.device < searched_.devices.size()) {
      const auto& d = searched_.devices[i.device];
      idle.push_back({{"device", d.node + "/" + std::to_string(d.index)}, {"why", i.why}});
    }
  for (const auto& [peer, name] : gateways_)
    gateways.push_back(name);
  json out{{"model", options_.model.name},
           {"model_bytes", options_.model.bytes},
           {"ready", ready},
           {"missing", ready ? "" : missing_},
           {"epoch", generations_.epoch()},
           {"coordinator_incarnation", std::to_string(options_.incarnation)},
           {"nodes", std::move(nodes)},
           {"links", std::move(links)},
           {"plan",
            {{"feasible", plan_.feasible},
             {"why", plan_.why},
             {"idle", std::move(idle)},
             {"missing", plan_.missing},
             {"searched", searched_json(searched_)},
             {"replicas", std::move(replicas)}}},
           {"gateways", std::move(gateways)},
           {"counts",
            {{"searches", replans_},
             {"generations_failed", generations_.failures()},
             {"generations_inherited", generations_.inherited()},
             {"requests_moved", generations_.resumed()},
             {"relayed_bytes", relayed_bytes_},
             {"last_search_why", last_replan_}}},
           {"settings",
            {{"kernels", options_.settings.kernels},
             {"kv_cache_dtype", options_.settings.kv_type},
             {"max_model_len", options_.settings.max_sequence},
             {"max_step_tokens", options_.settings.max_step_tokens}}}};
  // Texts came over the wire: whatever is not UTF-8 is replaced, never thrown on.
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string coordinator_state::metrics_text() const {
  std::string out;
  auto family = [&](const char* name, const char* kind) {
    out += std::string("# TYPE ") + name + " " + kind + "\n";
  };
  auto sample = [&](const std::string& name, double value) {
    char text[40];
    std::snprintf(text, sizeof text, " %.9g\n", value);
    out += name + text;
  };
  // Names of nodes are of [A-Za-z0-9._-]: they need no escaping in labels.
  family("hexgen:nodes", "gauge");
  sample("hexgen:nodes", static_cast<double>(membership_.members().size()));
  family("hexgen:link_rtt_seconds", "gauge");
  for (const auto& [name, m] : membership_.members())
    for (const auto& [to, l] : m.links)
      if (l.reachable)
        sample("hexgen:link_rtt_seconds{src=\"" + name + "\",dst=\"" + to + "\"}",
               2e-6 * l.latency_us);
  family("hexgen:relayed_bytes_total", "counter");
  const auto relayed = [&](const std::string& name, std::uint64_t bytes) {
    sample("hexgen:relayed_bytes_total{node=\"" + name + "\"}", static_cast<double>(bytes));
  };
  relayed(coordinator_name, relayed_bytes_);
  for (const auto& [name, m] : membership_.members())
    relayed(name, m.relayed_bytes);
  family("hexgen:replan_total", "counter");
  sample("hexgen:replan_total", static_cast<double>(replans_));
  family("hexgen:generations_failed_total", "counter");
  sample("hexgen:generations_failed_total", static_cast<double>(generations_.failures()));
  family("hexgen:generations_inherited_total", "counter");
  sample("hexgen:generations_inherited_total", static_cast<double>(generations_.inherited()));
  family("hexgen:plan_predicted_tokens_per_second", "gauge");
  sample("hexgen:plan_predicted_tokens_per_second", generations_.serving_tokens_per_s());
  double blocks = 0, used = 0, preemptions = 0, step_tokens = 0, drafts = 0, accepted = 0;
  std::array<std::uint64_t, scheduler::step_size_bounds.size() + 1> step_sizes{};
  family("hexgen:stage_compute_seconds", "gauge");
  for (const auto& [id, g] : generations_.records()) {
    if (!g.status)
      continue;
    blocks += g.status->blocks;
    used += g.status->blocks - std::min(g.status->blocks, g.status->free_blocks);
    preemptions += static_cast<double>(g.status->preemptions);
    step_tokens += static_cast<double>(g.status->step_tokens);
    drafts += static_cast<double>(g.status->draft_tokens);
    accepted += static_cast<double>(g.status->accepted_tokens);
    for (std::size_t i = 0; i < std::min(step_sizes.size(), g.status->step_sizes.size()); ++i)
      step_sizes[i] += g.status->step_sizes[i];
    for (std::size_t s = 0; s < g.status->stage_us.size(); ++s)
      sample("hexgen:stage_compute_seconds{replica=\"" + std::to_string(g.where.replica) +
                 "\",stage=\"" + std::to_string(s) + "\"}",
             1e-6 * g.status->stage_us[s]);
  }
  const std::string labels = "engine=\"0\",model_name=\"" + label(options_.model.name) + "\"";
  family("vllm:kv_cache_usage_perc", "gauge");
  sample("vllm:kv_cache_usage_perc{" + labels + "}", blocks > 0 ? used / blocks : 0);
  family("vllm:num_preemptions_total", "counter");
  sample("vllm:num_preemptions_total{" + labels + "}", preemptions);
  family("vllm:spec_decode_num_draft_tokens_total", "counter");
  sample("vllm:spec_decode_num_draft_tokens_total{" + labels + "}", drafts);
  family("vllm:spec_decode_num_accepted_tokens_total", "counter");
  sample("vllm:spec_decode_num_accepted_tokens_total{" + labels + "}", accepted);
  family("vllm:cache_config_info", "gauge");
  sample("vllm:cache_config_info{" + labels + ",block_size=\"" +
             std::to_string(compute::block_tokens) + "\",cache_dtype=\"" +
             options_.settings.kv_type + "\",enable_prefix_caching=\"" +
             (options_.settings.prefix_cache ? "True" : "False") + "\",num_gpu_blocks=\"" +
             std::to_string(static_cast<std::uint64_t>(blocks)) + "\"}",
         1);
  family("vllm:iteration_tokens_total", "histogram");
  std::uint64_t steps = 0;
  for (std::size_t i = 0; i < step_sizes.size(); ++i) {
    steps += step_sizes[i];
    const auto bound = i < scheduler::step_size_bounds.size()
                           ? std::to_string(scheduler::step_size_bounds[i])
                           : std::string("+Inf");
    sample("vllm:iteration_tokens_total_bucket{" + labels + ",le=\"" + bound + "\"}",
           static_cast<double>(steps));
  }
  sample("vllm:iteration_tokens_total_sum{" + labels + "}", step_tokens);
  sample("vllm:iteration_tokens_total_count{" + labels + "}", static_cast<double>(steps));
  return out;
}

} // namespace hexgen::actors
