#include "tests/catch.hpp"
#include "transport/http/http_post.hpp"
#include "transport/http/http_server.hpp"

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
  const host_port here{"127.0.0.1", server.port()};
  CHECK(http_post(here, "/echo", R"({"a": 1})", 20s) == R"(POST {"a": 1})");
  CHECK(contains(error_of([&] { (void)http_post(here, "/other", "x", 20s); }), "404: POST x"));
  CHECK(contains(error_of([&] { (void)http_post(here, "/silent", "x", 100ms); }), "not answer"));
  {
    const std::lock_guard guard(mutex);
    silent.clear();
  }
  server.stop(0ms);
  const auto gone = error_of([&] { (void)http_post(here, "/echo", "x", 20s); });
  CHECK(contains(gone, "127.0.0.1:" + std::to_string(here.port)));
}
