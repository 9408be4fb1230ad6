#include "actors/shell/front_end.hpp"

#include "actors/openai/answer_journal.hpp"
#include "actors/shell/clock.hpp"
#include "transport/proto/hexgen.pb.h"

#include <ctime>

namespace hexgen::actors {
namespace {

router_options router_defaults(const front_end_options& o) {
  router_options r;
  // Numbers of two lives of a gateway must not meet at a replica.
  r.first_request = (o.incarnation << 20U) | 1;
  r.begun_wait_us = static_cast<time_us>(o.recovery_wait.count()) * 1000;
  return r;
}

api_options with_journal(const front_end_options& o) {
  constexpr auto keep = std::chrono::minutes(10); // without anybody who listens
  auto api = o.api;
  if (!o.journal.empty())
    api.journal = std::make_shared<answer_journal>(o.journal, keep);
  return api;
}

} // namespace

std::shared_ptr<const served_model> open_served_model(const std::string& path,
                                                      const std::string& name, int context,
                                                      const std::string& chat_template) {
  auto m = std::make_shared<served_model>();
  m->name = name;
  m->context = context;
  m->created_s = static_cast<std::int64_t>(std::time(nullptr));
  m->tokens = compute::open_tokenizer(path);
  const auto text = [&](compute::token_id id) {
    return id < 0 ? std::string() : m->tokens->piece(id, false);
  };
  m->chat = compute::find_chat_template(m->tokens->chat_template(), chat_template,
                                        text(m->tokens->bos()), text(m->tokens->eos()));
  return m;
}

front_end::front_end(caf::actor_system& system, transport::fabric& fabric, board& shown,
                     event_log log, const front_end_options& options,
                     std::shared_ptr<const served_model> model)
    : system_(system), log_(log), shutdown_timeout_(options.shutdown_timeout), service_(shown),
      router_(spawn_router(system, {fabric, shown, log}, router_defaults(options), model->tokens)),
      metrics_(model->name), api_(with_journal(options), service_, metrics_) {
  shown.set_model(std::move(model));
  service_.attach(router_);
  try {
    http_.emplace(options.http, api_, metrics_);
  } catch (...) {
    close();
    throw;
  }
  clients_.emplace(fabric, api_);
}

bool front_end::on_event(const fabric_event& e) {
  if (e.what == fabric_event::kind::frame) {
    if (e.frame->type == proto::CLIENT_REQUEST || e.frame->type == proto::CLIENT_CANCEL)
      return clients_->on_frame(e);
    if (e.frame->type != proto::TOKEN_CHUNK && e.frame->type != proto::REQUEST_FAILED &&
        e.frame->type != proto::ROUTING_TABLE)
      return false;
    caf::anon_send(router_, e);
    return true;
  }
  if (e.what == fabric_event::kind::down && e.peer.role == transport::peer_role::client)
    clients_->peer_lost(e.peer.id);
  caf::anon_send(router_, e);
  return false;
}

void front_end::drain(stop_signal& stop) {
  api_.drain();
  stop.release(); // a second signal ends the process at once
  const auto deadline = std::chrono::steady_clock::now() + shutdown_timeout_;
  log_("event=draining requests=" + std::to_string(api_.running()));
  while (api_.running() > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  http_->stop(std::chrono::milliseconds(api_.running() > 0 ? 0 : 1000));
}

void front_end::close() {
  // The router first: it calls sinks of the API, which the ports own.
  caf::anon_send_exit(router_, caf::exit_reason::user_shutdown);
  {
    caf::scoped_actor self{system_};
    self->wait_for(router_);
  }
  clients_.reset();
  http_.reset();
  service_.detach();
  router_ = router_actor{};
}

} // namespace hexgen::actors
