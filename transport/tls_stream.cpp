#include "transport/tls_stream.hpp"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace hexgen::transport {
namespace {

// A hand-shake with a pre-shared key and the first message are far below this.
constexpr std::uint64_t stranger_bytes = 24U << 10;
constexpr std::size_t read_ahead_bytes = 64U << 10;
constexpr std::size_t out_bytes = 192U << 10;

// OpenSSL's socket BIO writes with write(), which raises SIGPIPE; this one does not.
int bio_read(BIO* bio, char* into, int bytes) {
  BIO_clear_retry_flags(bio);
  auto* stream = static_cast<tls_stream*>(BIO_get_data(bio));
  const std::int64_t got = stream->receive(into, static_cast<std::size_t>(bytes));
  if (got < 0 && (errno == EAGAIN || errno == EINTR))
    BIO_set_retry_read(bio);
  return static_cast<int>(got);
}

int bio_write(BIO* bio, const char* from, int bytes) {
  BIO_clear_retry_flags(bio);
  auto* stream = static_cast<tls_stream*>(BIO_get_data(bio));
  const std::int64_t put = stream->transmit(from, static_cast<std::size_t>(bytes));
  if (put < 0 && (errno == EAGAIN || errno == EINTR))
    BIO_set_retry_write(bio);
  return static_cast<int>(put);
}

long bio_control(BIO* bio, int command, long /*number*/, void* /*pointer*/) {
  if (command != BIO_CTRL_FLUSH) // asked for at the end of a flight and after an alert
    return 0;
  BIO_clear_retry_flags(bio);
  if (static_cast<tls_stream*>(BIO_get_data(bio))->push_out())
    return 1;
  if (errno == EAGAIN || errno == EINTR)
    BIO_set_retry_write(bio);
  return -1;
}

const BIO_METHOD* socket_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "hexgen socket");
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_ctrl(m, bio_control);
    return m;
  }();
  return method;
}

// Alerts and local errors that a differing key leads to (an unknown identity leaves the server
// without a certificate to offer, hence "no suitable signature algorithm", a hand-shake failure).
bool means_wrong_secret(int reason) {
  return reason == SSL_R_BINDER_DOES_NOT_VERIFY || reason == SSL_R_TLSV1_ALERT_DECRYPT_ERROR ||
         reason == SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER || reason == SSL_R_BAD_PSK ||
         reason == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE || reason == SSL_R_PSK_IDENTITY_NOT_FOUND ||
         reason == SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM || reason == SSL_R_NO_SUITABLE_KEY_SHARE ||
         reason == SSL_R_NO_SHARED_CIPHER;
}

} // namespace

tls_stream::tls_stream(const tls_context& context, int socket, bool dialling)
    : context_(context), ssl_(SSL_new(context.get())), socket_(socket),
      stranger_budget_(stranger_bytes), offered_(to_text(context.own())) {
  BIO* bio = BIO_new(socket_method());
  if (ssl_ == nullptr || bio == nullptr) {
    SSL_free(ssl_);
    BIO_free(bio);
    throw std::runtime_error("OpenSSL cannot make a TLS connection");
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_app_data(ssl_, this);
  if (dialling)
    SSL_set_connect_state(ssl_);
  else
    SSL_set_accept_state(ssl_);
}

tls_stream::~tls_stream() {
  SSL_free(ssl_);
}

std::int64_t tls_stream::receive(void* into, std::size_t bytes) {
  if (!trusted_) {
    if (stranger_budget_ == 0) {
      errno = EMSGSIZE;
      return -1;
    }
    bytes = std::min<std::size_t>(bytes, stranger_budget_);
  }
  const ssize_t got = ::recv(socket_, into, bytes, 0);
  if (got > 0 && !trusted_)
    stranger_budget_ -= static_cast<std::uint64_t>(got);
  if (got == 0)
    errno = 0; // the end, not an error of some earlier call
  return got;
}

// TLS records are 16 KiB at most; one system call for many of them, and one wake-up of the peer.
std::int64_t tls_stream::transmit(const void* from, std::size_t bytes) {
  if (out_.size() - out_offset_ + bytes > out_bytes && !push_out() &&
      out_.size() - out_offset_ + bytes > out_bytes)
    return -1;
  if (out_offset_ != 0) {
    out_.erase(0, out_offset_);
    out_offset_ = 0;
  }
  out_.append(static_cast<const char*>(from), bytes);
  return static_cast<std::int64_t>(bytes);
}

// True: all of it. Else errno says why not.
bool tls_stream::push_out() {
  while (out_offset_ < out_.size()) {
    const ssize_t put =
        ::send(socket_, out_.data() + out_offset_, out_.size() - out_offset_, MSG_NOSIGNAL);
    if (put < 0)
      return false;
    out_offset_ += static_cast<std::size_t>(put);
  }
  out_.clear();
  out_offset_ = 0;
  return true;
}

tls_stream::outcome tls_stream::flush() {
  if (push_out())
    return outcome::done;
  if (errno == EAGAIN || errno == EINTR)
    return outcome::want_write;
  if (errno == ECONNRESET || errno == EPIPE)
    return outcome::closed;
  error_ = std::strerror(errno);
  return outcome::failed;
}

void tls_stream::trust() {
  trusted_ = true;
  // Large frames: fewer system calls, and buffers that stay.
  SSL_set_default_read_buffer_len(ssl_, read_ahead_bytes);
  SSL_set_read_ahead(ssl_, 1);
  SSL_clear_mode(ssl_, SSL_MODE_RELEASE_BUFFERS);
}

tls_stream::outcome tls_stream::handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  if (result != 1)
    return judge(result);
  // Without certificates only the key can have authenticated the peer; be sure that it did.
  if (SSL_session_reused(ssl_) != 1) {
    error_ = "the hand-shake did not use the pre-shared key";
    wrong_secret_ = true;
    return outcome::failed;
  }
  return outcome::done;
}

tls_stream::outcome tls_stream::read(std::span<std::byte> into, std::size_t& bytes) {
  ERR_clear_error();
  const int result = SSL_read_ex(ssl_, into.data(), into.size(), &bytes);
  return result == 1 ? outcome::done : judge(result);
}

tls_stream::outcome tls_stream::write(std::span<const std::byte> from, std::size_t& bytes) {
  ERR_clear_error();
  const int result = SSL_write_ex(ssl_, from.data(), from.size(), &bytes);
  return result == 1 ? outcome::done : judge(result);
}

void tls_stream::shutdown() {
  ERR_clear_error();
  if (SSL_is_init_finished(ssl_) == 1)
    SSL_shutdown(ssl_);
  ERR_clear_error();
}

tls_stream::outcome tls_stream::judge(int result) {
  const int system_error = errno;
  switch (SSL_get_error(ssl_, result)) {
  case SSL_ERROR_WANT_READ:
    return outcome::want_read;
  case SSL_ERROR_WANT_WRITE:
    return outcome::want_write;
  case SSL_ERROR_ZERO_RETURN:
    return outcome::closed;
  case SSL_ERROR_SYSCALL:
    if (system_error == 0 || system_error == ECONNRESET || system_error == EPIPE)
      return outcome::closed;
    error_ = system_error == EMSGSIZE && !trusted_ ? "too many bytes before the hand-shake is done"
                                                   : std::strerror(system_error);
    return outcome::failed;
  default:
    break;
  }
  const unsigned long code = ERR_peek_error();
  const int reason = ERR_GET_REASON(code);
  if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
    return outcome::closed;
  wrong_secret_ = SSL_is_init_finished(ssl_) != 1 && means_wrong_secret(reason);
  const char* text = ERR_reason_error_string(code);
  error_ = std::string("TLS: ") + (text != nullptr ? text : "unknown error");
  return outcome::failed;
}

} // namespace hexgen::transport
