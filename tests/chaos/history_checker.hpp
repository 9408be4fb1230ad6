// Judges what clients saw. Knows nothing of routers, journals or replicas.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace hexgen::tests {

/// Every violation is a sentence; none: all is well.
class history_checker {
public:
  using ticket = std::uint64_t;

  /// A request of one client. `expected`: the ids of an undisturbed run, per choice; `by_length`:
  /// whether each ends by its length.
  void submitted(ticket t, std::vector<std::vector<int>> expected, std::vector<bool> by_length);
  void refused(ticket t, int status, std::uint64_t at);
  void received(ticket t, int choice, const std::vector<int>& ids, const std::string& text,
                const std::string& finish_reason, int error_status, std::uint64_t at);
  /// The client went: nothing may come any more.
  void cancelled(ticket t);
  /// The gateway went, and its connections with it.
  void connection_lost(ticket t);

  /// Accepted (not refused) requests that have not ended.
  [[nodiscard]] std::size_t open() const;
  /// Nothing more will come: whatever is still open never ended.
  void close();
  [[nodiscard]] const std::vector<std::string>& violations() const { return violations_; }
  [[nodiscard]] std::size_t finished() const { return finished_; }
  [[nodiscard]] std::size_t refusals() const { return refusals_; }

private:
  struct choice_history {
    std::vector<int> expected;
    bool by_length = false;
    std::size_t received = 0;
    std::string text;
    bool ended = false;
  };
  struct history {
    std::vector<choice_history> choices;
    bool refused = false, silent = false;
    [[nodiscard]] bool ended() const;
  };
  void violation(ticket t, int choice, const std::string& what, std::uint64_t at);

  std::map<ticket, history> histories_;
  std::vector<std::string> violations_;
  std::size_t finished_ = 0, refusals_ = 0;
};

} // namespace hexgen::tests
