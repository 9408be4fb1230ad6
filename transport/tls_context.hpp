// TLS 1.3 with pre-shared keys: who may speak, proven by a secret, bound to a role and a name.
#pragma once

#include "transport/fabric.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

using SSL = struct ssl_st;
using SSL_CTX = struct ssl_ctx_st;

namespace hexgen::transport {

/// What a peer's PSK identity says: "node:NAME" or "client:NAME".
struct tls_identity {
  peer_role role = peer_role::node;
  std::string name;
};
[[nodiscard]] std::string to_text(const tls_identity& identity);
/// Nothing when it is not of that form, or the name is empty, longer than 128 bytes or not
/// printable ASCII without blanks.
[[nodiscard]] std::optional<tls_identity> parse_identity(const std::string& text);
/// The rule for names of nodes and clients.
[[nodiscard]] bool valid_name(const std::string& name);

/// 256 bits from a secret by scrypt (N 2^14, r 8, p 1) with a fixed salt per role. Computed once
/// per secret and process.
using psk = std::array<unsigned char, 32>;
[[nodiscard]] psk derive_psk(peer_role role, const std::string& secret);

struct tls_secrets {
  std::string cluster_token;     // empty: nodes are refused
  std::string api_key;           // empty: clients prove the well-known anonymous key
  bool accept_anonymous = false; // a listener: let clients without a key in
};

/// TLS 1.3 only, PSK with (EC)DHE only, no tickets, no early data, no certificates.
class tls_context {
public:
  /// `own`: the identity this process proves when it dials.
  tls_context(tls_identity own, const tls_secrets& secrets);
  tls_context(const tls_context&) = delete;
  tls_context& operator=(const tls_context&) = delete;
  ~tls_context();

  [[nodiscard]] SSL_CTX* get() const { return context_; }
  [[nodiscard]] const tls_identity& own() const { return own_; }
  /// The key for that role; nothing: peers of that role are refused.
  [[nodiscard]] const std::optional<psk>& key(peer_role role, bool dialling) const;

private:
  tls_identity own_;
  SSL_CTX* context_ = nullptr;
  std::optional<psk> node_key_;
  std::optional<psk> client_key_;        // what this process proves as a client
  std::optional<psk> accept_client_key_; // what clients must prove here
};

} // namespace hexgen::transport
