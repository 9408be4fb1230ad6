// Two sockets joined: what comes out of one goes into the other, unread.
#pragma once

#include <boost/asio/ip/tcp.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace hexgen::transport {

/// Holds at most `buffer_bytes` a direction: it reads on only when what it read has been taken, so
/// TCP holds the sender back. Lives on its sockets' thread, but for `bytes()` and `close()`.
class relay_splice : public std::enable_shared_from_this<relay_splice> {
public:
  static constexpr std::size_t buffer_bytes = 128U << 10;
  enum class ending : std::uint8_t { half, whole };
  using socket = boost::asio::ip::tcp::socket;

  /// `on_end`: one end has closed (half, at most once), then both are closed (whole, once).
  relay_splice(socket a, socket b, std::function<void(ending)> on_end);
  void start();
  /// From any thread.
  void close();
  /// That went through so far, both ways. From any thread.
  [[nodiscard]] std::uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

private:
  void read(std::size_t from);
  void write(std::size_t from, std::size_t count);
  void end_of(std::size_t from);
  void finish();

  std::array<socket, 2> sockets_;
  std::array<std::vector<std::byte>, 2> buffers_; // by the socket that they were read from
  std::function<void(ending)> on_end_;
  std::atomic<std::uint64_t> bytes_{0};
  bool half_closed_ = false, closed_ = false;
};

} // namespace hexgen::transport
