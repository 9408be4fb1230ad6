// Joins peers that cannot reach one another: each opens a connection to here and shows its ticket.
#pragma once

#include "transport/relay_desk.hpp"
#include "transport/relay_splice.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

namespace hexgen::transport {

/// What an end of a relayed link sends first on its connection to the relay: this and its ticket.
/// The first byte is no TLS record's.
inline constexpr char relay_greeting[] = "HEXRELAY";
inline constexpr std::size_t relay_greeting_bytes = sizeof relay_greeting - 1;

/// One per fabric, called on its transport thread. Bytes move on a thread of the relay's own, which
/// starts with the first pair: a relay's own frames do not wait behind others'.
class relay {
public:
  using socket = boost::asio::ip::tcp::socket;

  relay(boost::asio::io_context& transport, std::size_t most_pairs);
  relay(const relay&) = delete;
  relay& operator=(const relay&) = delete;
  ~relay();

  /// Tickets for the two; nothing: it relays as many pairs as it may.
  [[nodiscard]] std::optional<relay_desk::offer> open(const relay_desk::end& a,
                                                      const relay_desk::end& b);
  /// Takes the socket when the ticket is one that was offered. False: it was not.
  [[nodiscard]] bool claim(const std::string& ticket, socket s);
  /// Ends what nobody needs any more; now and then.
  void tick();
  /// Closes all and ends the thread.
  void stop();
  /// Bytes that went through for others, as of the last tick. From any thread.
  [[nodiscard]] std::uint64_t carried() const { return carried_.load(std::memory_order_relaxed); }

private:
  struct joint {
    std::optional<socket> first; // waits for the other end
    std::size_t first_side = 0;
    std::shared_ptr<relay_splice> splice;
    std::uint64_t bytes = 0; // that are counted
  };
  [[nodiscard]] socket adopt(socket s);
  void ended(relay_desk::pair_id pair, relay_splice::ending how);
  /// Whether bytes went through since the last time.
  bool count(joint& j);

  boost::asio::io_context& transport_;
  relay_desk desk_;
  std::map<relay_desk::pair_id, joint> joints_;
  std::atomic<std::uint64_t> carried_{0};
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

} // namespace hexgen::transport
