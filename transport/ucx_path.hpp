// The data frames of one connection over UCX, beside its TLS stream.
#pragma once

#include "transport/outbox.hpp"
#include "transport/record.hpp"
#include "transport/ucx_worker.hpp"

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace hexgen::transport {

/// What a path tells its connection, on whatever thread receives or sends, with the worker's mutex
/// held but for on_ucx_frame: the callee must not call the path.
class ucx_path_owner {
public:
  /// The peer's probe arrived: UCX works from it to here.
  virtual void on_probe() = 0;
  /// Accounts for a frame before memory is taken for it; false: the window is exhausted.
  virtual bool on_ucx_charge(std::uint64_t cost) = 0;
  virtual void on_ucx_frame(received_frame f) = 0;
  /// A frame of that window cost has left.
  virtual void on_ucx_sent(std::uint64_t cost) = 0;
  virtual void on_ucx_failed(const std::string& detail) = 0;

protected:
  ~ucx_path_owner() = default;
};

/// Transport thread but for send_now and receive. Frames are delivered in the order of their
/// numbers, though a rendezvous may end after what follows it.
class ucx_path final : private ucx_receiver, public std::enable_shared_from_this<ucx_path> {
public:
  ucx_path(std::shared_ptr<ucx_worker> worker, ucx_path_owner& owner);
  ucx_path(const ucx_path&) = delete;
  ucx_path& operator=(const ucx_path&) = delete;
  ~ucx_path();

  [[nodiscard]] ucx_worker& worker() { return *worker_; }
  /// Whether the event loop must look after it; transport thread.
  [[nodiscard]] bool awake() const { return awake_; }
  void wake() { awake_ = true; }
  void sleep() { awake_ = false; }
  /// Under which the peer must send.
  [[nodiscard]] std::uint64_t cookie() const { return cookie_; }
  /// Makes the endpoint and sends a probe. False: `why` says what UCX said.
  bool connect(const std::string& peer_address, std::uint64_t peer_cookie, std::string& why);
  /// From here on frames are delivered; those that came before are now.
  void open();
  /// Any thread: receives what came and gives the owner what is whole, once open. False: nothing
  /// came, or another thread receives just now.
  bool receive();
  /// Sends what waits in `box` and may go. False: enough is under way; the rest goes later.
  bool send_queued(outbox& box);
  enum class now : std::uint8_t { no, done, under_way };
  /// Any thread but the transport thread: sends a data frame without waking that thread, when
  /// nothing waits before it and UCX is free. no: `f` is untouched. done: see `result`.
  /// under_way: accepted, and the transport thread must be woken to progress it.
  now send_now(outbox& box, frame& f, send_result& result);
  [[nodiscard]] std::uint64_t frames_sent() const;
  /// Delivered to the owner, in order.
  [[nodiscard]] std::uint64_t frames_received() const { return next_receive_; }
  /// Ends the worker; no callback runs or comes any more. Not inside one.
  void close();

private:
  struct slot {
    received_frame content;
    bool whole = false;
    bool head_leads_body = false;
  };

  [[nodiscard]] bool can_send() const;
  void send(frame f);
  [[nodiscard]] bool whole() const; // the next in order, and may be delivered
  void deliver();
  bool on_ucx(const ucx_arrival& a) override;
  void on_fetched(std::uint64_t number, const std::string& error);
  void fail(const std::string& detail);

  std::shared_ptr<ucx_worker> worker_;
  std::mutex turn_;       // held to receive and deliver: frames keep their order
  ucx_path_owner* owner_; // null once closed; changed with both locks held
  std::uint64_t cookie_ = 0;
  std::uint64_t peer_cookie_ = 0;
  bool connected_ = false;
  bool awake_ = true;
  bool open_ = false; // guarded by turn_
  bool failed_ = false;
  std::uint64_t next_send_ = 0;
  std::uint64_t in_flight_bytes_ = 0;
  std::atomic<std::uint64_t> next_receive_{0}; // number of slots_.front()
  std::deque<slot> slots_;                     // guarded by turn_
};

} // namespace hexgen::transport
