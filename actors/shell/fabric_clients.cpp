#include "actors/shell/fabric_clients.hpp"

#include "transport/proto/hexgen.pb.h"

namespace hexgen::actors {

/// One answer under way.
class fabric_clients::sink final : public reply_sink {
public:
  sink(fabric_clients& owner, key id) : owner_(owner), id_(id) {}

  void whole(transport::http_reply reply) override {
    bool opened = false;
    {
      const std::lock_guard guard(mutex_);
      opened = opened_;
    }
    if (opened) {
      data(std::move(reply.body));
      data("[DONE]");
      close();
      return;
    }
    send(static_cast<std::uint32_t>(reply.status), reply.body, true);
    end();
  }
  void open(const transport::http_headers&) override {
    const std::lock_guard guard(mutex_);
    opened_ = true;
  }
  bool data(std::string payload) override {
    if (send(200, payload, false))
      return true;
    gone();
    return false;
  }
  void close() override {
    send(200, {}, true);
    end();
  }
  void on_closed(std::function<void()> callback) override {
    {
      const std::lock_guard guard(mutex_);
      if (!gone_) {
        if (!ended_)
          closed_ = std::move(callback);
        return;
      }
    }
    callback();
  }

  /// The client went or cancelled.
  void gone() {
    std::function<void()> callback;
    {
      const std::lock_guard guard(mutex_);
      if (gone_ || ended_)
        return;
      gone_ = true;
      callback = std::move(closed_);
      closed_ = nullptr;
    }
    if (callback)
      callback();
  }

private:
  bool send(std::uint32_t status, const std::string& text, bool last) {
    {
      const std::lock_guard guard(mutex_);
      if (gone_ || ended_)
        return false;
    }
    proto::client_chunk m;
    m.set_id(id_.second);
    m.set_status(status);
    m.set_data(text);
    m.set_last(last);
    return owner_.fabric_.send(
               id_.first,
               {transport::traffic::control, proto::CLIENT_CHUNK, m.SerializeAsString(), {}}) ==
           transport::send_result::accepted;
  }
  void end() {
    std::function<void()> dropped;
    {
      const std::lock_guard guard(mutex_);
      if (gone_ || ended_)
        return; // the owner has forgotten this answer
      ended_ = true;
      dropped = std::move(closed_);
      closed_ = nullptr;
    }
    owner_.finished(id_);
  }

  fabric_clients& owner_;
  const key id_;
  std::mutex mutex_;
  bool opened_ = false, ended_ = false, gone_ = false;
  std::function<void()> closed_;
};

fabric_clients::fabric_clients(transport::fabric& fabric, openai_api& api)
    : fabric_(fabric), api_(api), worker_([this] { work(); }) {}

fabric_clients::~fabric_clients() {
  std::map<key, std::shared_ptr<sink>> open;
  {
    const std::lock_guard guard(mutex_);
    closing_ = true;
    open.swap(open_);
  }
  wake_.notify_all();
  worker_.join();
  for (auto& [id, s] : open)
    s->gone();
}

bool fabric_clients::on_frame(const fabric_event& e) {
  const auto& f = *e.frame;
  if (f.type == proto::CLIENT_CANCEL) {
    proto::client_cancel m;
    std::shared_ptr<sink> s;
    if (m.ParseFromString(f.head)) {
      const std::lock_guard guard(mutex_);
      if (auto i = open_.find({e.peer.id, m.id()}); i != open_.end()) {
        s = i->second;
        open_.erase(i);
      }
    }
    if (s)
      s->gone();
    return true;
  }
  if (f.type != proto::CLIENT_REQUEST)
    return false;
  proto::client_request m;
  if (!m.ParseFromString(f.head)) {
    refuse({e.peer.id, 0}, 400, "client_request does not parse");
    return true;
  }
  const key id{e.peer.id, m.id()};
  {
    const std::lock_guard guard(mutex_);
    const auto from = open_.lower_bound({e.peer.id, 0});
    const auto to = open_.upper_bound({e.peer.id, UINT64_MAX});
    if (open_.count(id) == 0 &&
        static_cast<std::size_t>(std::distance(from, to)) < most_requests_per_client &&
        jobs_.size() < most_waiting && !closing_) {
      open_[id] = std::make_shared<sink>(*this, id);
      jobs_.push_back({id, m.path(), m.body()});
      wake_.notify_one();
      return true;
    }
  }
  refuse(id, 429, "too many requests of this client are open, or the number is in use");
  return true;
}

void fabric_clients::refuse(key id, int status, const std::string& message) {
  const auto reply = transport::http_error(
      status, status == 429 ? "rate_limit_error" : "invalid_request_error", message);
  proto::client_chunk m;
  m.set_id(id.second);
  m.set_status(static_cast<std::uint32_t>(reply.status));
  m.set_data(reply.body);
  m.set_last(true);
  fabric_.send(id.first,
               {transport::traffic::control, proto::CLIENT_CHUNK, m.SerializeAsString(), {}});
}

void fabric_clients::work() {
  for (;;) {
    job next;
    std::shared_ptr<sink> answer;
    {
      std::unique_lock guard(mutex_);
      wake_.wait(guard, [&] { return closing_ || !jobs_.empty(); });
      if (closing_)
        return;
      next = std::move(jobs_.front());
      jobs_.pop_front();
      if (auto i = open_.find(next.id); i != open_.end())
        answer = i->second;
    }
    if (!answer)
      continue; // cancelled meanwhile
    api_request r;
    r.method = next.body.empty() ? "GET" : "POST";
    r.path = std::move(next.path);
    r.body = std::move(next.body);
    r.headers = {{"content-type", "application/json"}};
    api_.handle(r, std::move(answer));
  }
}

void fabric_clients::finished(key id) {
  std::shared_ptr<sink> dropped;
  const std::lock_guard guard(mutex_);
  if (auto i = open_.find(id); i != open_.end()) {
    dropped = std::move(i->second);
    open_.erase(i);
  }
}

void fabric_clients::peer_lost(transport::peer_id peer) {
  std::vector<std::shared_ptr<sink>> lost;
  {
    const std::lock_guard guard(mutex_);
    const auto from = open_.lower_bound({peer, 0});
    const auto to = open_.upper_bound({peer, UINT64_MAX});
    for (auto i = from; i != to; ++i)
      lost.push_back(std::move(i->second));
    open_.erase(from, to);
  }
  for (auto& s : lost)
    s->gone();
}

} // namespace hexgen::actors
