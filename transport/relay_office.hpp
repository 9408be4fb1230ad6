// What a fabric says and does about relays: as the relay, and as an end of a relayed link.
#pragma once

#include "transport/connection.hpp"
#include "transport/relay.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace hexgen::transport {

/// What it asks of its fabric.
struct relay_office_calls {
  /// The connection with that process; null: none.
  std::function<std::shared_ptr<connection>(const process_key&)> find;
  /// A connection of this process begins on that socket, which leads to a relay. `target` is empty
  /// where the other end dials.
  std::function<void(boost::asio::ip::tcp::socket, const std::string& target, relayed_end)> add;
};

/// One per fabric; everything on the transport thread. A link between A and B, of which neither can
/// be dialled, by R, which is connected with both: A asks R (relay_ask); R draws a ticket for each
/// and sends them (relay_offer); both open a connection to R that begins with the ticket, and R
/// joins the two. From there on it is a connection between A and B like any other.
class relay_office {
public:
  relay_office(boost::asio::io_context& io, const fabric_options& options, fabric_handler& handler,
               relay_office_calls calls);

  /// An end: asks the relay.
  void ask(connection& relay, const std::string& name, std::uint64_t incarnation);
  /// False: not acceptable.
  [[nodiscard]] bool on_record(connection& c, record_kind kind, const std::string& body);
  /// The relay: a ticket came.
  void on_ticket(const std::string& remote, const std::string& ticket,
                 boost::asio::ip::tcp::socket socket);
  void tick() { relay_.tick(); }
  [[nodiscard]] std::uint64_t carried() const { return relay_.carried(); } // from any thread
  void stop();

private:
  void join(connection& asking, const process_key& wanted);
  void take_offer(connection& relay, const process_key& other, const std::string& ticket,
                  bool dials);

  boost::asio::io_context& io_;
  const fabric_options& options_;
  fabric_handler& handler_;
  relay_office_calls calls_;
  relay relay_;
  std::size_t dialling_ = 0; // relays that offered
  bool stopped_ = false;
};

} // namespace hexgen::transport
