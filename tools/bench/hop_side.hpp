// The two ends of a hop that bench_hop times, for every kind of link it compares.
#pragma once

#include "tools/bench/hop_channel.hpp"
#include "transport/fabric.hpp"

#include <cstddef>
#include <memory>
#include <string>

namespace hexgen::bench {

enum class hop_kind { fabric_ucx, fabric_tls, raw_ucx, raw_tcp };
inline constexpr hop_kind hop_kinds[] = {hop_kind::fabric_ucx, hop_kind::fabric_tls,
                                         hop_kind::raw_ucx, hop_kind::raw_tcp};
[[nodiscard]] const char* to_text(hop_kind kind);

/// The measuring end. Messages carry `bytes` of payload; the other end echoes or acknowledges.
class hop_driver {
public:
  virtual ~hop_driver() = default;
  /// Sends a message and waits for its echo.
  virtual void round_trip(std::size_t bytes) = 0;
  /// Sends `count` messages, at most `depth` of them not yet acknowledged.
  virtual void stream(std::size_t bytes, int count, int depth) = 0;
};

[[nodiscard]] std::unique_ptr<hop_driver> make_fabric_driver(bool ucx, transport::wakeup wake,
                                                             const hop_channel& channel);
[[nodiscard]] std::unique_ptr<hop_driver> make_raw_ucx_driver(transport::wakeup wake,
                                                              const hop_channel& channel);
[[nodiscard]] std::unique_ptr<hop_driver> make_raw_tcp_driver(const hop_channel& channel);

/// The other end: answers until it is killed.
[[noreturn]] void serve_fabric(bool ucx, transport::wakeup wake, const hop_channel& channel);
[[noreturn]] void serve_raw_ucx(transport::wakeup wake, const hop_channel& channel);
[[noreturn]] void serve_raw_tcp(const hop_channel& channel);

/// What a message asks for: its payload back, or an empty answer.
inline constexpr std::uint32_t wants_echo = 1;
inline constexpr std::uint32_t wants_ack = 2;
inline constexpr std::size_t largest_message = 64U << 20;

} // namespace hexgen::bench
