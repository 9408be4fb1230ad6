#include "actors/core/straggler_watch.hpp"

#include <algorithm>

namespace hexgen::actors {
namespace {

constexpr double weight = 0.3; // of a new ratio in the average
constexpr double most = 100;

} // namespace

std::vector<straggler_watch::verdict>
straggler_watch::observe(const std::map<device, double>& ratios, std::uint64_t now_ms) {
  std::vector<verdict> out;
  double least = 0;
  for (const auto& [d, ratio] : ratios)
    if (ratio > 0)
      least = least == 0 ? ratio : std::min(least, ratio);
  const auto change = [&](const device& d, state& s, double factor) {
    s.factor = factor;
    s.since_ms = 0;
    s.changed_ms = now_ms;
    s.found += factor > 1 ? 1 : 0;
    out.push_back({d, factor});
  };
  for (const auto& [d, ratio] : ratios) {
    if (ratio <= 0 || ratios.size() < 2)
      continue;
    auto& s = devices_[d];
    s.slowness += weight * (std::min(most, ratio / least) - s.slowness);
    const bool other = s.factor > 1 ? s.slowness < times_.well : s.slowness >= times_.slow;
    if (!other)
      s.since_ms = 0;
    else if (s.since_ms == 0)
      s.since_ms = now_ms;
    else if (now_ms - s.since_ms >= times_.sustained_ms)
      change(d, s, s.factor > 1 ? 1 : s.slowness);
  }
  // Nothing is known of one that was relieved of its work: it gets a try now and then.
  for (auto& [d, s] : devices_) {
    const auto wait = std::min<std::uint64_t>(
        times_.most_pardon_ms,
        std::uint64_t{times_.pardon_ms} << std::min(s.found == 0 ? 0U : s.found - 1, 16U));
    if (s.factor > 1 && !ratios.contains(d) && now_ms - s.changed_ms >= wait) {
      s.slowness = 1;
      change(d, s, 1);
    }
  }
  return out;
}

double straggler_watch::factor(const device& d) const {
  const auto i = devices_.find(d);
  return i == devices_.end() ? 1 : i->second.factor;
}

void straggler_watch::forget(const std::string& node) {
  std::erase_if(devices_, [&](const auto& d) { return d.first.first == node; });
}

} // namespace hexgen::actors
