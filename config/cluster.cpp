#include "config/cluster.hpp"

#include "config/kind_reader.hpp"
#include "config/yaml_reader.hpp"

#include <set>

namespace hexgen::config {

namespace {

constexpr std::int64_t most_devices = 65'536;
constexpr double bytes_per_gbit = 1e9 / 8;

link read_link(yaml_reader& from) {
  link found;
  const bool micro = from.has("latency_us"), milli = from.has("latency_ms");
  if (micro && milli)
    from.fail("latency_ms", "is given beside latency_us");
  if (micro)
    found.alpha_s = from.number("latency_us", 0, 1e9) * 1e-6;
  else
    found.alpha_s = from.number("latency_ms", 0, 1e6) * 1e-3;
  found.beta = from.number("bandwidth_gbps", 1e-9, 1e9) * bytes_per_gbit;
  return found;
}

void read_nodes(yaml_reader& top, cluster& into) {
  std::set<std::string> names;
  std::int64_t total = 0;
  auto nodes = top.sections("nodes", true);
  if (nodes.empty())
    top.fail("nodes", "needs at least one node");
  for (auto& entry : nodes) {
    cluster_node node;
    node.name = entry.text("name");
    if (node.name.find('/') != std::string::npos)
      entry.fail("name", "must not contain '/': device ids are node/index");
    if (!names.insert(node.name).second)
      entry.fail("name", "'" + node.name + "' is given twice");
    node.region = entry.text("region", "default");
    node.price_per_hour = entry.number("price_per_hour", 0, 1e9, 0);
    for (auto& group : entry.sections("devices", true)) {
      device_group devices;
      devices.kind = group.text("kind");
      if (!into.kinds.contains(devices.kind))
        group.fail("kind", "unknown device kind '" + devices.kind +
                               "': neither in the catalogue nor in this file's devices");
      devices.count = static_cast<int>(group.integer("count", 0, most_devices, 1));
      total += devices.count;
      if (total > most_devices)
        group.fail("count",
                   "the cluster has more than " + std::to_string(most_devices) + " devices");
      group.refuse_other_keys();
      node.devices.push_back(std::move(devices));
    }
    entry.refuse_other_keys();
    into.nodes.push_back(std::move(node));
  }
}

void read_links(yaml_reader& top, cluster& into) {
  std::set<std::string> regions;
  for (const auto& node : into.nodes)
    regions.insert(node.region);
  auto links = top.section("links");
  into.links_line = links.line("inter_region");
  // PCIe 4, where a file says nothing of the inside of a node.
  into.intra_node = {10e-6, 16e9};
  if (links.has("intra_node")) {
    auto inside = links.section("intra_node");
    for (const auto& key : inside.keys()) {
      auto entry = inside.section(key);
      if (key == "default")
        into.intra_node = read_link(entry);
      else if (into.kinds.contains(key))
        into.intra_node_by_kind.emplace_back(key, read_link(entry));
      else
        inside.fail(key, "unknown device kind");
      entry.refuse_other_keys();
    }
  }
  if (links.has("intra_region")) {
    auto inside = links.section("intra_region");
    into.intra_region = read_link(inside);
    inside.refuse_other_keys();
  }
  std::set<std::pair<std::string, std::string>> pairs;
  for (auto& entry : links.sections("inter_region", false)) {
    const auto between = entry.texts("between");
    if (between.size() != 2 || between[0] == between[1])
      entry.fail("between", "must name two different regions");
    for (const auto& region : between)
      if (!regions.contains(region))
        entry.fail("between", "no node lies in region '" + region + "'");
    if (!pairs.insert(std::minmax(between[0], between[1])).second)
      entry.fail("between", "this pair of regions is given twice");
    into.inter_region.push_back({between[0], between[1], read_link(entry)});
    entry.refuse_other_keys();
  }
  // `intra_node` and `intra_region` may be absent; whatever else is here is a typo.
  static_cast<void>(links.text("comment", ""));
  for (const auto& key : links.keys())
    if (key != "intra_node" && key != "intra_region" && key != "inter_region" && key != "comment")
      links.fail(key, "is not a key known here");
}

} // namespace

int cluster::device_count() const {
  int total = 0;
  for (const auto& node : nodes)
    for (const auto& group : node.devices)
      total += group.count;
  return total;
}

double cluster::price_per_hour() const {
  double total = 0;
  for (const auto& node : nodes) {
    double price = node.price_per_hour;
    if (price == 0)
      for (const auto& group : node.devices)
        price += group.count * kinds.at(group.kind).price_per_hour;
    total += price;
  }
  return total;
}

cluster parse_cluster(const std::string& file, const std::string& text,
                      const device_catalogue& catalogue) {
  auto top = yaml_reader::parse(file, text);
  cluster found;
  found.file = file;
  found.kinds = catalogue;
  found.name = top.text("name");
  if (top.has("devices")) {
    auto devices = top.section("devices");
    for (const auto& name : devices.keys()) {
      auto entry = devices.section(name);
      const auto known = catalogue.find(name);
      found.kinds[name] =
          read_device_kind(entry, name, known == catalogue.end() ? nullptr : &known->second);
      entry.refuse_other_keys();
    }
  }
  read_nodes(top, found);
  read_links(top, found);
  static_cast<void>(top.text("comment", ""));
  static_cast<void>(top.text("source", ""));
  if (top.has("devices"))
    static_cast<void>(top.section("devices"));
  top.refuse_other_keys();
  return found;
}

cluster read_cluster(const std::string& path, const device_catalogue& catalogue) {
  return parse_cluster(path, read_config_text(path), catalogue);
}

} // namespace hexgen::config
