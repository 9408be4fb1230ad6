#include "tests/catch.hpp"
#include "tests/transport/http/self_signed.hpp"
#include "transport/http/http_post.hpp"
#include "transport/http/http_server.hpp"

#include <fstream>
#include <mutex>
#include <vector>

using namespace hexgen::transport;
using namespace std::chrono_literals;

namespace {

template <class F>
std::string error_of(F what) {
  try {
    what();
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("a question is posted and its answer's body comes back") {
  http_options options;
  options.port = 0;
  std::mutex mutex;
  std::vector<std::shared_ptr<http_responder>> silent;
  http_server server(options, [&](http_request r, std::shared_ptr<http_responder> to) {
    http_reply reply;
    reply.status = r.path == "/echo" ? 200 : 404;
    reply.body = r.method + " " + r.body;
    if (r.path != "/silent")
      return to->send(reply);
    const std::lock_guard guard(mutex);
    silent.push_back(std::move(to));
  });
  const http_peer here({"127.0.0.1", server.port()});
  CHECK(http_post(here, "/echo", R"({"a": 1})", 20s) == R"(POST {"a": 1})");
  CHECK(contains(error_of([&] { (void)http_post(here, "/other", "x", 20s); }), "404: POST x"));
  CHECK(contains(error_of([&] { (void)http_post(here, "/silent", "x", 100ms); }), "not answer"));
  {
    const std::lock_guard guard(mutex);
    silent.clear();
  }
  server.stop(0ms);
  const auto gone = error_of([&] { (void)http_post(here, "/echo", "x", 20s); });
  CHECK(contains(gone, "127.0.0.1:" + std::to_string(here.at().port)));
}

TEST_CASE("a question in TLS goes to who its certificate names, and to nobody else") {
  const testing::self_signed pair;
  http_options options;
  options.port = 0;
  options.tls_certificate_file = pair.certificate_file;
  options.tls_key_file = pair.key_file;
  http_server server(options, [](const http_request& r, std::shared_ptr<http_responder> to) {
    http_reply reply;
    reply.body = r.body;
    to->send(reply);
  });
  const std::string port = ":" + std::to_string(server.port());
  std::string answer;
  const auto asked = [&](const std::string& url, const http_peer::tls_files& files) {
    answer.clear();
    return error_of([&] { answer = http_post(http_peer::of(url, files), "/", "x", 20s); });
  };
  const http_peer::tls_files known{pair.certificate_file, {}};
  CHECK(asked("https://localhost" + port, known) == "no error");
  CHECK(answer == "x");
  // The server does not ask for it; that it can be read is what is seen here.
  std::ofstream(pair.folder / "both.pem")
      << std::ifstream(pair.certificate_file).rdbuf() << std::ifstream(pair.key_file).rdbuf();
  CHECK(asked("https://localhost" + port, {pair.certificate_file, pair.folder / "both.pem"}) ==
        "no error");
  CHECK(contains(asked("https://localhost" + port, {}), "certificate verify failed"));
  CHECK(contains(asked("https://127.0.0.1" + port, known), "certificate verify failed"));
  CHECK(asked("http://localhost" + port, {}) != "no error");

  CHECK(
      contains(asked("https://localhost" + port, {"/nonexistent/ca.pem", {}}), "/nonexistent/ca"));
  CHECK(contains(asked("https://localhost" + port, {pair.certificate_file, "/nonexistent/me.pem"}),
                 "/nonexistent/me"));
  CHECK(contains(asked("localhost" + port, known), "in clear"));
  CHECK(contains(asked("ftp://localhost" + port, {}), "is not HOST:PORT"));
  CHECK(contains(asked("https://localhost", {}), "is not HOST:PORT"));
}
