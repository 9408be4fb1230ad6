// The bytes between processes: one transport thread, two kinds of link behind one interface.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace hexgen::transport {

enum class link_kind : std::uint8_t { tls, ucx };
enum class peer_role : std::uint8_t { node, client };

/// control: outside every window. data: activations, collectives, tokens; inside the consumer's
/// window. bulk: weights and KV, pieces of at most 1 MiB, behind everything else.
enum class traffic : std::uint8_t { control, data, bulk };

/// An immutable run of bytes that the frame shares with whoever holds it.
class buffer {
public:
  buffer() = default;
  buffer(std::shared_ptr<const void> owner, std::span<const std::byte> bytes)
      : owner_(std::move(owner)), bytes_(bytes) {}
  /// Copies.
  static buffer copy_of(std::span<const std::byte> bytes);
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  [[nodiscard]] bool empty() const { return bytes_.empty(); }

private:
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
};

/// What travels: a small typed head (an encoded Protobuf message of hexgen.proto; `type` says
/// which: the number of the field in `hexgen.proto`'s message_type enum) and an optional payload.
struct frame {
  traffic traffic_class = traffic::control;
  std::uint32_t type = 0;
  std::string head; // at most limits::head_bytes
  buffer payload;   // at most limits::payload_bytes
};

struct limits {
  static constexpr std::size_t head_bytes = 1U << 20;
  static constexpr std::size_t payload_bytes = 64U << 20;
  static constexpr std::size_t unauthenticated_bytes = 64U << 10; // held for one stranger
  static constexpr std::size_t unauthenticated_connections = 256;
};

/// A connected, authenticated peer. `id` is never used again in this process.
using peer_id = std::uint64_t;
struct peer_info {
  peer_id id = 0;
  std::string name;              // the node's or client's name as it gave it
  std::uint64_t incarnation = 0; // random per process start
  peer_role role = peer_role::node;
  link_kind kind = link_kind::tls;
  bool dialled = false; // this side opened the connection
  std::string address;  // host:port where the peer accepts connections, may be empty
  std::string relay;    // the peer through which it is reached; empty: directly
};

/// What on_dial_failed() calls a peer that was dialled through a relay.
[[nodiscard]] std::string relayed_address(const std::string& name, const std::string& relay);

enum class send_result : std::uint8_t { accepted, would_block, down };

/// Why a peer went: for logs and for the difference between leaving and dying.
enum class down_reason : std::uint8_t { goodbye, closed, timeout, protocol_error, local };

/// Called on the transport thread, on_frame also on a thread inside fabric::attend; must not
/// block. Frames of one peer and class arrive in order, all between its on_up and its on_down.
class fabric_handler {
public:
  virtual ~fabric_handler() = default;
  virtual void on_up(const peer_info& peer) = 0;
  /// The sender's window is given back when the last copy of `f.payload` and the frame is gone:
  /// whoever consumes the frame keeps it alive until it is really used up.
  virtual void on_frame(const peer_info& peer, std::shared_ptr<const frame> f) = 0;
  virtual void on_down(const peer_info& peer, down_reason reason, const std::string& detail) = 0;
  /// A dial that failed for good (refused, timed out, wrong secret): says so in plain words.
  virtual void on_dial_failed(const std::string& address, const std::string& detail) = 0;
  /// The listener turned a stranger away (wrong secret, other protocol version, garbage, too
  /// slow): for logs.
  virtual void on_refused(const std::string& /*remote*/, const std::string& /*detail*/) {}
};

/// How long the transport thread looks for work before it sleeps: not at all, 50 us, for ever (only
/// with cores to spare).
enum class wakeup : std::uint8_t { event, spin, busy };

struct fabric_options {
  std::string name;              // this process's name
  std::uint64_t incarnation = 0; // 0: drawn at start
  peer_role role = peer_role::node;
  std::string listen_host;   // empty: this process only dials
  int listen_port = 0;       // 0: an ephemeral port
  std::string advertise;     // host:port told to peers; default: listen address
  std::string cluster_token; // node secret; needed for role node and for accepting nodes
  std::string api_key;       // client secret; empty on a listener: clients need none
  std::string zone;          // UCX is used when both sides name the same; "" = default
                             // (boot id + network namespace + user); "-" = never
  std::string ucx_interface; // empty: shared memory only (posix,self), no open port
  std::string ucx_version;   // told to peers, of which those of another one get TLS; "" = UCX's own
  wakeup wake = wakeup::event;
  std::uint32_t heartbeat_ms = 250; // idle links send this often
  std::uint32_t down_ms = 2000;     // silence after which a peer is down
  std::uint32_t dial_timeout_ms = 3000;
  std::uint64_t window_bytes = 64U << 20;      // granted to each peer for data
  std::uint64_t send_queue_bytes = 256U << 20; // per peer; send() says would_block past it
  std::size_t relay_pairs = 64;                // of peers, for which this process relays at most
};

struct link_stats {
  std::uint64_t frames_sent = 0, frames_received = 0;
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  double latency_us = 0; // one way, half the smoothed round trip of heartbeats; 0: unknown
};

/// One per process. All methods are thread-safe and never block on the network.
class fabric {
public:
  virtual ~fabric() = default;
  /// Opens the listener and starts the transport thread. Throws std::runtime_error naming the
  /// address when it cannot be bound.
  virtual void start() = 0;
  /// Says goodbye to all peers, waits at most 1 s, joins the thread. No callback runs after it.
  virtual void stop() = 0;
  [[nodiscard]] virtual std::string address() const = 0; // host:port that peers can dial
  [[nodiscard]] virtual std::uint64_t incarnation() const = 0;
  /// on_up or on_dial_failed follows; nothing does when the peer behind the address is connected
  /// already (both sides dialled at once, say): its on_up came or comes from that connection.
  virtual void dial(const std::string& address) = 0;
  /// Connects with a peer that only the connected peer `relay` can reach: both ends dial the relay
  /// once more, and it joins these connections. The link is the two ends' own: their keys prove who
  /// they are, the relay carries what it cannot read. As dial(), with relayed_address(); nothing
  /// follows when the relay goes before it has answered.
  virtual void dial_through(peer_id relay, const std::string& name, std::uint64_t incarnation) = 0;
  /// would_block: the peer's send queue is full; nothing was taken.
  virtual send_result send(peer_id peer, frame f) = 0;
  /// For a thread that is about to sleep until a frame has made `ready()` true: receives over UCX
  /// on this thread meanwhile, which saves waking two others. Returns when `ready()`, or when
  /// nothing came for `limit`: the caller then sleeps, and the transport thread receives again.
  /// `ready` is cheap; the caller holds no lock that a handler takes.
  virtual void attend(const std::function<bool()>& ready, std::chrono::microseconds limit) = 0;
  virtual void disconnect(peer_id peer) = 0;
  [[nodiscard]] virtual link_stats stats(peer_id peer) const = 0;
  /// Bytes that this process carried for others as a relay, both ways, in its whole life.
  [[nodiscard]] virtual std::uint64_t relayed_bytes() const = 0;
  /// Runs `task` on the transport thread after `delay_ms` (timers for the actor shell).
  virtual void post(std::function<void()> task, std::uint32_t delay_ms = 0) = 0;
};

/// `handler` outlives the fabric.
[[nodiscard]] std::unique_ptr<fabric> make_fabric(fabric_options options, fabric_handler& handler);

} // namespace hexgen::transport
