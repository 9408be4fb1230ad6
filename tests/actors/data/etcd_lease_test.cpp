#include "actors/data/etcd_lease.hpp"
#include "tests/catch.hpp"
#include "transport/http/http_server.hpp"

#include <nlohmann/json.hpp>

#include <map>
#include <mutex>
#include <optional>
#include <thread>

using namespace hexgen;
using namespace std::chrono_literals;
using actors::etcd_lease;
using nlohmann::json;

namespace {

/// As much of etcd's JSON gateway as a lease asks.
class fake_etcd {
public:
  fake_etcd()
      : server_(any_port(), [this](const transport::http_request& r,
                                   const std::shared_ptr<transport::http_responder>& to) {
          transport::http_reply reply;
          reply.body = answer(r.path, json::parse(r.body));
          to->send(reply);
        }) {}
  [[nodiscard]] transport::http_peer address() const {
    return transport::http_peer({"127.0.0.1", server_.port()});
  }
  void set(std::string nonsense_instead) {
    const std::lock_guard guard(mutex_);
    nonsense_ = std::move(nonsense_instead);
  }
  void expire_all() {
    const std::lock_guard guard(mutex_);
    leases_.clear();
    value_.clear();
  }
  /// The lease that holds the key; empty: none.
  std::string holder() {
    const std::lock_guard guard(mutex_);
    return value_.empty() ? "" : by_;
  }

private:
  static transport::http_options any_port() {
    transport::http_options o;
    o.port = 0;
    return o;
  }
  std::string answer(const std::string& path, const json& q) {
    const std::lock_guard guard(mutex_);
    if (!nonsense_.empty())
      return nonsense_;
    json a = json::object();
    if (path == "/v3/lease/grant") {
      const auto id = std::to_string(++last_);
      leases_[id] = q.at("TTL");
      a["ID"] = id;
    } else if (path == "/v3/lease/keepalive") {
      a["result"]["ID"] = q.at("ID");
      if (leases_.contains(q.at("ID"))) // else no TTL, as etcd says of one that it does not know
        a["result"]["TTL"] = leases_.at(q.at("ID"));
    } else if (path == "/v3/lease/revoke") {
      leases_.erase(q.at("ID"));
      if (by_ == q.at("ID").get<std::string>())
        value_.clear();
    } else if (path == "/v3/kv/txn") {
      CHECK(q.at("compare").at(0).at("key") == "aGV4Z2VuL2M="); // hexgen/c
      if (value_.empty()) {
        const auto& put = q.at("success").at(0).at("requestPut");
        value_ = put.at("value");
        by_ = put.at("lease");
        a["succeeded"] = true;
      } else {
        a["responses"][0]["response_range"]["kvs"][0]["value"] = value_;
      }
    }
    return a.dump();
  }

  std::mutex mutex_;
  std::string nonsense_, value_, by_;
  std::map<std::string, std::string> leases_;
  int last_ = 0;
  transport::http_server server_; // last: its threads use the rest
};

std::string error_of(etcd_lease& lease) {
  try {
    return "no error, but '" + lease.acquire() + "'";
  } catch (const std::runtime_error& e) {
    return e.what();
  }
}

void wait_until_lost(const etcd_lease& lease) {
  for (int i = 0; i < 4000 && !lease.lost(); ++i)
    std::this_thread::sleep_for(5ms);
  CHECK(lease.lost());
}

} // namespace

TEST_CASE("one of two has the lease, and the other when it was given back") {
  fake_etcd etcd;
  std::optional<etcd_lease> first, second;
  first.emplace(etcd.address(), "hexgen/c", "here:7600", 30s);
  second.emplace(etcd.address(), "hexgen/c", "there:1", 30s);
  CHECK(first->acquire().empty());
  CHECK_FALSE(first->lost());
  CHECK(second->acquire() == "here:7600");
  CHECK_FALSE(second->lost()); // it never had it
  first.reset();
  CHECK(etcd.holder().empty());
  CHECK(second->acquire().empty());
  CHECK(etcd.holder() == "3"); // the first one's, the second's two
}

TEST_CASE("a lease that etcd has let go, or cannot be asked about, is lost") {
  const bool silence = GENERATE(false, true);
  fake_etcd etcd;
  etcd_lease lease(etcd.address(), "hexgen/c", "here:7600", 900ms);
  REQUIRE(lease.acquire().empty());
  if (silence)
    etcd.set("not JSON");
  else
    etcd.expire_all();
  wait_until_lost(lease);
}

TEST_CASE("answers that no etcd gives are errors") {
  fake_etcd etcd;
  for (const char* nonsense : {"[]", "{}", "not JSON", R"({"ID": ""})", R"({"ID": 7})"}) {
    etcd.set(nonsense);
    etcd_lease lease(etcd.address(), "hexgen/c", "here:7600", 30s);
    CHECK(error_of(lease).find("etcd: ") == 0);
  }
}
