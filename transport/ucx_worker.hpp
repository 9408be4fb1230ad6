// UCX's side of one peer: a worker with one endpoint, used under one lock.
#pragma once

#include "transport/fabric.hpp"
#include "transport/ucx_context.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>

struct ucp_worker;
struct ucp_ep;
struct ucp_am_recv_param;

namespace hexgen::transport {

/// Goes before each active message, as memory lies: zones are of one architecture.
struct ucx_header {
  std::uint64_t cookie = 0; // names the receiver's connection
  std::uint64_t number = 0; // of the data frame on this connection, from 0
  std::uint32_t type = 0;
  std::uint32_t head_bytes = 0;
  std::uint32_t payload_bytes = 0;
  std::uint32_t kind = 0; // ucx_kind
};
enum class ucx_kind : std::uint32_t { probe = 0, data = 1 };

/// What arrives for one connection. The callee takes the bytes with ucx_arrival::receive.
struct ucx_arrival {
  ucx_header header;
  const char* head = nullptr; // behind the header, or null: it leads the body
  std::size_t body_bytes = 0;
  void* descriptor = nullptr; // UCX's: the body itself, or what a rendezvous needs
  bool rendezvous = false;
};

class ucx_receiver {
public:
  /// `a.head` and an eager body are valid during the call only. For a rendezvous: true when
  /// ucx_worker::fetch was called for it.
  virtual bool on_ucx(const ucx_arrival& a) = 0;

protected:
  ~ucx_receiver() = default;
};

/// One per peer: what UCX still holds for a peer that died (a full queue that nobody reads keeps a
/// worker from ever sleeping) must not touch the others, and goes with the worker.
class ucx_worker {
public:
  /// Null: `why` says what UCX said.
  static std::shared_ptr<ucx_worker> make(std::shared_ptr<ucx_context> context, std::string& why);
  ucx_worker(const ucx_worker&) = delete;
  ucx_worker& operator=(const ucx_worker&) = delete;
  ~ucx_worker();

  /// Held for every call below. The transport thread makes them all but one: a thread that has
  /// something to send may send it itself when the lock is free, which saves waking the other.
  [[nodiscard]] std::mutex& mutex() { return mutex_; }
  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] int event_fd() const { return event_fd_; }
  /// Does some work; false: there was none.
  bool progress();
  /// The event descriptor will tell of what comes. False: something came already, or sends wait.
  bool arm();
  /// Sends and fetches that are not complete.
  [[nodiscard]] std::size_t under_way() const { return operations_.size(); }

  /// From here on `r` receives what comes with that cookie.
  void expect(ucx_receiver& r, std::uint64_t cookie) {
    receiver_ = &r;
    cookie_ = cookie;
  }
  /// False: `why` says what UCX said. `on_error` is called at most once, inside progress().
  bool connect(const std::string& peer_address, std::function<void(const std::string&)> on_error,
               std::string& why);
  /// Ends it all by force. Sends under way are completed, with an error, inside this call or not
  /// at all. Nothing but mutex() may be called after it.
  void shutdown();

  /// Sends header, head and payload; `done` is called once, with an empty text or the error,
  /// possibly before this returns. The frame is kept until then.
  void send(const ucx_header& header, frame content, std::function<void(const std::string&)> done);
  /// Fetches a rendezvous' body. `into` is kept until `done` (as for send).
  void fetch(const ucx_arrival& a, std::shared_ptr<std::byte[]> into,
             std::function<void(const std::string&)> done);

private:
  struct operation;
  ucx_worker() = default;
  std::string open(std::shared_ptr<ucx_context> context);
  void close_endpoint();
  void finish(operation* op, int status);
  int on_message(const void* header, std::size_t header_bytes, void* body, std::size_t body_bytes,
                 const ucp_am_recv_param* parameters);
  friend struct ucx_callbacks;

  std::mutex mutex_;
  std::shared_ptr<ucx_context> context_;
  ucp_worker* worker_ = nullptr;
  ucp_ep* endpoint_ = nullptr;
  int event_fd_ = -1;
  std::string address_;
  std::size_t closing_ = 0; // endpoints being closed
  ucx_receiver* receiver_ = nullptr;
  std::uint64_t cookie_ = 0;
  std::function<void(const std::string&)> on_error_;
  std::unordered_set<operation*> operations_; // UCX may still use their memory
};

} // namespace hexgen::transport
