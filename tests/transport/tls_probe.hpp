// A hand-made peer for tests: speaks TLS and records, and breaks the rules on purpose.
#pragma once

#include "transport/hello.hpp"
#include "transport/protocol.hpp"
#include "transport/record.hpp"
#include "transport/tls_context.hpp"
#include "transport/tls_stream.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>

namespace hexgen::transport::testing {

/// A plain TCP connection to a loopback address "127.0.0.1:PORT"; closes itself.
class raw_socket {
public:
  explicit raw_socket(const std::string& address) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port =
        htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
  }
  raw_socket(raw_socket&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_) {}
  raw_socket(const raw_socket&) = delete;
  raw_socket& operator=(const raw_socket&) = delete;
  ~raw_socket() {
    if (fd_ >= 0)
      ::close(fd_);
  }

  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] int fd() const { return fd_; }
  /// False: the other side has closed.
  bool write(const std::string& bytes) {
    return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  /// Reads until the other side closes; false: it did not within `limit_ms`.
  bool wait_closed(int limit_ms) {
    char sink[4096];
    pollfd waits{fd_, POLLIN, 0};
    while (::poll(&waits, 1, limit_ms) == 1)
      if (::recv(fd_, sink, sizeof sink, 0) <= 0)
        return true;
    return false;
  }
  [[nodiscard]] bool closed_now() {
    char sink[4096];
    const ssize_t got = ::recv(fd_, sink, sizeof sink, MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN);
  }

private:
  int fd_;
  bool connected_ = false;
};

/// Dials with an identity and a secret of the test's choice.
class tls_probe {
public:
  tls_probe(const std::string& address, tls_identity identity, const tls_secrets& secrets)
      : socket_(address), context_(std::move(identity), secrets),
        stream_(context_, socket_.fd(), true) {
    ::fcntl(socket_.fd(), F_SETFL, O_NONBLOCK);
    shaken_ = run([&] { return stream_.handshake(); });
    if (shaken_)
      stream_.trust();
  }

  [[nodiscard]] bool shaken() const { return shaken_; }
  bool write(const std::string& bytes) {
    std::size_t done = 0;
    while (done < bytes.size()) {
      std::size_t step = 0;
      const auto rest = std::as_bytes(std::span(bytes)).subspan(done);
      if (!run([&] { return stream_.write(rest, step); }))
        return false;
      done += step;
    }
    return run([&] { return stream_.flush(); });
  }
  bool send(record_kind kind, const std::string& body) {
    std::string bytes;
    append_record(bytes, kind, body);
    return write(bytes);
  }
  /// The next message's kind and body(); false: closed or broken.
  bool next(record_kind& kind) {
    for (;;) {
      std::size_t bytes = 0;
      const auto into = reader_.wanted();
      if (!run([&] { return stream_.read(into, bytes); }))
        return false;
      const auto event = reader_.advance(bytes);
      if (event == record_reader::event::error)
        return false;
      if (event == record_reader::event::message) {
        kind = reader_.kind();
        return true;
      }
    }
  }
  bool wait_for(record_kind wanted) {
    record_kind kind{};
    while (next(kind))
      if (kind == wanted)
        return true;
    return false;
  }
  [[nodiscard]] const std::string& body() const { return reader_.body(); }

private:
  template <class Step>
  bool run(Step step) {
    for (;;) {
      const tls_stream::outcome outcome = step();
      if (outcome == tls_stream::outcome::done)
        return true;
      if (outcome != tls_stream::outcome::want_read && outcome != tls_stream::outcome::want_write)
        return false;
      pollfd waits{socket_.fd(), POLLIN, 0};
      if (outcome == tls_stream::outcome::want_write)
        waits.events = POLLOUT;
      if (::poll(&waits, 1, 20'000) != 1)
        return false;
    }
  }

  raw_socket socket_;
  tls_context context_;
  tls_stream stream_;
  record_reader reader_;
  bool shaken_ = false;
};

inline hello_message probe_hello(const std::string& name) {
  hello_message hello;
  hello.version = protocol_version;
  hello.name = name;
  hello.incarnation = 1;
  hello.window_bytes = 1U << 20;
  return hello;
}

} // namespace hexgen::transport::testing
