#include "transport/fabric.hpp"

#include "transport/address.hpp"
#include "transport/connection.hpp"
#include "transport/dialer.hpp"
#include "transport/event_loop.hpp"
#include "transport/fabric_options.hpp"
#include "transport/payload_memory.hpp"
#include "transport/protocol.hpp"
#include "transport/relay_office.hpp"
#include "transport/tls_context.hpp"
#include "transport/ucx_group.hpp"
#include "transport/zone.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <stdexcept>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace hexgen::transport {
namespace {

using boost::asio::ip::tcp;
using std::chrono::milliseconds;

constexpr milliseconds stop_limit{900};
constexpr std::chrono::seconds trim_interval{5};

// The fabric whose transport thread this is.
thread_local const void* running_here = nullptr;

class fabric_impl final : public fabric, private connection_host {
public:
  fabric_impl(fabric_options options, fabric_handler& handler)
      : options_(checked_options(std::move(options))), handler_(handler),
        work_(boost::asio::make_work_guard(io_)), acceptor_(io_), ticker_(io_), retry_(io_),
        stop_timer_(io_), relays_(io_, options_, handler_, relay_calls()) {}

  ~fabric_impl() override { fabric_impl::stop(); }

  void start() override;
  void stop() override;
  [[nodiscard]] std::string address() const override { return hello_.address; }
  [[nodiscard]] std::uint64_t incarnation() const override { return options_.incarnation; }
  void dial(const std::string& address) override;
  void dial_through(peer_id relay, const std::string& name, std::uint64_t incarnation) override;
  send_result send(peer_id peer, frame f) override;
  void attend(const std::function<bool()>& ready, std::chrono::microseconds limit) override;
  void disconnect(peer_id peer) override;
  [[nodiscard]] link_stats stats(peer_id peer) const override;
  [[nodiscard]] std::uint64_t relayed_bytes() const override { return relays_.carried(); }
  void post(std::function<void()> task, std::uint32_t delay_ms) override;

private:
  struct peer_entry {
    std::shared_ptr<peer_port> port;
    std::shared_ptr<ucx_path> path; // null: data goes over TLS
    std::weak_ptr<connection> link;
  };
  using connection_ptr = std::shared_ptr<connection>;

  // connection_host
  const fabric_options& options() const override { return options_; }
  const tls_context& tls() const override { return *tls_; }
  const hello_message& own_hello() const override { return hello_; }
  std::shared_ptr<ucx_path> open_path(ucx_path_owner& owner) override;
  void close_path(ucx_path& path) override;
  void on_hello(connection& c) override;
  void on_offer(connection& c, bool peer_has_other) override;
  void on_up(connection& c) override;
  void on_frame(connection& c, std::shared_ptr<const frame> f) override;
  void on_ticket(connection& c, const std::string& ticket, tcp::socket socket) override;
  bool on_relay_record(connection& c, record_kind kind, const std::string& body) override;
  void on_gone(connection& c, down_reason reason, const std::string& detail) override;
  void on_closed(connection& c) override;

  void listen();
  void open_ucx();
  void accept();
  void add(tcp::socket socket, const std::string& target, const std::string& remote,
           std::optional<relayed_end> relayed = std::nullopt);
  void evict_stranger();
  void tick();
  void begin_stop();
  [[nodiscard]] relay_office_calls relay_calls();
  [[nodiscard]] std::shared_ptr<peer_entry> find(peer_id peer) const;

  fabric_options options_;
  fabric_handler& handler_;
  std::unique_ptr<tls_context> tls_;
  hello_message hello_;
  std::shared_ptr<ucx_context> ucx_; // null: every pair uses TLS
  boost::asio::io_context io_{1};
  ucx_group group_{io_};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  tcp::acceptor acceptor_;
  boost::asio::steady_timer ticker_;
  boost::asio::steady_timer retry_;
  boost::asio::steady_timer stop_timer_;
  std::chrono::steady_clock::time_point last_tick_;
  std::chrono::steady_clock::time_point last_trim_;
  std::thread thread_;
  std::atomic<bool> stopping_{false}; // set on the transport thread

  std::set<connection_ptr> connections_;
  std::map<process_key, std::weak_ptr<connection>> chosen_; // the pair's connection, see on_offer
  peer_id next_peer_ = 1;
  relay_office relays_;

  mutable std::shared_mutex peers_mutex_;
  std::unordered_map<peer_id, std::shared_ptr<peer_entry>> peers_; // guarded by peers_mutex_
};

void fabric_impl::start() {
  if (thread_.joinable())
    throw std::logic_error("fabric: started twice");
  hello_.version = protocol_version;
  hello_.name = options_.name;
  hello_.incarnation = options_.incarnation;
  hello_.role = options_.role;
  hello_.window_bytes = options_.window_bytes;
  hello_.relays = options_.role == peer_role::node;
  bool loopback = false;
  if (!options_.listen_host.empty()) {
    listen();
    loopback = acceptor_.local_endpoint().address().is_loopback();
  }
  tls_ = std::make_unique<tls_context>(
      tls_identity{options_.role, options_.name},
      tls_secrets{options_.cluster_token, options_.api_key, loopback});
  open_ucx();
  if (acceptor_.is_open())
    accept();
  last_tick_ = std::chrono::steady_clock::now();
  tick();
  thread_ = std::thread([this] {
    running_here = this;
    run_event_loop(io_, ucx_ ? &group_ : nullptr, options_.wake);
  });
}

void fabric_impl::listen() {
  const std::string where = options_.listen_host + ":" + std::to_string(options_.listen_port);
  try {
    if (options_.listen_port < 0 || options_.listen_port > 65535)
      throw std::runtime_error("the port is not between 0 and 65535");
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(options_.listen_host, std::to_string(options_.listen_port),
                                        tcp::resolver::passive | tcp::resolver::numeric_service);
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol());
    ::fcntl(acceptor_.native_handle(), F_SETFD, FD_CLOEXEC); // else a child holds the port
    acceptor_.set_option(tcp::acceptor::reuse_address(true));
    acceptor_.bind(endpoint);
    acceptor_.listen();
    const tcp::endpoint bound = acceptor_.local_endpoint();
    hello_.address =
        !options_.advertise.empty()
            ? options_.advertise
            : format_address(reachable_host(bound.address().to_string()), bound.port());
  } catch (const std::exception& error) {
    throw std::runtime_error("fabric: cannot listen on " + where + ": " + error.what());
  }
}

// Without UCX, or where it does not work, every pair uses TLS.
void fabric_impl::open_ucx() {
  hello_.zone = resolve_zone(options_.zone);
  if (hello_.zone.empty() || options_.role != peer_role::node)
    return;
  std::string why;
  ucx_ = ucx_context::make(options_.ucx_interface, why);
  if (!ucx_) {
    if (!options_.ucx_interface.empty())
      throw std::runtime_error("fabric: UCX does not work on interface " + options_.ucx_interface +
                               ": " + why);
    return;
  }
  hello_.ucx_version = options_.ucx_version.empty() ? ucx_context::version() : options_.ucx_version;
}

std::shared_ptr<ucx_path> fabric_impl::open_path(ucx_path_owner& owner) {
  std::string why; // TLS carries what UCX cannot
  auto worker = ucx_ ? ucx_worker::make(ucx_, why) : nullptr;
  if (!worker)
    return nullptr;
  auto path = std::make_shared<ucx_path>(std::move(worker), owner);
  group_.add(path);
  return path;
}

void fabric_impl::close_path(ucx_path& path) {
  group_.remove(path);
  path.close();
}

void fabric_impl::accept() {
  acceptor_.async_accept([this](auto error, tcp::socket socket) {
    if (stopping_ || error == boost::asio::error::operation_aborted)
      return;
    if (error) { // no descriptors left, say: strangers must not make this thread spin
      retry_.expires_after(milliseconds(100));
      retry_.async_wait([this](auto aborted) {
        if (!aborted && !stopping_)
          accept();
      });
      return;
    }
    boost::system::error_code gone;
    const tcp::endpoint remote = socket.remote_endpoint(gone);
    if (!gone) {
      evict_stranger();
      add(std::move(socket), {}, format_address(remote.address().to_string(), remote.port()));
    }
    accept();
  });
}

// A full house of strangers loses its oldest: a peer with the secret needs milliseconds.
void fabric_impl::evict_stranger() {
  connection_ptr oldest;
  std::size_t strangers = 0;
  for (const connection_ptr& c : connections_) {
    if (c->dialled() || c->authenticated())
      continue;
    ++strangers;
    if (!oldest || c->number() < oldest->number())
      oldest = c;
  }
  if (strangers >= limits::unauthenticated_connections)
    oldest->drop(down_reason::timeout, "too many connections in the hand-shake");
}

void fabric_impl::add(tcp::socket socket, const std::string& target, const std::string& remote,
                      std::optional<relayed_end> relayed) {
  connection_ptr made;
  try {
    made = std::make_shared<connection>(static_cast<connection_host&>(*this), std::move(socket),
                                        target, remote, std::move(relayed));
  } catch (const std::exception& error) {
    if (!target.empty())
      handler_.on_dial_failed(target, error.what());
    return;
  }
  connections_.insert(made);
  made->start();
}

relay_office_calls fabric_impl::relay_calls() {
  return {[this](const process_key& key) {
            const auto chosen = chosen_.find(key);
            return chosen == chosen_.end() ? nullptr : chosen->second.lock();
          },
          [this](tcp::socket socket, const std::string& target, relayed_end end) {
            const std::string remote = relayed_address(end.other.first, end.relay);
            add(std::move(socket), target, remote, std::move(end));
          }};
}

void fabric_impl::dial(const std::string& address) {
  boost::asio::post(io_, [this, address] {
    if (stopping_)
      return;
    dial_tcp(io_, address, options_.dial_timeout_ms,
             [this, address](tcp::socket socket, const std::string& error) {
               if (stopping_)
                 return;
               if (error.empty())
                 add(std::move(socket), address, address);
               else
                 handler_.on_dial_failed(address, error);
             });
  });
}

void fabric_impl::dial_through(peer_id relay, const std::string& name, std::uint64_t incarnation) {
  boost::asio::post(io_, [this, relay, name, incarnation] {
    const std::shared_ptr<peer_entry> entry = find(relay);
    const connection_ptr link = entry ? entry->link.lock() : nullptr;
    if (!stopping_ && link && link->alive())
      relays_.ask(*link, name, incarnation);
  });
}

bool fabric_impl::on_relay_record(connection& c, record_kind kind, const std::string& body) {
  return relays_.on_record(c, kind, body);
}

void fabric_impl::on_ticket(connection& c, const std::string& ticket, tcp::socket socket) {
  relays_.on_ticket(c.remote(), ticket, std::move(socket));
}

void fabric_impl::on_hello(connection& c) {
  const process_key key = c.peer_key();
  if (key == process_key(hello_.name, hello_.incarnation))
    return c.refuse("a process cannot connect to itself", false);
  const bool has_other =
      std::any_of(connections_.begin(), connections_.end(), [&](const connection_ptr& other) {
        return other.get() != &c && other->alive() && other->at() >= connection::stage::settling &&
               other->peer_key() == key;
      });
  c.offer(has_other);
}

// Both sides may dial at once. The process with the smaller key judges, so both keep the same
// connection: the first, unless the peer says that it no longer has it.
void fabric_impl::on_offer(connection& c, bool peer_has_other) {
  const process_key key = c.peer_key();
  if (!(process_key(hello_.name, hello_.incarnation) < key))
    return; // the peer judges: its ready decides
  const connection_ptr current = chosen_[key].lock();
  if (current && current->alive() && current.get() != &c) {
    if (peer_has_other)
      return c.refuse("connected already", true);
    current->drop(down_reason::closed, "replaced by a newer connection of the same process");
  }
  chosen_[key] = c.weak_from_this();
  c.settle();
}

void fabric_impl::on_up(connection& c) {
  const process_key key = c.peer_key();
  const connection_ptr before = chosen_[key].lock();
  if (before && before.get() != &c)
    before->drop(down_reason::closed, "replaced by a newer connection of the same process");
  chosen_[key] = c.weak_from_this();
  const hello_message& hello = c.peer_hello();
  c.info = {next_peer_++, hello.name,  hello.incarnation, hello.role,
            c.kind(),     c.dialled(), hello.address,     c.relayed() ? c.relayed()->relay : ""};
  auto entry = std::make_shared<peer_entry>(peer_entry{c.port(), c.path(), c.weak_from_this()});
  {
    const std::unique_lock lock(peers_mutex_);
    peers_.emplace(c.info.id, std::move(entry));
  }
  if (!stopping_)
    handler_.on_up(c.info);
}

void fabric_impl::on_frame(connection& c, std::shared_ptr<const frame> f) {
  if (!stopping_)
    handler_.on_frame(c.info, std::move(f));
}

void fabric_impl::on_gone(connection& c, down_reason reason, const std::string& detail) {
  const bool was_up = c.info.id != 0;
  if (was_up) {
    const std::unique_lock lock(peers_mutex_);
    peers_.erase(c.info.id);
  }
  const auto chosen = chosen_.find(c.peer_key());
  if (chosen != chosen_.end() && chosen->second.lock().get() == &c)
    chosen_.erase(chosen);
  if (stopping_)
    return;
  if (was_up)
    handler_.on_down(c.info, reason, detail);
  else if (c.duplicate())
    return;
  else if (c.dialled())
    handler_.on_dial_failed(c.target(), detail);
  else
    handler_.on_refused(c.remote(), detail);
}

void fabric_impl::on_closed(connection& c) {
  connections_.erase(c.shared_from_this());
  if (stopping_ && connections_.empty())
    io_.stop();
}

std::shared_ptr<fabric_impl::peer_entry> fabric_impl::find(peer_id peer) const {
  const std::shared_lock lock(peers_mutex_);
  const auto found = peers_.find(peer);
  return found == peers_.end() ? nullptr : found->second;
}

send_result fabric_impl::send(peer_id peer, frame f) {
  if (f.head.size() > limits::head_bytes || f.payload.size() > limits::payload_bytes)
    throw std::invalid_argument("fabric: a frame of type " + std::to_string(f.type) +
                                " is larger than the limits");
  const std::shared_ptr<peer_entry> entry = find(peer);
  if (!entry)
    return send_result::down;
  if (entry->path && f.traffic_class == traffic::data && running_here != this) {
    send_result result = send_result::accepted;
    const ucx_path::now how = entry->path->send_now(entry->port->box, f, result);
    if (how == ucx_path::now::under_way)
      boost::asio::post(io_, [entry] { entry->path->wake(); });
    if (how != ucx_path::now::no)
      return result;
  }
  bool wake = false;
  const send_result result = entry->port->box.push(std::move(f), wake);
  if (wake)
    boost::asio::post(io_, [entry] {
      if (const connection_ptr link = entry->link.lock())
        link->pump();
    });
  return result;
}

void fabric_impl::attend(const std::function<bool()>& ready, std::chrono::microseconds limit) {
  if (ucx_ && running_here != this)
    group_.attend(ready, limit);
}

void fabric_impl::disconnect(peer_id peer) {
  const std::shared_ptr<peer_entry> entry = find(peer);
  if (entry)
    boost::asio::post(io_, [entry] {
      if (const connection_ptr link = entry->link.lock())
        link->leave();
    });
}

link_stats fabric_impl::stats(peer_id peer) const {
  const std::shared_ptr<peer_entry> entry = find(peer);
  return entry ? entry->port->stats() : link_stats{};
}

void fabric_impl::post(std::function<void()> task, std::uint32_t delay_ms) {
  boost::asio::post(io_, [this, task = std::move(task), delay_ms]() mutable {
    if (stopping_)
      return;
    if (delay_ms == 0)
      return task();
    auto timer = std::make_shared<boost::asio::steady_timer>(io_, milliseconds(delay_ms));
    timer->async_wait([this, timer, task = std::move(task)](auto error) {
      if (!error && !stopping_)
        task();
    });
  });
}

void fabric_impl::tick() {
  const auto now = std::chrono::steady_clock::now();
  const milliseconds period(std::clamp(options_.heartbeat_ms / 2, 5U, 100U));
  // A stall of this process must not look like the peers': what they said meanwhile lies unread
  // in the sockets, so a late tick counts as two at most.
  const auto elapsed =
      std::min(std::chrono::duration_cast<milliseconds>(now - last_tick_), 2 * period);
  last_tick_ = now;
  if (now - last_trim_ > trim_interval) {
    last_trim_ = now;
    trim_payload_memory();
  }
  relays_.tick();
  const std::vector<connection_ptr> all(connections_.begin(), connections_.end());
  for (const connection_ptr& c : all)
    c->tick(static_cast<std::uint32_t>(elapsed.count()));
  ticker_.expires_after(period);
  ticker_.async_wait([this](auto error) {
    if (!error)
      tick();
  });
}

void fabric_impl::begin_stop() {
  stopping_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  relays_.stop();
  const std::vector<connection_ptr> all(connections_.begin(), connections_.end());
  for (const connection_ptr& c : all)
    c->leave();
  if (connections_.empty())
    return io_.stop();
  stop_timer_.expires_after(stop_limit);
  stop_timer_.async_wait([this](auto error) {
    if (!error)
      io_.stop();
  });
}

void fabric_impl::stop() {
  if (!thread_.joinable())
    return;
  boost::asio::post(io_, [this] { begin_stop(); });
  thread_.join();
  // The thread is gone: what lingers is cut off, its consumers' frames outlive it safely.
  const std::vector<connection_ptr> all(connections_.begin(), connections_.end());
  for (const connection_ptr& c : all)
    c->drop(down_reason::local, "stopped");
  connections_.clear();
  const std::unique_lock lock(peers_mutex_);
  peers_.clear();
}

} // namespace

std::string relayed_address(const std::string& name, const std::string& relay) {
  return name + " through " + relay;
}

std::unique_ptr<fabric> make_fabric(fabric_options options, fabric_handler& handler) {
  return std::make_unique<fabric_impl>(std::move(options), handler);
}

} // namespace hexgen::transport
