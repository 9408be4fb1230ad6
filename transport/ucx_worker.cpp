#include "transport/ucx_worker.hpp"

#include <ucp/api/ucp.h>

#include <array>
#include <chrono>
#include <cstring>
#include <utility>

namespace hexgen::transport {
namespace {

constexpr unsigned message_id = 1;
constexpr std::size_t inline_head_bytes = 2048; // of the head that goes with the header
constexpr std::chrono::milliseconds close_limit{20};

} // namespace

struct ucx_worker::operation {
  ucx_worker* worker = nullptr;
  frame content;
  std::string lead; // the header with an inline head
  std::array<ucp_dt_iov_t, 2> pieces{};
  std::shared_ptr<std::byte[]> into;
  std::function<void(const std::string&)> done;
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
    if (const auto call = std::exchange(static_cast<ucx_worker*>(argument)->on_error_, nullptr))
      call(ucs_status_string(status));
  }
};

std::shared_ptr<ucx_worker> ucx_worker::make(std::shared_ptr<ucx_context> context,
                                             std::string& why) {
  std::shared_ptr<ucx_worker> made(new ucx_worker);
  why = made->open(std::move(context));
  return why.empty() ? std::move(made) : nullptr;
}

std::string ucx_worker::open(std::shared_ptr<ucx_context> context) {
  context_ = std::move(context);
  ucp_worker_params_t worker_parameters{};
  worker_parameters.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  // Made and freed by the thread that starts and stops the fabric, used by the transport thread.
  worker_parameters.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  ucs_status_t status = ucp_worker_create(context_->get(), &worker_parameters, &worker_);
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
  if (worker_ != nullptr)
    shutdown();
}

void ucx_worker::shutdown() {
  const auto deadline = std::chrono::steady_clock::now() + close_limit;
  receiver_ = nullptr;
  if (endpoint_ != nullptr)
    close_endpoint();
  while ((closing_ != 0 || !operations_.empty()) && std::chrono::steady_clock::now() < deadline)
    progress();
  ucp_worker_destroy(worker_);
  worker_ = nullptr;
  for (const operation* op : operations_)
    delete op; // no callback came in time; nothing can use its memory any more
  operations_.clear();
}

bool ucx_worker::progress() {
  return ucp_worker_progress(worker_) != 0;
}

bool ucx_worker::arm() {
  return ucp_worker_arm(worker_) == UCS_OK;
}

bool ucx_worker::connect(const std::string& peer_address,
                         std::function<void(const std::string&)> on_error, std::string& why) {
  on_error_ = std::move(on_error);
  ucp_ep_params_t parameters{};
  parameters.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                          UCP_EP_PARAM_FIELD_ERR_HANDLER;
  parameters.address = reinterpret_cast<const ucp_address_t*>(peer_address.data());
  parameters.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  parameters.err_handler.cb = ucx_callbacks::failed;
  parameters.err_handler.arg = this;
  const ucs_status_t status = ucp_ep_create(worker_, &parameters, &endpoint_);
  if (status == UCS_OK)
    return true;
  endpoint_ = nullptr;
  why = ucs_status_string(status);
  return false;
}

void ucx_worker::close_endpoint() {
  on_error_ = nullptr;
  ucp_request_param_t parameters{};
  parameters.op_attr_mask =
      UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  parameters.flags = UCP_EP_CLOSE_FLAG_FORCE;
  parameters.cb.send = ucx_callbacks::closed;
  parameters.user_data = this;
  if (UCS_PTR_IS_PTR(ucp_ep_close_nbx(std::exchange(endpoint_, nullptr), &parameters)))
    ++closing_;
}

void ucx_worker::finish(operation* op, int status) {
  operations_.erase(op);
  const std::unique_ptr<operation> owned(op);
  if (owned->done)
    owned->done(status == UCS_OK ? std::string()
                                 : ucs_status_string(static_cast<ucs_status_t>(status)));
}

void ucx_worker::send(const ucx_header& header, frame content,
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
  const ucs_status_ptr_t request = ucp_am_send_nbx(endpoint_, message_id, op->lead.data(),
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
  // What is for nobody belongs to a connection that has ended.
  if (receiver_ == nullptr || a.header.cookie != cookie_ ||
      a.header.head_bytes > limits::head_bytes || a.header.payload_bytes > limits::payload_bytes ||
      frame_bytes != inline_head + body_bytes ||
      (inline_head != 0 && inline_head != a.header.head_bytes))
    return turned_down;
  if (inline_head == a.header.head_bytes)
    a.head = static_cast<const char*>(header) + sizeof a.header;
  a.body_bytes = body_bytes;
  a.descriptor = body;
  const bool taken = receiver_->on_ucx(a);
  return a.rendezvous && taken ? UCS_INPROGRESS : turned_down;
}

} // namespace hexgen::transport
