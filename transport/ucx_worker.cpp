#include "transport/ucx_worker.hpp"

#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <utility>

namespace hexgen::transport {
namespace {

constexpr unsigned message_id = 1;
constexpr std::size_t inline_head_bytes = 2048; // of the head that goes with the header
constexpr std::chrono::milliseconds close_limit{200};

// UCX takes SIGHUP (it then logs in debug mode) and the crash signals when it is loaded, whatever
// a later UCX_DEBUG_SIGNO or UCX_ERROR_SIGNALS says: give them back.
void quieten() {
  static std::once_flag once;
  std::call_once(once, [] {
    for (const int signal : {SIGHUP, SIGILL, SIGSEGV, SIGBUS, SIGFPE})
      ucs_debug_disable_signal(signal);
    // What it warns of (requests that a frozen peer never answered) is expected and handled here.
    if (std::getenv("UCX_LOG_LEVEL") == nullptr)
      ucs_global_opts_set_value("LOG_LEVEL", "error");
  });
}

bool configure(ucp_config_t* config, const char* name, const std::string& value) {
  return ucp_config_modify(config, name, value.c_str()) == UCS_OK;
}

} // namespace

struct ucx_worker::operation {
  ucx_worker* worker = nullptr;
  frame content;
  std::string lead; // the header with an inline head
  std::array<ucp_dt_iov_t, 2> pieces{};
  std::shared_ptr<std::byte[]> into;
  std::function<void(const std::string&)> done;
};

struct ucx_worker::error_hook {
  std::function<void(const std::string&)> call;
};

// UCX's callbacks are C functions; they lead back into the worker.
struct ucx_callbacks {
  static ucs_status_t message(void* argument, const void* header, std::size_t header_bytes,
                              void* body, std::size_t body_bytes,
                              const ucp_am_recv_param_t* parameters) {
    return static_cast<ucs_status_t>(static_cast<ucx_worker*>(argument)->on_message(
        header, header_bytes, body, body_bytes, parameters));
  }
  static void sent(void* request, ucs_status_t status, void* argument) {
    auto* op = static_cast<ucx_worker::operation*>(argument);
    op->worker->finish(op, status);
    ucp_request_free(request);
  }
  static void fetched(void* request, ucs_status_t status, std::size_t /*bytes*/, void* argument) {
    sent(request, status, argument);
  }
  static void closed(void* request, ucs_status_t /*status*/, void* argument) {
    --static_cast<ucx_worker*>(argument)->closing_;
    ucp_request_free(request);
  }
  static void failed(void* argument, ucp_ep_h /*endpoint*/, ucs_status_t status) {
    auto* hook = static_cast<ucx_worker::error_hook*>(argument);
    if (const auto call = std::exchange(hook->call, nullptr))
      call(ucs_status_string(status));
  }
};

std::string ucx_worker::version() {
  return ucp_get_version_string();
}

std::unique_ptr<ucx_worker> ucx_worker::make(const std::string& interface, std::string& why) {
  std::unique_ptr<ucx_worker> made(new ucx_worker);
  why = made->open(interface);
  return why.empty() ? std::move(made) : nullptr;
}

std::string ucx_worker::open(const std::string& interface) {
  quieten();
  next_cookie_ = (static_cast<std::uint64_t>(std::random_device{}()) << 20U) + 1;

  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK)
    return std::string("its configuration cannot be read: ") + ucs_status_string(status);
  // Shared memory only by default: no port is open. A frozen or dead peer is seen by its TLS
  // connection first; the keep-alive ends what UCX itself waits for.
  bool configured =
      configure(config, "TLS", interface.empty() ? "posix,self" : "posix,self,tcp,rc,ud") &&
      configure(config, "KEEPALIVE_INTERVAL", "500ms") &&
      configure(config, "MM_ERROR_HANDLING", "y");
  if (!interface.empty())
    configured = configured && configure(config, "NET_DEVICES", interface) &&
                 configure(config, "MAX_RNDV_RAILS", "1");
  if (!configured) {
    ucp_config_release(config);
    return "it does not know a setting that is needed";
  }
  ucp_params_t parameters{};
  parameters.field_mask = UCP_PARAM_FIELD_FEATURES;
  parameters.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  status = ucp_init(&parameters, config, &context_);
  ucp_config_release(config);
  if (status != UCS_OK)
    return std::string("no context: ") + ucs_status_string(status);

  ucp_worker_params_t worker_parameters{};
  worker_parameters.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  // Made and freed by the thread that starts and stops the fabric, used by the transport thread.
  worker_parameters.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  status = ucp_worker_create(context_, &worker_parameters, &worker_);
  if (status != UCS_OK)
    return std::string("no worker: ") + ucs_status_string(status);
  status = ucp_worker_get_efd(worker_, &event_fd_);
  if (status != UCS_OK)
    return std::string("no event descriptor: ") + ucs_status_string(status);

  ucp_address_t* address = nullptr;
  std::size_t address_bytes = 0;
  status = ucp_worker_get_address(worker_, &address, &address_bytes);
  if (status != UCS_OK)
    return std::string("no address: ") + ucs_status_string(status);
  address_.assign(reinterpret_cast<const char*>(address), address_bytes);
  ucp_worker_release_address(worker_, address);

  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                       UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = message_id;
  handler.cb = ucx_callbacks::message;
  handler.arg = this;
  status = ucp_worker_set_am_recv_handler(worker_, &handler);
  if (status != UCS_OK)
    return std::string("no active messages: ") + ucs_status_string(status);
  return {};
}

ucx_worker::~ucx_worker() {
  const auto deadline = std::chrono::steady_clock::now() + close_limit;
  while (worker_ != nullptr && (closing_ != 0 || !operations_.empty()) &&
         std::chrono::steady_clock::now() < deadline)
    progress();
  if (worker_ != nullptr)
    ucp_worker_destroy(worker_);
  if (context_ != nullptr)
    ucp_cleanup(context_);
  for (const operation* op : operations_)
    delete op; // no callback came in time; nothing can use its memory any more
}

bool ucx_worker::progress() {
  return ucp_worker_progress(worker_) != 0;
}

bool ucx_worker::arm() {
  return ucp_worker_arm(worker_) == UCS_OK;
}

std::uint64_t ucx_worker::expect(ucx_receiver& r) {
  receivers_.emplace(next_cookie_, &r);
  return next_cookie_++;
}

void ucx_worker::forget(std::uint64_t cookie) {
  receivers_.erase(cookie);
}

ucp_ep* ucx_worker::connect(const std::string& peer_address,
                            std::function<void(const std::string&)> on_error, std::string& why) {
  auto hook = std::make_unique<error_hook>();
  hook->call = std::move(on_error);
  ucp_ep_params_t parameters{};
  parameters.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                          UCP_EP_PARAM_FIELD_ERR_HANDLER;
  parameters.address = reinterpret_cast<const ucp_address_t*>(peer_address.data());
  parameters.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  parameters.err_handler.cb = ucx_callbacks::failed;
  parameters.err_handler.arg = hook.get();
  ucp_ep_h endpoint = nullptr;
  const ucs_status_t status = ucp_ep_create(worker_, &parameters, &endpoint);
  if (status != UCS_OK) {
    why = ucs_status_string(status);
    return nullptr;
  }
  hooks_[endpoint] = std::move(hook);
  return endpoint;
}

void ucx_worker::close(ucp_ep* endpoint) {
  // The hook outlives the endpoint's last callback: it is freed when the address is used again
  // or with the worker, but calls nothing from now on.
  hooks_[endpoint]->call = nullptr;
  ucp_request_param_t parameters{};
  parameters.op_attr_mask =
      UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  parameters.flags = UCP_EP_CLOSE_FLAG_FORCE;
  parameters.cb.send = ucx_callbacks::closed;
  parameters.user_data = this;
  const ucs_status_ptr_t request = ucp_ep_close_nbx(endpoint, &parameters);
  if (UCS_PTR_IS_PTR(request))
    ++closing_;
}

void ucx_worker::finish(operation* op, int status) {
  operations_.erase(op);
  const std::unique_ptr<operation> owned(op);
  if (owned->done)
    owned->done(status == UCS_OK ? std::string()
                                 : ucs_status_string(static_cast<ucs_status_t>(status)));
}

void ucx_worker::send(ucp_ep* endpoint, const ucx_header& header, frame content,
                      std::function<void(const std::string&)> done) {
  auto* op = new operation;
  operations_.insert(op);
  op->worker = this;
  op->done = std::move(done);
  op->content = std::move(content);
  op->lead.assign(reinterpret_cast<const char*>(&header), sizeof header);
  const std::string& head = op->content.head;
  const auto payload = op->content.payload.bytes();
  ucp_request_param_t parameters{};
  parameters.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  parameters.cb.send = ucx_callbacks::sent;
  parameters.user_data = op;
  const void* body = payload.data();
  std::size_t count = payload.size();
  if (head.size() <= inline_head_bytes) {
    op->lead += head;
  } else {
    op->pieces[0] = {const_cast<char*>(head.data()), head.size()};
    op->pieces[1] = {const_cast<std::byte*>(payload.data()), payload.size()};
    parameters.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
    parameters.datatype = ucp_dt_make_iov();
    body = op->pieces.data();
    count = payload.empty() ? 1 : 2;
  }
  const ucs_status_ptr_t request = ucp_am_send_nbx(endpoint, message_id, op->lead.data(),
                                                   op->lead.size(), body, count, &parameters);
  if (!UCS_PTR_IS_PTR(request)) // done or failed at once: no callback comes
    finish(op, UCS_PTR_STATUS(request));
}

void ucx_worker::fetch(const ucx_arrival& a, std::shared_ptr<std::byte[]> into,
                       std::function<void(const std::string&)> done) {
  auto* op = new operation;
  operations_.insert(op);
  op->worker = this;
  op->done = std::move(done);
  op->into = std::move(into);
  ucp_request_param_t parameters{};
  parameters.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  parameters.cb.recv_am = ucx_callbacks::fetched;
  parameters.user_data = op;
  const ucs_status_ptr_t request =
      ucp_am_recv_data_nbx(worker_, a.descriptor, op->into.get(), a.body_bytes, &parameters);
  if (!UCS_PTR_IS_PTR(request))
    finish(op, UCS_PTR_STATUS(request));
}

int ucx_worker::on_message(const void* header, std::size_t header_bytes, void* body,
                           std::size_t body_bytes, const ucp_am_recv_param* parameters) {
  ucx_arrival a;
  a.rendezvous = (parameters->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  // UCX asserts that an eager message is taken; only a rendezvous can be turned down.
  const int turned_down = a.rendezvous ? UCS_ERR_REJECTED : UCS_OK;
  if (header_bytes < sizeof a.header)
    return turned_down;
  std::memcpy(&a.header, header, sizeof a.header);
  const std::size_t inline_head = header_bytes - sizeof a.header;
  const std::uint64_t frame_bytes =
      static_cast<std::uint64_t>(a.header.head_bytes) + a.header.payload_bytes;
  const auto found = receivers_.find(a.header.cookie);
  // What is for nobody belongs to a connection that has ended.
  if (found == receivers_.end() || a.header.head_bytes > limits::head_bytes ||
      a.header.payload_bytes > limits::payload_bytes || frame_bytes != inline_head + body_bytes ||
      (inline_head != 0 && inline_head != a.header.head_bytes))
    return turned_down;
  if (inline_head == a.header.head_bytes)
    a.head = static_cast<const char*>(header) + sizeof a.header;
  a.body_bytes = body_bytes;
  a.descriptor = body;
  const bool taken = found->second->on_ucx(a);
  return a.rendezvous && taken ? UCS_INPROGRESS : turned_down;
}

} // namespace hexgen::transport
