// Devices that run slower than they measured, seen against the others of their fleet.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace hexgen::actors {

struct straggler_times {
  double slow = 2.5;                   // times the least slowed device: a straggler
  double well = 1.4;                   // and no longer one
  std::uint32_t sustained_ms = 10'000; // before either is believed
  std::uint32_t pardon_ms = 60'000;    // one that has no work is tried again; doubles each time
  std::uint32_t most_pardon_ms = 1'800'000;
};

/// Functional core. Long contexts and busy machines slow all devices down and move nothing: only
/// what one takes longer than the rest counts.
class straggler_watch {
public:
  using device = std::pair<std::string, std::uint32_t>; // node, index
  struct verdict {
    device which;
    double factor = 1; // its rates are worse by it; 1: they are as measured
  };

  explicit straggler_watch(straggler_times times = {}) : times_(times) {}

  /// `ratios`: of each device that works, what its steps take against what its measured rates say.
  /// About once a second.
  [[nodiscard]] std::vector<verdict> observe(const std::map<device, double>& ratios,
                                             std::uint64_t now_ms);
  [[nodiscard]] double factor(const device& d) const;
  /// Its process has gone.
  void forget(const std::string& node);

private:
  struct state {
    double slowness = 1; // moving average
    double factor = 1;
    std::uint64_t since_ms = 0;   // it has looked otherwise than its factor says; 0: it does not
    std::uint64_t changed_ms = 0; // its factor
    unsigned found = 0;           // slow, so often
  };
  straggler_times times_;
  std::map<device, state> devices_;
};

} // namespace hexgen::actors
