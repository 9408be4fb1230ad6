#include "transport/ucx_path.hpp"

#include "transport/payload_memory.hpp"

#include <cstring>
#include <random>
#include <utility>

namespace hexgen::transport {
namespace {

constexpr int progress_turns = 64; // then others get their turn
constexpr int lock_tries = 400;    // a few microseconds
// Enough to keep the receiver busy; the rest waits where the outbox counts it.
constexpr std::uint64_t in_flight_limit_bytes = 16U << 20;

} // namespace

ucx_path::ucx_path(std::shared_ptr<ucx_worker> worker, ucx_path_owner& owner)
    : worker_(std::move(worker)), owner_(&owner) {
  std::random_device source; // not guessed by whoever else can reach the shared memory
  cookie_ = (static_cast<std::uint64_t>(source()) << 32U) | source() | 1U;
  const std::lock_guard lock(worker_->mutex());
  worker_->expect(*this, cookie_);
}

ucx_path::~ucx_path() {
  close();
}

bool ucx_path::connect(const std::string& peer_address, std::uint64_t peer_cookie,
                       std::string& why) {
  const std::lock_guard lock(worker_->mutex());
  wake();
  peer_cookie_ = peer_cookie;
  const std::weak_ptr<ucx_path> weak = weak_from_this();
  connected_ = worker_->connect(
      peer_address,
      [weak](const std::string& error) {
        if (const auto self = weak.lock())
          self->fail(error);
      },
      why);
  if (!connected_)
    return false;
  ucx_header header;
  header.cookie = peer_cookie_;
  header.kind = static_cast<std::uint32_t>(ucx_kind::probe);
  worker_->send(header, frame{}, nullptr);
  return true;
}

void ucx_path::open() {
  const std::lock_guard turn(turn_);
  open_ = true;
  deliver();
}

bool ucx_path::receive() {
  const std::unique_lock turn(turn_, std::try_to_lock);
  if (!turn)
    return false;
  int turns = 0;
  {
    const std::lock_guard lock(worker_->mutex());
    if (owner_ == nullptr)
      return false;
    // A whole frame is handed over at once: its consumer waits, and one that gives a large
    // payload's memory back before the next arrives lets that one use what the cache holds.
    while (turns < progress_turns && !whole() && worker_->progress())
      ++turns;
  }
  // Without the worker's lock: whoever a frame wakes may want to send at once.
  if (turns != 0)
    deliver();
  return turns != 0;
}

bool ucx_path::send_queued(outbox& box) {
  wake(); // what is under way must be progressed
  const std::lock_guard lock(worker_->mutex());
  while (can_send()) {
    frame next;
    if (!box.pop(traffic::data, next))
      return true;
    send(std::move(next));
  }
  return false;
}

ucx_path::now ucx_path::send_now(outbox& box, frame& f, send_result& result) {
  std::unique_lock lock(worker_->mutex(), std::try_to_lock);
  for (int tries = 0; !lock && tries < lock_tries; ++tries)
    lock.try_lock(); // the other thread is about to sleep, say: that costs less than waking it
  if (!lock || owner_ == nullptr || !can_send() || !box.overtake(f, result))
    return now::no;
  if (result != send_result::accepted)
    return now::done;
  const std::size_t before = worker_->under_way();
  send(std::move(f));
  return worker_->under_way() == before ? now::done : now::under_way;
}

std::uint64_t ucx_path::frames_sent() const {
  const std::lock_guard lock(worker_->mutex());
  return next_send_;
}

bool ucx_path::can_send() const {
  return in_flight_bytes_ < in_flight_limit_bytes && !failed_ && connected_;
}

void ucx_path::send(frame f) {
  ucx_header header;
  header.cookie = peer_cookie_;
  header.number = next_send_++;
  header.type = f.type;
  header.head_bytes = static_cast<std::uint32_t>(f.head.size());
  header.payload_bytes = static_cast<std::uint32_t>(f.payload.size());
  header.kind = static_cast<std::uint32_t>(ucx_kind::data);
  const std::uint64_t cost = window_cost(f.head.size(), f.payload.size());
  in_flight_bytes_ += cost;
  worker_->send(header, std::move(f), [weak = weak_from_this(), cost](const std::string& error) {
    const auto self = weak.lock();
    if (!self)
      return;
    self->in_flight_bytes_ -= cost;
    if (!error.empty())
      self->fail(error);
    else if (self->owner_ != nullptr)
      self->owner_->on_ucx_sent(cost);
  });
}

bool ucx_path::on_ucx(const ucx_arrival& a) {
  if (owner_ == nullptr || failed_)
    return false;
  if (a.header.kind == static_cast<std::uint32_t>(ucx_kind::probe)) {
    owner_->on_probe();
    return false;
  }
  const std::uint64_t slot_index = a.header.number - next_receive_;
  constexpr std::uint64_t most_slots = 1U << 20;
  if (a.header.kind != static_cast<std::uint32_t>(ucx_kind::data) || slot_index >= most_slots ||
      (slot_index < slots_.size() && slots_[slot_index].content.payload)) {
    fail("an active message that is out of place");
    return false;
  }
  if (!owner_->on_ucx_charge(window_cost(a.header.head_bytes, a.header.payload_bytes))) {
    fail("the peer sent more than its window");
    return false;
  }
  if (slot_index >= slots_.size())
    slots_.resize(slot_index + 1);
  slot& into = slots_[slot_index];
  into.content.traffic_class = traffic::data;
  into.content.type = a.header.type;
  into.content.payload_bytes = a.header.payload_bytes;
  into.content.payload = take_payload_memory(a.body_bytes);
  if (a.head != nullptr)
    into.content.head.assign(a.head, a.header.head_bytes);
  else
    into.content.head.resize(a.header.head_bytes); // filled from the body once it is there
  into.head_leads_body = a.head == nullptr;
  if (!a.rendezvous) {
    if (a.body_bytes != 0)
      std::memcpy(into.content.payload.get(), a.descriptor, a.body_bytes);
    on_fetched(a.header.number, {});
    return true;
  }
  worker_->fetch(a, into.content.payload,
                 [weak = weak_from_this(), number = a.header.number](const std::string& error) {
                   if (const auto self = weak.lock())
                     self->on_fetched(number, error);
                 });
  return true;
}

void ucx_path::on_fetched(std::uint64_t number, const std::string& error) {
  if (owner_ == nullptr)
    return;
  if (!error.empty())
    return fail(error);
  slot& full = slots_[number - next_receive_];
  received_frame& content = full.content;
  if (full.head_leads_body) {
    std::memcpy(content.head.data(), content.payload.get(), content.head.size());
    content.payload =
        std::shared_ptr<std::byte[]>(content.payload, content.payload.get() + content.head.size());
  }
  full.whole = true; // delivered when the worker has been progressed
}

bool ucx_path::whole() const {
  return open_ && owner_ != nullptr && !slots_.empty() && slots_.front().whole;
}

void ucx_path::deliver() {
  while (whole()) {
    received_frame content = std::move(slots_.front().content);
    slots_.pop_front();
    ++next_receive_;
    owner_->on_ucx_frame(std::move(content));
  }
}

void ucx_path::fail(const std::string& detail) {
  if (std::exchange(failed_, true) || owner_ == nullptr)
    return;
  owner_->on_ucx_failed(detail);
}

void ucx_path::close() {
  const std::scoped_lock both(turn_, worker_->mutex());
  if (owner_ == nullptr)
    return;
  owner_ = nullptr;
  connected_ = false;
  worker_->shutdown();
}

} // namespace hexgen::transport
