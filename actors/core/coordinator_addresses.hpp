// Where the coordinator may be: at its address, or at that of a process that stands by for it.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace hexgen::actors {

/// "HOST:PORT", or several with commas between them. They are tried in turn.
class coordinator_addresses {
public:
  explicit coordinator_addresses(const std::string& text) {
    for (std::size_t at = 0; at <= text.size();) {
      const auto end = std::min(text.find(',', at), text.size());
      all_.push_back(text.substr(at, end - at));
      at = end + 1;
    }
  }
  [[nodiscard]] const std::string& now() const { return all_[next_]; }
  /// It is not there: the next one.
  void turn() { next_ = (next_ + 1) % all_.size(); }

private:
  std::vector<std::string> all_; // not empty
  std::size_t next_ = 0;
};

} // namespace hexgen::actors
