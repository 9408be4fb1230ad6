#include "actors/data/etcd_lease.hpp"

#include "actors/core/base64.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <stdexcept>

namespace hexgen::actors {
namespace {

using nlohmann::json;

json ask(const transport::http_peer& etcd, const std::string& what, const json& question,
         std::chrono::milliseconds limit) {
  try {
    return json::parse(transport::http_post(etcd, "/v3/" + what, question.dump(), limit));
  } catch (const std::exception& e) {
    throw std::runtime_error("etcd: " + what + ": " + e.what());
  }
}

/// The text there; empty when there is none. Numbers of 64 bits come as text, too.
std::string text_at(const json& of, const std::string& where) {
  const json::json_pointer pointer(where);
  if (!of.is_object() || !of.contains(pointer) || !of.at(pointer).is_string())
    return {};
  return of.at(pointer).get<std::string>();
}

} // namespace

etcd_lease::etcd_lease(transport::http_peer etcd, std::string key, std::string who,
                       std::chrono::milliseconds time)
    : etcd_(std::move(etcd)), key_(std::move(key)), who_(std::move(who)), time_(time) {}

etcd_lease::~etcd_lease() {
  {
    const std::lock_guard guard(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  if (keeper_.joinable())
    keeper_.join();
  if (id_.empty())
    return;
  try {
    revoke();
  } catch (const std::exception&) { // it ends by itself
  }
}

std::string etcd_lease::acquire() {
  const auto began = clock::now();
  json wanted;
  wanted["TTL"] = std::to_string((time_.count() + 999) / 1000);
  const auto granted = ask(etcd_, "lease/grant", wanted, time_ / 3);
  id_ = text_at(granted, "/ID");
  if (id_.empty())
    throw std::runtime_error("etcd: lease/grant: no ID");
  const auto key = to_base64(key_);
  json is_free, put, look; // the key was never made: ours; else whose it is
  is_free["target"] = "CREATE";
  is_free["key"] = key;
  is_free["create_revision"] = "0";
  put["requestPut"]["key"] = key;
  put["requestPut"]["value"] = to_base64(who_);
  put["requestPut"]["lease"] = id_;
  look["requestRange"]["key"] = key;
  json question;
  question["compare"] = json::array({is_free});
  question["success"] = json::array({put});
  question["failure"] = json::array({look});
  const auto answer = ask(etcd_, "kv/txn", question, time_ / 3);
  if (answer.is_object() && answer.contains("succeeded") && answer["succeeded"] == true) {
    good_until_ = began + time_ * 2 / 3;
    keeper_ = std::thread([this] { renew_all(); });
    return {};
  }
  revoke();
  id_.clear();
  const auto name = from_base64(text_at(answer, "/responses/0/response_range/kvs/0/value"));
  return !name || name->empty() ? "another" : *name;
}

void etcd_lease::revoke() const {
  json question;
  question["ID"] = id_;
  (void)ask(etcd_, "lease/revoke", question, time_ / 3);
}

bool etcd_lease::renew() const {
  json question;
  question["ID"] = id_;
  const auto answer = ask(etcd_, "lease/keepalive", question, time_ / 3);
  const auto left = text_at(answer, "/result/TTL"); // none of a lease that is not known any more
  return !left.empty() && left != "0" && left.front() != '-';
}

void etcd_lease::renew_all() {
  std::unique_lock guard(mutex_);
  while (!wake_.wait_for(guard, time_ / 6, [this] { return closing_; })) {
    guard.unlock();
    const auto began = clock::now();
    bool known = true, ours = false;
    try {
      ours = renew();
    } catch (const std::exception&) { // it may answer in time yet
      known = false;
    }
    guard.lock();
    if (known && !ours)
      good_until_ = std::min(good_until_, began);
    else if (ours && began < good_until_) // what was lost stays lost
      good_until_ = began + time_ * 2 / 3;
  }
}

bool etcd_lease::lost() const {
  const std::lock_guard guard(mutex_);
  return good_until_ != clock::time_point{} && clock::now() >= good_until_;
}

} // namespace hexgen::actors
