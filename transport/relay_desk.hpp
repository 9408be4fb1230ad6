// Which two peers a process relays between, and until when. Decisions only: no sockets, no clock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace hexgen::transport {

inline constexpr std::size_t relay_ticket_bytes = 16;

/// Every call takes the time, in milliseconds of a clock that only goes forward.
class relay_desk {
public:
  /// A peer's process: name and incarnation.
  using end = std::pair<std::string, std::uint64_t>;
  using pair_id = std::uint64_t;

  static constexpr std::uint64_t claim_ms = 5'000;   // an offer that not both ends took by then
  static constexpr std::uint64_t silent_ms = 10'000; // the ends' heartbeats come far more often
  static constexpr std::uint64_t linger_ms = 1'000;  // one end has closed, the other has not

  struct offer {
    pair_id pair = 0;
    std::array<std::string, 2> tickets; // of the two ends, as they were given to open()
  };
  struct claimed {
    pair_id pair = 0;
    std::size_t side = 0; // 0 or 1, as they were given to open()
    bool both = false;    // the other end is here as well
  };

  /// `draw` makes a ticket that nobody can guess.
  relay_desk(std::size_t most_pairs, std::function<std::string()> draw)
      : most_pairs_(most_pairs), draw_(std::move(draw)) {}

  /// Nothing: as many pairs are open already. What the two had before is due for its end: who asks
  /// anew has no use for it.
  [[nodiscard]] std::optional<offer> open(const end& a, const end& b, std::uint64_t now_ms);
  /// Nothing: no such ticket was given, or it was used, or its time is over.
  [[nodiscard]] std::optional<claimed> claim(const std::string& ticket, std::uint64_t now_ms);
  /// Bytes went through since the last call.
  void moved(pair_id pair, std::uint64_t now_ms);
  /// One end has closed.
  void half_closed(pair_id pair, std::uint64_t now_ms);
  void closed(pair_id pair);
  /// Pairs whose sockets must be closed now; each is said once.
  [[nodiscard]] std::vector<pair_id> due(std::uint64_t now_ms);

  [[nodiscard]] std::size_t pairs() const { return pairs_.size(); }

private:
  struct entry {
    std::array<end, 2> ends;
    std::array<std::string, 2> tickets; // empty: used
    std::uint64_t until_ms = 0;
    bool closing = false; // one end has closed: nothing prolongs it
  };

  std::size_t most_pairs_;
  std::function<std::string()> draw_;
  pair_id next_ = 1;
  std::map<pair_id, entry> pairs_;
  std::vector<pair_id> replaced_;
};

} // namespace hexgen::transport
