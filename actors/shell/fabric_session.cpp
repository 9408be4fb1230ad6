#include "actors/shell/fabric_session.hpp"

#include "transport/proto/hexgen.pb.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <stdexcept>

namespace hexgen::actors {
namespace {

constexpr std::size_t most_waiting = 65536; // frames that the terminal has not taken yet

} // namespace

struct fabric_session::impl final : transport::fabric_handler {
  void on_up(const transport::peer_info& p) override {
    const std::lock_guard guard(mutex);
    peer = p.id;
    wake.notify_all();
  }
  void on_frame(const transport::peer_info&, std::shared_ptr<const transport::frame> f) override {
    const std::lock_guard guard(mutex);
    if (frames.size() < most_waiting)
      frames.push_back(std::move(f));
    else
      lost = "more was sent than could be shown";
    wake.notify_all();
  }
  void on_down(const transport::peer_info&, transport::down_reason,
               const std::string& detail) override {
    const std::lock_guard guard(mutex);
    lost = detail.empty() ? "the connection was closed" : detail;
    wake.notify_all();
  }
  void on_dial_failed(const std::string&, const std::string& detail) override {
    const std::lock_guard guard(mutex);
    lost = detail;
    wake.notify_all();
  }

  template <class Message>
  void send(proto::message_type type, const Message& m) {
    const auto sent = fabric->send(
        peer,
        {transport::traffic::control, static_cast<std::uint32_t>(type), m.SerializeAsString(), {}});
    if (sent != transport::send_result::accepted)
      throw std::runtime_error("the connection is closed");
  }

  std::shared_ptr<const transport::frame> next(std::chrono::milliseconds limit) {
    std::unique_lock guard(mutex);
    if (!wake.wait_for(guard, limit, [&] { return !frames.empty() || !lost.empty(); }))
      throw std::runtime_error("no answer within " + std::to_string(limit.count()) + " ms");
    if (frames.empty())
      throw std::runtime_error("connection lost: " + lost);
    auto f = std::move(frames.front());
    frames.pop_front();
    return f;
  }

  std::mutex mutex;
  std::condition_variable wake;
  transport::peer_id peer = 0;
  std::string lost;
  std::deque<std::shared_ptr<const transport::frame>> frames;
  std::uint64_t last_id = 0;
  std::unique_ptr<transport::fabric> fabric; // last: its thread uses the rest
};

fabric_session::fabric_session(transport::fabric_options options, const std::string& address,
                               std::chrono::milliseconds limit)
    : impl_(std::make_unique<impl>()) {
  impl_->fabric = transport::make_fabric(std::move(options), *impl_);
  impl_->fabric->start();
  impl_->fabric->dial(address);
  std::string why;
  {
    std::unique_lock guard(impl_->mutex);
    if (!impl_->wake.wait_for(guard, limit,
                              [&] { return impl_->peer != 0 || !impl_->lost.empty(); }))
      why = "no answer";
    else if (impl_->peer == 0)
      why = impl_->lost;
  }
  if (!why.empty()) {
    impl_->fabric->stop();
    throw std::runtime_error("cannot connect to " + address + ": " + why +
                             " (is `hexgen serve` running there?)");
  }
}

fabric_session::~fabric_session() {
  impl_->fabric->stop();
}

fabric_session::reply fabric_session::request(const std::string& path, const std::string& body,
                                              const std::function<bool(const std::string&)>& data) {
  proto::client_request m;
  m.set_id(++impl_->last_id);
  m.set_path(path);
  m.set_body(body);
  impl_->send(proto::CLIENT_REQUEST, m);
  reply out;
  for (;;) {
    const auto f = impl_->next(std::chrono::minutes(10));
    proto::client_chunk c;
    if (f->type != proto::CLIENT_CHUNK || !c.ParseFromString(f->head) || c.id() != m.id())
      continue;
    out.status = static_cast<int>(c.status());
    if (c.last()) {
      out.body = c.data();
      return out;
    }
    if (!data(c.data())) {
      proto::client_cancel cancel;
      cancel.set_id(m.id());
      impl_->send(proto::CLIENT_CANCEL, cancel);
      return out;
    }
  }
}

std::string fabric_session::status(std::chrono::milliseconds limit) {
  proto::status_request m;
  m.set_id(++impl_->last_id);
  impl_->send(proto::STATUS_REQUEST, m);
  for (;;) {
    const auto f = impl_->next(limit);
    proto::status_reply r;
    if (f->type == proto::STATUS_REPLY && r.ParseFromString(f->head) && r.id() == m.id())
      return r.json();
  }
}

std::string fabric_session::drain(const std::string& node, std::chrono::milliseconds limit) {
  proto::drain_node m;
  m.set_id(++impl_->last_id);
  m.set_node(node);
  impl_->send(proto::DRAIN_NODE, m);
  for (;;) {
    const auto f = impl_->next(limit);
    proto::drain_reply r;
    if (f->type != proto::DRAIN_REPLY || !r.ParseFromString(f->head) || r.id() != m.id())
      continue;
    if (!r.done())
      throw std::runtime_error(r.message());
    return r.message();
  }
}

} // namespace hexgen::actors
