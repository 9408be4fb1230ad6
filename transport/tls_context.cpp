#include "transport/tls_context.hpp"

#include "transport/tls_stream.hpp"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>

namespace hexgen::transport {
namespace {

constexpr std::size_t longest_name = 128;
// Both use SHA-256, which a PSK is bound to.
constexpr char cipher_suites[] = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
constexpr unsigned char aes_128_gcm_sha256[] = {0x13, 0x01};

SSL_SESSION* make_session(SSL* ssl, const psk& key) {
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
  SSL_SESSION* session = SSL_SESSION_new();
  if (session == nullptr || cipher == nullptr ||
      SSL_SESSION_set1_master_key(session, key.data(), key.size()) != 1 ||
      SSL_SESSION_set_cipher(session, cipher) != 1 ||
      SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) != 1) {
    SSL_SESSION_free(session);
    return nullptr;
  }
  return session;
}

// Dialling side: offers this process's own identity.
int use_session(SSL* ssl, const EVP_MD* md, const unsigned char** id, std::size_t* id_bytes,
                SSL_SESSION** session) {
  *session = nullptr;
  auto* stream = static_cast<tls_stream*>(SSL_get_app_data(ssl));
  const std::optional<psk>& key = stream->context().key(stream->context().own().role, true);
  if (!key || (md != nullptr && EVP_MD_get_type(md) != NID_sha256))
    return 1;
  const std::string& text = stream->offered_identity();
  *id = reinterpret_cast<const unsigned char*>(text.data());
  *id_bytes = text.size();
  *session = make_session(ssl, *key);
  return *session != nullptr ? 1 : 0;
}

// Accepting side: which key must that identity prove?
int find_session(SSL* ssl, const unsigned char* id, std::size_t id_bytes, SSL_SESSION** session) {
  *session = nullptr;
  auto* stream = static_cast<tls_stream*>(SSL_get_app_data(ssl));
  const std::string text(reinterpret_cast<const char*>(id), std::min<std::size_t>(id_bytes, 512));
  const std::optional<tls_identity> identity = parse_identity(text);
  if (!identity)
    return 1; // no session: the hand-shake fails for want of a certificate
  stream->set_peer(*identity);
  const std::optional<psk>& key = stream->context().key(identity->role, false);
  if (!key)
    return 1;
  *session = make_session(ssl, *key);
  return *session != nullptr ? 1 : 0;
}

psk scrypt(const std::string& secret, const std::string& salt) {
  psk key{};
  constexpr std::uint64_t cost = 1U << 14;
  constexpr std::uint64_t memory_bytes = 64U << 20;
  if (EVP_PBE_scrypt(secret.data(), secret.size(),
                     reinterpret_cast<const unsigned char*>(salt.data()), salt.size(), cost, 8, 1,
                     memory_bytes, key.data(), key.size()) != 1)
    throw std::runtime_error("OpenSSL cannot derive a key by scrypt");
  return key;
}

} // namespace

bool valid_name(const std::string& name) {
  return !name.empty() && name.size() <= longest_name &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

std::string to_text(const tls_identity& identity) {
  return (identity.role == peer_role::node ? "node:" : "client:") + identity.name;
}

std::optional<tls_identity> parse_identity(const std::string& text) {
  for (const peer_role role : {peer_role::node, peer_role::client}) {
    const std::string prefix = role == peer_role::node ? "node:" : "client:";
    if (text.compare(0, prefix.size(), prefix) != 0)
      continue;
    tls_identity identity{role, text.substr(prefix.size())};
    if (valid_name(identity.name))
      return identity;
  }
  return std::nullopt;
}

psk derive_psk(peer_role role, const std::string& secret) {
  static std::mutex mutex;
  static std::map<std::pair<peer_role, std::string>, psk> known;
  const std::lock_guard lock(mutex);
  const std::pair<peer_role, std::string> name(role, secret);
  const auto found = known.find(name);
  if (found != known.end())
    return found->second;
  const std::string salt =
      role == peer_role::node ? "hexgen fabric 1 cluster token" : "hexgen fabric 1 api key";
  return known.emplace(name, scrypt(secret, salt)).first->second;
}

tls_context::tls_context(tls_identity own, const tls_secrets& secrets) : own_(std::move(own)) {
  if (!secrets.cluster_token.empty())
    node_key_ = derive_psk(peer_role::node, secrets.cluster_token);
  // The empty key is the well-known one of clients that need none.
  client_key_ = derive_psk(peer_role::client, secrets.api_key);
  if (!secrets.api_key.empty() || secrets.accept_anonymous)
    accept_client_key_ = client_key_;

  context_ = SSL_CTX_new(TLS_method());
  if (context_ == nullptr)
    throw std::runtime_error("OpenSSL cannot make a TLS context");
  SSL_CTX_set_min_proto_version(context_, TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(context_, TLS1_3_VERSION);
  SSL_CTX_set_ciphersuites(context_, cipher_suites);
  SSL_CTX_set_options(context_, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_num_tickets(context_, 0);
  SSL_CTX_set_max_early_data(context_, 0);
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context_, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                 SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_psk_use_session_callback(context_, use_session);
  SSL_CTX_set_psk_find_session_callback(context_, find_session);
}

tls_context::~tls_context() {
  SSL_CTX_free(context_);
}

const std::optional<psk>& tls_context::key(peer_role role, bool dialling) const {
  if (role == peer_role::node)
    return node_key_;
  return dialling ? client_key_ : accept_client_key_;
}

} // namespace hexgen::transport
