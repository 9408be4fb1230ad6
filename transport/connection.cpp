#include "transport/connection.hpp"

#include "transport/proto/link.pb.h"
#include "transport/protocol.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>

namespace hexgen::transport {
namespace {

constexpr std::size_t read_turn_bytes = 4U << 20; // then other connections get their turn
constexpr std::uint32_t handshake_ms = 3000;
constexpr std::uint32_t farewell_ms = 500;

std::uint64_t now_us() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(since).count());
}

std::uint64_t next_number() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

} // namespace

connection::connection(connection_host& host, boost::asio::ip::tcp::socket socket,
                       std::string target, std::string remote)
    : host_(host), number_(next_number()), socket_(std::move(socket)), target_(std::move(target)),
      remote_(std::move(remote)), stream_(host.tls(), socket_.native_handle(), !target_.empty()),
      port_(std::make_shared<peer_port>(host.options().send_queue_bytes)), writer_(*port_) {}

connection::~connection() {
  if (ledger_)
    ledger_->detach();
}

void connection::start() {
  boost::system::error_code ignored;
  socket_.non_blocking(true, ignored);
  socket_.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  drive();
}

void connection::drive() {
  const auto self = shared_from_this(); // a callback may let go of the last reference
  if (stage_ == stage::handshake && !advance_handshake())
    return;
  read_some();
  pump();
}

bool connection::advance_handshake() {
  const tls_stream::outcome outcome = stream_.handshake();
  if (outcome != tls_stream::outcome::done) {
    handle(outcome);
    arm();
    return false;
  }
  stage_ = stage::hello;
  stream_.trust();
  send(record_kind::hello, encode(host_.own_hello()));
  return true;
}

void connection::read_some() {
  std::size_t budget = read_turn_bytes;
  while (stage_ != stage::closed && budget != 0) {
    const std::span<std::byte> into = reader_.wanted();
    std::size_t bytes = 0;
    const tls_stream::outcome outcome =
        stream_.read(into.first(std::min(into.size(), budget)), bytes);
    if (outcome != tls_stream::outcome::done) {
      handle(outcome);
      return;
    }
    heard_ = true;
    budget -= bytes;
    port_->bytes_received.fetch_add(bytes, std::memory_order_relaxed);
    on_record(reader_.advance(bytes));
  }
  if (stage_ != stage::closed) // TLS may hold more that no readiness will announce
    boost::asio::post(socket_.get_executor(), [self = shared_from_this()] { self->drive(); });
}

void connection::handle(tls_stream::outcome outcome) {
  switch (outcome) {
  case tls_stream::outcome::done:
  case tls_stream::outcome::want_read:
    return;
  case tls_stream::outcome::want_write:
    want_write_ = true;
    return;
  case tls_stream::outcome::closed:
    drop(down_reason::closed, stage_ == stage::up ? "the connection was closed"
                                                  : "the connection was closed in the hand-shake");
    return;
  case tls_stream::outcome::failed:
    break;
  }
  if (stream_.wrong_secret())
    drop(down_reason::protocol_error, wrong_secret_text());
  else
    drop(stage_ == stage::up ? down_reason::closed : down_reason::protocol_error, stream_.error());
}

std::string connection::wrong_secret_text() const {
  const std::optional<tls_identity>& peer = stream_.peer();
  const peer_role role = dialled() ? host_.options().role : (peer ? peer->role : peer_role::node);
  std::string text = role == peer_role::node ? "wrong cluster token" : "wrong API key";
  if (!dialled())
    text += peer ? " from " + to_text(*peer) : ", or not a fabric's hand-shake";
  return text + " (" + stream_.error() + ")";
}

void connection::pump() {
  if (stage_ == stage::handshake || stage_ == stage::closed || output_closed_)
    return arm();
  want_write_ = false;
  for (;;) {
    const std::span<const std::byte> from = writer_.next();
    if (from.empty()) {
      if (stage_ == stage::up && !port_->box.sleep())
        continue;
      break;
    }
    std::size_t bytes = 0;
    const tls_stream::outcome outcome = stream_.write(from, bytes);
    if (outcome != tls_stream::outcome::done) {
      handle(outcome);
      return arm();
    }
    port_->bytes_sent.fetch_add(bytes, std::memory_order_relaxed);
    writer_.wrote(bytes);
  }
  if (stage_ == stage::leaving) {
    if (farewell_sent_)
      close_output();
    else if (port_->box.idle())
      return say_goodbye();
  }
  arm();
}

void connection::say_goodbye() {
  if (std::exchange(farewell_sent_, true))
    return;
  port_->box.close();
  proto::link::goodbye bye;
  send(record_kind::goodbye, bye.SerializeAsString());
  pump();
}

void connection::arm() {
  if (stage_ == stage::closed)
    return;
  if (!read_waits_) {
    read_waits_ = true;
    socket_.async_wait(socket_.wait_read, [self = shared_from_this()](auto error) {
      self->read_waits_ = false;
      if (!error && self->stage_ != stage::closed)
        self->drive();
    });
  }
  if (want_write_ && !write_waits_) {
    write_waits_ = true;
    socket_.async_wait(socket_.wait_write, [self = shared_from_this()](auto error) {
      self->write_waits_ = false;
      if (!error && self->stage_ != stage::closed)
        self->drive();
    });
  }
}

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
  if (stage_ != stage::up)
    return; // it came while this side leaves
  std::shared_ptr<const frame> f = ledger_->admit(std::move(received));
  if (!f)
    return fail("the peer sent more than its window");
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
    return drop(down_reason::goodbye, "the peer said goodbye");
  case record_kind::ucx_seen:
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
  const hello_message& own = host_.own_hello();
  judge_ = process_key(own.name, own.incarnation) < peer_key();
  stage_ = stage::settling;
  host_.on_hello(*this);
}

void connection::offer(bool has_other) {
  proto::link::offer out;
  out.set_has_other(has_other);
  send(record_kind::offer, out.SerializeAsString());
}

void connection::settle() {
  settled_ = true;
  maybe_up();
}

void connection::maybe_up() {
  if (stage_ != stage::settling)
    return;
  if (!ready_sent_ && (judge_ ? settled_ : peer_ready_)) {
    ready_sent_ = true;
    send(record_kind::ready, {});
  }
  if (!ready_sent_ || !peer_ready_ || stage_ != stage::settling)
    return;
  stage_ = stage::up;
  reader_.allow_frames();
  const std::uint64_t window = host_.options().window_bytes;
  ledger_ = std::make_shared<credit_ledger>(
      window, [weak = weak_from_this(), executor = socket_.get_executor()] {
        boost::asio::post(executor, [weak] {
          if (const auto self = weak.lock(); self && self->stage_ == stage::up) {
            self->send_credits();
            self->pump();
          }
        });
      });
  port_->box.grant(traffic::data, peer_hello_.window_bytes);
  port_->box.grant(traffic::bulk, peer_hello_.window_bytes);
  writer_.open(true);
  send_ping();
  host_.on_up(*this);
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

void connection::send(record_kind kind, const std::string& body) {
  // Written by the pump that ends every turn of the transport thread on this connection.
  writer_.urgent(kind, body);
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

void connection::tick(std::uint32_t elapsed_ms) {
  const auto self = shared_from_this();
  const fabric_options& options = host_.options();
  if (stage_ == stage::closed)
    return;
  if (stage_ != stage::up) {
    age_ms_ += elapsed_ms;
    const bool leaving = stage_ == stage::leaving;
    if (leaving && age_ms_ >= farewell_ms)
      return close();
    if (leaving && age_ms_ >= farewell_ms / 2)
      return say_goodbye(); // what still waits is not wanted by the peer
    const std::uint32_t limit = dialled() ? options.dial_timeout_ms : handshake_ms;
    if (!leaving && age_ms_ >= limit)
      drop(down_reason::timeout, "no hand-shake within " + std::to_string(limit) + " ms");
    return;
  }
  // A stall of this process must not look like the peer's silence: what came meanwhile lies
  // unread in the socket, so one late tick counts as one.
  silence_ms_ = heard_ ? 0 : silence_ms_ + std::min(elapsed_ms, 2 * options.heartbeat_ms);
  heard_ = false;
  if (silence_ms_ >= options.down_ms)
    return drop(down_reason::timeout, "nothing heard for " + std::to_string(silence_ms_) + " ms");
  since_ping_ms_ += elapsed_ms;
  if (since_ping_ms_ >= options.heartbeat_ms)
    send_ping();
  send_credits();
  pump();
}

void connection::fail(const std::string& detail) {
  drop(down_reason::protocol_error, detail);
}

void connection::refuse(const std::string& reason, bool duplicate) {
  if (!alive())
    return;
  duplicate_ = duplicate_ || duplicate;
  proto::link::refuse out;
  out.set_reason(reason);
  out.set_duplicate(duplicate);
  send(record_kind::refuse, out.SerializeAsString());
  stage_ = stage::leaving;
  age_ms_ = 0;
  farewell_sent_ = true;
  port_->box.close();
  if (!std::exchange(gone_given_, true))
    host_.on_gone(*this, down_reason::protocol_error, reason);
  pump();
}

void connection::leave() {
  if (!alive())
    return;
  const bool was_up = stage_ == stage::up;
  stage_ = stage::leaving;
  age_ms_ = 0;
  if (!std::exchange(gone_given_, true))
    host_.on_gone(*this, down_reason::local, "disconnected by this side");
  if (was_up)
    pump();
  else
    close();
}

void connection::close_output() {
  if (std::exchange(output_closed_, true))
    return;
  stream_.shutdown();
  boost::system::error_code ignored;
  socket_.shutdown(socket_.shutdown_send, ignored);
}

void connection::drop(down_reason reason, const std::string& detail) {
  if (stage_ == stage::closed)
    return;
  const auto self = shared_from_this();
  const bool told = std::exchange(gone_given_, true);
  close_output();
  stage_ = stage::closed;
  port_->box.close();
  if (ledger_)
    ledger_->detach();
  if (!told)
    host_.on_gone(*this, reason, detail);
  close();
}

void connection::close() {
  stage_ = stage::closed;
  port_->box.close();
  boost::system::error_code ignored;
  socket_.close(ignored);
  host_.on_closed(*this);
}

} // namespace hexgen::transport
