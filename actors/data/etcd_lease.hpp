// Who of several may be the coordinator: a lease in the operator's etcd.
#pragma once

#include "transport/http/http_post.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace hexgen::actors {

/// A key that one process at most holds, through etcd's JSON gateway. Once acquired a thread renews
/// it; whoever stands still or is cut off for two thirds of its time has lost it, before another
/// can have it.
class etcd_lease {
public:
  /// `who`: what others read of the holder.
  etcd_lease(transport::http_peer etcd, std::string key, std::string who,
             std::chrono::milliseconds time = std::chrono::seconds(3));
  /// Gives it back, so that another has it at once.
  ~etcd_lease();
  etcd_lease(const etcd_lease&) = delete;
  etcd_lease& operator=(const etcd_lease&) = delete;

  /// Tries once. Empty: it is ours. Else who holds it. Throws std::runtime_error when etcd cannot
  /// be asked or answers nonsense.
  [[nodiscard]] std::string acquire();
  /// It was ours and cannot be relied on any more. Any thread.
  [[nodiscard]] bool lost() const;

private:
  using clock = std::chrono::steady_clock;
  void renew_all();
  void revoke() const;
  [[nodiscard]] bool renew() const;

  const transport::http_peer etcd_;
  const std::string key_, who_;
  const std::chrono::milliseconds time_;
  std::string id_; // of the lease; empty: none
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  clock::time_point good_until_{}; // epoch: not acquired
  bool closing_ = false;
  std::thread keeper_;
};

} // namespace hexgen::actors
