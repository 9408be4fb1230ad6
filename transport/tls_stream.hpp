// TLS on a non-blocking socket, without a loop of its own: the caller waits for readiness.
#pragma once

#include "transport/tls_context.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace hexgen::transport {

/// Does not own the socket. Never raises SIGPIPE. Not copyable: OpenSSL keeps its address.
class tls_stream {
public:
  enum class outcome : std::uint8_t { done, want_read, want_write, closed, failed };

  /// `context` outlives the stream. Throws std::runtime_error when OpenSSL has no memory.
  tls_stream(const tls_context& context, int socket, bool dialling);
  tls_stream(const tls_stream&) = delete;
  tls_stream& operator=(const tls_stream&) = delete;
  ~tls_stream();

  outcome handshake();
  /// Reads 1..size bytes; `bytes` says how many.
  outcome read(std::span<std::byte> into, std::size_t& bytes);
  /// Encrypts into a buffer of bounded size; want_write: it is full.
  outcome write(std::span<const std::byte> from, std::size_t& bytes);
  /// Gives what is encrypted to the socket; want_write: not all of it was taken.
  outcome flush();
  /// Says that nothing more comes (close_notify); best effort.
  void shutdown();

  /// The stranger is known now: no cap on what it may send, larger reads.
  void trust();
  /// After outcome::failed, in plain words.
  [[nodiscard]] const std::string& error() const { return error_; }
  /// The hand-shake failed because the secrets differ.
  [[nodiscard]] bool wrong_secret() const { return wrong_secret_; }
  /// Accepting side: what the peer claims, proven once the hand-shake is done.
  [[nodiscard]] const std::optional<tls_identity>& peer() const { return peer_; }

  [[nodiscard]] const tls_context& context() const { return context_; }
  [[nodiscard]] const std::string& offered_identity() const { return offered_; }
  void set_peer(tls_identity identity) { peer_ = std::move(identity); }

  /// The socket's side, for OpenSSL: -1 with errno when nothing moves.
  std::int64_t receive(void* into, std::size_t bytes);
  std::int64_t transmit(const void* from, std::size_t bytes);
  bool push_out();

private:
  outcome judge(int result);

  const tls_context& context_;
  SSL* ssl_ = nullptr;
  int socket_;
  std::uint64_t stranger_budget_; // bytes that may still come before trust()
  bool trusted_ = false;
  bool wrong_secret_ = false;
  std::string out_; // encrypted, from out_offset_ on not yet taken by the socket
  std::size_t out_offset_ = 0;
  std::string offered_;
  std::optional<tls_identity> peer_;
  std::string error_;
};

} // namespace hexgen::transport
