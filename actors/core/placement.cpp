#include "actors/core/placement.hpp"

#include "actors/core/served_model.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <cmath>

namespace hexgen::actors {
namespace {

constexpr int most_stages = 1024;
constexpr int most_ranks = 64;
constexpr std::uint32_t most_layers = 4096;

void require(bool good, const char* field) {
  if (!good)
    throw wire::wire_error(std::string("prepare.") + field + " is out of range");
}

} // namespace

std::set<std::string> placement::nodes() const {
  std::set<std::string> out;
  for (const auto& s : stages)
    for (const auto& r : s.ranks)
      out.insert(r.node);
  return out;
}

bool placement::uses(const std::string& node, std::uint64_t incarnation) const {
  for (const auto& s : stages)
    for (const auto& r : s.ranks)
      if (r.node == node && r.incarnation == incarnation)
        return true;
  return false;
}

bool placement::same_place(const placement& other) const {
  if (stages.size() != other.stages.size())
    return false;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    const auto &a = stages[s], &b = other.stages[s];
    if (a.first_layer != b.first_layer || a.layers != b.layers || a.ranks.size() != b.ranks.size())
      return false;
    for (std::size_t r = 0; r < a.ranks.size(); ++r)
      if (a.ranks[r].node != b.ranks[r].node || a.ranks[r].incarnation != b.ranks[r].incarnation ||
          a.ranks[r].device != b.ranks[r].device)
        return false;
  }
  return true;
}

bool placement::shares_device(const placement& other) const {
  std::set<std::pair<std::string, std::uint32_t>> mine;
  for (const auto& s : stages)
    for (const auto& r : s.ranks)
      mine.emplace(r.node, r.device);
  for (const auto& s : other.stages)
    for (const auto& r : s.ranks)
      if (mine.count({r.node, r.device}) != 0)
        return true;
  return false;
}

std::string placement::to_text() const {
  std::string out;
  for (const auto& s : stages) {
    if (!out.empty())
      out += ' ';
    for (std::size_t r = 0; r < s.ranks.size(); ++r)
      out += (r == 0 ? "" : "+") + s.ranks[r].node + "/" + std::to_string(s.ranks[r].device);
    out += "[" + std::to_string(s.first_layer) + "-" +
           std::to_string(s.first_layer + s.layers - 1) + "]";
  }
  return out;
}

std::string encode(const placement& p) {
  proto::prepare m;
  m.set_epoch(p.epoch);
  m.set_replica(p.replica);
  m.set_generation(p.generation);
  for (const auto& s : p.stages) {
    auto* stage = m.add_stages();
    stage->set_first_layer(static_cast<std::uint32_t>(s.first_layer));
    stage->set_layers(static_cast<std::uint32_t>(s.layers));
    for (const auto& r : s.ranks) {
      auto* rank = stage->add_ranks();
      rank->set_node(r.node);
      rank->set_incarnation(r.incarnation);
      rank->set_device(r.device);
      rank->set_speed(r.speed);
    }
  }
  wire::write(p.model, *m.mutable_model());
  wire::write(p.settings, *m.mutable_settings());
  return m.SerializeAsString();
}

placement decode_placement(std::string_view head) {
  proto::prepare m;
  if (head.size() > (1U << 20) || !m.ParseFromArray(head.data(), static_cast<int>(head.size())))
    throw wire::wire_error("prepare does not parse");
  placement p;
  p.epoch = m.epoch();
  p.replica = m.replica();
  p.generation = m.generation();
  require(m.stages_size() >= 1 && m.stages_size() <= most_stages, "stages");
  std::uint32_t next = 0;
  for (const auto& s : m.stages()) {
    require(s.layers() >= 1 && s.layers() <= most_layers, "stages.layers");
    require(s.first_layer() == next, "stages.first_layer");
    next += s.layers();
    require(next <= most_layers, "stages.layers");
    require(s.ranks_size() >= 1 && s.ranks_size() <= most_ranks, "stages.ranks");
    placed_stage stage{static_cast<int>(s.first_layer()), static_cast<int>(s.layers()), {}};
    for (const auto& r : s.ranks()) {
      require(!r.node().empty() && r.node().size() <= 64, "stages.ranks.node");
      require(std::isfinite(r.speed()) && r.speed() > 0, "stages.ranks.speed");
      stage.ranks.push_back({r.node(), r.incarnation(), r.device(), r.speed()});
    }
    p.stages.push_back(std::move(stage));
  }
  p.model = wire::read(m.model());
  p.settings = wire::read(m.settings());
  require(p.settings.max_step_tokens <= 65536, "settings.max_step_tokens");
  require(p.settings.max_running <= 65536, "settings.max_running");
  require(p.settings.max_queued <= wire::limits::queue, "settings.max_queued");
  require(p.settings.draft_tokens <= wire::limits::drafts, "settings.draft_tokens");
  require(p.settings.max_sequence <= (1U << 20), "settings.max_sequence");
  return p;
}

} // namespace hexgen::actors
