// UCX inside a trusted zone: one context and one worker per process, used under one lock.
#pragma once

#include "transport/fabric.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

struct ucp_context;
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

class ucx_path;

class ucx_worker {
public:
  /// Null: UCX does not work here; `why` says what it said. `interface`: also TCP and RDMA on it.
  static std::unique_ptr<ucx_worker> make(const std::string& interface, std::string& why);
  ucx_worker(const ucx_worker&) = delete;
  ucx_worker& operator=(const ucx_worker&) = delete;
  /// Progresses what is being closed for a bounded time, then frees everything.
  ~ucx_worker();

  /// Held for every call below. The transport thread makes them all but one: a thread that has
  /// something to send may send it itself when the lock is free, which saves waking the other.
  [[nodiscard]] std::mutex& mutex() { return mutex_; }
  [[nodiscard]] static std::string version();
  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] int event_fd() const { return event_fd_; }
  /// Does some work; false: there was none.
  bool progress();
  /// `path` has frames to deliver once the mutex is free: whoever they wake may want it at once.
  void deliver_later(std::shared_ptr<ucx_path> path) { ready_.push_back(std::move(path)); }
  /// Transport thread.
  [[nodiscard]] std::vector<std::shared_ptr<ucx_path>> take_ready() {
    return std::exchange(ready_, {});
  }
  /// The event descriptor will tell of what comes. False: something came already.
  bool arm();

  /// Sends and fetches that are not complete.
  [[nodiscard]] std::size_t under_way() const { return operations_.size(); }
  /// The cookie under which `r` receives until forget(). Never 0.
  std::uint64_t expect(ucx_receiver& r);
  void forget(std::uint64_t cookie);

  /// Null: `why` says what UCX said. `on_error` is called at most once, inside progress().
  ucp_ep* connect(const std::string& peer_address, std::function<void(const std::string&)> on_error,
                  std::string& why);
  /// Closes by force; sends under way are completed, with an error, by later progress.
  void close(ucp_ep* endpoint);

  /// Sends header, head and payload; `done` is called once, with an empty text or the error,
  /// possibly before this returns. The frame is kept until then.
  void send(ucp_ep* endpoint, const ucx_header& header, frame content,
            std::function<void(const std::string&)> done);
  /// Fetches a rendezvous' body. `into` is kept until `done` (as for send).
  void fetch(const ucx_arrival& a, std::shared_ptr<std::byte[]> into,
             std::function<void(const std::string&)> done);

private:
  struct operation;
  struct error_hook;
  ucx_worker() = default;
  std::string open(const std::string& interface);
  void finish(operation* op, int status);
  int on_message(const void* header, std::size_t header_bytes, void* body, std::size_t body_bytes,
                 const ucp_am_recv_param* parameters);
  friend struct ucx_callbacks;

  std::mutex mutex_;
  ucp_context* context_ = nullptr;
  ucp_worker* worker_ = nullptr;
  int event_fd_ = -1;
  std::string address_;
  std::size_t closing_ = 0; // endpoints being closed
  std::uint64_t next_cookie_ = 1;
  std::unordered_map<std::uint64_t, ucx_receiver*> receivers_;
  std::vector<std::shared_ptr<ucx_path>> ready_;
  std::unordered_map<ucp_ep*, std::unique_ptr<error_hook>> hooks_;
  std::unordered_set<operation*> operations_; // UCX may still use their memory
};

} // namespace hexgen::transport
