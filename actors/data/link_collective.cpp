#include "actors/data/link_collective.hpp"

#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <cstring>

namespace hexgen::actors {
namespace {

// By how much ranks of one group miss each other in a layer: a rank that slept would be the next
// one to be waited for.
constexpr std::chrono::microseconds unevenness{300};

} // namespace

bool collective_mailbox::deliver(const wire::collective_head& head,
                                 std::shared_ptr<const transport::frame> f) {
  {
    const std::lock_guard guard(mutex_);
    if (frames_.size() >= capacity)
      return false;
    frames_.insert_or_assign(key{head.step, head.index, head.rank}, std::move(f));
  }
  arrived_.notify_one();
  return true;
}

bool collective_mailbox::has(std::uint64_t step, std::uint32_t index, std::uint32_t from) const {
  const std::lock_guard guard(mutex_);
  return frames_.count(key{step, index, from}) != 0;
}

std::shared_ptr<const transport::frame>
collective_mailbox::take(std::uint64_t step, std::uint32_t index, std::uint32_t from,
                         std::chrono::steady_clock::time_point deadline) {
  std::unique_lock guard(mutex_);
  const key wanted{step, index, from};
  auto found = frames_.end();
  const bool ready = arrived_.wait_until(guard, deadline, [&] {
    if (aborted())
      return true;
    found = frames_.find(wanted);
    return found != frames_.end();
  });
  if (aborted())
    throw compute::collective_aborted("collective aborted: " + reason_);
  if (!ready)
    throw compute::collective_aborted("collective timed out waiting for rank " +
                                      std::to_string(from));
  auto f = std::move(found->second);
  frames_.erase(found);
  return f;
}

void collective_mailbox::abort(const std::string& reason) {
  {
    const std::lock_guard guard(mutex_);
    if (!aborted())
      reason_ = reason;
    aborted_.store(true, std::memory_order_release);
  }
  arrived_.notify_all();
}

void collective_mailbox::forget_before(std::uint64_t step) {
  const std::lock_guard guard(mutex_);
  frames_.erase(frames_.begin(), frames_.lower_bound(key{step, 0, 0}));
}

link_collective::link_collective(place where, data_plane& out, collective_mailbox& mail,
                                 compute_slot& slot, speed_limiter& limiter)
    : where_(std::move(where)), out_(out), mail_(mail), slot_(slot), limiter_(limiter) {}

void link_collective::begin_step(std::uint64_t number) {
  step_ = number;
  index_ = 0;
  compute_us_ = 0;
  limiter_.resume();
}

double link_collective::end_step() {
  compute_us_ += limiter_.pause();
  compute_us_ += limiter_.settle(true);
  return compute_us_;
}

void link_collective::pause() {
  compute_us_ += limiter_.pause();
  compute_us_ += limiter_.settle(false);
}

void link_collective::post(std::uint32_t to, const transport::buffer& payload) {
  wire::collective_head head;
  head.replica = where_.replica;
  head.generation = where_.generation;
  head.step = step_;
  head.index = index_;
  head.rank = static_cast<std::uint32_t>(where_.rank);
  head.to_rank = to;
  head.stage = where_.stage;
  transport::frame f;
  f.traffic_class = transport::traffic::data;
  f.type = proto::COLLECTIVE;
  f.head = wire::encode(head);
  f.payload = payload;
  if (!out_.send(where_.rank_nodes[to], std::move(f)))
    throw compute::collective_aborted("rank " + std::to_string(to) + " on " +
                                      where_.rank_nodes[to].name + " cannot be reached");
}

void link_collective::receive(std::uint32_t from, std::span<std::byte> into) {
  out_.attend([&] { return mail_.aborted() || mail_.has(step_, index_, from); }, unevenness);
  const auto f = mail_.take(step_, index_, from, std::chrono::steady_clock::now() + where_.timeout);
  const auto bytes = f->payload.bytes();
  if (bytes.size() != into.size())
    throw compute::collective_aborted("rank " + std::to_string(from) + " sent " +
                                      std::to_string(bytes.size()) + " bytes, expected " +
                                      std::to_string(into.size()));
  if (!into.empty())
    std::memcpy(into.data(), bytes.data(), bytes.size());
}

void link_collective::all_gather(std::span<const std::byte> mine,
                                 std::span<const std::span<std::byte>> all) {
  const auto self = static_cast<std::uint32_t>(where_.rank);
  if (mail_.aborted())
    throw compute::collective_aborted("collective aborted");
  pause();
  if (all[self].data() != mine.data() && !mine.empty())
    std::memmove(all[self].data(), mine.data(), mine.size());
  if (degree() > 1) {
    // One copy for all receivers; a rank without bytes sends nothing.
    const auto payload = mine.empty() ? transport::buffer() : transport::buffer::copy_of(mine);
    std::uint32_t missing = 0;
    for (std::uint32_t r = 0; r < all.size(); ++r) {
      if (r == self)
        continue;
      if (!mine.empty())
        post(r, payload);
      if (!all[r].empty() && !mail_.has(step_, index_, r))
        ++missing;
    }
    if (missing != 0)
      slot_.unlock();
    try {
      for (std::uint32_t r = 0; r < all.size(); ++r)
        if (r != self && !all[r].empty())
          receive(r, all[r]);
    } catch (...) {
      if (missing != 0)
        slot_.lock();
      throw;
    }
    if (missing != 0)
      slot_.lock();
  }
  ++index_;
  limiter_.resume();
}

void link_collective::broadcast(std::span<std::byte> bytes) {
  if (degree() == 1)
    return;
  std::vector<std::span<std::byte>> all(static_cast<std::size_t>(degree()));
  all[0] = bytes;
  all_gather(where_.rank == 0 ? std::span<const std::byte>(bytes) : std::span<const std::byte>(),
             all);
}

} // namespace hexgen::actors
