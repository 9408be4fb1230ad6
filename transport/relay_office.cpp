#include "transport/relay_office.hpp"

#include "transport/dialer.hpp"
#include "transport/proto/link.pb.h"
#include "transport/tls_context.hpp"

#include <sys/socket.h>

#include <utility>

namespace hexgen::transport {
namespace {

using boost::asio::ip::tcp;

constexpr std::size_t most_dialling = 64;
constexpr std::size_t longest_reason = 512;

void offer(connection& to, const process_key& other, const std::string& ticket, bool dials) {
  proto::link::relay_offer out;
  out.set_name(other.first);
  out.set_incarnation(other.second);
  out.set_ticket(ticket);
  out.set_dials(dials);
  to.tell(record_kind::relay_offer, out.SerializeAsString());
}

// A new socket's buffer is empty: all of it fits.
bool greet(tcp::socket& socket, const std::string& ticket) {
  const std::string greeting = relay_greeting + ticket;
  return ::send(socket.native_handle(), greeting.data(), greeting.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(greeting.size());
}

} // namespace

relay_office::relay_office(boost::asio::io_context& io, const fabric_options& options,
                           fabric_handler& handler, relay_office_calls calls)
    : io_(io), options_(options), handler_(handler), calls_(std::move(calls)),
      relay_(io, options.relay_pairs) {}

void relay_office::ask(connection& relay, const std::string& name, std::uint64_t incarnation) {
  if (!relay.peer_hello().relays)
    return handler_.on_dial_failed(relayed_address(name, relay.info.name),
                                   relay.info.name + " is of a version that does not relay");
  proto::link::relay_ask out;
  out.set_name(name);
  out.set_incarnation(incarnation);
  relay.tell(record_kind::relay_ask, out.SerializeAsString());
}

bool relay_office::on_record(connection& c, record_kind kind, const std::string& body) {
  if (c.info.role != peer_role::node || options_.role != peer_role::node)
    return false;
  if (kind == record_kind::relay_ask) {
    proto::link::relay_ask in;
    if (!in.ParseFromString(body) || !valid_name(in.name()))
      return false;
    join(c, {in.name(), in.incarnation()});
    return true;
  }
  if (kind == record_kind::relay_offer) {
    proto::link::relay_offer in;
    if (!in.ParseFromString(body) || !valid_name(in.name()) ||
        in.ticket().size() != relay_ticket_bytes)
      return false;
    take_offer(c, {in.name(), in.incarnation()}, in.ticket(), in.dials());
    return true;
  }
  proto::link::relay_refusal in;
  if (kind != record_kind::relay_refusal || !in.ParseFromString(body) || !valid_name(in.name()))
    return false;
  handler_.on_dial_failed(relayed_address(in.name(), c.info.name),
                          in.reason().substr(0, longest_reason));
  return true;
}

// Both ends must be nodes that are connected with this process directly: relays form no chains.
void relay_office::join(connection& asking, const process_key& wanted) {
  const auto other = calls_.find(wanted);
  std::string why;
  if (!other || other.get() == &asking || other->at() != connection::stage::up ||
      other->info.role != peer_role::node)
    why = wanted.first + " is not connected with " + options_.name;
  else if (!other->peer_hello().relays)
    why = wanted.first + " is of a version that knows no relays";
  else if (other->relayed() || asking.relayed())
    why = options_.name + " reaches one of the two through a relay itself";
  if (why.empty()) {
    if (const auto tickets = relay_.open(asking.peer_key(), wanted)) {
      offer(asking, wanted, tickets->tickets[0], true);
      return offer(*other, asking.peer_key(), tickets->tickets[1], false);
    }
    why = options_.name + " relays for " + std::to_string(options_.relay_pairs) + " pairs at most";
  }
  proto::link::relay_refusal out;
  out.set_name(wanted.first);
  out.set_reason(why);
  asking.tell(record_kind::relay_refusal, out.SerializeAsString());
}

// The relay is dialled where it was reached before.
void relay_office::take_offer(connection& relay, const process_key& other,
                              const std::string& ticket, bool dials) {
  const std::string& through = relay.info.name;
  const std::string address = relay.dialled() ? relay.target() : relay.info.address;
  const std::string shown = relayed_address(other.first, through);
  const auto failed = [this, dials, shown](const std::string& why) {
    if (dials)
      handler_.on_dial_failed(shown, why);
    else
      handler_.on_refused(shown, why);
  };
  if (relay.relayed() || address.empty())
    return failed(through + " cannot be dialled from here");
  if (dialling_ >= most_dialling)
    return failed("too many relays are being dialled");
  ++dialling_;
  dial_tcp(io_, address, options_.dial_timeout_ms,
           [this, failed, ticket, target = dials ? shown : std::string(),
            end = relayed_end{through, other}](tcp::socket socket, const std::string& error) {
             --dialling_;
             if (stopped_)
               return;
             if (!error.empty())
               return failed(error);
             if (!greet(socket, ticket))
               return failed(end.relay + " closed the connection");
             calls_.add(std::move(socket), target, end);
           });
}

void relay_office::on_ticket(const std::string& remote, const std::string& ticket,
                             tcp::socket socket) {
  if (!stopped_ && !relay_.claim(ticket, std::move(socket)))
    handler_.on_refused(remote, "a ticket that this process gave to nobody");
}

void relay_office::stop() {
  stopped_ = true;
  relay_.stop();
}

} // namespace hexgen::transport
