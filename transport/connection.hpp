// One TCP connection between two fabrics: hand-shake, hello, frames, heartbeats, farewell.
#pragma once

#include "transport/credit_ledger.hpp"
#include "transport/frame_writer.hpp"
#include "transport/hello.hpp"
#include "transport/peer_port.hpp"
#include "transport/record.hpp"
#include "transport/tls_stream.hpp"
#include "transport/ucx_path.hpp"

#include <boost/asio/ip/tcp.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace hexgen::transport {

class connection;

/// A process as the fabric tells it apart: name and incarnation.
using process_key = std::pair<std::string, std::uint64_t>;

/// What a connection asks of its fabric. Everything on the transport thread.
class connection_host {
public:
  [[nodiscard]] virtual const fabric_options& options() const = 0;
  [[nodiscard]] virtual const tls_context& tls() const = 0;
  [[nodiscard]] virtual const hello_message& own_hello() const = 0;
  /// A path for one connection; null: this process does not use UCX, or cannot now.
  [[nodiscard]] virtual std::shared_ptr<ucx_path> open_path(ucx_path_owner& owner) = 0;
  virtual void close_path(ucx_path& path) = 0;
  /// The peer said who it is: the host calls offer() or refuse().
  virtual void on_hello(connection& c) = 0;
  /// The peer's offer came: the judge of the pair calls settle() or refuse().
  virtual void on_offer(connection& c, bool peer_has_other) = 0;
  virtual void on_up(connection& c) = 0;
  virtual void on_frame(connection& c, std::shared_ptr<const frame> f) = 0;
  /// Instead of a hand-shake a relay's ticket came on an accepted connection, whose socket this is.
  /// No on_gone follows.
  virtual void on_ticket(connection& c, const std::string& ticket,
                         boost::asio::ip::tcp::socket socket) = 0;
  /// A relay_* record of a peer that is up; false: it is not acceptable.
  [[nodiscard]] virtual bool on_relay_record(connection& c, record_kind kind,
                                             const std::string& body) = 0;
  /// Once per connection, also when it never came up. `c` may linger to say its farewell.
  virtual void on_gone(connection& c, down_reason reason, const std::string& detail) = 0;
  /// Nothing is left of it but memory: forget it.
  virtual void on_closed(connection& c) = 0;

protected:
  ~connection_host() = default;
};

/// A connection whose other end is not whose socket it is.
struct relayed_end {
  std::string relay; // whose socket it is
  process_key other; // who must be at the end
};

class connection final : public std::enable_shared_from_this<connection>, private ucx_path_owner {
public:
  enum class stage : std::uint8_t { handshake, hello, settling, up, leaving, closed };

  /// `target`: the address as it was dialled; empty for an accepted connection.
  connection(connection_host& host, boost::asio::ip::tcp::socket socket, std::string target,
             std::string remote, std::optional<relayed_end> relayed = std::nullopt);
  ~connection();

  void start();
  /// Checks deadlines, heartbeats, credits. `elapsed_ms` since the last call.
  void tick(std::uint32_t elapsed_ms);
  void offer(bool has_other);
  /// The pair uses this connection.
  void settle();
  /// Tells the peer why and closes.
  void refuse(const std::string& reason, bool duplicate);
  /// Ends it at once; on_gone follows unless it was given.
  void drop(down_reason reason, const std::string& detail);
  /// Sends what waits, then goodbye; on_gone(local) is given at once.
  void leave();
  /// Writes what may go now.
  void pump();
  /// A record that is not about this connection. It is up.
  void tell(record_kind kind, const std::string& body);

  [[nodiscard]] stage at() const { return stage_; }
  [[nodiscard]] bool alive() const { return stage_ < stage::leaving; }
  [[nodiscard]] bool dialled() const { return !target_.empty(); }
  [[nodiscard]] const std::string& target() const { return target_; }
  [[nodiscard]] const std::string& remote() const { return remote_; }
  [[nodiscard]] const std::optional<relayed_end>& relayed() const { return relayed_; }
  [[nodiscard]] const hello_message& peer_hello() const { return peer_hello_; }
  [[nodiscard]] process_key peer_key() const { return {peer_hello_.name, peer_hello_.incarnation}; }
  [[nodiscard]] const std::shared_ptr<peer_port>& port() const { return port_; }
  /// Over which data goes; null: over TLS.
  [[nodiscard]] std::shared_ptr<ucx_path> path() const { return ucx_seen_ ? path_ : nullptr; }
  /// The peer was refused, or refused us, because another connection serves the pair.
  [[nodiscard]] bool duplicate() const { return duplicate_; }
  /// Rises with every connection of the process: the age's order.
  [[nodiscard]] std::uint64_t number() const { return number_; }
  /// The secrets have been proven.
  [[nodiscard]] bool authenticated() const { return stage_ > stage::handshake; }
  [[nodiscard]] link_kind kind() const { return ucx_seen_ ? link_kind::ucx : link_kind::tls; }
  peer_info info; // filled in by the host

private:
  // ucx_path_owner
  void on_probe() override;
  bool on_ucx_charge(std::uint64_t cost) override;
  void on_ucx_frame(received_frame f) override;
  void on_ucx_sent(std::uint64_t cost) override;
  void on_ucx_failed(const std::string& detail) override;

  void drive();
  void arm();
  bool advance_handshake();
  bool pass_greeting();
  void read_some();
  void handle(tls_stream::outcome outcome);
  void on_record(record_reader::event event);
  void on_message();
  void on_peer_hello(const std::string& body);
  void on_credit(const std::string& body);
  void on_pong(const std::string& body);
  void on_goodbye(const std::string& body);
  void check_last_frames();
  void start_ucx();
  void end_ucx();
  void post_pump();
  void deliver(received_frame received);
  void maybe_up();
  void send(record_kind kind, const std::string& body);
  void send_ping();
  void send_credits();
  void say_goodbye();
  void fail(const std::string& detail);
  void close_output();
  void close();
  [[nodiscard]] std::string wrong_secret_text() const;

  connection_host& host_;
  std::uint64_t number_;
  boost::asio::ip::tcp::socket socket_;
  std::string target_;
  std::string remote_;
  std::optional<relayed_end> relayed_;
  tls_stream stream_;
  record_reader reader_;
  std::shared_ptr<peer_port> port_;
  frame_writer writer_;
  std::shared_ptr<credit_ledger> ledger_;
  std::shared_ptr<ucx_path> path_; // null: TLS carries everything
  hello_message peer_hello_;
  std::atomic<stage> stage_{stage::handshake}; // changed on the transport thread
  std::string greeting_; // of an accepted connection, while it may be a relay's ticket
  bool greeted_;         // it is none
  bool judge_ = false;   // this side decides which connection of the pair stays
  bool settled_ = false;
  bool ucx_settled_ = true;                  // it is known whether data goes over UCX
  bool ucx_seen_ = false;                    // the peer received the probe: it does
  std::atomic<bool> ucx_awaited_{false};     // pump again when UCX has sent something
  std::optional<std::uint64_t> last_frames_; // the peer said goodbye after as many over UCX
  std::atomic<bool> last_awaited_{false};    // and some of them are under way
  bool ready_sent_ = false;
  bool peer_ready_ = false;
  bool duplicate_ = false;
  bool gone_given_ = false;
  bool farewell_sent_ = false;
  bool output_closed_ = false;
  bool want_write_ = false;
  bool read_waits_ = false;
  bool write_waits_ = false;
  std::atomic<bool> heard_{false}; // since the last tick
  std::uint32_t age_ms_ = 0;       // in the current phase (before up; leaving)
  std::uint32_t silence_ms_ = 0;
  std::uint32_t since_ping_ms_ = 0;
};

} // namespace hexgen::transport
