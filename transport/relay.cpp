#include "transport/relay.hpp"

#include <boost/asio/post.hpp>
#include <openssl/rand.h>

#include <chrono>
#include <stdexcept>
#include <utility>

namespace hexgen::transport {
namespace {

std::uint64_t now_ms() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(since).count());
}

std::string draw_ticket() {
  std::string ticket(relay_ticket_bytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(ticket.data()),
                 static_cast<int>(ticket.size())) != 1)
    throw std::runtime_error("the system's random numbers are not available");
  return ticket;
}

} // namespace

relay::relay(boost::asio::io_context& transport, std::size_t most_pairs)
    : transport_(transport), desk_(most_pairs, draw_ticket), work_(make_work_guard(io_)) {}

relay::~relay() {
  stop();
}

std::optional<relay_desk::offer> relay::open(const relay_desk::end& a, const relay_desk::end& b) {
  return desk_.open(a, b, now_ms());
}

// From the transport thread's loop to that of the relay's.
relay::socket relay::adopt(socket s) {
  const auto protocol = s.local_endpoint().protocol();
  const auto handle = s.release();
  socket out(io_);
  out.assign(protocol, handle);
  return out;
}

bool relay::claim(const std::string& ticket, socket s) {
  const auto claimed = desk_.claim(ticket, now_ms());
  if (!claimed)
    return false;
  auto& j = joints_[claimed->pair];
  try {
    if (!claimed->both) {
      j.first = std::move(s);
      j.first_side = claimed->side;
      return true;
    }
    if (!thread_.joinable())
      thread_ = std::thread([this] { io_.run(); });
    j.splice = std::make_shared<relay_splice>(
        adopt(std::move(*j.first)), adopt(std::move(s)),
        [this, pair = claimed->pair](relay_splice::ending how) {
          boost::asio::post(transport_, [this, pair, how] { ended(pair, how); });
        });
    j.first.reset();
    j.splice->start();
  } catch (const std::exception&) { // an end is gone already, or there are no threads
    desk_.closed(claimed->pair);
    joints_.erase(claimed->pair);
  }
  return true;
}

void relay::ended(relay_desk::pair_id pair, relay_splice::ending how) {
  if (how == relay_splice::ending::half)
    return desk_.half_closed(pair, now_ms());
  desk_.closed(pair);
  if (const auto i = joints_.find(pair); i != joints_.end()) {
    count(i->second);
    joints_.erase(i);
  }
}

bool relay::count(joint& j) {
  const auto bytes = j.splice ? j.splice->bytes() : 0;
  const auto more = bytes - std::exchange(j.bytes, bytes);
  carried_.fetch_add(more, std::memory_order_relaxed);
  return more != 0;
}

void relay::tick() {
  const auto now = now_ms();
  for (auto& [pair, j] : joints_)
    if (count(j))
      desk_.moved(pair, now);
  for (const auto pair : desk_.due(now)) {
    const auto i = joints_.find(pair);
    if (i == joints_.end())
      continue;
    if (i->second.splice)
      i->second.splice->close(); // ended() follows
    else
      joints_.erase(i);
  }
}

void relay::stop() {
  for (auto& [pair, j] : joints_)
    if (j.splice)
      j.splice->close();
  work_.reset(); // the thread ends with its last socket
  if (thread_.joinable())
    thread_.join();
  joints_.clear();
}

} // namespace hexgen::transport
