#include "transport/credit_ledger.hpp"

#include <utility>

namespace hexgen::transport {

struct credit_ledger::receipt {
  receipt(std::shared_ptr<credit_ledger> l, traffic c, std::uint64_t b,
          std::shared_ptr<std::byte[]> p)
      : ledger(std::move(l)), traffic_class(c), bytes(b), payload(std::move(p)) {}
  receipt(const receipt&) = delete;
  receipt& operator=(const receipt&) = delete;
  ~receipt() {
    payload.reset();
    if (ledger)
      ledger->give_back(traffic_class, bytes);
  }

  std::shared_ptr<credit_ledger> ledger; // null: outside windows
  traffic traffic_class;
  std::uint64_t bytes;
  std::shared_ptr<std::byte[]> payload;
};

credit_ledger::credit_ledger(std::uint64_t window_bytes, std::function<void()> wake)
    : window_bytes_(window_bytes), wake_(std::move(wake)) {}

bool credit_ledger::charge(traffic traffic_class, std::uint64_t cost) {
  if (traffic_class == traffic::control)
    return true;
  // A sender with any window left may send one whole frame, so the last one may overhang.
  std::atomic<std::uint64_t>& outstanding = outstanding_[static_cast<std::size_t>(traffic_class)];
  if (outstanding >= window_bytes_)
    return false;
  outstanding += cost;
  return true;
}

std::shared_ptr<const frame> credit_ledger::wrap(received_frame received) {
  const std::uint64_t cost = window_cost(received.head.size(), received.payload_bytes);
  const bool windowed = received.traffic_class != traffic::control;
  const std::span<const std::byte> bytes(received.payload.get(), received.payload_bytes);
  auto owner = std::make_shared<receipt>(windowed ? shared_from_this() : nullptr,
                                         received.traffic_class, cost, std::move(received.payload));
  auto out = std::make_shared<frame>();
  out->traffic_class = received.traffic_class;
  out->type = received.type;
  out->head = std::move(received.head);
  out->payload = buffer(std::move(owner), bytes);
  return out;
}

std::uint64_t credit_ledger::take(traffic traffic_class) {
  const auto i = static_cast<std::size_t>(traffic_class);
  const std::uint64_t bytes = returned_[i].exchange(0, std::memory_order_acq_rel);
  outstanding_[i] -= bytes;
  return bytes;
}

void credit_ledger::detach() {
  const std::lock_guard lock(wake_mutex_);
  wake_ = nullptr;
}

void credit_ledger::give_back(traffic traffic_class, std::uint64_t bytes) {
  const auto i = static_cast<std::size_t>(traffic_class);
  const std::uint64_t before = returned_[i].fetch_add(bytes, std::memory_order_acq_rel);
  const std::uint64_t worth_a_message = window_bytes_ / 4;
  if (before <= worth_a_message && before + bytes > worth_a_message) {
    const std::lock_guard lock(wake_mutex_);
    if (wake_)
      wake_();
  }
}

} // namespace hexgen::transport
