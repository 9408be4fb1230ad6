#include "config/device_kind.hpp"

#include "config/kind_reader.hpp"
#include "config/yaml_reader.hpp"

namespace hexgen::config {

namespace {

layer_profile read_profile(yaml_reader& from) {
  layer_profile profile;
  profile.degree = static_cast<int>(from.integer("degree", 1, 64));
  for (const auto* part : {"decode", "prefill"}) {
    auto& tokens = part[0] == 'd' ? profile.decode_tokens : profile.prefill_tokens;
    auto& times = part[0] == 'd' ? profile.decode_ms : profile.prefill_ms;
    for (const auto& row : from.rows(part, 2)) {
      if (row[1] <= 0 || (!tokens.empty() && row[0] <= tokens.back()))
        from.fail(part, "token counts must rise and times be positive");
      tokens.push_back(row[0]);
      times.push_back(row[1]);
    }
    if (tokens.empty())
      from.fail(part, "needs at least one row");
  }
  from.refuse_other_keys();
  return profile;
}

} // namespace

device_kind read_device_kind(yaml_reader& from, const std::string& name, const device_kind* known) {
  device_kind kind = known != nullptr ? *known : device_kind{};
  kind.name = name;
  const auto peak = [&](const char* key, double& value, double high) {
    value = known != nullptr ? from.number(key, 1e-3, high, value) : from.number(key, 1e-3, high);
  };
  peak("fp16_tflops", kind.fp16_tflops, 1e6);
  peak("memory_gib", kind.memory_gib, 1e6);
  peak("bandwidth_gbs", kind.bandwidth_gbs, 1e7);
  kind.compute_efficiency = from.number("compute_efficiency", 0.01, 1, kind.compute_efficiency);
  kind.memory_efficiency = from.number("memory_efficiency", 0.01, 1, kind.memory_efficiency);
  kind.price_per_hour = from.number("price_per_hour", 0, 1e6, kind.price_per_hour);
  for (auto& profile : from.sections("profiles", false))
    kind.profiles.push_back(read_profile(profile));
  return kind;
}

device_catalogue parse_device_catalogue(const std::string& file, const std::string& text) {
  auto top = yaml_reader::parse(file, text);
  auto devices = top.section("devices");
  device_catalogue found;
  for (const auto& name : devices.keys()) {
    auto entry = devices.section(name);
    auto kind = read_device_kind(entry, name, nullptr);
    if (entry.has("aliases"))
      for (const auto& alias : entry.texts("aliases")) {
        auto copy = kind;
        copy.name = alias;
        found.emplace(alias, std::move(copy));
      }
    entry.refuse_other_keys();
    found[name] = std::move(kind);
  }
  top.refuse_other_keys();
  return found;
}

device_catalogue read_device_catalogue(const std::string& path) {
  return parse_device_catalogue(path, read_config_text(path));
}

} // namespace hexgen::config
