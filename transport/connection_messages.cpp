// What a connection does with the records it reads and with what UCX brings.
#include "transport/connection.hpp"
#include "transport/proto/link.pb.h"
#include "transport/protocol.hpp"

#include <boost/asio/post.hpp>

#include <chrono>
#include <utility>

namespace hexgen::transport {
namespace {

std::uint64_t now_us() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(since).count());
}

} // namespace

void connection::on_record(record_reader::event event) {
  switch (event) {
  case record_reader::event::none:
    return;
  case record_reader::event::error:
    return fail(reader_.error());
  case record_reader::event::message:
    return on_message();
  case record_reader::event::frame:
    break;
  }
  received_frame received = reader_.take_frame();
  const std::uint64_t cost = window_cost(received.head.size(), received.payload_bytes);
  if (!ledger_->charge(received.traffic_class, cost))
    return fail("the peer sent more than its window");
  deliver(std::move(received));
}

void connection::deliver(received_frame received) {
  std::shared_ptr<const frame> f = ledger_->wrap(std::move(received));
  if (stage_ != stage::up)
    return; // it came while this side leaves
  port_->frames_received.fetch_add(1, std::memory_order_relaxed);
  host_.on_frame(*this, std::move(f));
}

void connection::on_message() {
  const std::string& body = reader_.body();
  const record_kind kind = reader_.kind();
  if (stage_ == stage::hello && kind != record_kind::hello && kind != record_kind::refuse)
    return fail("a message before the hello");
  if (stage_ == stage::leaving && kind != record_kind::goodbye && kind != record_kind::credit)
    return;
  switch (kind) {
  case record_kind::hello:
    if (stage_ != stage::hello)
      return fail("a second hello");
    return on_peer_hello(body);
  case record_kind::offer: {
    proto::link::offer in;
    if (stage_ != stage::settling || !in.ParseFromString(body))
      return fail("an offer that is out of place or not readable");
    return host_.on_offer(*this, in.has_other());
  }
  case record_kind::ready:
    if (stage_ != stage::settling || peer_ready_)
      return fail("a ready that is out of place");
    peer_ready_ = true;
    return maybe_up();
  case record_kind::refuse: {
    proto::link::refuse in;
    if (!in.ParseFromString(body))
      return fail("a refusal that is not readable");
    duplicate_ = in.duplicate();
    return drop(down_reason::protocol_error, "refused by the peer: " + in.reason().substr(0, 512));
  }
  case record_kind::ping:
    return send(record_kind::pong, body);
  case record_kind::pong:
    return on_pong(body);
  case record_kind::credit:
    return on_credit(body);
  case record_kind::goodbye:
    return on_goodbye(body);
  case record_kind::relay_ask:
  case record_kind::relay_offer:
  case record_kind::relay_refusal:
    if (stage_ != stage::up || !host_.on_relay_record(*this, kind, body))
      return fail("a message about a relay that is out of place or not readable");
    return;
  case record_kind::ucx_seen:
    if (!path_)
      return fail("an answer to a probe that was not sent");
    if (stage_ == stage::settling && !ucx_settled_) // later ones are too late
      ucx_settled_ = ucx_seen_ = true;
    return maybe_up();
  case record_kind::frame:
  case record_kind::more:
    break;
  }
  fail("a record that is out of place");
}

void connection::on_peer_hello(const std::string& body) {
  std::string error;
  if (!decode(body, peer_hello_, error))
    return fail(error);
  if (peer_hello_.version != protocol_version)
    return refuse("protocol version " + std::to_string(peer_hello_.version) +
                      " is not spoken here, " + std::to_string(protocol_version) + " is",
                  false);
  // The hello may only repeat what the key has proven.
  const std::optional<tls_identity>& proven = stream_.peer();
  if (!dialled() &&
      (!proven || proven->role != peer_hello_.role || proven->name != peer_hello_.name))
    return refuse("the hello is not from " + (proven ? to_text(*proven) : "a proven identity"),
                  false);
  if (dialled() && peer_hello_.role != peer_role::node)
    return refuse("a listener must be a node", false);
  if (relayed_ && peer_key() != relayed_->other)
    return refuse(
        "the relay " + relayed_->relay + " joined this with another process than was asked", false);
  const hello_message& own = host_.own_hello();
  judge_ = process_key(own.name, own.incarnation) < peer_key();
  stage_ = stage::settling;
  start_ucx();
  host_.on_hello(*this);
}

void connection::offer(bool has_other) {
  proto::link::offer out;
  out.set_has_other(has_other);
  send(record_kind::offer, out.SerializeAsString());
}

void connection::start_ucx() {
  if (!path_)
    return;
  const hello_message& own = host_.own_hello();
  // Only nodes: UCX parses its addresses without care, and a client's key is no node's.
  if (peer_hello_.role != peer_role::node || peer_hello_.zone != own.zone ||
      peer_hello_.ucx_version != own.ucx_version || peer_hello_.ucx_address.empty() ||
      peer_hello_.ucx_cookie == 0) {
    return end_ucx();
  }
  std::string why;
  // When it fails the peer may still reach us, so the path stays to receive.
  ucx_settled_ = !path_->connect(peer_hello_.ucx_address, peer_hello_.ucx_cookie, why);
}

void connection::end_ucx() {
  if (const auto path = std::exchange(path_, nullptr))
    host_.close_path(*path);
}

void connection::post_pump() {
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] { self->pump(); });
}

void connection::on_probe() {
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] {
    self->send(record_kind::ucx_seen, {});
    self->pump();
  });
}

bool connection::on_ucx_charge(std::uint64_t cost) {
  return ledger_->charge(traffic::data, cost);
}

void connection::on_ucx_frame(received_frame f) {
  heard_ = true;
  port_->bytes_received.fetch_add(f.head.size() + f.payload_bytes, std::memory_order_relaxed);
  deliver(std::move(f));
  if (last_awaited_)
    boost::asio::post(socket_.get_executor(),
                      [self = shared_from_this()] { self->check_last_frames(); });
}

void connection::check_last_frames() {
  if (last_frames_ && path_ && path_->frames_received() >= *last_frames_)
    drop(down_reason::goodbye, "the peer said goodbye");
}

void connection::on_ucx_sent(std::uint64_t cost) {
  port_->box.sent(cost);
  port_->frames_sent.fetch_add(1, std::memory_order_relaxed);
  port_->bytes_sent.fetch_add(cost, std::memory_order_relaxed);
  if (ucx_awaited_)
    post_pump();
}

void connection::on_ucx_failed(const std::string& detail) {
  boost::asio::post(socket_.get_executor(), [self = shared_from_this(), detail] {
    if (self->stage_ == stage::up && !self->last_frames_)
      self->drop(down_reason::closed, "UCX: " + detail);
  });
}

void connection::on_goodbye(const std::string& body) {
  proto::link::goodbye in;
  if (!in.ParseFromString(body))
    return fail("a goodbye that is not readable");
  if (stage_ == stage::up && path_ && path_->frames_received() < in.ucx_frames()) {
    last_frames_ = in.ucx_frames();
    last_awaited_ = true;
    age_ms_ = 0;
    return check_last_frames(); // the last may just have come on another thread
  }
  drop(down_reason::goodbye, "the peer said goodbye");
}

void connection::settle() {
  settled_ = true;
  maybe_up();
}

void connection::maybe_up() {
  if (stage_ != stage::settling)
    return;
  if (!ready_sent_ && ucx_settled_ && (judge_ ? settled_ : peer_ready_)) {
    ready_sent_ = true;
    send(record_kind::ready, {});
  }
  if (!ready_sent_ || !peer_ready_ || stage_ != stage::settling)
    return;
  stage_ = stage::up;
  reader_.allow_frames();
  port_->box.grant(traffic::data, peer_hello_.window_bytes);
  port_->box.grant(traffic::bulk, peer_hello_.window_bytes);
  writer_.open(!ucx_seen_);
  send_ping();
  host_.on_up(*this);
  if (path_)
    path_->open();
}

void connection::on_credit(const std::string& body) {
  proto::link::credit in;
  if (!ledger_ || !in.ParseFromString(body))
    return fail("a credit that is out of place or not readable");
  port_->box.grant(traffic::data, in.data());
  port_->box.grant(traffic::bulk, in.bulk());
}

void connection::on_pong(const std::string& body) {
  proto::link::ping in;
  const std::uint64_t now = now_us();
  if (!in.ParseFromString(body) || in.sent_us() > now)
    return fail("a pong that is not readable");
  const double one_way_us = static_cast<double>(now - in.sent_us()) / 2;
  const double smoothed = port_->latency_us;
  port_->latency_us = smoothed == 0 ? one_way_us : smoothed + (one_way_us - smoothed) / 8;
}

void connection::send_ping() {
  since_ping_ms_ = 0;
  proto::link::ping out;
  out.set_sent_us(now_us());
  send(record_kind::ping, out.SerializeAsString());
}

void connection::send_credits() {
  proto::link::credit out;
  out.set_data(ledger_->take(traffic::data));
  out.set_bulk(ledger_->take(traffic::bulk));
  if (out.data() != 0 || out.bulk() != 0)
    send(record_kind::credit, out.SerializeAsString());
}

} // namespace hexgen::transport
