#include "tests/catch.hpp"
#include "tests/transport/http/http_client.hpp"
#include "transport/http/http_server.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

using namespace hexgen::transport;
using hexgen::tests::http_client;
using namespace std::chrono_literals;

namespace {

http_options any_port() {
  http_options options;
  options.port = 0;
  return options;
}

http_reply text(std::string body) {
  http_reply reply;
  reply.content_type = "text/plain";
  reply.body = std::move(body);
  return reply;
}

void echo(http_request request, const std::shared_ptr<http_responder>& to) {
  to->send(text(request.method + " " + request.path + " " + request.body));
}

/// Waits at most 10 s for `holds`.
template <class F>
bool eventually(F holds) {
  for (int i = 0; i < 2000; ++i) {
    if (holds())
      return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

/// Keeps the responders that a handler was given.
struct keeper {
  std::mutex mutex;
  std::vector<std::shared_ptr<http_responder>> all;
  void add(std::shared_ptr<http_responder> one) {
    const std::lock_guard lock(mutex);
    all.push_back(std::move(one));
  }
  std::shared_ptr<http_responder> wait(std::size_t i) {
    REQUIRE(eventually([&] {
      const std::lock_guard lock(mutex);
      return all.size() > i;
    }));
    const std::lock_guard lock(mutex);
    return all[i];
  }
};

} // namespace

TEST_CASE("an HTTP request is answered and the connection kept") {
  http_server server(any_port(), echo);
  http_client client(server.port());
  client.send("POST /a?b=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
  auto reply = client.read_until("hi");
  CHECK(reply.find("HTTP/1.1 200 OK\r\n") == 0);
  CHECK(reply.find("POST /a hi") != std::string::npos);
  CHECK(reply.find("Connection: keep-alive") != std::string::npos);
  client.send("GET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  reply = client.read_all();
  CHECK(reply.find("GET /c ") != std::string::npos);
  CHECK(client.closed());
}

TEST_CASE("HTTP requests sent at once are answered in order") {
  http_server server(any_port(), echo);
  http_client client(server.port());
  std::string all;
  for (int i = 0; i < 20; ++i)
    all += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
  client.send(all);
  for (int i = 0; i < 20; ++i)
    CHECK(client.read_until("GET /" + std::to_string(i) + " ").find("HTTP/1.1 200") !=
          std::string::npos);
}

TEST_CASE("bad HTTP gets a 400 with a JSON error") {
  http_server server(any_port(), echo);
  for (const char* bytes : {"nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                            "POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                            "GET / HTTP/1.1\r\nbad header\r\n\r\n"}) {
    http_client client(server.port());
    client.send(bytes);
    const auto reply = client.read_all();
    INFO(bytes);
    CHECK(reply.find("HTTP/1.1 400 ") == 0);
    CHECK(reply.find("invalid_request_error") != std::string::npos);
    CHECK(client.closed());
  }
}

TEST_CASE("HTTP sizes are bounded: 431 for the head, 413 for the body") {
  auto options = any_port();
  options.limits.body = 1000;
  http_server server(options, echo);
  {
    http_client client(server.port());
    client.send("GET / HTTP/1.1\r\nX: " + std::string(20000, 'a') + "\r\n\r\n");
    CHECK(client.read_all().find("HTTP/1.1 431 ") == 0);
  }
  {
    http_client client(server.port());
    client.send("POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n");
    CHECK(client.read_all().find("HTTP/1.1 413 ") == 0); // before the body
  }
  {
    http_client client(server.port());
    client.send("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" +
                std::string(2000, 'a') + "\r\n0\r\n\r\n");
    CHECK(client.read_all().find("HTTP/1.1 413 ") == 0);
  }
}

TEST_CASE("a head check refuses before the body is read") {
  std::atomic<int> handled = 0;
  http_server server(
      any_port(),
      [&](http_request request, const std::shared_ptr<http_responder>& to) {
        ++handled;
        echo(std::move(request), to);
      },
      [](const http_request& head) -> std::optional<http_reply> {
        if (find_header(head.headers, "authorization") == nullptr)
          return http_error(401, "authentication_error", "no key");
        return std::nullopt;
      });
  http_client stranger(server.port());
  stranger.send("POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nstart");
  CHECK(stranger.read_all().find("HTTP/1.1 401 ") == 0);
  CHECK(handled == 0);
  http_client friendly(server.port());
  friendly.send("POST / HTTP/1.1\r\nAuthorization: x\r\nContent-Length: 2\r\n\r\nok");
  CHECK(friendly.read_until("ok").find("HTTP/1.1 200 ") == 0);
  CHECK(handled == 1);
}

TEST_CASE("an HTTP client may wait for 100 Continue") {
  http_server server(any_port(), echo);
  http_client client(server.port());
  client.send("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  CHECK(client.read_until("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("body");
  CHECK(client.read_until("body").find("HTTP/1.1 200 ") == 0);
}

TEST_CASE("an HTTP stream is chunked, kept alive by comments, and ends") {
  keeper kept;
  http_server server(any_port(), [&](http_request, std::shared_ptr<http_responder> to) {
    to->start(200, "text/event-stream", {{"X-A", "b"}}, ": ping\n\n", 20ms);
    kept.add(std::move(to));
  });
  http_client client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto head = client.read_until("\r\n\r\n");
  CHECK(head.find("Transfer-Encoding: chunked") != std::string::npos);
  CHECK(head.find("X-A: b") != std::string::npos);
  CHECK(client.read_until(": ping\n\n", 2).find("8\r\n: ping\n\n") != std::string::npos);
  const auto to = kept.wait(0);
  CHECK(to->write("data: 1\n\n"));
  CHECK(to->write("data: 2\n\n"));
  to->end();
  const auto rest = client.read_until("0\r\n\r\n");
  CHECK(rest.find("9\r\ndata: 1\n\n\r\n") != std::string::npos);
  CHECK(rest.find("9\r\ndata: 2\n\n\r\n") != std::string::npos);
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"); // the connection goes on
  CHECK(client.read_until("\r\n\r\n").find("HTTP/1.1 200 ") == 0);
}

TEST_CASE("an HTTP/1.0 client gets a stream that ends with the connection") {
  http_server server(any_port(), [](http_request, const std::shared_ptr<http_responder>& to) {
    to->start(200, "text/plain", {}, "", 0ms);
    to->write("one ");
    to->write("two");
    to->end();
  });
  http_client client(server.port());
  client.send("GET / HTTP/1.0\r\n\r\n");
  const auto reply = client.read_all();
  CHECK(reply.find("chunked") == std::string::npos);
  CHECK(reply.substr(reply.find("\r\n\r\n") + 4) == "one two");
}

TEST_CASE("a client that hangs up is noticed while its HTTP answer is awaited") {
  keeper kept;
  std::atomic<int> gone = 0;
  http_server server(any_port(), [&](http_request request, std::shared_ptr<http_responder> to) {
    if (request.path == "/stream")
      to->start(200, "text/event-stream", {}, "", 0ms);
    to->on_closed([&] { ++gone; });
    kept.add(std::move(to));
  });
  for (const char* path : {"/wait", "/stream"}) {
    const int before = gone;
    http_client client(server.port());
    client.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
    kept.wait(static_cast<std::size_t>(before));
    client.close();
    CHECK(eventually([&] { return gone == before + 1; }));
    CHECK_FALSE(kept.wait(static_cast<std::size_t>(before))->write("late"));
  }
  kept.wait(0)->on_closed([&] { gone = 100; }); // too late: runs at once
  CHECK(gone == 100);
}

TEST_CASE("on_closed stays silent after a complete HTTP answer") {
  std::atomic<int> gone = 0;
  http_server server(any_port(), [&](http_request, const std::shared_ptr<http_responder>& to) {
    to->on_closed([&] { ++gone; });
    to->send(text("done"));
  });
  {
    http_client client(server.port());
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.read_until("done");
    client.close();
  }
  CHECK(eventually([&] { return server.connections() == 0; }));
  CHECK(gone == 0);
}

TEST_CASE("an HTTP client that stops reading is closed past the limit") {
  keeper kept;
  std::atomic<bool> gone = false;
  auto options = any_port();
  options.limits.stream_buffer = 256 * 1024;
  http_server server(options, [&](http_request, std::shared_ptr<http_responder> to) {
    to->start(200, "text/event-stream", {}, "", 0ms);
    to->on_closed([&] { gone = true; });
    kept.add(std::move(to));
  });
  http_client client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto to = kept.wait(0);
  const std::string piece(16 * 1024, 'x');
  std::size_t taken = 0;
  while (taken < 64 * 1024 * 1024 && to->write(piece))
    taken += piece.size();
  CHECK(taken < 64 * 1024 * 1024);
  CHECK(eventually([&] { return gone.load(); }));
}

TEST_CASE("an HTTP client that dribbles its head is cut off") {
  auto options = any_port();
  options.limits.head_time = 60ms;
  options.limits.idle_time = 10000ms;
  http_server server(options, echo);
  http_client silent(server.port());
  CHECK(silent.read_all().empty());
  CHECK(silent.closed());
  http_client slow(server.port());
  slow.send("GET / HTTP/1.1\r\nHost:");
  CHECK(slow.read_all().empty());
  CHECK(slow.closed());
}

TEST_CASE("HTTP connections of strangers are bounded, others go on") {
  auto options = any_port();
  options.limits.strangers = 4;
  http_server server(options, echo);
  http_client known(server.port());
  known.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  known.read_until("GET /a ");
  std::vector<std::unique_ptr<http_client>> flood;
  for (int i = 0; i < 12; ++i)
    flood.push_back(std::make_unique<http_client>(server.port()));
  CHECK(flood.back()->read_all().empty());
  CHECK(flood.back()->closed());
  CHECK(server.connections() <= 5);
  known.send("GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(known.read_until("GET /b ").find("200") != std::string::npos);
}

TEST_CASE("cross-origin pages are let in by name only") {
  auto options = any_port();
  options.cors_origins = {"https://good.example"};
  http_server server(options, echo);
  http_client client(server.port());
  client.send("OPTIONS /v1 HTTP/1.1\r\nHost: x\r\nOrigin: https://good.example\r\n\r\n");
  const auto good = client.read_until("\r\n\r\n");
  CHECK(good.find("HTTP/1.1 204 ") == 0);
  CHECK(good.find("Access-Control-Allow-Origin: https://good.example\r\n") != std::string::npos);
  CHECK(good.find("Content-Length") == std::string::npos);
  client.send("GET /v1 HTTP/1.1\r\nHost: x\r\nOrigin: https://bad.example\r\n\r\n");
  CHECK(client.read_until("GET /v1 ").find("Allow-Origin") == std::string::npos);
}

TEST_CASE("a dropped or throwing HTTP handler gives a 500") {
  http_server server(any_port(), [](http_request request, const std::shared_ptr<http_responder>&) {
    if (request.path == "/throw")
      throw std::runtime_error("broken on purpose");
  });
  http_client client(server.port());
  client.send("GET /throw HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(client.read_until("}}").find("broken on purpose") != std::string::npos);
  client.send("GET /drop HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(client.read_until("}}").find("HTTP/1.1 500 ") == 0);
}

TEST_CASE("an HTTP server that stops lets answers finish") {
  keeper kept;
  http_server server(any_port(), [&](http_request, std::shared_ptr<http_responder> to) {
    kept.add(std::move(to));
  });
  http_client idle(server.port());
  http_client busy(server.port());
  busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  kept.wait(0);
  std::thread late([&] {
    std::this_thread::sleep_for(30ms);
    kept.wait(0)->send(text("late but whole"));
    const std::lock_guard lock(kept.mutex);
    kept.all.clear();
  });
  server.stop(5000ms);
  late.join();
  CHECK(busy.read_all().find("late but whole") != std::string::npos);
  CHECK(idle.read_all().empty());
  CHECK(server.connections() == 0);
  CHECK_THROWS(http_client(server.port()));
}

TEST_CASE("an address that cannot be listened on is named") {
  http_server first(any_port(), echo);
  auto options = any_port();
  options.port = first.port();
  try {
    http_server second(options, echo);
    FAIL("listened twice");
  } catch (const std::runtime_error& e) {
    CHECK(std::string(e.what()).find("127.0.0.1:" + std::to_string(first.port())) !=
          std::string::npos);
  }
}
