// Who holds which layers, before anyone asks what it costs.
#pragma once

#include <vector>

namespace hexgen::scheduler {

struct stage {
  std::vector<int> devices; // pool numbers; the first leads
  int first_layer = 0;
  int layers = 0;
  bool operator==(const stage&) const = default;
};

using pipeline = std::vector<stage>;

} // namespace hexgen::scheduler
