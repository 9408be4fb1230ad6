#include "tests/catch.hpp"
#include "tools/endpoint_flags.hpp"
#include "tools/settings.hpp"
#include "transport/http/http_server.hpp"

namespace hexgen::tools {

TEST_CASE("what others can reach needs a client's secret") {
  endpoint_flags f;
  CHECK_NOTHROW(f.require_key(""));
  CHECK_NOTHROW(f.require_key("127.0.0.1"));
  CHECK_THROWS_AS(f.require_key("0.0.0.0"), usage_error);
  f.host = "10.0.0.1";
  CHECK_THROWS_AS(f.require_key(""), usage_error);
  f.api_key = "secret";
  CHECK_NOTHROW(f.require_key("0.0.0.0"));
}

TEST_CASE("a certificate and its key go together") {
  endpoint_flags f;
  transport::http_options o;
  f.certificate = "chain.pem";
  CHECK_THROWS_AS(f.fill(o), usage_error);
  f.key_file = "key.pem";
  f.fill(o);
  CHECK(o.tls_certificate_file == "chain.pem");
  CHECK(o.tls_key_file == "key.pem");
  CHECK(o.port == 8000);
}

} // namespace hexgen::tools
