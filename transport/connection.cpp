#include "transport/connection.hpp"

#include "transport/proto/link.pb.h"
#include "transport/relay.hpp"

#include <boost/asio/post.hpp>
#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>

namespace hexgen::transport {
namespace {

constexpr std::size_t read_turn_bytes = 4U << 20; // then other connections get their turn
constexpr std::uint32_t handshake_ms = 3000;
constexpr std::uint32_t farewell_ms = 800;
constexpr std::uint32_t probe_ms = 1000;      // then UCX is taken not to work between the two
constexpr std::uint32_t last_frames_ms = 250; // waited after a goodbye for what UCX still holds

std::uint64_t next_number() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

} // namespace

connection::connection(connection_host& host, boost::asio::ip::tcp::socket socket,
                       std::string target, std::string remote, std::optional<relayed_end> relayed)
    : host_(host), number_(next_number()), socket_(std::move(socket)), target_(std::move(target)),
      remote_(std::move(remote)), relayed_(std::move(relayed)),
      stream_(host.tls(), socket_.native_handle(), !target_.empty()),
      port_(std::make_shared<peer_port>(host.options().send_queue_bytes)), writer_(*port_),
      greeted_(!target_.empty() || relayed_) {}

connection::~connection() {
  if (ledger_)
    ledger_->detach();
}

void connection::start() {
  boost::system::error_code ignored;
  socket_.non_blocking(true, ignored);
  // A child that inherits the socket would keep the connection open when this process dies.
  ::fcntl(socket_.native_handle(), F_SETFD, FD_CLOEXEC);
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
  drive();
}

void connection::drive() {
  const auto self = shared_from_this(); // a callback may let go of the last reference
  if (stage_ == stage::handshake && !advance_handshake())
    return;
  read_some();
  pump();
}

// True: what comes is TLS. An end of a relayed link sends the relay's greeting and its ticket.
bool connection::pass_greeting() {
  constexpr std::size_t whole = relay_greeting_bytes + relay_ticket_bytes;
  while (!greeted_) {
    std::array<char, whole> into{};
    const bool first = greeting_.empty();
    const auto got = ::recv(socket_.native_handle(), into.data(),
                            first ? 1 : whole - greeting_.size(), first ? MSG_PEEK : 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      arm();
      return false;
    }
    if (got <= 0) {
      drop(down_reason::closed, "the connection was closed in the hand-shake");
      return false;
    }
    if (first && into[0] != relay_greeting[0]) {
      greeted_ = true;
      break;
    }
    if (first) { // was only looked at
      (void)::recv(socket_.native_handle(), into.data(), 1, 0);
    }
    greeting_.append(into.data(), static_cast<std::size_t>(got));
    if (greeting_.size() < whole)
      continue;
    if (greeting_.compare(0, relay_greeting_bytes, relay_greeting) != 0) {
      drop(down_reason::protocol_error, "neither a fabric's hand-shake nor a relay's ticket");
      return false;
    }
    stage_ = stage::closed;
    gone_given_ = true;
    host_.on_ticket(*this, greeting_.substr(relay_greeting_bytes), std::move(socket_));
    host_.on_closed(*this);
    return false;
  }
  return true;
}

bool connection::advance_handshake() {
  if (!pass_greeting())
    return false;
  const tls_stream::outcome outcome = stream_.handshake();
  if (outcome != tls_stream::outcome::done) {
    handle(outcome);
    arm();
    return false;
  }
  stage_ = stage::hello;
  stream_.trust();
  hello_message hello = host_.own_hello();
  // Only for a proven node: a worker costs memory, and UCX is for nodes.
  if (dialled() || (stream_.peer() && stream_.peer()->role == peer_role::node))
    path_ = host_.open_path(*this);
  if (path_) {
    hello.ucx_cookie = path_->cookie();
    hello.ucx_address = path_->worker().address();
  }
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
  const tls_stream::outcome flushed = stream_.flush();
  if (flushed != tls_stream::outcome::done) {
    handle(flushed);
    return arm();
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

void connection::tell(record_kind kind, const std::string& body) {
  send(kind, body);
  post_pump();
}

void connection::send(record_kind kind, const std::string& body) {
  // Written by the pump that ends every turn of the transport thread on this connection.
  writer_.urgent(kind, body);
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
  silence_ms_ = heard_ ? 0 : silence_ms_ + elapsed_ms;
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
  end_ucx();
  if (!told)
    host_.on_gone(*this, reason, detail);
  close();
}

void connection::close() {
  stage_ = stage::closed;
  end_ucx();
  port_->box.close();
  boost::system::error_code ignored;
  socket_.close(ignored);
  host_.on_closed(*this);
}

} // namespace hexgen::transport
