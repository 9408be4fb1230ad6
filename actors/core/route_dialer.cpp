#include "actors/core/route_dialer.hpp"

#include "actors/core/coordinator_state.hpp"

namespace hexgen::actors {

std::vector<route_dial> route_dialer::dials(const std::vector<wire::route>& routes,
                                            const std::function<bool(const node&)>& connected,
                                            std::uint64_t now_us) {
  std::vector<route_dial> out;
  std::map<node, attempt> wanted; // what no route leads to is forgotten
  for (const auto& r : routes) {
    const node to{r.node, r.incarnation};
    if (connected(to) || wanted.count(to) != 0)
      continue;
    const auto known = attempts_.find(to);
    auto& a = wanted[to] = known == attempts_.end() ? attempt{} : known->second;
    if (a.at_us != 0 && now_us < a.at_us + (a.failed ? pause_us : again_us))
      continue;
    const bool may_relay = relay_ != 0;
    const bool direct = !r.address.empty() && (a.at_us == 0 || !a.direct || !may_relay);
    if (!direct && !may_relay)
      continue;
    a.direct = direct;
    a.failed = false;
    a.at_us = now_us;
    a.address = direct ? r.address : transport::relayed_address(r.node, coordinator_name);
    if (direct)
      out.emplace_back(dial_peer{r.address});
    else
      out.emplace_back(dial_through{relay_, r.node, r.incarnation});
  }
  attempts_ = std::move(wanted);
  return out;
}

void route_dialer::dial_failed(const std::string& address) {
  for (auto& [to, a] : attempts_)
    if (a.address == address)
      a.failed = true;
}

} // namespace hexgen::actors
