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
constexpr std::uint32_t probe_ms = 1000;      // then UCX is taken not to work between the two
constexpr std::uint32_t last_frames_ms = 250; // waited after a goodbye for what UCX still holds

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
  ledger_ = std::make_shared<credit_ledger>(
      host_.options().window_bytes, [weak = weak_from_this(), executor = socket_.get_executor()] {
        boost::asio::post(executor, [weak] {
          if (const auto self = weak.lock(); self && self->stage_ == stage::up) {
            self->send_credits();
            self->pump();
          }
        });
      });
  if (host_.ucx() != nullptr)
    path_ = std::make_shared<ucx_path>(*host_.ucx(), static_cast<ucx_path_owner&>(*this));
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
  hello_message hello = host_.own_hello();
  hello.ucx_cookie = path_ ? path_->cookie() : 0;
  send(record_kind::hello, encode(hello));
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
    if (last_frames_) // it said goodbye: UCX may still hold its last frames
      return;
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
    bool ucx_full = false;
    if (ucx_seen_) {
      ucx_full = !path_->send_queued(port_->box);
      ucx_awaited_ = ucx_full || stage_ == stage::leaving;
    }
    const std::span<const std::byte> from = writer_.next();
    if (from.empty()) {
      if (stage_ == stage::up && !ucx_full && !port_->box.sleep())
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
  bye.set_ucx_frames(path_ ? path_->frames_sent() : 0);
  send(record_kind::goodbye, bye.SerializeAsString());
  pump();
}

void connection::arm() {
  if (stage_ == stage::closed || last_frames_)
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
  if (peer_hello_.zone != own.zone || peer_hello_.ucx_version != own.ucx_version ||
      peer_hello_.ucx_address.empty() || peer_hello_.ucx_cookie == 0) {
    path_.reset();
    return;
  }
  std::string why;
  // When it fails the peer may still reach us, so the path stays to receive.
  ucx_settled_ = !path_->connect(peer_hello_.ucx_address, peer_hello_.ucx_cookie, why);
}

void connection::post_pump() {
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] { self->pump(); });
}

void connection::on_probe() {
  send(record_kind::ucx_seen, {});
  post_pump();
}

bool connection::on_ucx_charge(std::uint64_t cost) {
  return ledger_->charge(traffic::data, cost);
}

void connection::on_ucx_frame(received_frame f) {
  heard_ = true;
  port_->bytes_received.fetch_add(f.head.size() + f.payload_bytes, std::memory_order_relaxed);
  deliver(std::move(f));
  if (last_frames_ && path_->frames_received() >= *last_frames_)
    boost::asio::post(socket_.get_executor(), [self = shared_from_this()] {
      self->drop(down_reason::goodbye, "the peer said goodbye");
    });
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
    age_ms_ = 0;
    return;
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
  if (last_frames_) {
    age_ms_ += elapsed_ms;
    if (age_ms_ >= last_frames_ms)
      drop(down_reason::goodbye, "the peer said goodbye");
    return;
  }
  if (stage_ != stage::up) {
    age_ms_ += elapsed_ms;
    const bool leaving = stage_ == stage::leaving;
    if (leaving && age_ms_ >= farewell_ms)
      return close();
    if (leaving && age_ms_ >= farewell_ms / 2)
      return say_goodbye(); // what still waits is not wanted by the peer
    if (!ucx_settled_ && stage_ == stage::settling && age_ms_ >= probe_ms) {
      ucx_settled_ = true;
      maybe_up();
      return pump();
    }
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
  if (path_)
    path_->close();
  if (!told)
    host_.on_gone(*this, reason, detail);
  close();
}

void connection::close() {
  stage_ = stage::closed;
  if (path_)
    path_->close();
  port_->box.close();
  boost::system::error_code ignored;
  socket_.close(ignored);
  host_.on_closed(*this);
}

} // namespace hexgen::transport
